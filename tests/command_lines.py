"""What several tests of command lines share."""

from inbol_jax.cli import main

QUICK = ("--n", "2", "--max-new-tokens", "3")


def confidence(data, out, *options):
    """The exit code of `inbol confidence`."""
    return main(["confidence", "--data", str(data), "--out", str(out), *map(str, options)])


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
