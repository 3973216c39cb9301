"""Training checkpoints by orbax: the whole state, written in the background, the newest few kept."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from inbol_jax.errors import InbolError
from inbol_jax.training.state import TrainState


class Checkpoints:
    """`<folder>/checkpoints/<step>`; a checkpoint is renamed into place only when it is whole.

    Args:
      identity: fingerprint of everything that decides the run. A folder with another one's checkpoints is refused.
    """

    def __init__(self, folder: Path, identity: str, *, keep: int = 2):
        self._folder = folder / "checkpoints"
        self._identity = identity
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(max_to_keep=keep)
            self._manager = ocp.CheckpointManager(self._folder.resolve(), options=options)
        except OSError as error:
            raise InbolError(
                f"cannot write {self._folder}: {error.strerror}; choose another --out"
            ) from error

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest state, in the shapes, dtypes and places of `like`; None where there is no checkpoint.

        Raises:
          InbolError: when it belongs to a run with other settings, or cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            found = self._manager.restore(
                step, args=ocp.args.Composite(identity=ocp.args.JsonRestore())
            )["identity"]["identity"]
            if found != self._identity:
                raise InbolError(
                    f"{self._folder} holds a run with other settings or inputs; choose another --out or delete it"
                )
            return self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
            )["state"]
        except InbolError:
            raise
        except Exception as error:  # orbax raises what its storage does: any of them means that the file is not usable
            first = (
                str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            )
            raise InbolError(
                f"checkpoint {self._folder / str(step)} cannot be read ({first[:120]}); delete that folder to go on from an earlier one"
            ) from error

    def save(self, state: TrainState) -> None:
        arguments: dict[str, Any] = {
            "state": ocp.args.StandardSave(state),
            "identity": ocp.args.JsonSave({"identity": self._identity}),
        }
        self._manager.save(int(state.step), args=ocp.args.Composite(**arguments))

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()
