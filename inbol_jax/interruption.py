"""SIGINT and SIGTERM: a long command ends at its next boundary, and keeps what it has done.

A boundary is the end of a step, a batch or a record, inside `boundaries()`. Elsewhere nothing would
be gained by waiting, and the process ends at once; so it does on a second signal, and if no
boundary comes within `GRACE` seconds.

The signals are read from a pipe, by a thread. Python's own handlers run in the main thread: inside
callbacks of JAX, which swallow what they raise, and not at all while compiled code runs.
"""

import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 30  # seconds from a signal to the next boundary


class Interrupted(KeyboardInterrupt):
    """A signal has ended a command at a boundary."""

    def __init__(self, number: int):
        super().__init__()
        self.exit_code = 128 + number


class _State:
    lock = threading.Lock()
    loops = 0  # with boundaries, that the command is in
    received: signal.Signals | None = None
    reached = False  # whether the boundary has come
    notify: Callable[[int], None] | None = None  # tells the other processes of a signal


def end_at_once() -> None:
    """Lets a signal end the process by one line: for the seconds of imports, before
    `handling_signals`."""
    _listen(_handlers(), lambda number, _: _end(signal.Signals(number)))


@contextmanager
def handling_signals() -> Iterator[None]:
    """Handles signals as this module says, until the block ends; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    pipe_before = signal.set_wakeup_fd(write)
    handlers = _handlers()
    _listen(handlers)
    watcher = threading.Thread(target=_watch, args=(read,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(pipe_before)
        os.close(write)
        watcher.join()
        os.close(read)
        _State.received, _State.reached, _State.notify = None, False, None


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in SIGNALS}


def _listen(
    handlers: dict[signal.Signals, Any],
    action: Callable[[int, object], None] = lambda number, frame: None,
) -> None:
    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, action)


def take_back(*, collective: bool) -> None:
    """Takes SIGTERM back from JAX, which has taken it as a notice of preemption when processes were
    joined.

    Args:
      collective: whether all processes end if one gets a signal; JAX is then told of it.
    """
    if collective:
        handler_of = ctypes.pythonapi.PyOS_getsig
        handler_of.restype = ctypes.CFUNCTYPE(None, ctypes.c_int)
        _State.notify = handler_of(signal.SIGTERM)
    _listen({signal.SIGTERM: None})


@contextmanager
def boundaries(*, agreed: bool = False) -> Iterator[None]:
    """A loop that looks for signals at its boundaries.

    Args:
      agreed: whether the processes of a joint run agree on the boundary. Loops in which they do not
        have none in such a run.
    """
    if _State.notify and not agreed:
        yield
        return
    with _State.lock:
        _State.loops += 1
    try:
        yield
    finally:
        with _State.lock:
            _State.loops -= 1
    if _State.received and _State.notify:  # too late to agree on anything
        _end(_State.received)
    look()


def look() -> None:
    """Marks a boundary. Raises Interrupted if a signal has come."""
    if not _State.notify and has_come():
        stop()


def has_come() -> bool:
    """Whether a signal has come to this process."""
    return _State.received is not None


def stop() -> None:
    """Raises Interrupted, at a boundary. A process that got no signal stops for one that did."""
    _State.reached = True
    raise Interrupted(_State.received or signal.SIGTERM)


def _watch(pipe: int) -> None:
    seconds = None
    while True:
        ready, _, _ = select.select([pipe], [], [], seconds)
        if not ready and not _State.reached:
            assert _State.received
            _end(_State.received, f"no end of a step or batch within {GRACE} s; ")
        seconds = None
        if not ready:
            continue
        if not (read := os.read(pipe, 1)):
            return
        number = signal.Signals(read[0])
        with _State.lock:
            waits = _State.loops and not _State.received
            if waits:
                _State.received = number
        if not waits:
            _end(number)
        seconds = GRACE
        if _State.notify:
            _State.notify(signal.SIGTERM)
        print(
            f"{number.name}: this step or batch is finished first; a second signal ends at once",
            file=sys.stderr,
            flush=True,
        )


def _end(number: signal.Signals, cause: str = "") -> None:
    """Ends the process at once. What a kill leaves unfinished, the next run finishes or removes."""
    if sys.stderr.isatty():
        sys.stderr.write("\033[?25h")  # the cursor, which a progress bar hides
    line = f"{number.name}: {cause}ended at once; the same command goes on from here"
    print(line, file=sys.stderr, flush=True)
    os._exit(128 + number)
