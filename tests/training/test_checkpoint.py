"""Checkpoints that are kept, those that are damaged, and those of another run."""

import gc
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_run import toy_optimizer, toy_run

from inbol_jax.errors import InbolError
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.step import init_state


def steps_kept(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_the_newest_checkpoints_are_kept(tmp_path):
    toy_run(tmp_path, 9, save_steps=2)
    assert steps_kept(tmp_path / "checkpoints") == [8, 9]


def test_what_a_killed_process_was_saving_is_removed_at_once(tmp_path):
    unfinished = tmp_path / "3.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (unfinished / "part").write_text("half of it")
    with Checkpoints(tmp_path, {"stage": "test"}):
        assert not unfinished.exists()


def test_a_disk_with_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(free=0))
    with pytest.raises(InbolError, match=r"[\d,]+ bytes; 0 are free\); free space and run"):
        toy_run(tmp_path, 2, save_steps=1)
    assert not list((tmp_path / "checkpoints").iterdir())


class Usage(NamedTuple):
    free: int


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


DAMAGES = {
    "truncated": truncate,
    "state gone": lambda folder: shutil.rmtree(folder / "state"),
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
    assert "delete that folder to go on from the one before" in one_line(caught)
    assert sorted(files_of(folder)) == before
    shutil.rmtree(folder / "4")
    resumed = toy_run(finished, 4, save_steps=2)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((resumed, whole)))
    gc.collect()  # orbax leaves coroutines of failed reads, which warn when they are collected


def test_a_checkpoint_of_another_run(finished):
    """The difference is shown, and nothing is touched."""
    before = sorted(files_of(finished))
    for settings, difference in (
        ({"learning_rate": 1e-4}, "made with no --learning-rate, and now --learning-rate 0.0001: "),
        ({"stage": "other"}, "made with --stage toy, and now --stage other: choose another --out"),
    ):
        with pytest.raises(InbolError) as caught:
            toy_run(finished, 4, settings=settings)
        assert difference in one_line(caught)
    assert sorted(files_of(finished)) == before


def test_a_checkpoint_of_another_model(finished):
    state = init_state({"a": jnp.zeros(3), "c": jnp.zeros(2)}, toy_optimizer())
    with pytest.raises(InbolError) as caught:
        Checkpoints(finished / "checkpoints", {"stage": "toy"}).restore(state)
    assert "cannot be read" in one_line(caught)


def test_a_checkpoint_folder_that_is_a_file(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InbolError, match="cannot write"):
        toy_run(tmp_path, 2, save_steps=1)
