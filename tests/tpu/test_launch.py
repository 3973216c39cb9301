"""The pod launcher against a stand-in of gcloud: two hosts are two home folders, and commands run
in both at once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GCLOUD = """#!/usr/bin/env bash
# compute tpus tpu-vm ssh|scp ...: the last argument of ssh is the command
printf '%s\\n' "$*" >> "$HOSTS/calls"
case $4 in
  scp) for host in 0 1; do cp "$5" "$HOSTS/$host/${6#*:}"; done ;;
  ssh) for host in 0 1; do
         (cd "$HOSTS/$host" && HOST=$host bash -c "${@: -1}") & pids+=($!)
       done
       status=0
       for pid in "${pids[@]}"; do wait "$pid" || status=$?; done; exit $status ;;
esac
"""


@pytest.fixture
def launch(tmp_path):
    for host in "01":
        (tmp_path / host).mkdir()
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    environment = os.environ | {"HOSTS": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    return lambda *words: subprocess.run(
        [ROOT / "tpu/launch.sh", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_run_starts_the_same_command_on_every_host(launch, tmp_path):
    for host in "01":
        python = tmp_path / host / "inbol_jax/.venv/bin/python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
    program = (
        "import json, os, sys; json.dump([os.environ['HOST'], *sys.argv[1:]], open('said', 'w'))"
    )
    done = launch("run", "pod", "zone-a", "-c", program, "--data", "a file; $HOME 'x'")
    assert done.returncode == 0, done.stderr
    for host in "01":
        assert json.loads((tmp_path / host / "inbol_jax/said").read_text()) == [
            host,
            "--data",
            "a file; $HOME 'x'",
        ]
    assert "ssh pod --zone zone-a --worker=all" in (tmp_path / "calls").read_text()
    assert (
        launch(
            "run", "pod", "zone-a", "-c", "import os, sys; sys.exit(3 * int(os.environ['HOST']))"
        ).returncode
        == 3
    )


def test_setup_copies_the_checkout_and_installs_it(launch, tmp_path):
    """The hosts' python is a stand-in that makes a stand-in of pip: what they are told is tested,
    not the installation.
    """
    stand_in = tmp_path / "python3"
    stand_in.write_text(
        "#!/bin/sh\nmkdir -p .venv/bin\n"
        'printf "#!/bin/sh\\necho pip \\$*" > .venv/bin/pip\n'
        "chmod +x .venv/bin/pip\n"
    )
    stand_in.chmod(0o755)
    done = launch("setup", "pod", "zone-a")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["pip install -q -e .[tpu]"] * 2
    for host in "01":
        assert (tmp_path / host / "inbol_jax/train.py").is_file()


@pytest.mark.parametrize("words", [(), ("run", "pod", "zone"), ("fly", "pod", "zone")])
def test_what_cannot_be_meant_shows_the_usage(launch, words):
    done = launch(*words)
    assert done.returncode == 2
    assert "tpu/launch.sh setup NAME ZONE" in done.stderr
