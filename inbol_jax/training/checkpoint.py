"""Training checkpoints by orbax: everything that a run needs to go on, written in the background.

A checkpoint holds the trained parameters or adapters, the optimizer's state and the step, and
beside these the run's settings, with fingerprints of base and data. The random keys and the place
in the data are functions of seed and step.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from inbol_jax.artifacts import HINT, canonical_json, changes
from inbol_jax.errors import InbolError
from inbol_jax.processes import is_main, lost_peer
from inbol_jax.training.step import TrainState

KEPT = 2  # of the newest
_FULL = "free space and run the same command again"


class Checkpoints:
    """`<folder>/<step>`. Each is renamed into place when it is whole.

    A context manager, which waits at its end for what is being written.

    Args:
      settings: everything that decides the run, by the names of the options. A folder with the
        checkpoints of another run is refused.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self._folder = folder.resolve()
        self._settings = json.loads(canonical_json(settings))  # as they are read again
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT)
        self._write_fault = f"cannot write {self._folder}"
        with _one_line(self._write_fault, "choose another --out"):
            # Orbax would do this in a thread that it does not wait for, should the run fail.
            if is_main():
                for unfinished in self._folder.glob("*.orbax-checkpoint-tmp*"):
                    shutil.rmtree(unfinished)
            self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error and lost_peer(error):  # what all were saving together never ends
            return
        self.wait()
        self._manager.close()

    def wait(self) -> None:
        """Waits until what is being saved has been written."""
        with _one_line(self._write_fault, _FULL):
            self._manager.wait_until_finished()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest state, in the shapes, dtypes and places of `like`, and the `log` that was
        saved with it; None without one.

        Raises:
          InbolError: if it belongs to a run with other settings, or cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        fault = f"the checkpoint {self._folder / str(step)} cannot be read"
        with _one_line(fault, "delete that folder to go on from the one before, if there is one"):
            # The settings first: the state of another run may have other shapes.
            items = ocp.args.Composite(run=ocp.args.JsonRestore())
            run = self._manager.restore(step, args=items)["run"]
            if different := changes(run["settings"], self._settings):
                made = "; ".join(different.values())
                raise InbolError(f"{self._folder} holds a run that was made with {made}: {HINT}")
            items = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
            return self._manager.restore(step, args=items)["state"], run["log"]

    def save(self, state: TrainState, log: Mapping[str, Any]) -> None:
        """Begins to save a state. Returns once it may be changed. Raises InbolError if it cannot.

        Args:
          log: what the log has not written yet, as JSON.
        """
        size = sum(x.nbytes for x in jax.tree.leaves(state))
        if (free := shutil.disk_usage(self._folder).free) < size:
            raise InbolError(f"{self._write_fault} ({size:,} bytes; {free:,} are free); {_FULL}")
        run = ocp.args.JsonSave({"settings": self._settings, "log": dict(log)})
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=run)
        with _one_line(self._write_fault, _FULL):
            self._manager.save(int(state.step), args=items)


@contextlib.contextmanager
def _one_line(fault: str, advice: str) -> Iterator[None]:
    """Turns whatever the block raises into one line: orbax raises what its storage does."""
    try:
        yield
    except InbolError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
        raise InbolError(lost_peer(error) or f"{fault} ({reason}); {advice}") from error
