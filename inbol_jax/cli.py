"""The command lines: options in, one line out for each result, and exit codes.

0: done. 1: a defect of the program (with its traceback). 2: something for the user to put right, said on one line. 130: interrupted.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Union

import tyro

from inbol_jax.errors import InbolError

Command = tuple[type, Callable[[Any], Any]]
Commands = Mapping[str, "Command | Commands"]  # nested: `inbol world export`


def main(arguments: Sequence[str] | None = None) -> int:
    """`inbol`: data, confidence, construction, conversion, and the demo."""
    from inbol_jax.confidence.confidence import ConfidenceCommand, confidence
    from inbol_jax.construction.build import BuildConfig, build
    from inbol_jax.data.check import CheckConfig, check
    from inbol_jax.data.importing import ImportConfig, import_data
    from inbol_jax.demo import DemoConfig, demo
    from inbol_jax.extrinsic.audit import AuditConfig, audit
    from inbol_jax.extrinsic.extrinsic import ExtrinsicConfig, extrinsic
    from inbol_jax.models.convert import ConvertConfig, convert
    from inbol_jax.responses.judge import JudgeConfig, judge
    from inbol_jax.world.export import ExportConfig, export
    from inbol_jax.world.pretrain import PretrainConfig, pretrain

    commands = {
        "demo": (DemoConfig, demo),
        "data": {"import": (ImportConfig, import_data), "check": (CheckConfig, check)},
        "world": {"export": (ExportConfig, export), "pretrain": (PretrainConfig, pretrain)},
        "confidence": (ConfidenceCommand, confidence),
        "extrinsic": (ExtrinsicConfig, extrinsic),
        "audit": (AuditConfig, audit),
        "build": (BuildConfig, build),
        "judge": (JudgeConfig, judge),
        "convert": (ConvertConfig, convert),
    }
    description = 'InBoL in JAX: teach a vision-language model to say "I don\'t know". Training: train.py; evaluation: evaluate.py.'
    return _dispatch("inbol", description, commands, arguments)


def train(arguments: Sequence[str] | None = None) -> int:
    """`train.py`: the two training stages."""
    from inbol_jax.training.ca_dpo import ca_dpo
    from inbol_jax.training.config import DpoConfig, SftConfig
    from inbol_jax.training.sft import sft

    description = (
        "sft: IDK-IT, instruction tuning. dpo: CA-DPO, confidence-aware preference optimisation."
    )
    return _dispatch(
        "train.py",
        description,
        {"sft": (SftConfig, sft), "dpo": (DpoConfig, ca_dpo)},
        arguments,
        together=True,
    )


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """`evaluate.py`: predictions, metrics and report."""
    from inbol_jax.evaluation.evaluate import EvaluateConfig
    from inbol_jax.evaluation.evaluate import evaluate as run

    return _guarded(lambda: _run(_parse(EvaluateConfig, prog="evaluate.py", args=arguments), run))


def _dispatch(
    program: str,
    description: str,
    commands: Commands,
    arguments: Sequence[str] | None,
    *,
    together: bool = False,
) -> int:
    runs: dict[type, Callable[[Any], Any]] = {}

    def choice(name: str, command: Command | Commands) -> Any:
        if isinstance(command, Mapping):
            return Annotated[
                _union(choice(*item) for item in command.items()),
                tyro.conf.subcommand(name, description=_GROUPS[name]),
            ]
        config, run = command
        runs[config] = run
        return Annotated[config, tyro.conf.subcommand(name)]

    def action() -> None:
        options = (
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.EnumChoicesFromValues,
        )
        config = _parse(
            _union(choice(*item) for item in commands.items()),
            prog=program,
            description=description,
            args=arguments,
            config=options,
        )
        _run(config, runs[type(config)])

    return _guarded(action, together=together)


_GROUPS = {
    "data": "Any VQA set as a dataset folder: read it, check it.",
    "world": "The embedded VQA world: write its splits, pre-train its model.",
}


def _union(choices: Iterable[Any]) -> Any:
    return Union[tuple(choices)]


def _parse(kind: Any, **options: Any) -> Any:
    """`tyro.cli`, with what is wrong with the options as one line instead of a box.

    Raises:
      InbolError: when the options cannot be understood.
    """
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(kind, **options)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    # A title; then sections parted by rules: the message, often hints, and where help is. A frame around it all, ASCII where need be.
    lines = "\n".join(line.strip("│ ") for line in box.getvalue().splitlines()[1:])
    message, *hints = filter(
        None, (" ".join(section.split()) for section in re.split("[─-]{9,}", lines))
    )
    meant = re.search(r"Perhaps you meant: (--\S+)", " ".join(hints))
    raise InbolError(
        message.rstrip(".")
        + (f"; perhaps {meant[1]}" if meant else "")
        + f"; see {options['prog']} --help"
    )


def _run(config: Any, run: Callable[[Any], Any]) -> None:
    """Refuses what every command would fail on, before anything is loaded."""
    if not 0 <= getattr(config, "seed", 0) < 2**32:  # a command that draws nothing has none
        raise InbolError(f"--seed {config.seed}: a whole number from 0 to {2**32 - 1} is needed")
    if getattr(config, "distributed", False):
        from inbol_jax.processes import join

        join()
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.out):
            pass
    except OSError as error:
        raise InbolError(
            f"--out {config.out}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    run(config)


def _guarded(action: Callable[[], None], *, together: bool = False) -> int:
    """Runs a command and says what came of it.

    Args:
      together: of several processes none can go on when one has failed, as in training; in sampling each finishes what is its own.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        action()
        return 0
    except InbolError as error:
        code, message = 2, f"error: {error}"
    except KeyboardInterrupt:
        code, message = 130, "interrupted; the same command goes on from here"
    except Exception:
        if together:
            _leave(1, traceback.format_exc().rstrip())
        raise
    if together:
        _leave(code, message)
    print(message, file=sys.stderr)
    return code


def _leave(code: int, message: str) -> None:
    from inbol_jax.processes import leave

    leave(code, message)
