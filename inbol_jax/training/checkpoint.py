"""Training checkpoints by orbax: everything that a run needs to go on, written in the background.

A checkpoint holds the trained parameters or adapters, the optimizer's state and the step. The
random keys and the place in the data are functions of seed and step, and the rows of the log after
the step are dropped when a run resumes. Beside the state lie the run's settings, with fingerprints
of base and data, and a checksum per array: orbax's formats have none of the arrays' content.
"""

import contextlib
import dataclasses
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Self

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from inbol_jax.artifacts import canonical_json, fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.processes import is_main, lost_peer, wait_for_all
from inbol_jax.progress import say
from inbol_jax.training.step import TrainState


class _ChangedError(Exception):
    """A checkpoint was read, but is not what was saved."""


@dataclasses.dataclass(frozen=True)
class BestStep(checkpoint_managers.PreservationPolicy):
    """Keeps the checkpoint of the step with the highest score, unless that is -inf."""

    score: Callable[[int], float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        best = self.among([c.step for c in checkpoints])
        return [c.step == best for c in checkpoints]

    def among(self, steps: Iterable[int]) -> int | None:
        """The best of these steps; of equally good ones the newest."""
        scores = {self.score(step): step for step in sorted(steps)}
        return scores[max(scores)] if max(scores, default=-math.inf) > -math.inf else None


def check_resume_anyway(names: Sequence[str], known: Set[str]) -> set[str]:
    """The settings that may differ, as Python spells them. Raises InbolError at an unknown one."""
    settings = {name.lstrip("-").replace("-", "_") for name in names}
    if unknown := settings - known:
        raise InbolError(
            f"--resume-anyway {' '.join(sorted(unknown))}: choose among {', '.join(sorted(known))}"
        )
    return settings


class Checkpoints:
    """`<folder>/<step>`. Each is renamed into place when it is whole.

    A context manager, which waits at its end for what is being written.

    Args:
      folder: a folder, or an address that orbax can write, such as gs://bucket/run.
      settings: everything that decides the run, by the names of the options. A folder with the
        checkpoints of another run is refused.
      resume_anyway: names of settings that may differ.
      keep: how many of the newest are kept.
      score: if given, the checkpoint of the step with the highest score is kept as well.
    """

    def __init__(
        self,
        folder: str,
        settings: Mapping[str, Any],
        *,
        resume_anyway: Sequence[str] = (),
        keep: int = 2,
        score: Callable[[int], float] | None = None,
    ):
        self._name, self._background = folder, contextlib.ExitStack()
        self._best = BestStep(score) if score else None
        self._settings = json.loads(canonical_json(settings))  # as they are read again
        self._may_differ = check_resume_anyway(resume_anyway, self._settings.keys())
        kept = [checkpoint_managers.LatestN(keep), *([self._best] if self._best else [])]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(kept),
            cleanup_tmp_directories=True,
        )
        with self._one_line("choose another --out or --checkpoint-dir"):
            path = epath.Path(folder)
            # `resolve` would take an address for a path below the working folder.
            self._folder = path if "://" in folder else path.resolve()
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Self:
        # A save that fails in the background is raised by the next call.
        self._background.enter_context(
            _quiet(lambda unraisable: str(unraisable.exc_value) == "Event loop is closed")
        )
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self._background:
            if error and lost_peer(error):  # what all were saving together never ends
                return
            self.wait()
            self._manager.close()

    def wait(self) -> None:
        """Waits until what is being saved has been written."""
        with self._one_line("free space and run the same command again"):
            self._manager.wait_until_finished()

    def best_step(self) -> int | None:
        """The step with the highest score, whose checkpoint is kept; None without one."""
        return self._best and self._best.among(self._manager.all_steps())

    @contextlib.contextmanager
    def _one_line(self, advice: str) -> Iterator[None]:
        # Orbax raises what its storage does, and that may be anything.
        try:
            yield
        except Exception as error:
            what = lost_peer(error) or f"cannot write {self._name}: {_reason(error)}; {advice}"
            raise InbolError(what) from error

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest whole state, in the shapes, dtypes and places of `like`; None without one.

        Damaged checkpoints are named, renamed and passed over.

        Raises:
          InbolError: if the newest readable one belongs to a run with other settings, or none can
            be read.
        """
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                with _quiet():
                    state = self._read(step, shapes)
            except InbolError:
                raise
            except Exception as error:  # see `_one_line`
                # Of several processes others may have read it: all must go on from the same step.
                if jax.process_count() > 1 and not isinstance(error, _ChangedError):
                    raise InbolError(
                        lost_peer(error)
                        or f"checkpoint {self._folder / str(step)} cannot be read "
                        f"({_reason(error)}); rename that folder to go on from an earlier one"
                    ) from error
                damaged[step] = _reason(error)
                continue
            self._set_aside(damaged, step)
            return state
        if damaged:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
            raise InbolError(
                f"no checkpoint in {self._folder} can be read ({reasons}); delete it to start anew"
            )
        return None

    def _read(self, step: int, shapes: TrainState) -> TrainState:
        run = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))
        saved = run["run"]
        if saved["hash"] != fingerprint([saved["settings"], saved["checksums"]]):
            raise _ChangedError("its settings are not what was saved")
        self._check_settings(saved["settings"])
        items = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        state = self._manager.restore(step, args=items)["state"]
        if checksums(state) != saved["checksums"]:
            raise _ChangedError("its arrays are not what was saved")
        return state

    def _check_settings(self, saved: Mapping[str, Any]) -> None:
        ours = self._settings
        names = [n for n in sorted(ours | saved) if ours.get(n) != saved.get(n)]
        differ = [n for n in names if n not in self._may_differ]
        if differ:
            shown = "; ".join(
                f"--{n.replace('_', '-')} {_shown(ours.get(n))}, the folder's run has "
                f"{_shown(saved.get(n))}"
                for n in differ
            )
            raise InbolError(
                f"{self._folder} holds a run with other settings ({shown}); choose another --out, "
                f"delete it, or go on by --resume-anyway {' '.join(differ)}"
            )

    def _set_aside(self, damaged: Mapping[int, str], step: int) -> None:
        """Renames damaged checkpoints: the run writes their steps again."""
        if not damaged:
            return
        for number, reason in damaged.items():
            if is_main():
                folder = self._folder / str(number)
                folder.rename(self._folder / f"{number}.damaged.{int(time.time())}")
                say(f"{folder} is damaged ({reason}): renamed, going on from step {step}")
        wait_for_all("renamed damaged checkpoints")
        self._manager.reload()

    def save(self, state: TrainState) -> None:
        """Begins to save a state. Returns once it may be changed."""
        sums = checksums(state)
        run = {"settings": self._settings, "checksums": sums}
        run["hash"] = fingerprint([self._settings, sums])
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(run))
        with self._one_line("free space and run the same command again"):
            self._manager.save(int(state.step), args=items)


@contextlib.contextmanager
def _quiet(abandoned: Callable[[Any], bool] = lambda unraisable: True) -> Iterator[None]:
    """Of a damaged file or a full disk orbax raises, but also logs, and abandons reads and writes
    that print a traceback each."""
    logger, hook = logging.getLogger("absl"), sys.unraisablehook
    level = logger.level
    logger.setLevel(logging.CRITICAL)

    def show(unraisable: Any) -> None:
        if not abandoned(unraisable):
            hook(unraisable)

    sys.unraisablehook = show
    try:
        yield
    finally:
        logger.setLevel(level)
        sys.unraisablehook = hook


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def checksums(state: Any) -> list[int]:
    """A checksum per array, the same however the arrays are spread over devices."""
    # One after another: on a CPU, exchanges of several programs at once can wait for each other.
    return [int(_checksum(x)) for x in jax.tree.leaves(state)]


@jax.jit
def _checksum(x: jax.Array) -> jax.Array:
    """u32[]: the sum modulo 2^32 of a hash of each element's bits and place.

    The hash is one to one (MurmurHash3's last steps), so a change of one element is always found.
    """
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool else x
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    bits ^= place * jnp.uint32(0x9E3779B1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ bits >> shift) * jnp.uint32(factor)
    return jnp.sum(bits ^ bits >> 16, dtype=jnp.uint32)
