"""Training checkpoints by orbax: the whole state, written in the background. The newest few are
kept."""

from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from inbol_jax.errors import InbolError
from inbol_jax.training.step import TrainState


class Checkpoints:
    """`<folder>/checkpoints/<step>`, the newest two. Each is renamed into place when it is whole.

    A context manager, which waits at its end for what is being written.

    Args:
      fingerprint: fingerprint of everything that decides the run. A folder with the checkpoints of
        another run is refused.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self._folder = folder / "checkpoints"
        self._fingerprint = fingerprint
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(max_to_keep=2)
            self._manager = ocp.CheckpointManager(self._folder.resolve(), options=options)
        except OSError as error:
            raise InbolError(
                f"cannot write {self._folder}: {error.strerror}; choose another --out"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest state, in the shapes, dtypes and places of `like`; None if there is none.

        Raises:
          InbolError: if it belongs to a run with other settings, or cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            saved = self._restore_item(step, "fingerprint", ocp.args.JsonRestore())
            if saved["fingerprint"] == self._fingerprint:
                return self._restore_item(step, "state", ocp.args.StandardRestore(shapes))
        # Orbax raises what its storage does: any error means that the file is not usable.
        except Exception as error:
            lines = str(error).strip().splitlines()
            reason = lines[0][:120] if lines else type(error).__name__
            raise InbolError(
                f"checkpoint {self._folder / str(step)} cannot be read ({reason}); delete that "
                "folder to go on from an earlier one"
            ) from error
        raise InbolError(
            f"{self._folder} holds a run with other settings or inputs; choose another --out or "
            "delete it"
        )

    def _restore_item(self, step: int, name: str, how: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**{name: how}))[name]

    def save(self, state: TrainState) -> None:
        """Begins to save a state."""
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            fingerprint=ocp.args.JsonSave({"fingerprint": self._fingerprint}),
        )
        self._manager.save(int(state.step), args=items)
