"""Checkpoints that are kept, those that are damaged, and those of another run."""

import gc
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from toy_run import toy_batches, toy_optimizer, toy_run
from training_data import metrics_of

from inbol_jax.errors import InbolError
from inbol_jax.sharding import make_mesh
from inbol_jax.training import run
from inbol_jax.training.checkpoint import Checkpoints, checksums
from inbol_jax.training.config import CheckpointConfig, SftConfig
from inbol_jax.training.parallel import Jit
from inbol_jax.training.step import init_state


def steps_kept(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_the_newest_checkpoints_are_kept(tmp_path):
    toy_run(tmp_path, 9, save_steps=2)
    assert steps_kept(tmp_path / "checkpoints") == [8, 9]


def test_the_best_checkpoint_is_kept_as_well(tmp_path, capsys):
    """Also after the run was resumed; of equally good ones the newest."""

    def batches(start):
        for i, batch in enumerate(toy_batches(start), start + 1):
            yield batch | {"x": np.full(8, min(i, 4) if i < 6 else -i, np.float32)}

    options = {"save_steps": 1, "save_total_limit": 1, "metric_for_best_model": "weighted"}
    toy_run(tmp_path, 7, lambda start: itertools.islice(batches(start), 7 - start), **options)
    assert steps_kept(tmp_path / "checkpoints") == [5, 7]
    capsys.readouterr()
    toy_run(tmp_path, 9, batches, **options)
    assert steps_kept(tmp_path / "checkpoints") == [5, 9]
    assert capsys.readouterr().out == (
        "toy: the model is that of the last step, 9; of the checkpoints, that of step 5 has the "
        "best weighted and is kept as well\n"
    )
    best = min(metrics_of(tmp_path), key=lambda row: row["loss"])["step"]
    toy_run(tmp_path / "loss", 9, batches, **options | {"metric_for_best_model": "loss"})
    assert steps_kept(tmp_path / "loss" / "checkpoints") == sorted({best, 9})
    with pytest.raises(InbolError, match="--metric-for-best-model f1: choose among loss, weighted"):
        toy_run(tmp_path / "f1", 2, **options | {"metric_for_best_model": "f1"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"save_total_limit": 0}, "--save-total-limit 0"),
        ({"metric_for_best_model": "eval/loss"}, "needs --eval-data"),
        (
            {"metric_for_best_model": "eval/loss", "eval_data": "x", "save_steps": 150},
            "a multiple of --eval-steps 100",
        ),
    ],
)
def test_options_of_retention_that_cannot_be_meant(options, words):
    with pytest.raises(InbolError, match=words):
        SftConfig.from_options(data="x", out="y", **options)


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


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(finished, damage, capsys):
    """One line names it, and the run goes on from the one before. If none is left, it is an
    error."""
    folder = finished / "checkpoints"
    whole = toy_run(finished, 4, save_steps=2)
    DAMAGES[damage](folder / "4")
    resumed = toy_run(finished, 4, save_steps=2)
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((resumed, whole)))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder / '4'} is damaged (")
    assert line.endswith("going on from step 2")
    assert len(list(folder.glob("4.damaged.*"))) == 1
    assert steps_kept(folder) == [2, 4]
    before = sorted(folder.iterdir())
    for step in ("2", "4"):
        DAMAGES[damage](folder / step)
    with pytest.raises(InbolError, match=r"no checkpoint in .* can be read") as caught:
        toy_run(finished, 4, save_steps=2)
    assert "delete it" in one_line(caught)
    assert sorted(folder.iterdir()) == before


def cut(data):
    return data[: len(data) // 2]


def flip(place):
    def change(data):
        i = int(place * (len(data) - 1))
        return data[:i] + bytes([data[i] ^ 4]) + data[i + 1 :]

    return change


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_file_truncated_and_flipped_in_turn(tmp_path, capsys):
    """What is restored is a state that was saved, to the bit; never an error, never another."""
    random = np.random.default_rng(0)

    def state(step):
        params = {"a": jnp.asarray(random.normal(size=(8, 40)), jnp.float32)}
        params["b"] = jnp.asarray(random.normal(size=7), jnp.bfloat16)
        return Jit(None, make_mesh()).place(
            init_state(params, toy_optimizer())._replace(step=jnp.int32(step))
        )

    saved = {step: state(step) for step in (2, 4)}
    with Checkpoints(str(tmp_path / "saved"), {"rate": 0.1}) as checkpoints:
        for one in saved.values():
            checkpoints.save(one)
    names = [file.relative_to(tmp_path / "saved") for file in files_of(tmp_path / "saved" / "4")]
    found = []
    for i, name in enumerate(names):
        for j, change in enumerate((cut, flip(0.0), flip(0.5))):
            folder = tmp_path / f"{i}.{j}"
            shutil.copytree(tmp_path / "saved", folder)
            (folder / name).write_bytes(change((folder / name).read_bytes()))
            with Checkpoints(str(folder), {"rate": 0.1}) as checkpoints:
                restored = checkpoints.restore(saved[2])
            step = int(restored.step)
            jax.tree.map(np.testing.assert_array_equal, restored, saved[step])
            found.append(step)
    gc.collect()  # orbax leaves coroutines of failed reads, which warn when they are collected
    assert set(found) == {2, 4}
    assert "arrays are not what was saved" in capsys.readouterr().out


def test_a_checksum_finds_every_change_and_no_other_layout():
    x = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    changed = {"as it is": x, "swapped": x[::-1], "moved": np.roll(x, 1), "signs": -x}
    for i in range(32):
        one = x.copy()
        one.view(np.uint32)[3, i % 16] ^= np.uint32(1) << i
        changed[i] = one
    assert len({checksums(y)[0] for y in changed.values()}) == len(changed)
    assert checksums([jnp.bool(True), jnp.zeros((0,)), jnp.float16(1)]) != checksums(
        [jnp.bool(False), jnp.zeros((0,)), jnp.float16(1)]
    )


def test_a_checkpoint_of_another_run(finished):
    """The difference is shown, nothing is touched, and `resume_anyway` says what may differ."""
    before = sorted(files_of(finished))
    ours = {"toy": "toy", "learning_rate": 1e-4, "targets": ("a", "b"), "base": None}
    with pytest.raises(InbolError) as caught:
        toy_run(finished, 4, settings=ours)
    assert "other settings (--base null, the" not in one_line(caught)  # what is not there is null
    assert "--learning-rate 0.0001, the folder's run has null" in one_line(caught)
    with pytest.raises(InbolError, match="--toy other, the folder's run has toy"):
        toy_run(finished, 4, fingerprint="other")
    assert sorted(files_of(finished)) == before
    with pytest.raises(InbolError, match="--resume-anyway seed: choose among base, learning_rate"):
        toy_run(finished, 6, settings=ours, resume_anyway=("seed",))
    names = ("--learning-rate", "targets")
    assert int(toy_run(finished, 6, settings=ours, resume_anyway=names).step) == 6
    assert int(toy_run(finished, 6, settings=ours).step) == 6


def test_a_checkpoint_of_another_model(finished):
    state = init_state({"a": jnp.zeros(3), "c": jnp.zeros(2)}, toy_optimizer())
    with pytest.raises(InbolError) as caught:
        Checkpoints(str(finished / "checkpoints"), {"toy": "toy"}).restore(state)
    assert "can be read" in one_line(caught)


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
    Checkpoints(CheckpointConfig(checkpoint_dir="gs://bucket/run").checkpoint_dir, {})
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
