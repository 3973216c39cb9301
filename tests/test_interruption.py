"""Signals in real processes: what a loop has done is kept, and nothing outlasts its bound."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAME = """
import hashlib, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test in the background inherits none
from inbol_jax import interruption
from inbol_jax.progress import progress
def compiled():  # lets other threads run, but no handler of Python
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
def work():
    {work}
with interruption.handling_signals():
    print("ready", flush=True)
    try:
        work()
    except interruption.Interrupted as error:
        print("kept", flush=True)
        sys.exit(error.exit_code)
"""
LOOP = """
    with progress("steps", None, "steps") as advance:
        while True:
            print("begun", flush=True)
            {unit}
            print("done", flush=True)
            advance()
"""


def interrupted(work, *signals, after="ready"):
    """(exit code, output, errors) of a process that gets signals once it has printed a line."""
    command = [sys.executable, "-c", FRAME.format(work=work)]
    process = subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT)
    try:
        assert f"{after}\n" in iter(process.stdout.readline, "")
        for number in signals:
            time.sleep(0.3)  # what runs then does not change what must come out
            process.send_signal(number)
        return process.wait(timeout=600), process.stdout.read(), process.stderr.read()
    finally:
        process.kill()
        process.communicate()


IMPORTING = """
import os, runpy, signal, sys
from importlib.abc import MetaPathFinder
signal.signal(signal.SIGINT, signal.default_int_handler)
class SignalsOnImport(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "tyro":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, SignalsOnImport())
sys.argv = ["{script}", "--help"]
runpy.run_{kind}("{script}", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("kind", "script", "number", "code"),
    [
        ("module", "inbol_jax", signal.SIGINT, 130),
        ("path", "train.py", signal.SIGTERM, 143),
        ("path", "evaluate.py", signal.SIGINT, 130),
    ],
)
def test_a_signal_during_imports_is_one_line(kind, script, number, code):
    program = IMPORTING.format(number=int(number), kind=kind, script=script)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"{number.name}: ended at once")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_unit_is_finished_and_kept(number, code):
    unit = "while not interruption.has_come(): time.sleep(0.01)"
    found, output, errors = interrupted(LOOP.format(unit=unit), number)
    assert (found, errors.count("\n")) == (code, 1)
    assert output == "begun\ndone\nkept\n"
    assert errors.startswith(f"{number.name}: this step or batch is finished first")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_without_a_loop_the_end_is_at_once(number, code):
    found, output, errors = interrupted("time.sleep(3600)", number)
    assert (found, output) == (code, "")
    assert errors == f"{number.name}: ended at once; the same command goes on from here\n"


def test_a_second_signal_ends_at_once():
    """Also while compiled code runs, which lets no handler of Python run."""
    first = "os.kill(os.getpid(), signal.SIGINT), print('received', flush=True)"
    work = LOOP.format(unit=f"({first}, compiled())")
    code, output, errors = interrupted(work, signal.SIGTERM, after="received")
    assert (code, output) == (-signal.SIGTERM, "")
    assert errors.startswith("SIGINT: this step or batch is finished first")
