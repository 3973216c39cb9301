import dataclasses
import functools
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from stage_data import (
    instructions,
    mean_loss,
    metrics_of,
    objectives,
    preferences,
    random_batch,
    weights_of,
    write_jsonl,
)

from inbol_jax.artifacts import read_jsonl
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.losses import LOSSES, ca_dpo_loss, linear, sequence_logprob, value
from inbol_jax.models.loading import load_pretrained, save_pretrained
from inbol_jax.models.packing import Branch, RowShape, pack_row, stack
from inbol_jax.records import PairKind, Preference
from inbol_jax.sharding import make_mesh, round_batch
from inbol_jax.training import ca_dpo as ca_dpo_stage
from inbol_jax.training import parallel
from inbol_jax.training.ca_dpo import DpoConfig, ca_dpo, reference_logprobs
from inbol_jax.training.checkpoint import Checkpoints
from inbol_jax.training.input import WINDOW, Rows, bucket_shapes, stream, training_order
from inbol_jax.training.loop import fit
from inbol_jax.training.parallel import Jit
from inbol_jax.training.sft import SftConfig, idk_it
from inbol_jax.training.stage import FROZEN
from inbol_jax.training.state import init_state, make_optimizer, merge_variables, split_variables
from inbol_jax.training.step import (
    CHUNK,
    ca_dpo_objective,
    make_train_step,
    sft_objective,
    target_logprobs,
)

ROOT = Path(__file__).parents[2]


# --- parameters and optimizer


def test_split_and_merge(tiny):
    trainable, frozen = split_variables(tiny.variables, FROZEN)
    assert not trainable.keys() & frozen.keys()
    assert all(path.startswith("params/vision_tower/") or "embed_tokens" in path for path in frozen)
    assert not any(
        path.startswith("params/vision_tower/") or "embed_tokens" in path for path in trainable
    )
    merged, expected = (
        flatten_dict(merge_variables(trainable, frozen)),
        flatten_dict(dict(tiny.variables)),
    )
    assert merged.keys() == expected.keys()
    assert all(merged[path] is expected[path] for path in expected)
    everything, nothing = split_variables(tiny.variables, ())
    assert (len(everything), nothing) == (len(expected), {})


@pytest.mark.parametrize("frozen", [("^decoder/",), (*FROZEN, "lora")])
def test_a_pattern_that_freezes_nothing_is_named(tiny, frozen):
    with pytest.raises(InbolError, match=re.escape(repr(frozen[-1])) + " matches no parameter"):
        split_variables(tiny.variables, frozen)


def test_nothing_left_to_train(tiny):
    with pytest.raises(InbolError, match="leaves no parameter"):
        split_variables(tiny.variables, ("vision_tower", "projector", "language_model"))


def test_a_pattern_that_is_no_expression(tiny):
    with pytest.raises(InbolError, match=re.escape("'*norm'")):
        split_variables(tiny.variables, ("*norm",))


def updates(optimizer, params, gradients):
    """The updates of one parameter tree under a series of gradients."""
    state, found = optimizer.init(params), []
    for gradient in gradients:
        update, state = optimizer.update(gradient, state, params)
        found.append(update)
    return found


def test_learning_rate_rises_and_falls():
    """AdamW under a constant gradient moves by the learning rate itself, whatever the gradient."""
    params, n, peak = {"w": jnp.ones(1)}, 50, 0.01
    found = [
        -float(u["w"][0])
        for u in updates(make_optimizer(peak, n), params, [{"w": jnp.full(1, 0.5)}] * n)
    ]
    rise = 5
    expected = [peak * i / rise for i in range(rise)] + [
        peak * (1 + np.cos(np.pi * i / (n - rise))) / 2 for i in range(n - rise)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_short_runs_have_a_schedule(steps):
    found = updates(make_optimizer(0.01, steps), {"w": jnp.ones(1)}, [{"w": jnp.ones(1)}] * steps)
    assert np.isfinite([float(u["w"][0]) for u in found]).all()
    if steps > 1:
        assert any(u["w"][0] != 0 for u in found)


def test_one_step_trains():
    """A run of one update updates something."""
    (update,) = updates(make_optimizer(0.01, 1), {"w": jnp.ones(1)}, [{"w": jnp.ones(1)}])
    assert update["w"][0] < 0


def test_weight_decay_spares_vectors():
    params = {"matrix": jnp.ones((2, 2)), "norm": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    *_, last = updates(make_optimizer(0.01, 20, weight_decay=0.5), params, [zero] * 3)
    np.testing.assert_allclose(last["matrix"], -0.01 * 0.5, rtol=1e-5)
    assert (last["norm"] == 0).all()


def test_gradients_are_clipped_by_their_common_norm():
    optimizer = make_optimizer(0.01, 20)
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    state = optimizer.init(params)
    _, state = optimizer.update({"a": jnp.full(1, 30.0), "b": jnp.full(1, 40.0)}, state, params)
    moments = [
        s
        for s in jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, optax.ScaleByAdamState))
        if hasattr(s, "mu")
    ]
    np.testing.assert_allclose(
        [moments[0].mu["a"][0], moments[0].mu["b"][0]], [0.1 * 0.6, 0.1 * 0.8], rtol=1e-5
    )


# --- the objectives


@functools.partial(jax.jit, static_argnums=(0, 1))
def value_and_gradient(model, name, params, batch):
    return jax.value_and_grad(
        lambda p: mean_loss(objectives(model)[name], {"params": p}, batch), has_aux=True
    )(params)


def means(metrics):
    return {
        name: float(total) / float(weight) for name, (total, weight) in metrics.items() if weight
    }


@pytest.mark.parametrize("name", ["IDK-IT", "CA-DPO"])
def test_rows_that_fill_up_the_batch_do_not_matter(micro, name):
    loaded = micro
    rows, params = random_batch(loaded.config, 3), loaded.variables["params"]
    (loss, metrics), gradient = value_and_gradient(loaded.model, name, params, stack(rows, 3))
    (padded, padded_metrics), padded_gradient = value_and_gradient(
        loaded.model, name, params, stack(rows, 8)
    )
    assert padded == pytest.approx(float(loss), rel=1e-5)
    assert means(padded_metrics) | {"padding": 0} == pytest.approx(
        means(metrics) | {"padding": 0}, rel=1e-5
    )
    assert optax.tree.norm(gradient) > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4),
        padded_gradient,
        gradient,
    )


@pytest.mark.parametrize("name", ["IDK-IT", "CA-DPO"])
def test_order_of_rows_does_not_matter(micro, name):
    loaded, rows = micro, random_batch(micro.config, 3)
    params = loaded.variables["params"]
    (loss, _), gradient = value_and_gradient(loaded.model, name, params, stack(rows, 3))
    (again, _), other = value_and_gradient(loaded.model, name, params, stack(rows[::-1], 3))
    assert again == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4), other, gradient
    )


@functools.partial(jax.jit, static_argnums=0)
def all_logprobs(model, variables, batch):
    return jax.nn.log_softmax(model.apply(variables, batch))


def own_logprobs(loaded, row):
    """Log-probabilities of each branch of a packed row's tokens, by the plain forward of a row of its own."""
    found = []
    for segment in (1, 2):
        here = row["segments"] == segment
        ids = np.concatenate([row["input_ids"][row["segments"] == 0], row["input_ids"][here]])
        padded, mask = (
            np.pad(ids, (0, 40 - len(ids)))[None],
            (np.arange(40) < len(ids)).astype(np.int32)[None],
        )
        whole = {
            "input_ids": padded,
            "attention_mask": mask,
            "pixel_values": row["pixel_values"][None],
        }
        n, logprobs = (
            int(here.sum()),
            np.asarray(all_logprobs(loaded.model, loaded.variables, whole))[0, : len(ids)],
        )
        found.append(np.take_along_axis(logprobs[-n - 1 : -1], ids[-n:, None], 1)[:, 0])
    return found


def test_objectives_are_their_definitions(micro):
    """Against log-probabilities from plain forwards, branch by branch."""
    loaded, rows = micro, random_batch(micro.config, 3)
    each = [own_logprobs(loaded, row) for row in rows]
    params, batch = loaded.variables["params"], stack(rows, 3)
    tokens = np.concatenate([x for pair in each for x in pair])
    (loss, metrics), _ = value_and_gradient(loaded.model, "IDK-IT", params, batch)
    assert float(loss) == pytest.approx(-tokens.mean(), rel=1e-4)
    assert float(metrics["loss"][1]) == len(tokens)

    chosen, rejected = (np.array([pair[i].sum() for pair in each]) for i in (0, 1))
    nll = -np.array([pair[0].mean() for pair in each])
    (loss, metrics), _ = value_and_gradient(loaded.model, "CA-DPO", params, batch)
    confidence, kind = batch["confidence"], batch["kind"]
    dpo = ca_dpo_loss(
        chosen,
        rejected,
        batch["ref_chosen"],
        batch["ref_rejected"],
        confidence,
        kind,
        beta=0.3,
        scheme="linear",
    )
    weight = np.asarray(linear(confidence, kind))
    assert len(set(weight.tolist())) > 1
    assert float(loss) == pytest.approx(float((dpo + 0.5 * weight * nll).mean()), rel=1e-4)
    reward = 0.3 * ((chosen - batch["ref_chosen"]) - (rejected - batch["ref_rejected"]))
    expected = {
        "loss": float(loss),
        "dpo": float(dpo.mean()),
        "nll": nll.mean(),
        "reward_margin": reward.mean(),
        "reward_accuracy": (reward > 0).mean(),
        "logprob_chosen": chosen.mean(),
        "logprob_rejected": rejected.mean(),
        "tokens": (batch["segments"] >= 0).sum() / 3,
        "padding": (batch["segments"] < 0).mean(),
    }
    for of in PairKind:
        if (among := kind == of).any():
            expected[f"reward_margin/{of.name.lower()}"] = reward[among].mean()
            expected[f"reward_accuracy/{of.name.lower()}"] = (reward > 0)[among].mean()
    assert means(metrics) == pytest.approx(expected, rel=1e-3, abs=1e-4)


VARIANTS = [(name, {}) for name in LOSSES if name != "robust"] + [
    (name, {"label_smoothing": 0.2}) for name in ("sigmoid", "robust")
]


@pytest.mark.parametrize("length_normalized", [False, True])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_the_objective_of_every_loss(micro, name, options, length_normalized):
    """The weighted loss of sums, or of averages, and the anchor, which is an average either way."""
    batch = stack(random_batch(micro.config, 3), 3)
    objective = ca_dpo_objective(
        micro.model,
        beta=0.3,
        scheme="value",
        anchor=0.5,
        loss=name,
        length_normalized=length_normalized,
        **options,
    )
    loss, metrics = mean_loss(objective, micro.variables, batch)
    logprobs = target_logprobs(micro.model, micro.variables, batch)
    of_branch = [batch["target_segment"] == branch for branch in (1, 2)]
    arguments = [sequence_logprob(logprobs, mask, average=length_normalized) for mask in of_branch]
    arguments += [batch["ref_chosen"], batch["ref_rejected"]]
    weight = value(batch["confidence"], batch["kind"])
    nll = -sequence_logprob(logprobs, of_branch[0], average=True)
    pair = weight * LOSSES[name](*arguments, beta=0.3, **options)
    assert float(loss) == pytest.approx(float((pair + 0.5 * weight * nll).mean()), rel=1e-5)
    expected = {
        "dpo": pair,
        "nll": nll,
        "logprob_chosen": arguments[0],
        "logprob_rejected": arguments[1],
    }
    for metric, values in expected.items():
        assert means(metrics)[metric] == pytest.approx(float(values.mean()), rel=1e-5, abs=1e-6), (
            metric
        )


def test_chunks_of_targets_change_nothing(micro):
    batch = stack(random_batch(micro.config, 3), 3)
    whole = np.asarray(target_logprobs(micro.model, micro.variables, batch, chunk=None))
    assert whole.shape[1] == 12
    for chunk in (1, 5, CHUNK):
        np.testing.assert_allclose(
            target_logprobs(micro.model, micro.variables, batch, chunk=chunk), whole, atol=1e-5
        )


@pytest.mark.parametrize("name", ["IDK-IT", "CA-DPO"])
def test_long_responses_have_the_logits_of_a_chunk_at_a_time(micro, name):
    rows, targets, words = 2, 300, micro.config.text.vocab_size
    batch = stack(random_batch(micro.config, rows), rows)
    batch |= {
        key: np.resize(batch[key], (rows, targets))
        for key in ("targets", "target_index", "target_segment")
    }
    gradient = jax.grad(lambda p: objectives(micro.model)[name]({"params": p}, batch)["loss"][0])
    program = str(jax.make_jaxpr(gradient)(micro.variables["params"]))
    shapes = [
        tuple(map(int, found.split(",")))
        for found in re.findall(rf"f32\[((?:\d+,)+{words})\]", program)
    ]
    assert max(np.prod(shape[:-1]) for shape in shapes) == rows * -(
        -targets // -(-targets // CHUNK)
    )


@pytest.mark.parametrize("average", [False, True])
def test_the_reference_is_the_model_before_training(micro, average):
    """In the order of the rows, whatever the batches; the margin over it is zero at the start."""
    loaded, rows = micro, random_batch(micro.config, 5)

    class Plain(Counted):
        def batch(self, indices, mine):
            found = [{k: v for k, v in rows[i].items() if not k.startswith("ref")} for i in indices]
            return stack(found, len(mine))

    found = reference_logprobs(loaded, Plain(5), batch_size=2, mesh=make_mesh(), average=average)
    assert found.shape == (5, 2)
    expected = [
        [logprobs.mean() if average else logprobs.sum() for logprobs in own_logprobs(loaded, row)]
        for row in rows
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_step_leaves_the_frozen_parameters_alone(micro):
    """They have no gradient and no optimizer state; all others move. The norm of the gradient is that before clipping."""
    loaded = micro
    trainable, frozen = split_variables(loaded.variables, FROZEN)
    optimizer = make_optimizer(0.01, 10)
    state = init_state(trainable, optimizer)
    leaves = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
    assert leaves == 2 * sum(x.size for x in trainable.values())
    objective = sft_objective(loaded.model)

    def steep(variables, batch, key):
        total, weight = objective(variables, batch, key)["loss"]
        return {"loss": (1000 * total, weight)}

    step = jax.jit(make_train_step(steep, optimizer))
    batch = stack(random_batch(loaded.config), 4)
    for _ in range(2):  # the first has learning rate 0
        state, metrics = step(state, frozen, batch)
    assert int(state.step) == 2
    assert metrics["gradient_norm"][0] > 10  # clipped it is 1
    assert state.params.keys() == trainable.keys()
    assert {
        path for path, value in state.params.items() if (value == trainable[path]).all()
    } == set()


# --- the loop, on a model of two numbers


def toy_step(state, frozen, batch):
    """Gradient descent on a straight line; the learning rate and its moments make the state matter."""
    optimizer = toy_optimizer()

    def loss(params):
        return jnp.mean((params["a"] * batch["x"] + frozen["b"] - batch["y"]) ** 2)

    value, gradient = jax.value_and_grad(loss)(state.params)
    update, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    one = jnp.ones(())
    metrics = {"loss": (value, one), "weighted": (batch["x"].sum(), jnp.float32(batch["x"].size))}
    return state._replace(
        step=state.step + 1, params=optax.apply_updates(state.params, update), opt_state=opt_state
    ), metrics


def toy_optimizer():
    return optax.adam(optax.linear_schedule(0.1, 0.01, 20))


def toy_batches(start, stop_at=None, steps=1000):
    for i in range(start, steps):
        if i == stop_at:
            raise KeyboardInterrupt
        x = np.random.default_rng(i).normal(size=8).astype(np.float32)
        yield {"x": x, "y": 3 * x + 1}


def toy_fit(out, steps, batches=toy_batches, step=toy_step, identity="toy", **options):
    state = init_state({"a": jnp.zeros(())}, toy_optimizer())
    frozen = {"b": jnp.ones(())}
    return fit(
        Jit(step, make_mesh()),
        state,
        frozen,
        batches,
        steps,
        out=out,
        identity=identity,
        label="toy",
        **options,
    )


def same_state(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.mark.parametrize(
    ("checkpoint_every", "log_every", "stop_at"),
    [(3, 3, 3), (3, 3, 5), (5, 10, 7), (3, 2, 4), (4, 5, 17), (50, 3, 9)],
)
def test_an_interrupted_run_ends_where_an_unbroken_one_does(
    tmp_path, checkpoint_every, log_every, stop_at
):
    steps, options = 20, {"checkpoint_every": checkpoint_every, "log_every": log_every}
    whole = toy_fit(tmp_path / "whole", steps, **options)
    with pytest.raises(KeyboardInterrupt):
        toy_fit(tmp_path / "broken", steps, lambda start: toy_batches(start, stop_at), **options)
    asked = []

    def batches(start):
        asked.append(start)
        return toy_batches(start)

    resumed = toy_fit(tmp_path / "broken", steps, batches, **options)
    assert asked == [stop_at // checkpoint_every * checkpoint_every]
    same_state(resumed, whole)
    assert (tmp_path / "broken" / "metrics.jsonl").read_text() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_text()


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    first = toy_fit(tmp_path, 6)
    log = (tmp_path / "metrics.jsonl").read_bytes()
    same_state(
        toy_fit(
            tmp_path,
            6,
            lambda start: pytest.fail("a batch was asked for") if start < 6 else iter(()),
        ),
        first,
    )
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


def test_metrics_are_sums_divided_once(tmp_path):
    steps = 7
    toy_fit(tmp_path, steps, log_every=3)
    rows = metrics_of(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 7]
    for row, (start, end) in zip(rows, ((0, 3), (3, 6), (6, 7)), strict=True):
        x = np.concatenate([b["x"] for b in itertools.islice(toy_batches(start), end - start)])
        assert row["weighted"] == pytest.approx(x.mean(), abs=1e-6)


def test_the_newest_checkpoints_are_kept(tmp_path):
    toy_fit(tmp_path, 9, checkpoint_every=2)
    assert sorted(
        int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()
    ) == [8, 9]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(tmp_path, wrong):
    """Training stops, and no checkpoint of a broken model stays behind to be resumed from."""

    def batches(start):
        for i, batch in enumerate(toy_batches(start), start):
            yield batch | ({"y": batch["y"] * np.float32(wrong)} if i == 4 else {})

    with pytest.raises(InbolError, match=r"toy: the loss is (nan|inf) at step"):
        toy_fit(tmp_path, 20, batches, checkpoint_every=2, log_every=10)
    assert np.isfinite(float(toy_fit(tmp_path, 20, checkpoint_every=2, log_every=10).params["a"]))


def test_data_that_end_too_early(tmp_path):
    with pytest.raises(InbolError, match="the data ended after 4 of 6 steps"):
        toy_fit(tmp_path, 6, lambda start: toy_batches(start, steps=4))


# --- checkpoints that cannot be used


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert "checkpoints" in message
    return message


@pytest.fixture
def finished(tmp_path):
    toy_fit(tmp_path, 4, checkpoint_every=2)
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
    "identity gone": lambda folder: shutil.rmtree(folder / "identity"),
    "empty": lambda folder: [
        shutil.rmtree(p) if p.is_dir() else p.unlink() for p in folder.iterdir()
    ],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_corrupt_checkpoint(finished, damage):
    """One error that names the folder; once that is deleted, the run goes on from the one before."""
    newest = finished / "checkpoints" / "4"
    DAMAGES[damage](newest)
    with pytest.raises(InbolError) as caught:
        toy_fit(finished, 4, checkpoint_every=2)
    assert str(newest) in one_line(caught)
    shutil.rmtree(newest)
    assert int(toy_fit(finished, 4, checkpoint_every=2).step) == 4


def test_a_checkpoint_of_another_run(finished):
    before = sorted(files_of(finished))
    with pytest.raises(InbolError) as caught:
        toy_fit(finished, 4, identity="other")
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
        toy_fit(tmp_path, 2)


# --- the order of the data


class Counted:
    """Rows that are their own numbers."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def batch(self, indices, mine):
        own = [int(indices[i]) for i in mine if i < len(indices)]
        return stack([{"i": np.int32(i)} for i in own or indices[:1]], len(mine), valid=len(own))


def batches_of(n, size, epochs, seed, start, *, lengths=None, mine=None):
    order = training_order(lengths or [1] * n, size, epochs, seed, grouped=lengths is not None)
    return list(
        stream(
            Counted(n),
            order,
            np.arange(size) if mine is None else mine,
            start,
            -(-n * epochs // size),
        )
    )


def test_every_row_once_an_epoch():
    n, size, epochs = 10, 4, 3
    batches = batches_of(n, size, epochs, seed=0, start=0)
    assert len(batches) == -(-n * epochs // size)
    assert all(len(b["i"]) == size for b in batches)
    rows = np.concatenate([b["i"][b["valid"]] for b in batches])
    passes = rows.reshape(epochs, n)
    assert [sorted(p) for p in passes.tolist()] == [list(range(n))] * epochs
    assert len({tuple(p) for p in passes.tolist()}) == epochs, "each pass has an order of its own"
    again = batches_of(n, size, epochs, seed=0, start=5)
    jax.tree.map(np.testing.assert_array_equal, again, batches[5:])
    other = np.concatenate(
        [b["i"][b["valid"]] for b in batches_of(n, size, epochs, seed=1, start=0)]
    )
    assert rows.tolist() != other.tolist()


def test_batches_larger_than_the_data():
    (batch,) = batches_of(3, 8, 1, seed=0, start=0)
    assert batch["valid"].tolist() == [True] * 3 + [False] * 5
    assert sorted(batch["i"][:3].tolist()) == [0, 1, 2]


def test_each_process_makes_its_own_rows():
    """Together they make the batches of one process; where one has no row left in the last batch, none of what it makes counts."""
    whole = batches_of(9, 8, 1, seed=0, start=0)
    shares = [
        batches_of(9, 8, 1, seed=0, start=0, mine=mine) for mine in (np.arange(4), np.arange(4, 8))
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        np.testing.assert_array_equal(np.concatenate([p["valid"] for p in parts]), batch["valid"])
        np.testing.assert_array_equal(
            np.concatenate([p["i"][p["valid"]] for p in parts]), batch["i"][batch["valid"]]
        )
    assert whole[-1]["valid"].tolist() == [True] + [False] * 7


@pytest.mark.parametrize(("n", "size", "epochs"), [(200, 4, 2), (5, 4, 1), (130, 8, 3), (64, 4, 1)])
def test_rows_of_like_length_come_together(n, size, epochs):
    lengths = np.random.default_rng(1).integers(1, 100, n).tolist()
    batches = batches_of(n, size, epochs, seed=0, start=0, lengths=lengths)
    found = [b["i"][b["valid"]].tolist() for b in batches]
    assert [len(rows) for rows in found[:-1]] == [size] * (len(found) - 1)
    counts = np.bincount(np.concatenate(found), minlength=n)
    assert counts.tolist() == [epochs] * n
    later = len(batches) // 2
    assert (
        batches_of(n, size, epochs, seed=0, start=later, lengths=lengths)[0]["i"].tolist()
        == batches[later]["i"].tolist()
    )

    def padding(batches):
        return np.mean(
            [
                1 - np.mean([lengths[i] for i in rows]) / max(lengths[i] for i in rows)
                for rows in batches
            ]
        )

    plain = [b["i"][b["valid"]].tolist() for b in batches_of(n, size, epochs, seed=0, start=0)]
    if len(found) > WINDOW:
        assert padding(found) < padding(plain) / 3
        assert sorted(found[:WINDOW], key=lambda rows: lengths[rows[0]]) != found[:WINDOW], (
            "long and short batches alternate"
        )


def test_shapes_that_rows_are_padded_to(micro):
    """Each batch has the shortest that holds its rows; what is learnt from a row does not depend on it."""
    packed = [([1] * n, [Branch([5, 6, 7][: 1 + n % 3])]) for n in (30, 9, 17, 12, 28, 10)]
    shapes = bucket_shapes(packed, 3)
    assert [s.tokens for s in shapes] == [16, 24, 32]
    assert bucket_shapes(packed, 1) == [RowShape.fitting(packed)]
    assert len(bucket_shapes(packed[:1], 8)) == 1
    rows = Rows(micro, packed, [], shapes)
    object.__setattr__(rows, "make", lambda i, shape: pack_row(*packed[i], shape))
    for indices, tokens in (([1, 5], 16), ([2, 1], 24), ([1, 0], 32)):
        batch = rows.batch(np.array(indices), np.arange(2))
        assert batch["input_ids"].shape == (2, tokens)


@pytest.mark.parametrize("size", [1, 7, 8, 9])
def test_batch_sizes_are_multiples_of_the_devices(size):
    mesh = make_mesh()
    assert round_batch(size, mesh) % mesh.size == 0
    assert size <= round_batch(size, mesh) < size + mesh.size


# --- the two stages


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """IDK-IT of the shipped model on sixteen instructions, many times over."""
    out = tmp_path_factory.mktemp("sft")
    config = SftConfig(
        data=data / "instructions.jsonl", out=out, epochs=12, batch_size=8, learning_rate=2e-3
    )
    return config, idk_it(config)


def test_idk_it_learns_sixteen_instructions(trained, tiny, data, small_world):
    config, model = trained
    rows = metrics_of(config.out)
    assert rows[-1]["step"] == 24
    assert rows[-1]["loss"] < 0.3 * rows[0]["loss"]
    assert model == config.out / "model"
    loaded = load_pretrained(model, dtype=jnp.float32)
    assert loaded.processor.tokenizer.get_vocab() == tiny.processor.tokenizer.get_vocab()


def test_frozen_parameters_are_bit_identical_after_training(trained, tiny):
    before, after = weights_of(tiny.path), weights_of(trained[1])
    assert before.keys() == after.keys()
    same = {key for key in before if (before[key] == after[key]).all()}
    assert same == {
        key for key in before if key.startswith("vision_tower") or "embed_tokens" in key
    }


@pytest.mark.parametrize("named", [False, True])
def test_a_share_of_the_base_is_kept(data, micro, tmp_path, named):
    """(1 - keep) trained + keep base, of the model that training starts from or of the one that is named."""
    config = stage_config("IDK-IT", data, micro, tmp_path / "plain", epochs=1, learning_rate=1e-2)
    trained = weights_of(idk_it(config))
    base = tmp_path / "base"
    if named:
        params = jax.tree.map(lambda x: x + 1.0, dict(micro.variables["params"]))
        save_pretrained(dataclasses.replace(micro, variables={"params": params}), base)
    kept = weights_of(base if named else micro.path)
    found = weights_of(
        idk_it(
            dataclasses.replace(
                config, out=tmp_path / "kept", keep=0.25, base=base if named else None
            )
        )
    )
    moved = 0
    for key, x in found.items():
        np.testing.assert_allclose(x, 0.75 * trained[key] + 0.25 * kept[key], rtol=1e-5, atol=1e-6)
        moved += bool((trained[key] != kept[key]).any())
    assert moved


def test_ca_dpo_learns_sixteen_pairs(data, tmp_path):
    config = DpoConfig(
        data=data / "preferences.jsonl",
        out=tmp_path,
        epochs=15,
        batch_size=16,
        learning_rate=5e-4,
        beta=0.5,
    )
    ca_dpo(dataclasses.replace(config, epochs=1, out=tmp_path / "start", learning_rate=1e-12))
    start = metrics_of(tmp_path / "start")[0]
    # The reference is the model itself before any update.
    assert start["reward_margin"] == pytest.approx(0, abs=1e-3)
    pairs = [Preference.from_json(row) for row in read_jsonl(config.data)]
    weights = np.asarray(
        value(
            jnp.array([p.confidence for p in pairs], jnp.float32),
            jnp.array([p.kind for p in pairs]),
        )
    )
    assert start["dpo"] == pytest.approx(np.log(2) * np.mean(weights), rel=1e-3)
    ca_dpo(config)
    rows = metrics_of(tmp_path)
    assert rows[-1]["step"] == 15
    assert rows[-1]["dpo"] < 0.5 * start["dpo"]
    assert rows[-1]["loss"] < start["loss"]
    assert rows[-1]["reward_margin"] > 2
    assert rows[-1]["reward_accuracy"] > 0.9
    assert rows[-1]["logprob_chosen"] > start["logprob_chosen"]


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "robust", "label_smoothing": 0.1},
        {"loss": "ipo", "length_normalized": True},
        {"loss": "hinge", "reference_free": True},
    ],
    ids=lambda options: " ".join(f"{k} {v}" for k, v in options.items()),
)
def test_every_loss_learns_sixteen_pairs(data, micro, tmp_path, options):
    """Without the anchor, so that it is the loss itself which does it. The first row is of the model before any update."""
    options = {
        "epochs": 16,
        "batch_size": 16,
        "frozen": (),
        "anchor": 0.0,
        "beta": 0.5,
        "learning_rate": 5e-3,
    } | options
    ca_dpo(stage_config("CA-DPO", data, micro, tmp_path, checkpoint_every=1, **options))
    start, *_, end = metrics_of(tmp_path)
    assert (start["step"], end["step"]) == (1, 16)
    assert end["loss"] == pytest.approx(end["dpo"], rel=1e-5)
    assert end["dpo"] < start["dpo"]
    assert end["reward_margin"] > start["reward_margin"] + 0.3
    assert end["reward_accuracy"] > 0.9


def test_a_run_without_reference_does_not_compute_one(data, micro, tmp_path, monkeypatch):
    monkeypatch.setattr(
        ca_dpo_stage,
        "reference_logprobs",
        lambda *_, **__: pytest.fail("the reference was computed"),
    )
    ca_dpo(stage_config("CA-DPO", data, micro, tmp_path, epochs=1, beta=0.5, reference_free=True))
    last = metrics_of(tmp_path)[-1]
    assert last["reward_margin"] == pytest.approx(
        0.5 * (last["logprob_chosen"] - last["logprob_rejected"]), rel=1e-4, abs=1e-4
    )


STAGES = {
    "IDK-IT": (idk_it, SftConfig, "instructions.jsonl"),
    "CA-DPO": (ca_dpo, DpoConfig, "preferences.jsonl"),
}


def stage_config(stage, data, micro, out, **options):
    _, config, file = STAGES[stage]
    options = {"epochs": 3, "batch_size": 8, "checkpoint_every": 2, "learning_rate": 1e-3} | options
    return config(data=data / file, out=out, model=micro.path, **options)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_resumes_exactly(stage, data, micro, tmp_path, monkeypatch):
    """Six steps at once, and three that are interrupted and resumed, end in the same bytes."""
    run = STAGES[stage][0]
    whole = run(stage_config(stage, data, micro, tmp_path / "whole"))
    assert metrics_of(tmp_path / "whole")[-1]["step"] == 6
    shard, count = parallel.shard_batch, itertools.count(1)

    def interrupted(batch, mesh):
        if next(count) == 4:
            raise KeyboardInterrupt
        return shard(batch, mesh)

    monkeypatch.setattr(parallel, "shard_batch", interrupted)
    config = stage_config(stage, data, micro, tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert not (tmp_path / "broken" / "model").exists()
    monkeypatch.undo()
    resumed = run(config)
    assert (resumed / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "whole")
    # And what is done is done.
    run(config)
    assert (resumed / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    # Where the images and the checkpoints lie is not what decides a run; the seed is.
    with pytest.raises(InbolError, match="other settings"):
        run(dataclasses.replace(config, seed=1))


def test_the_stages_build_on_each_other(data, micro, tmp_path):
    first = idk_it(stage_config("IDK-IT", data, micro, tmp_path / "sft", epochs=1))
    second = ca_dpo(
        stage_config(
            "CA-DPO", data, load_pretrained(first, dtype=jnp.float32), tmp_path / "dpo", epochs=1
        )
    )
    a, b, c = weights_of(micro.path), weights_of(first), weights_of(second)
    assert a.keys() == b.keys() == c.keys()
    assert any((b[key] != a[key]).any() for key in a)
    assert any((c[key] != b[key]).any() for key in a)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"batch_size": -8}, "--batch-size -8"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"checkpoint_every": 0}, "--checkpoint-every 0"),
        ({"weight_decay": -1.0}, "--weight-decay -1.0"),
        ({"frozen": ("nothing_like_it",)}, "'nothing_like_it'"),
        ({"keep": 1.0}, "--keep 1.0"),
        ({"keep": -0.1}, "--keep -0.1"),
        ({"keep": 0.1, "base": Path("/nowhere")}, "/nowhere"),
        ({"keep": 0.1, "base": TINY}, "their weights cannot be mixed"),
        ({"data": Path("/nowhere/data.jsonl")}, "/nowhere/data.jsonl"),
        ({"model": Path("/nowhere")}, "/nowhere"),
        ({"images": Path("/nowhere/images")}, "/nowhere/images"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_options_that_cannot_be_meant(stage, data, micro, tmp_path, options, culprit):
    with pytest.raises(InbolError) as caught:
        STAGES[stage][0](dataclasses.replace(stage_config(stage, data, micro, tmp_path), **options))
    assert culprit in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"scheme": "cubic"}, "'cubic': choose one of linear, margin, uniform, value"),
        ({"loss": "dpo"}, "--loss 'dpo': choose one of sigmoid, robust, ipo, hinge"),
        ({"beta": 0.0}, "--beta 0.0"),
        ({"beta": -1.0}, "--beta"),
        ({"beta": float("nan")}, "--beta nan"),
        ({"anchor": -0.1}, "-0.1"),
        ({"label_smoothing": -0.1}, "--label-smoothing -0.1: at least 0"),
        ({"label_smoothing": 0.5}, "--label-smoothing 0.5: at least 0 and less than 0.5"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "--label-smoothing 0.1: the loss 'ipo' has none"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "the loss 'hinge' has none"),
    ],
)
def test_options_of_ca_dpo(data, micro, tmp_path, options, culprit):
    with pytest.raises(InbolError, match=re.escape(culprit)):
        ca_dpo(dataclasses.replace(stage_config("CA-DPO", data, micro, tmp_path), **options))


def broken_line(stage, world, **change):
    row = (instructions if stage == "IDK-IT" else preferences)(world, 1)[0] | change
    return {key: value for key, value in row.items() if value is not ...}


@pytest.mark.parametrize(
    ("stage", "change", "culprit"),
    [
        ("IDK-IT", {"response": ...}, "response"),
        ("IDK-IT", {"question": ...}, "question"),
        ("IDK-IT", {"image": ...}, "image"),
        ("IDK-IT", {"image": "images/nowhere.png"}, "nowhere.png"),
        ("IDK-IT", {"question": "What is <image>?"}, "placeholder"),
        ("IDK-IT", {"response": None}, "response"),
        ("CA-DPO", {"chosen": ...}, "chosen"),
        ("CA-DPO", {"kind": "correct_over_all"}, "CORRECT_OVER_ALL"),
        ("CA-DPO", {"kind": ...}, "kind"),
        ("CA-DPO", {"image": "images/nowhere.png"}, "nowhere.png"),
        ("CA-DPO", {"confidence": "high"}, "confidence"),
        ("CA-DPO", {"confidence": 1.5}, "confidence"),
        ("CA-DPO", {"extra": 1}, "extra"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_lines_that_are_not_what_a_stage_reads(
    stage, change, culprit, micro, small_world, tmp_path
):
    file = write_jsonl(
        tmp_path / "data" / STAGES[stage][2],
        [broken_line(stage, small_world, **change)],
        small_world / "train",
    )
    with pytest.raises(InbolError) as caught:
        STAGES[stage][0](stage_config(stage, file.parent, micro, tmp_path))
    assert culprit in str(caught.value).replace(str(tmp_path), "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", STAGES)
def test_a_file_without_lines(stage, micro, small_world, tmp_path):
    file = write_jsonl(tmp_path / "data" / STAGES[stage][2], [], small_world / "train")
    with pytest.raises(InbolError, match=re.escape(str(file))):
        STAGES[stage][0](stage_config(stage, file.parent, micro, tmp_path))


# --- many devices

MANY = """
import sys
from pathlib import Path
import jax
import numpy as np
assert jax.device_count() == 8
sys.path.insert(0, {here!r})
from inbol_jax.training.sft import SftConfig, idk_it
from inbol_jax.training.ca_dpo import DpoConfig, ca_dpo
from inbol_jax.sharding import make_mesh, replicate, shard_batch
rows = shard_batch({{"x": np.arange(16)}}, make_mesh())["x"]
assert [s.data.tolist() for s in rows.addressable_shards] == [[i, i + 1] for i in range(0, 16, 2)], "each device has rows of its own"
assert replicate(np.arange(3), make_mesh()).sharding.is_fully_replicated
out, data, model = map(Path, sys.argv[1:])
options = dict(model=model, epochs=3, batch_size=12, learning_rate=1e-3)
idk_it(SftConfig(data=data / "instructions.jsonl", out=out / "sft", **options))
ca_dpo(DpoConfig(data=data / "preferences.jsonl", out=out / "dpo", **options))
"""


def test_eight_devices_train_as_one(data, micro, tmp_path):
    """Twelve rows an update on one device, rounded to sixteen on eight: so one device is given sixteen."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [
        sys.executable,
        "-c",
        MANY.format(here=str(ROOT)),
        tmp_path / "many",
        data,
        micro.path,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    options = {"epochs": 3, "batch_size": 16, "checkpoint_every": 100}
    for stage, name in (("IDK-IT", "sft"), ("CA-DPO", "dpo")):
        STAGES[stage][0](stage_config(stage, data, micro, tmp_path / name, **options))
        many, one = metrics_of(tmp_path / "many" / name), metrics_of(tmp_path / name)
        for row in many + one:
            for key in [key for key in row if key.startswith("reward_accuracy")]:
                row.pop(
                    key
                )  # at the first step the rewards are zero but for rounding, whose sign it counts
        assert many[-1] == pytest.approx(one[-1], rel=1e-4, abs=1e-4)
        ours, theirs = (
            weights_of(tmp_path / name / "model"),
            weights_of(tmp_path / "many" / name / "model"),
        )
        for key, x in ours.items():
            np.testing.assert_allclose(theirs[key], x, atol=2e-5, err_msg=key)


def test_a_damaged_log_is_named(tmp_path):
    toy_fit(tmp_path, 4)
    (tmp_path / "metrics.jsonl").write_text("{")
    with pytest.raises(InbolError, match=r"metrics\.jsonl: not a log of training"):
        toy_fit(tmp_path, 4)
