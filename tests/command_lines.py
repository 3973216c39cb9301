"""What several tests of command lines share."""

import dataclasses
import os
import subprocess
import sys
import typing

from inbol_jax.cli import main

QUICK = ("--n", "2", "--max-new-tokens", "3")


def confidence(data, out, *options):
    """The exit code of `inbol confidence`."""
    return main(["confidence", "--data", str(data), "--out", str(out), *map(str, options)])


def option_names(config):
    """The names of the options of a dataclass and of the dataclasses in it."""
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(types[field.name]):
            yield from option_names(types[field.name])
        else:
            yield f"--{field.name.replace('_', '-')}"


def fails(capsys, command, *arguments):
    """The one line on standard error of a command that must end with exit code 2."""
    capsys.readouterr()
    code = command([str(a) for a in arguments])
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.startswith("error: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1, error
    return error


def start(*words, **environment):
    """`inbol WORDS` as a process of its own; it finds what the tests have compiled."""
    program = "import sys; from inbol_jax.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | environment, **pipes)


def finish(process):
    """What a process that succeeds prints on standard output, and on standard error."""
    output, error = process.communicate(timeout=900)
    assert process.returncode == 0, error
    return output, error
