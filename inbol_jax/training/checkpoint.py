"""Training checkpoints by orbax: everything that a run needs to go on, written in the background.

A checkpoint holds the trained parameters or adapters, the optimizer's state and the step, and
beside these the run's settings, with fingerprints of base and data. The random keys and the place
in the data are functions of seed and step.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
import orbax.checkpoint as ocp
from etils import epath

from inbol_jax.artifacts import canonical_json
from inbol_jax.errors import InbolError
from inbol_jax.processes import lost_peer
from inbol_jax.training.config import CheckpointConfig
from inbol_jax.training.step import TrainState


class Restored(NamedTuple):
    """What a run goes on from."""

    state: TrainState
    log: dict[str, Any]
    """What the log had not written yet, see `save`."""


class Checkpoints:
    """`<folder>/<step>`. Each is renamed into place when it is whole.

    A context manager, which waits at its end for what is being written.

    Args:
      folder: a folder, or an address that orbax can write, such as gs://bucket/run.
      settings: everything that decides the run, by the names of the options. A folder with the
        checkpoints of another run is refused.
    """

    def __init__(self, folder: str, settings: Mapping[str, Any], options: CheckpointConfig):
        self._name, self._options = folder, options
        self._settings = json.loads(canonical_json(settings))  # as they are read again
        manager_options = ocp.CheckpointManagerOptions(
            max_to_keep=options.save_total_limit, cleanup_tmp_directories=True
        )
        with self._one_line("choose another --out or --checkpoint-dir"):
            path = epath.Path(folder)
            # `resolve` would take an address for a path below the working folder.
            self._folder = path if "://" in folder else path.resolve()
            self._manager = ocp.CheckpointManager(self._folder, options=manager_options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error and lost_peer(error):  # what all were saving together never ends
            return
        self.wait()
        self._manager.close()

    def wait(self) -> None:
        """Waits until what is being saved has been written."""
        with self._one_line("free space and run the same command again"):
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _one_line(self, advice: str) -> Iterator[None]:
        # Orbax raises what its storage does, and that may be anything.
        try:
            yield
        except Exception as error:
            what = lost_peer(error) or f"cannot write {self._name}: {_reason(error)}; {advice}"
            raise InbolError(what) from error

    def restore(self, like: TrainState) -> Restored | None:
        """The newest state, in the shapes, dtypes and places of `like`; None without one.

        Raises:
          InbolError: if it belongs to a run with other settings, or cannot be read.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = {"run": ocp.args.JsonRestore()}
        try:
            run = self._manager.restore(step, args=ocp.args.Composite(**items))["run"]
            self._check_settings(run["settings"])
            items = {"state": ocp.args.StandardRestore(shapes)}
            state = self._manager.restore(step, args=ocp.args.Composite(**items))["state"]
        except InbolError:
            raise
        except Exception as error:  # see `_one_line`
            raise InbolError(
                lost_peer(error)
                or f"the checkpoint {self._folder / str(step)} cannot be read ({_reason(error)}); "
                "delete that folder to go on from the one before it, if there is one"
            ) from error
        return Restored(state, run["log"])

    def _check_settings(self, saved: Mapping[str, Any]) -> None:
        ours, may_differ = self._settings, self._options.may_differ
        differ = [n for n in sorted(ours | saved) if ours.get(n) != saved.get(n)]
        if differ := [name for name in differ if name not in may_differ]:
            shown = "; ".join(
                f"--{n.replace('_', '-')} {_shown(ours.get(n))}, the folder's run has "
                f"{_shown(saved.get(n))}"
                for n in differ
            )
            raise InbolError(
                f"{self._folder} holds a run with other settings ({shown}); choose another --out, "
                f"delete it, or go on by --resume-anyway {' '.join(differ)}"
            )

    def save(self, state: TrainState, log: Mapping[str, Any]) -> None:
        """Begins to save a state. Returns once it may be changed.

        Args:
          log: what the log has not written yet, as JSON.
        """
        run = ocp.args.JsonSave({"settings": self._settings, "log": dict(log)})
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), run=run)
        with self._one_line("free space and run the same command again"):
            self._manager.save(int(state.step), args=items)


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
