"""Checkpoints that are kept, those that are damaged, and those of another run."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from toy_run import toy_batches, toy_optimizer, toy_run

from inbol_jax.errors import InbolError
from inbol_jax.training import run
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.config import CheckpointConfig
from inbol_jax.training.step import init_state


def steps_kept(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_the_newest_checkpoints_are_kept(tmp_path):
    toy_run(tmp_path, 9, save_steps=2)
    assert steps_kept(tmp_path / "checkpoints") == [8, 9]


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert "checkpoints" in message
    return message


@pytest.fixture
def finished(tmp_path):
    toy_run(tmp_path, 4, save_steps=2)
    return tmp_path


def files_of(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


def truncate(folder):
    for file in files_of(folder):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def garble(folder):
    for file in files_of(folder / "state"):
        file.write_bytes(b"garbage" * 10)


DAMAGES = {
    "truncated": truncate,
    "garbled state": garble,
    "state gone": lambda folder: shutil.rmtree(folder / "state"),
    "settings gone": lambda folder: shutil.rmtree(folder / "run"),
    "empty": lambda folder: [
        shutil.rmtree(p) if p.is_dir() else p.unlink() for p in folder.iterdir()
    ],
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named(finished, damage):
    """Nothing is changed; without it, the run goes on from the one before."""
    folder = finished / "checkpoints"
    whole = toy_run(finished, 4, save_steps=2)
    DAMAGES[damage](folder / "4")
    before = sorted(files_of(folder))
    with pytest.raises(InbolError, match=r"checkpoints/4 cannot be read \(") as caught:
        toy_run(finished, 4, save_steps=2)
    assert "delete that folder to go on from the one before it" in one_line(caught)
    assert sorted(files_of(folder)) == before
    shutil.rmtree(folder / "4")
    resumed = toy_run(finished, 4, save_steps=2)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((resumed, whole)))
    gc.collect()  # orbax leaves coroutines of failed reads, which warn when they are collected


def test_a_checkpoint_of_another_run(finished):
    """The difference is shown, nothing is touched, and `resume_anyway` says what may differ."""
    before = sorted(files_of(finished))
    ours = {"toy": "toy", "learning_rate": 1e-4, "lora_targets": ("a", "b"), "base": None}
    with pytest.raises(InbolError) as caught:
        toy_run(finished, 4, settings=ours)
    assert "other settings (--base null, the" not in one_line(caught)  # what is not there is null
    assert "--learning-rate 0.0001, the folder's run has null" in one_line(caught)
    with pytest.raises(InbolError, match="--toy other, the folder's run has toy"):
        toy_run(finished, 4, settings={"toy": "other"})
    assert sorted(files_of(finished)) == before
    names = ("--learning-rate", "lora-targets")
    assert int(toy_run(finished, 6, settings=ours, resume_anyway=names).step) == 6
    assert int(toy_run(finished, 6, settings=ours).step) == 6


def test_a_checkpoint_of_another_model(finished):
    state = init_state({"a": jnp.zeros(3), "c": jnp.zeros(2)}, toy_optimizer())
    with pytest.raises(InbolError) as caught:
        Checkpoints(str(finished / "checkpoints"), {"toy": "toy"}, CheckpointConfig()).restore(
            state
        )
    assert "cannot be read" in one_line(caught)


def test_a_checkpoint_folder_that_is_a_file(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InbolError, match="cannot write"):
        toy_run(tmp_path, 2)


def test_checkpoints_elsewhere(tmp_path, monkeypatch):
    """In another folder, or at an address that reaches orbax as it is."""
    toy_run(tmp_path / "out", 4, save_steps=2, checkpoint_dir=str(tmp_path / "elsewhere"))
    assert steps_kept(tmp_path / "elsewhere") == [2, 4]
    assert not (tmp_path / "out" / "checkpoints").exists()
    asked = []
    monkeypatch.setattr(ocp, "CheckpointManager", lambda folder, options: asked.append(str(folder)))
    Checkpoints("gs://bucket/run", {}, CheckpointConfig())
    assert asked == ["gs://bucket/run"]


def test_an_address_that_cannot_be_written(tmp_path):
    with pytest.raises(InbolError, match=r"cannot write nowhere://bucket/run: .*; choose another"):
        toy_run(tmp_path, 2, checkpoint_dir="nowhere://bucket/run")


@pytest.mark.parametrize(("wrong", "fails"), [(4, False), (5, True), (8, True)])
def test_a_run_that_learnt_too_little_fails(tmp_path, monkeypatch, wrong, fails):
    """Also when it is asked for again, and when its skipped updates lie in two processes."""
    from toy_run import toy_step

    def step(state, frozen, reference, batch):
        bad = state.step % 8 < wrong  # whatever the state is, no `_fault` in between
        new, metrics = toy_step(state, frozen, reference, batch)
        return new._replace(all_skipped=state.all_skipped + bad), metrics

    monkeypatch.setattr("toy_run.toy_step", step)
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, 8, lambda start: toy_batches(start, stop_at=3), save_steps=2)
    for _ in range(2):
        if fails:
            with pytest.raises(InbolError, match=f"toy: {wrong} of 8 updates were left out"):
                toy_run(tmp_path, 8, save_steps=2)
        else:
            toy_run(tmp_path, 8, save_steps=2)
    assert run.MAX_SKIPPED_SHARE == 0.5
    assert steps_kept(tmp_path / "checkpoints") == [6, 8]
