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

import dataclasses
import difflib
import importlib
import os
import sys
import tempfile
import traceback
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import docstring_parser
import tyro

from inbol_jax import __version__
from inbol_jax.commands import COMMANDS, Command, load
from inbol_jax.compilation import use_cache
from inbol_jax.errors import InbolError, printable
from inbol_jax.interruption import Interrupted, handling_signals, listen, pass_on_to_jax

DESCRIPTION = 'InBoL in JAX: teach a vision-language model to say "I don\'t know".'
_MARKERS = (
    tyro.conf.OmitSubcommandPrefixes,
    tyro.conf.OmitArgPrefixes,
    tyro.conf.EnumChoicesFromValues,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """`inbol`: every command of the package. Returns the exit code."""
    return _main("inbol", COMMANDS, arguments)


def train(arguments: Sequence[str] | None = None) -> int:
    """`train.py`: the commands `sft` (IDK-IT), `dpo` (CA-DPO) and `rl` (on-policy refusal).

    Returns the exit code.
    """
    return _main("train.py", {name: COMMANDS[name] for name in ("sft", "dpo", "rl")}, arguments)


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """`evaluate.py`: the command `evaluate`. Returns the exit code."""
    return _main("evaluate.py", {"": COMMANDS["evaluate"]}, arguments)


def _main(program: str, commands: Mapping[str, Command], arguments: Sequence[str] | None) -> int:
    command: Command | None = None
    try:
        with handling_signals():
            words = list(sys.argv[1:] if arguments is None else arguments)
            name, options = _split_command(program, commands, words)
            command = commands[name]
            config = parse_options(load(command.config), f"{program} {name}".strip(), options)
            return _run(command, config)
    except InbolError as error:
        code, message, agreed = 2, f"error: {printable(str(error))}", False
    except KeyboardInterrupt as error:
        code, message = 130, "interrupted; the same command goes on from here"
        if agreed := isinstance(error, Interrupted):
            code, agreed = error.exit_code, command.collective
    except BrokenPipeError:  # who reads the output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still in the buffer
        code, message, agreed = 141, "the output was closed", False
    except Exception as error:
        if (cause := _cause_outside(command, error)) is None:
            _leave(command, 1, traceback.format_exc().rstrip())
            raise
        code, message, agreed = 2, f"error: {printable(cause)}", False
    if not agreed:
        _leave(command, code, message)
    print(message, file=sys.stderr)
    return code


def _split_command(
    program: str, commands: Mapping[str, Command], words: list[str]
) -> tuple[str, list[str]]:
    """The name of the command that the words begin with, and its options.

    Raises:
      InbolError: if they begin with no command.
      SystemExit: after --help or --version, whose text is printed.
    """
    if "" in commands:  # the program is one command
        return "", words
    if words[:1] == ["--version"]:
        print(f"inbol_jax {__version__}")
        raise SystemExit(0)
    for length in (2, 1):
        if (name := " ".join(words[:length])) in commands:
            return name, words[length:]
    group = words[0] if words and any(name.startswith(f"{words[0]} ") for name in commands) else ""
    prefix = f"{program} {group}".strip()
    members = {name: command for name, command in commands.items() if name.startswith(group)}
    rest = words[1:] if group else words
    if rest[:1] in (["-h"], ["--help"]):
        print(_list_commands(prefix, members))
        raise SystemExit(0)
    if not rest:
        raise InbolError(f"a command is missing; see {prefix} --help")
    known = [name.removeprefix(f"{group} ") for name in members]
    raise InbolError(f"no command {rest[0]!r}{_suggest(rest[0], known)}; see {prefix} --help")


def _list_commands(prefix: str, commands: Mapping[str, Command]) -> str:
    """The help text of several commands, with the first sentence of each one's description."""
    width = max(map(len, commands))
    lines = [f"usage: {prefix} COMMAND [OPTIONS]", "", DESCRIPTION, "", "commands:"]
    for name, command in commands.items():
        summary = (load(command.config).__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {name:{width}}  {summary}")
    lines += ["", f"`{prefix.split()[0]} COMMAND --help` shows the options of a command."]
    return "\n".join(lines)


def parse_options(config: type, program: str, words: Sequence[str]) -> Any:
    """An instance of a dataclass of options.

    Args:
      program: what help and errors call the command.
    Raises:
      InbolError: if an option is unknown, is missing or has a value that it cannot have.
      SystemExit: after --help.
    """

    def refuse(event: Any) -> None:
        raise InbolError(f"{_cause(event, config)}; see {program} --help")

    _join_help_lines(config)
    # tyro offers these hooks under a private name. Without them it prints its own, longer message.
    errors = importlib.import_module("tyro._errors")
    with errors.on_parse_error(refuse):
        return tyro.cli(config, prog=program, args=words, config=_MARKERS, registry=_registry())


def _join_help_lines(config: type) -> None:
    """Hands the docstring of each field to tyro as one line: tyro keeps line breaks."""
    for part in (part for part in config.__mro__ if dataclasses.is_dataclass(part)):
        helps = {p.arg_name: p.description for p in docstring_parser.parse_from_object(part).params}
        for name, kind in part.__annotations__.items():
            for nested in _dataclasses_in(kind):
                _join_help_lines(nested)
            if (text := helps.get(name)) and not dataclasses.is_dataclass(kind):
                argument = tyro.conf.arg(help=" ".join(text.split()))
                part.__annotations__[name] = typing.Annotated[kind, argument]


def _dataclasses_in(kind: Any) -> Iterator[type]:
    """The dataclasses that a type is, or is made of."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        yield kind
    for part in typing.get_args(kind):
        yield from _dataclasses_in(part)


def _registry() -> tyro.constructors.ConstructorRegistry:
    """How paths are read: `~` is the home folder also after `--option=`."""
    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def expanded_path(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
        if info.type is not Path:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="PATH",
            instance_from_str=lambda words: _path(words[0]),
            is_instance=lambda instance: isinstance(instance, Path),
            str_from_instance=lambda instance: [str(instance)],
        )

    return registry


def _path(text: str) -> Path:
    """A path whose file could exist: where there could be none, the system fails in many ways."""
    try:
        path = Path(text).expanduser()
        os.lstat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RuntimeError) as error:
        if not isinstance(error, PermissionError | NotADirectoryError):
            about = getattr(error, "strerror", None) or error
            raise InbolError(f"{text[:60]!r} can be no path ({about})") from error
    return path


def _cause(event: Any, config: type) -> str:
    """What is wrong with the options, in one line, from an event of tyro's parser."""
    if hasattr(event, "tokens"):
        unknown = next((word for word in event.tokens if word.startswith("-")), event.tokens[0])
        suggestion = _suggest(unknown.split("=")[0], list(option_names(config)))
        return f"unrecognized options: {' '.join(event.tokens)}{suggestion}"
    if hasattr(event, "missing_arguments"):
        arguments = [missing.arg for missing in event.missing_arguments]
        names = [a.lowered.metavar if a.is_positional() else a.display_name() for a in arguments]
        return f"missing: {', '.join(names)}"
    option = event.argument.display_name() if getattr(event, "argument", None) else ""
    if hasattr(event, "choices"):
        return f"{option} {event.value}: choose one of {', '.join(event.choices)}"
    message = getattr(event, "message", None) or "a value is missing or not allowed"
    return f"{option}: {message}".removeprefix(": ").rstrip(".")


def option_names(config: type) -> Iterator[str]:
    """The names of the options of a dataclass and of the dataclasses in it."""
    types = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(types[field.name]):
            yield from option_names(types[field.name])
        else:
            yield f"--{field.name.replace('_', '-')}"


def _suggest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; perhaps {close[0]}" if close else ""


def _run(command: Command, config: Any) -> int:
    """Runs a command after it has looked at what every command would fail on. Returns its code."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    use_cache()
    function = load(command.run)
    if getattr(config, "distributed", False):
        from inbol_jax.processes import join

        join()
        (pass_on_to_jax if command.collective else listen)()
    if getattr(config, "out", None) is not None:
        _check_writable(config.out)
    result = function(config)
    return result if isinstance(result, int) else 0


def _check_writable(out: Path) -> None:
    """Makes the folder. Raises InbolError if nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InbolError(
            f"--out {out}: cannot be written ({error.strerror}); choose another folder"
        ) from error


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
