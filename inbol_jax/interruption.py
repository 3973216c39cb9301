"""SIGINT and SIGTERM: a long command ends at its next boundary, and keeps what it has done.

A boundary is the end of a step, a batch or a record, inside `boundaries()`. There the first signal
only sets a flag, which the loop reads at its boundaries; nothing is raised in the midst of a write.
Elsewhere nothing would be gained by waiting, and the process ends at once; so it does on a second
signal.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: signal.Signals | None = None  # the flag
_loops = 0  # with boundaries, that the command is in


class Interrupted(KeyboardInterrupt):
    """A signal has ended a command at a boundary. Several processes stop for what one got."""

    def __init__(self) -> None:
        super().__init__()
        self.exit_code = 128 + (_received or signal.SIGTERM)


def listen() -> None:
    """Handles signals as this module says, from now on; in the main thread only."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _handle)


@contextmanager
def handling_signals() -> Iterator[None]:
    """`listen` until the block ends. In another thread than the main one it does nothing."""
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received = None


def pass_on_to_jax() -> None:
    """Leaves SIGTERM to JAX, which has taken it as a notice of preemption when processes were
    joined, and which then tells all of them; SIGINT becomes one."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))


@contextmanager
def boundaries() -> Iterator[None]:
    """A loop that looks for signals at its boundaries, the last of which is its end."""
    global _loops
    _loops += 1
    try:
        yield
    finally:
        _loops -= 1
    look()


def look() -> None:
    """Marks a boundary. Raises Interrupted if a signal has come."""
    if has_come():
        raise Interrupted


def has_come() -> bool:
    """Whether a signal has come to this process."""
    return _received is not None


def _handle(number: int, frame: object) -> None:
    global _received
    name = signal.Signals(number).name
    if _loops and not _received:
        _received = signal.Signals(number)
        for other in SIGNALS:  # a second one ends also compiled code, which lets no handler run
            signal.signal(other, signal.SIG_DFL)
        _say(f"{name}: this step or batch is finished first; a second signal ends at once")
        return
    # What this leaves unfinished, the next run finishes or removes.
    _say(f"{name}: ended at once; the same command goes on from here")
    os._exit(128 + number)


def _say(line: str) -> None:
    os.write(2, f"{line}\n".encode())  # sys.stderr may be in the midst of a write
