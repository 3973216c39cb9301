"""The short form of benchmarks/chaos.py: that it kills, restarts and compares."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/chaos.py"


def chaos(out, *options):
    """What the script prints. It must find nothing."""
    command = [sys.executable, SCRIPT, "--out", out, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_stage_that_is_killed_makes_what_an_undisturbed_one_does(tmp_path):
    line, *faults = chaos(tmp_path / "runs", "--kills", 3, "--stages", "export").splitlines()
    assert line.startswith("export            3 kills (")
    assert line.endswith(" 0 differences")
    assert all(f"{name} 1" in line for name in ("SIGKILL", "SIGTERM", "SIGINT"))
    assert faults == ["0 faults"]


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        (
            "Fatal Python error: init_sys_streams: can't\nKeyboardInterrupt\n\n<no Python frame>",
            True,
        ),
        ('File "a/inbol_jax/__main__.py", line 3\nKeyboardInterrupt\n', True),
        ('File "a/inbol_jax/cli.py", line 3\nKeyboardInterrupt\n', False),
        ('File "a/inbol_jax/cli.py", line 3\nValueError\n', False),
    ],
)
def test_what_python_s_own_start_says_is_told_from_our_faults(text, starts):
    assert runpy.run_path(str(SCRIPT))["interpreter_starts"](text) is starts


@pytest.mark.slow
def test_every_stage_that_is_killed_makes_what_an_undisturbed_one_does(tmp_path):
    assert chaos(tmp_path / "runs", "--kills", 42).endswith("\n0 faults\n")
