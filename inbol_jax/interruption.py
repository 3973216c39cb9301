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
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has ended a command at a boundary."""

    def __init__(self, number: int):
        super().__init__()
        self.exit_code = 128 + number


class _State:
    lock = threading.Lock()
    loops = 0  # with boundaries, that the command is in
    received: signal.Signals | None = None
    passed_on: signal.Signals | None = None


def listen() -> None:
    """Handles signals as this module says, from now on; in the main thread only."""
    _set(_received)


@contextmanager
def handling_signals() -> Iterator[None]:
    """`listen` until the block ends. In another thread than the main one it does nothing."""
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
        _State.received = _State.passed_on = None


def pass_on_to_jax() -> None:
    """Leaves SIGTERM to JAX, which has taken it as a notice of preemption when processes were
    joined, and which then tells all of them; SIGINT becomes one."""

    def pass_on(number: int, frame: object) -> None:
        _State.passed_on = signal.Signals(number)
        _set(signal.SIG_DFL, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    _set(pass_on, signal.SIGINT)


def _set(action: Any, *numbers: signal.Signals) -> None:
    for number in numbers or SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, action)


@contextmanager
def boundaries() -> Iterator[None]:
    """A loop that looks for signals at its boundaries, the last of which is its end."""
    with _State.lock:
        _State.loops += 1
    try:
        yield
    finally:
        with _State.lock:
            _State.loops -= 1
    look()


def look() -> None:
    """Marks a boundary. Raises Interrupted if a signal has come."""
    if has_come():
        stop()


def has_come() -> bool:
    """Whether a signal has come to this process."""
    return _State.received is not None


def stop() -> None:
    """Raises Interrupted, at a boundary. A process that got no signal stops for one that did."""
    raise Interrupted(_State.received or _State.passed_on or signal.SIGTERM)


def _received(number: int, frame: object) -> None:
    name = signal.Signals(number).name
    if _State.loops and not _State.received:
        _State.received = signal.Signals(number)
        _set(signal.SIG_DFL)  # a second one ends also compiled code, which lets no handler run
        _say(f"{name}: this step or batch is finished first; a second signal ends at once")
        return
    # What this leaves unfinished, the next run finishes or removes.
    cursor = "\033[?25h" if os.isatty(2) else ""  # which a progress bar hides
    _say(f"{cursor}{name}: ended at once; the same command goes on from here")
    os._exit(128 + number)


def _say(line: str) -> None:
    os.write(2, f"{line}\n".encode())  # sys.stderr may be in the midst of a write
