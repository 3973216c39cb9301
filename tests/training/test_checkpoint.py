"""Checkpoints that are kept, and those that cannot be used."""

import shutil

import jax.numpy as jnp
import pytest
from toy_run import toy_optimizer, toy_run

from inbol_jax.errors import InbolError
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.step import init_state


def test_the_newest_checkpoints_are_kept(tmp_path):
    toy_run(tmp_path, 9, save_steps=2)
    assert sorted(
        int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()
    ) == [8, 9]


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
    "fingerprint gone": lambda folder: shutil.rmtree(folder / "fingerprint"),
    "empty": lambda folder: [
        shutil.rmtree(p) if p.is_dir() else p.unlink() for p in folder.iterdir()
    ],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_checkpoint(finished, damage):
    """One error names the folder; once that is deleted, the run goes on from the one before."""
    newest = finished / "checkpoints" / "4"
    DAMAGES[damage](newest)
    with pytest.raises(InbolError) as caught:
        toy_run(finished, 4, save_steps=2)
    assert str(newest) in one_line(caught)
    shutil.rmtree(newest)
    assert int(toy_run(finished, 4, save_steps=2).step) == 4


def test_a_checkpoint_of_another_run(finished):
    before = sorted(files_of(finished))
    with pytest.raises(InbolError) as caught:
        toy_run(finished, 4, fingerprint="other")
    assert "other settings" in one_line(caught)
    assert sorted(files_of(finished)) == before


def test_a_checkpoint_of_another_model(finished):
    state = init_state({"a": jnp.zeros(3), "c": jnp.zeros(2)}, toy_optimizer())
    with pytest.raises(InbolError) as caught:
        Checkpoints(finished, "toy").restore(state)
    assert "cannot be read" in one_line(caught)


def test_a_checkpoint_folder_that_is_a_file(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InbolError, match="cannot write"):
        toy_run(tmp_path, 2)
