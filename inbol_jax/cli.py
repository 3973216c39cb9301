"""The command lines: options in, one line per result out, and exit codes.

| code | meaning |
|---|---|
| 0 | The command is done. |
| 1 | The program has a defect; its traceback is shown. |
| 2 | The user can put something right; one line says what. |
| 130, 143 | SIGINT (Ctrl-C) or SIGTERM ended the command. The same command resumes it. |

A step, batch or record that is under way is finished first, and its result kept; training saves a
checkpoint. A second signal ends at once, and so does the first if nothing of the kind is under way
(`interruption`).

The code that does a command's work is imported when it runs, so that help is fast.
"""

import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import sys
import tempfile
import traceback
import typing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
import tyro
import yaml

from inbol_jax import __version__
from inbol_jax.commands import COMMANDS, Command, load
from inbol_jax.compilation import use_cache
from inbol_jax.errors import InbolError, printable
from inbol_jax.interruption import Interrupted, handling_signals, listen, pass_on_to_jax

DESCRIPTION = 'InBoL in JAX: teach a vision-language model to say "I don\'t know".'
INTERRUPTED = "interrupted; the same command goes on from here"
_MARKERS = (tyro.conf.OmitArgPrefixes, tyro.conf.EnumChoicesFromValues)


def main(arguments: Sequence[str] | None = None) -> int:
    """`inbol`: every command of the package. Returns the exit code."""
    command: Command | None = None
    together = False
    # A shell may have closed them.
    sys.stdout, sys.stderr = (s or open(os.devnull, "w") for s in (sys.stdout, sys.stderr))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # an ASCII terminal gets escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with handling_signals():
            words = list(sys.argv[1:] if arguments is None else arguments)
            name, options = _split_command(words)
            command = COMMANDS[name]
            config = parse_options(load(command.config), f"inbol {name}", options)
            return _run(command, config)
    except Interrupted as error:
        code, message = error.exit_code, INTERRUPTED
        together = command.collective  # then all processes end here
    except KeyboardInterrupt:
        code, message = 130, INTERRUPTED
    except BrokenPipeError:  # who reads the output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still in the buffer
        code, message = 141, "the output was closed"
    # OSError: a full disk, a path that is too long; nothing that a defect causes
    except (InbolError, OSError) as error:
        code, message = 2, f"error: {printable(str(error))}"
    except Exception as error:
        if (cause := _cause_outside(command, error)) is None:
            _leave(command, 1, traceback.format_exc().rstrip())
            raise
        code, message = 2, f"error: {printable(cause)}"
    if not together:
        _leave(command, code, message)
    print(message, file=sys.stderr)
    return code


def _split_command(words: list[str]) -> tuple[str, list[str]]:
    """The name of the command that the words begin with, and its options.

    Raises:
      InbolError: if they begin with no command.
      SystemExit: after --help or --version, whose text is printed.
    """
    for length in (2, 1):  # "data import", "build"
        if (name := " ".join(words[:length])) in COMMANDS:
            return name, words[length:]
    if words[:1] in (["--version"], ["version"]):
        print(f"inbol_jax {__version__}")
        raise SystemExit(0)
    if not words or words[-1] in ("-h", "--help"):  # also behind a group: "data --help"
        print(f"usage: inbol COMMAND [OPTIONS]\n\n{DESCRIPTION}\n\ncommands:")
        width, group = max(map(len, COMMANDS)), " ".join(words[:-1])
        for name, command in COMMANDS.items():
            if name.startswith(group):
                summary = load(command.config).__doc__.strip().splitlines()[0]
                print(f"  {name:{width}}  {summary}")
        print("\n`inbol COMMAND --help` shows its options; --config FILE reads them from YAML.")
        raise SystemExit(0)
    # "data impot" is close to "data import"; of "confidense --data" and "wrld" one word is.
    said, known = " ".join(words[:2]), {}
    for name in reversed(COMMANDS):  # of "data" the first command
        known |= dict.fromkeys((*name.split(), name), name)
    close = [c for s in (said, words[0]) for c in difflib.get_close_matches(s, known, n=1)]
    perhaps = "".join(f"; perhaps {known[c]}" for c in close[:1])
    raise InbolError(f"no command {said!r}{perhaps}; see inbol --help")


def parse_options(config: type, program: str, words: Sequence[str]) -> Any:
    """An instance of a dataclass of options.

    Args:
      program: what help and errors call the command.
      words: those of the command line; its options win over those of the file of --config.
    Raises:
      InbolError: if an option is unknown, missing or empty, or has a value that it cannot have.
      SystemExit: after --help.
    """
    _join_help_lines(config)
    given, typed, file = _from_file(list(words))
    args, said = [*given, *typed], io.StringIO()  # of equal options the last one counts
    for before, word in itertools.pairwise([program, *args]):
        option, is_value, value = word.partition("=")
        if not word.startswith("--"):
            option, is_value, value = before, True, word
        # An empty path would be this folder; a shell makes one of a variable that is not set.
        if is_value and not value and option != "--system":
            place = f" in {file}" if option in given else ""
            raise InbolError(f"{option} ''{place}: is empty; give it a value, or leave it out")
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(config, prog=program, args=args, config=_MARKERS)  # or --help
    except SystemExit as left:
        if left.code:
            message = _on_one_line(said.getvalue())
            hint = "; the number of samples is --n" * ("--num-samples" in args)
            # Its options, or values that belong to none, as the second one of `n: [3, 4]`.
            named = [w for w in given if re.search(rf"(?<![\w.-]){re.escape(w)}(?!\w)", message)]
            named = [w for w in named if w.startswith("--")] or named
            hint += "".join(f"; {word} is in {file}" for word in dict.fromkeys(named))
            hint += ", where a flag is true or false" * bool(named)
            raise InbolError(message + hint) from left
        raise


def _from_file(words: list[str]) -> tuple[list[str], list[str], str]:
    """The options in the YAML file that --config names, the other words, and the file's name."""
    words = [w for word in words for w in re.split(r"(?<=^--config)=", word, maxsplit=1)]
    if "--config" not in words[:-1]:
        return [], words, ""
    at = words.index("--config")
    file = words[at + 1]
    try:
        given = _options_in(yaml.compose(Path(file).read_bytes(), yaml.BaseLoader))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InbolError(f"--config {file}: cannot be read ({reason})") from error
    return given, words[:at] + words[at + 2 :], file


def _options_in(node: yaml.Node | None) -> list[str]:
    """The words of a mapping."""
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("a line `option: value` for each option is needed")
    words: list[str] = []
    for key, value in node.value:
        option = f"--{key.value}".replace("_", "-")
        if option in words:
            raise ValueError(f"{key.value} is there twice")
        if value.value in ("true", "false"):
            words.append(option if value.value == "true" else option.replace("--", "--no-", 1))
        else:
            words += [option, *_texts(value)]
    return words


def _texts(node: yaml.Node) -> list[str]:
    """The words of a value, as they are typed; a list may hold lists."""
    if isinstance(node, yaml.MappingNode):
        raise ValueError("no value may hold a mapping")
    scalar = isinstance(node, yaml.ScalarNode)
    return [node.value] if scalar else [text for item in node.value for text in _texts(item)]


def _on_one_line(box: str) -> str:
    """What stands in the box that tyro draws around an error: its title, and parts that lines
    separate."""
    # A terminal without UTF-8 gets the plain characters.
    lines = (line.strip(" │|") for line in box.strip().splitlines()[1:])
    text = "\n".join("" if set(line) <= {*"─-╰╯+"} else line for line in lines)
    parts = (" ".join(part.split()).rstrip(".") for part in text.split("\n\n"))
    return "; ".join(filter(None, parts))


def _join_help_lines(kind: Any) -> None:
    """Hands the docstring of each field of a dataclass, or of those that a type is made of, to tyro
    as one line: tyro keeps line breaks."""
    for part in typing.get_args(kind):
        _join_help_lines(part)
    for part in filter(dataclasses.is_dataclass, getattr(kind, "__mro__", ())):
        helps = {p.arg_name: p.description for p in docstring_parser.parse_from_object(part).params}
        for name, field in part.__annotations__.items():
            _join_help_lines(field)
            if (text := helps.get(name)) and not dataclasses.is_dataclass(field):
                argument = tyro.conf.arg(help=" ".join(text.split()))
                part.__annotations__[name] = typing.Annotated[field, argument]


def _run(command: Command, config: Any) -> int:
    """Runs a command after it has looked at what every command would fail on. Returns its code."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    use_cache()
    if getattr(config, "distributed", False):
        from inbol_jax.processes import join

        join()
        (pass_on_to_jax if command.collective else listen)()
    with _output(config.out) if getattr(config, "out", None) else contextlib.nullcontext():
        result = command(config)  # `data check` returns an exit code of its own
    return result if isinstance(result, int) else 0


@contextlib.contextmanager
def _output(out: Path) -> Iterator[None]:
    """Makes the folder, and removes it again if nothing comes into it. Raises InbolError if nothing
    can be written there."""
    try:
        new = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (OSError, ValueError) as error:  # the latter for a NUL in the name
        reason = getattr(error, "strerror", error)
        raise InbolError(f"--out {out}: cannot be written ({reason}); choose another") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a folder that is not empty
            for folder in [*sorted(out.rglob("*/"), reverse=True), *new] if new else []:
                folder.rmdir()


def _cause_outside(command: Command | None, error: Exception) -> str | None:
    """What to say of an error that is no defect of the program, but comes as one from JAX."""
    if "RESOURCE_EXHAUSTED" in str(error):
        return (
            "the device's memory is full; lower --batch-size, or, to train the same, raise "
            "--gradient-accumulation-steps or set --remat full; --mesh spreads a model over devices"
        )
    if not (command and command.collective and "jax" in sys.modules):
        return None
    from inbol_jax.processes import lost_peer

    return lost_peer(error)


def _leave(command: Command | None, code: int, message: str) -> None:
    """Ends this process at once if it is one of several that would wait for it, or it for them."""
    # Nothing can have been joined before JAX is there.
    if command and (command.collective or code > 128) and "jax" in sys.modules:
        from inbol_jax.processes import leave

        leave(code, message)
