"""What the tests of slices share: the launcher on a stand-in of gcloud, and hosts' Pythons."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Makes a .venv whose Python is the one of the tests; nothing is installed.
PYTHON = f"""#!/usr/bin/env bash
echo "python3 $*" >> installed
case $* in
  -c*) exit "${{OLD_PYTHON:-0}}" ;;
  *venv*) mkdir -p .venv/bin
    printf '#!/bin/sh\\n[ "$2" = pip ] && {{ echo "$@" >> installed; exit; }}
exec {sys.executable} "$@"\\n' > .venv/bin/python
    chmod +x .venv/bin/python ;;
esac
"""


class Cloud:
    """Slices in a folder, which `launch` makes and uses."""

    def __init__(self, folder, **environment):
        self.folder, programs = folder / "slices", folder / "programs"
        self.folder.mkdir()
        programs.mkdir()
        gcloud = f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent}/standin_gcloud.py "$@"'
        texts = {"gcloud": gcloud, "python3": PYTHON}
        texts["hostname"] = "#!/bin/sh\necho w-$JAX_PROCESS_ID"
        for name, text in texts.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.environment = os.environ | {
            "SLICES": str(self.folder),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHON": "python3",
            "POLL": "0.2",
            **environment,
        }

    def start(self, *words):
        """The launcher as a process."""
        return subprocess.Popen(
            [ROOT / "tpu/launch.sh", *map(str, words)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def launch(self, *words, code=0):
        """What the launcher prints, on standard output and on standard error."""
        process = self.start(*words)
        output, error = process.communicate(timeout=900)
        assert process.returncode == code, error
        return output, error

    def calls(self):
        """The commands of gcloud so far, without `compute tpus`."""
        file = self.folder / "calls"
        return [json.loads(line)[2:] for line in file.read_text().splitlines()]

    def leaders(self, name):
        """The processes that lead what was started on each host."""
        return [
            int(file.read_text()) for file in self.folder.glob(f"{name}/*/inbol_jax/.run/leader")
        ]

    def preempt(self, name):
        """Takes a slice away."""
        (self.folder / name / "state").write_text('["ACTIVE", "PREEMPTED"]')
        self.clear(name)

    def clear(self, name="*"):
        """Kills what runs on the hosts."""
        for leader in self.leaders(name):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGKILL)
