"""Programs on several virtual devices, each in a process of its own: their number is chosen when
JAX starts.
"""

import os
import subprocess
import sys


def run_on_devices(program, *arguments, devices=8, timeout=600, **environment):
    """Runs the text of a program; returns the process, with what it printed, if it ended with 0."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | environment
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    return done
