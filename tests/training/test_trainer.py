"""A run that is interrupted ends where an unbroken one does; the log, evaluation, and the stop if
updates are not finite."""

import itertools
import os
import signal
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_run import toy_batches, toy_run
from training_data import metrics_of, random_batch, run_sft, weights_of

from inbol_jax.errors import InbolError
from inbol_jax.interruption import Interrupted, handling_signals, has_come
from inbol_jax.models.packing import collate
from inbol_jax.sharding import make_mesh
from inbol_jax.training.config import FROZEN, OptimizerConfig, SftConfig
from inbol_jax.training.model import split_variables
from inbol_jax.training.sft import sft_objective
from inbol_jax.training.step import TrainProgram, make_optimizer, make_train_step
from inbol_jax.training.trainer import MAX_SKIPPED_IN_A_ROW, Trainer


def same_state(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """`unbroken(**options)`: the state and the log of such a run of twenty steps, trained once."""
    runs = {}

    def whole(**options):
        key = str(options)
        if key not in runs:
            out = tmp_path_factory.mktemp("whole")
            runs[key] = toy_run(out, 20, **options), (out / "metrics.jsonl").read_text()
        return runs[key]

    return whole


def assert_ends_as(whole, broken, start, options):
    """The broken run goes on from a step, and ends in state and log where `whole` did."""
    asked = []

    def batches(start):
        asked.append(start)
        return toy_batches(start)

    same_state(toy_run(broken, 20, batches, **options), whole[0])
    assert asked == [start]
    assert (broken / "metrics.jsonl").read_text() == whole[1]


@pytest.mark.parametrize(
    ("save_steps", "logging_steps", "stop_at"), [(3, 3, 5), (5, 10, 7), (3, 2, 4), (50, 3, 9)]
)
def test_an_interrupted_run_ends_where_an_unbroken_one_does(
    unbroken, tmp_path, save_steps, logging_steps, stop_at
):
    options = {"save_steps": save_steps, "logging_steps": logging_steps}
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, 20, lambda start: toy_batches(start, stop_at), **options)
    assert_ends_as(unbroken(**options), tmp_path, stop_at // save_steps * save_steps, options)


@pytest.fixture
def signals_count():
    """A process in the background of a shell inherits that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("signals_count")
@pytest.mark.parametrize(
    ("number", "code", "stop_at"),
    [(signal.SIGINT, 130, 3), (signal.SIGTERM, 143, 5), (signal.SIGTERM, 143, 19)],
)
def test_a_signal_saves_the_step_and_the_metrics_that_have_no_row(
    unbroken, tmp_path, number, code, stop_at
):
    """The signal comes while step `stop_at` + 1 waits for its batch."""
    options = {"save_steps": 8, "logging_steps": 4}

    def batches(start):
        for i, batch in enumerate(toy_batches(start), start):
            if i == stop_at:
                send(number)
            yield batch

    with handling_signals(), pytest.raises(Interrupted) as caught:
        toy_run(tmp_path, 20, batches, **options)
    assert caught.value.exit_code == code
    assert_ends_as(unbroken(**options), tmp_path, stop_at + 1, options)


def send(number):
    os.kill(os.getpid(), number)
    while not has_come():
        time.sleep(0.001)


MOMENTS = [("evaluating", 4), ("evaluating", 8), ("evaluating", 20), ("logging", 8)]
MOMENTS += [("saving", 8), ("saving", 20), ("after the log", 4)]


@pytest.mark.usefixtures("signals_count")
@pytest.mark.parametrize(("moment", "stop_at"), MOMENTS)
def test_a_signal_at_any_moment_saves_the_last_finished_step(
    unbroken, tmp_path, monkeypatch, moment, stop_at
):
    """In the midst of an evaluation (which is done again), of a row, of a save. Steps 4, 8 and 20
    are evaluated, 8 is saved, 20 is the last one.
    """
    options = {"save_steps": 8, "logging_steps": 2, "eval_steps": 4, "eval_data": Path("other")}
    options["evaluation"] = quiet
    here = lambda step: send(signal.SIGTERM) if step == stop_at and not has_come() else None  # noqa: E731

    def during(name):
        real = getattr(Trainer, name)

        def changed(self, *args, **kwargs):
            here(self.step)
            return real(self, *args, **kwargs)

        monkeypatch.setattr(Trainer, name, changed)

    broken = options | {"evaluation": here} if moment == "evaluating" else options
    if moment != "evaluating":
        names = {"logging": "_write_row", "saving": "_save", "after the log": "_check_finite"}
        during(names[moment])
    for _ in range(2 if moment == "evaluating" else 1):  # what is evaluated again is cut off again
        with handling_signals():
            try:
                toy_run(tmp_path, 20, **broken)
                came = False
            except Interrupted:
                came = True
    monkeypatch.undo()
    assert came or stop_at == 4, "nothing is saved at step 4"
    saved = [int(f.name) for f in (tmp_path / "checkpoints").iterdir() if f.name.isdigit()]
    assert max(saved) in (stop_at, stop_at + 1) or not came
    ends, whole = toy_run(tmp_path, 20, **options), unbroken(**options)
    same_state(ends, whole[0])
    assert (tmp_path / "metrics.jsonl").read_text() == whole[1]


def quiet(step):
    """What happens in an evaluation: nothing."""


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    first = toy_run(tmp_path, 6)
    log = (tmp_path / "metrics.jsonl").read_bytes()
    batches = lambda start: iter(()) if start == 6 else pytest.fail("it begins anew")  # noqa: E731
    same_state(toy_run(tmp_path, 6, batches), first)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


def test_metrics_are_sums_divided_once_and_in_the_log_at_once(tmp_path):
    steps = 7

    def batches(start):
        for i, batch in enumerate(toy_batches(start), start):
            assert i < 4 or metrics_of(tmp_path)
            yield batch

    toy_run(tmp_path, steps, batches, logging_steps=3)
    rows = metrics_of(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 7]
    for row, (start, end) in zip(rows, ((0, 3), (3, 6), (6, 7)), strict=True):
        x = np.concatenate([b["x"] for b in itertools.islice(toy_batches(start), end - start)])
        assert row["weighted"] == pytest.approx(x.mean(), abs=1e-6)


def test_a_loss_that_is_not_finite(tmp_path):
    """Training stops, and no checkpoint of a broken model stays behind to be resumed from."""

    def batches(start):
        for i, batch in enumerate(toy_batches(start), start):
            yield batch | ({"y": batch["y"] * np.float32(np.nan)} if i == 4 else {})

    with pytest.raises(InbolError, match="toy: the loss is nan at step"):
        toy_run(tmp_path, 20, batches, save_steps=2, logging_steps=10)
    assert np.isfinite(float(toy_run(tmp_path, 20, save_steps=2, logging_steps=10).params["a"]))


def test_training_stops_after_too_many_updates_in_a_row(micro, tmp_path):
    """Some in between are counted and passed over."""
    good = collate(random_batch(micro.config, 2), 2)
    bad = good | {"pixel_values": good["pixel_values"] * np.float32(np.nan)}
    trainable, frozen = split_variables(micro.variables, FROZEN)
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-3), 32)
    step = make_train_step(sft_objective(micro.model), optimizer)
    program = TrainProgram(optimizer, step, lambda *_: {})

    def train(out, wrong):
        config = SftConfig.from_options(data=out, out=out, logging_steps=8)
        trained = jax.tree.map(jnp.array, trainable)  # the state is given away
        trainer = Trainer(config, program, trained, frozen, make_mesh(), {"stage": "toy"}, 32)
        trainer.fit(lambda _: (bad if i in wrong else good for i in range(32)))

    assert MAX_SKIPPED_IN_A_ROW == 10
    train(tmp_path / "some", {1, 2, *range(14, 24)})
    rows = metrics_of(tmp_path / "some")
    assert [row["skipped"] for row in rows] == [0.25, 0.25, 1.0, 0.0]
    assert "loss" not in rows[2]
    assert all(np.isfinite(v) for row in rows for v in row.values())
    with pytest.raises(InbolError, match="toy: 12 updates in a row were not finite at step 16"):
        train(tmp_path / "many", set(range(4, 20)))
    skipped = [row["skipped"] for row in metrics_of(tmp_path / "many")]
    assert skipped == [0.5, 1.0], "the log says how it came to that"


def test_a_damaged_log_is_named(tmp_path):
    toy_run(tmp_path, 4)
    (tmp_path / "metrics.jsonl").write_text("{")
    with pytest.raises(InbolError, match=r"metrics\.jsonl: not a log of training"):
        toy_run(tmp_path, 4)


def test_evaluation_changes_nothing_but_the_log(data, micro, tmp_path):
    """At the same steps whatever the batches are."""
    options = {"batch_size": 6, "epochs": 4, "learning_rate": 1e-3}
    options["gradient_accumulation_steps"] = 2
    plain = run_sft(data, micro.path, tmp_path / "plain", **options)
    options |= {"eval_data": data / "instructions.jsonl"}
    watched = run_sft(data, micro.path, tmp_path / "watched", eval_steps=4, **options)
    for key, x in weights_of(plain).items():
        np.testing.assert_array_equal(weights_of(watched)[key], x)
    rows = metrics_of(tmp_path / "watched", rates=True)
    assert all(row["tokens_per_second"] > 0 for row in rows[1:])
    assert [row["step"] for row in rows if "eval/loss" in row] == [4, 8, 11]
    assert not any("eval/loss" in row for row in metrics_of(tmp_path / "plain"))
    assert rows[-1]["eval/loss"] < rows[0]["eval/loss"]
