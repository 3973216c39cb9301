"""On-policy refusal: what a rollout draws and packs, what the step minimises, and whole runs."""

import itertools
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from training_data import assert_same_runs, metrics_of, weights_of, write_jsonl

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.losses import group_advantages, policy_gradient_loss
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.prompts import BARE
from inbol_jax.sampling.sampler import Samples
from inbol_jax.sharding import make_mesh
from inbol_jax.training.dataset import training_order
from inbol_jax.training.model import load_model
from inbol_jax.training.parallel import Jit
from inbol_jax.training.rl import (
    LABEL,
    halves,
    judge,
    pack,
    policy_gradient_objective,
    rl,
    sampling_function,
    scoring_function,
    with_fresh_numbers,
)
from inbol_jax.training.rl_config import PolicyGradientConfig, RlConfig
from inbol_jax.training.rl_questions import Questions, read_datasets
from inbol_jax.training.settings import Schedule, run_settings
from inbol_jax.training.step import init_state, make_program, target_logprobs
from inbol_jax.training.variables import merge_variables, take_apart

# Twelve questions in three rollouts per epoch
OPTIONS = {"n": 4, "max_new_tokens": 6, "batch_size": 4, "learning_rate": 3e-3, "save_steps": 2}
OPTIONS |= {"epochs": 1}


def config_of(questions, model, out, **options):
    data = questions if isinstance(questions, tuple) else (questions,)
    return RlConfig.from_options(data=data, out=out, model=model, **OPTIONS | options)


class Setup:
    """A run before its first step, and its first rollout."""

    def __init__(self, questions, model, out, **options):
        self.config = config = config_of(questions, model, out, **options)
        self.mesh, options = make_mesh(), config.policy_gradient
        self.checkpoint = checkpoint = load_model(config, self.mesh, BARE)
        datasets = read_datasets(config)
        self.questions = Questions(checkpoint, datasets, config.group.max_new_tokens)
        self.parts = take_apart(checkpoint, config, reference=options.kl_coef > 0)
        self.objective = policy_gradient_objective(checkpoint.model, options)
        program = make_program(self.objective, config, 3)
        self.parallel = Jit(program.train_step, self.mesh, program.eval_step)
        self.state = self.parallel.place(init_state(self.parts.trainable, program.optimizer))
        order = training_order(self.questions.lengths, 4, 1, config.seed, grouped=False)
        self.asked = self.questions.batch(order(0), np.arange(4))
        self.groups = judge(self.questions, self.asked, self.samples(), config)
        self.batch, self.metrics = pack(self.questions, self.asked, self.groups, config, self.mesh)
        self.batch |= self.by_rows(scoring_function(checkpoint.model, options), self.batch)
        self.variables = merge_variables(self.state.params, self.parts.frozen)
        self.model = checkpoint.model

    def by_rows(self, function, batch):
        inputs = self.parts.frozen, self.parts.reference, self.parallel.shard(batch)
        return self.parallel.by_rows(function)(self.state, *inputs)

    def samples(self, number=0):
        draw = sampling_function(self.checkpoint.model, self.config)
        return self.by_rows(draw, with_fresh_numbers(self.asked, number))


@pytest.fixture(scope="module")
def setup(questions, micro, short, tmp_path_factory):
    return Setup(questions, micro.path, tmp_path_factory.mktemp("rl"), reward=short)


def test_equal_responses_are_one_branch_and_advantages_are_of_their_group(setup):
    samples = setup.samples()
    groups = setup.groups
    for i, branches in enumerate(groups.branches):
        own = [tuple(samples.tokens[i, j, : samples.lengths[i, j]].tolist()) for j in range(4)]
        assert [branches[k].ids for k in groups.index[i]] == own
        assert len(set(own)) == len(branches)
    batch = setup.batch
    assert batch["shares"].sum(1) == pytest.approx(1.0)
    # Weighted by shares, the advantages of a group have mean 0 and deviation 1.
    mean = (batch["shares"] * batch["advantages"]).sum(1)
    square = (batch["shares"] * batch["advantages"] ** 2).sum(1)
    valid = batch["valid"]
    np.testing.assert_allclose(mean[valid], 0, atol=1e-5)
    np.testing.assert_allclose(square[valid], 1, atol=0.05)
    assert batch["groups"].sum() == 4
    rewards = groups.rewards.mean()
    assert setup.metrics["reward"][0] / setup.metrics["reward"][1] == pytest.approx(rewards)


def test_rewards_and_outcomes_are_those_of_the_texts(setup):
    samples = setup.samples()
    groups = setup.groups
    decode = setup.checkpoint.processor.tokenizer.decode
    for i in range(4):
        for j in range(4):
            ids = samples.tokens[i, j, : samples.lengths[i, j]]
            text = decode(ids.tolist(), skip_special_tokens=True).strip()
            assert groups.rewards[i, j] == np.float32(-len(text) / 10)


@pytest.mark.parametrize("average", [True, False])
def test_merging_changes_neither_the_loss_nor_its_gradient(setup, average):
    """The objective of the packed batch is the mean over all samples, each in a row of its own."""
    frozen, samples = setup.parts.frozen, Samples(*map(np.array, setup.samples()))
    for values in samples:
        values[0, 2], values[1, :3] = values[0, 1], values[1, 3]  # equal responses
    groups = judge(setup.questions, setup.asked, samples, setup.config)
    assert [len(branches) for branches in groups.branches] == [3, 1, 4, 4]
    batch, _ = pack(setup.questions, setup.asked, groups, setup.config, setup.mesh)
    assert batch["valid"].sum() == 3
    advantages = np.ravel(group_advantages(groups.rewards))
    length = setup.asked["input_ids"].shape[1] + 8
    rows = []
    for i in range(4):
        prompt = setup.asked["input_ids"][i][setup.asked["attention_mask"][i] != 0].tolist()
        for j in range(4):
            branch = Branch(samples.tokens[i, j, : samples.lengths[i, j]].tolist())
            row = pack_row(prompt, [branch], RowShape(length, 8))
            pixels = {n: x[i] for n, x in setup.asked.items() if n.startswith("pixel_")}
            rows.append(row | pixels)
    single = collate(rows, len(rows))

    def plain(params):
        logprobs = target_logprobs(setup.model, merge_variables(params, frozen), single)
        mask = single["target_segment"] > 0
        loss = policy_gradient_loss(logprobs, logprobs, None, advantages, mask, average=average)
        return loss.mean()

    objective = policy_gradient_objective(
        setup.model, PolicyGradientConfig(length_normalized=average)
    )

    def packed(params):
        metrics = objective(merge_variables(params, frozen), None, batch)
        return metrics["loss"][0] / metrics["loss"][1]

    expected, found = (jax.jit(jax.value_and_grad(f))(setup.state.params) for f in (plain, packed))
    assert found[0] == pytest.approx(float(expected[0]), abs=1e-5)
    for path, x in expected[1].items():
        np.testing.assert_allclose(found[1][path], x, rtol=1e-4, atol=1e-4, err_msg=path)


def test_groups_without_variance_are_left_out_unless_there_is_a_kl_term(questions, micro, tmp_path):
    """A random model is always wrong: under the user value nothing is to be learnt."""
    nothing = Setup(questions, micro.path, tmp_path / "a")
    assert not nothing.batch["valid"].any()
    assert len(nothing.batch["valid"]) == 1, "a batch of the smallest size"
    assert nothing.metrics["informative_groups"] == (0, 4)
    assert nothing.metrics["reward"] == (-4, 4)
    everything = Setup(questions, micro.path, tmp_path / "b", kl_coef=0.1)
    assert everything.batch["valid"].sum() == 4
    assert not everything.batch["advantages"].any()


def test_in_the_first_update_the_policy_is_the_one_that_responded(
    questions, micro, short, tmp_path
):
    """And, at the start of the run, the reference."""
    some = Setup(questions, micro.path, tmp_path, reward=short, num_iterations=2, kl_coef=0.1)
    metrics = some.objective(some.variables, None, some.batch)
    assert metrics["clip_fraction"][0] == 0
    assert float(metrics["kl"][0]) == pytest.approx(0.0, abs=1e-5)
    targets = some.batch["target_segment"] > 0
    np.testing.assert_allclose(
        some.batch["old_logprobs"][targets], some.batch["ref_logprobs"][targets], atol=1e-5
    )
    # The sampler's own numbers: what was drawn is what is scored.
    samples = some.samples()
    groups = some.groups
    total = some.batch["old_logprobs"].sum(1, where=targets)
    for i, branches in enumerate(groups.branches):
        first = [list(groups.index[i]).index(k) for k in range(len(branches))]
        assert total[i] == pytest.approx(samples.logprobs[i, first].sum(), abs=1e-3)


def test_samples_depend_on_seed_question_and_rollout(setup):
    one, again, other = (setup.samples(number).tokens for number in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    numbers = np.arange(50, dtype=np.uint32)
    fresh = [with_fresh_numbers({"question": numbers}, rollout) for rollout in range(20)]
    found = {n for batch in fresh for n in batch["question"].tolist()}
    assert len(found) == 1000


def test_sizes_are_halved_in_whole_units():
    assert halves(32, 1) == [8, 16, 32]
    assert halves(120, 4) == [32, 60, 120]
    assert halves(24, 8) == [8, 16, 24]
    assert halves(8, 8) == [8]
    assert halves(1, 1) == [1]


def test_several_datasets_are_asked_as_one(questions, small_world, micro, tmp_path):
    some = config_of((small_world / "test", questions), micro.path, tmp_path)
    asked = Questions(micro, read_datasets(some), 6)
    assert len(asked) == 60 + 12
    for index, (number, place) in ((0, (0, 0)), (59, (0, 59)), (60, (1, 0)), (71, (1, 11))):
        dataset = read_datasets(some)[number]
        assert asked.example(index) == (dataset.examples[place], dataset.root)


def test_a_response_that_has_no_room(questions, micro, tmp_path):
    config = config_of(questions, micro.path, tmp_path, max_new_tokens=4000)
    with pytest.raises(InbolError, match="--max-new-tokens 4000: the longest question has"):
        rl(config)


def cut(run, step):
    """As if a run had been killed after the checkpoint of a step: what came later is gone."""
    shutil.rmtree(run / "model")
    for folder in (run / "checkpoints").iterdir():
        if folder.is_dir() and folder.name.isdigit() and int(folder.name) > step:
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"num_iterations": 2, "kl_coef": 0.05, "save_total_limit": 9},
        {"lora_rank": 2, "kl_coef": 0.05, "save_total_limit": 9, "abstention_bonus": 0.5},
        {"gradient_accumulation_steps": 2, "save_total_limit": 9, "scale_rewards": False},
    ],
    ids=["whole", "adapters", "micro-batches"],
)
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    questions, micro, short, tmp_path, options
):
    """To the last bit, and with the same log."""
    config = config_of(questions, micro.path, tmp_path / "run", epochs=2, reward=short, **options)
    rl(config)
    steps = 6 * options.get("num_iterations", 1)
    shutil.copytree(config.out, tmp_path / "whole")
    log = metrics_of(config.out)
    assert log[-1]["step"] == steps
    cut(config.out, steps - 2)
    rl(config)
    assert metrics_of(config.out) == log
    assert_same_runs(tmp_path / "whole", config.out, atol=0)


def test_checkpoints_lie_between_rollouts(questions, micro, short, tmp_path):
    """Also if --save-steps says otherwise."""
    options = {"num_iterations": 3, "save_steps": 1, "save_total_limit": 9, "reward": short}
    config = config_of(questions, micro.path, tmp_path, **options)
    rl(config)
    steps = {int(f.name) for f in (tmp_path / "checkpoints").iterdir() if f.name.isdigit()}
    assert steps == {3, 6, 9}
    options |= {"num_iterations": 2, "batch_size": 3}
    with pytest.raises(InbolError, match="--num-iterations 2"):
        rl(config_of(questions, micro.path, tmp_path, **options))


def test_a_signal_within_a_rollout_stops_the_run_behind_it(
    questions, micro, short, tmp_path, monkeypatch
):
    """And the same command ends where an undisturbed one does."""
    from inbol_jax.interruption import Interrupted
    from inbol_jax.training import run

    options = {"num_iterations": 3, "reward": short, "save_steps": 100}
    whole = config_of(questions, micro.path, tmp_path / "whole", **options)
    rl(whole)
    config = config_of(questions, micro.path, tmp_path / "stopped", **options)
    with monkeypatch.context() as patched:
        calls = itertools.count(1)
        patched.setattr(run, "all_end", lambda: next(calls) == 4)
        with pytest.raises(Interrupted):
            rl(config)
    steps = [f.name for f in (tmp_path / "stopped/checkpoints").iterdir() if f.name.isdigit()]
    assert steps == ["6"]
    rl(config)
    assert metrics_of(config.out) == metrics_of(whole.out)
    assert_same_runs(whole.out, config.out, atol=0)


def test_it_learns_a_reward(questions, micro, short, tmp_path):
    """A random model learns to say little."""
    options = {"reward": short, "epochs": 8, "n": 8, "learning_rate": 1e-2}
    rl(config_of(questions, micro.path, tmp_path, **options))
    rewards = [row["reward"] for row in metrics_of(tmp_path)]
    assert rewards[-1] > rewards[0] + 0.5, rewards


@pytest.mark.parametrize("frozen", [True, False])
def test_what_is_frozen_stays(questions, micro, short, tmp_path, frozen):
    options = {} if frozen else {"frozen": ("^vision_tower/",)}
    rl(config_of(questions, micro.path, tmp_path, reward=short, **options))
    before, after = weights_of(micro.path), weights_of(tmp_path / "model")
    changed = {name for name, x in after.items() if (x != before[name]).any()}
    assert not any("vision_tower" in name for name in changed)
    assert any("embed_tokens" in name for name in changed) != frozen
    assert any("q_proj" in name for name in changed)


def test_another_reward_or_group_is_another_run(questions, micro, short, tmp_path):
    settings = []
    for options in ({}, {"n": 5}, {"reward": short}, {"reward_wrong": -2.0}, {"kl_coef": 0.1}):
        config = config_of(questions, micro.path, tmp_path, **options)
        schedule = Schedule(4, 1, 3)
        settings.append(run_settings(micro, config, schedule, LABEL, data="", pictures=""))
    assert len({str(s) for s in settings}) == len(settings)


def test_other_pictures_are_another_run(questions, small_world, micro, tmp_path):
    images = shutil.copytree(small_world / "test", tmp_path / "images")
    rows = list(read_jsonl(questions))
    found = []
    for name in ("one", "two"):
        file = write_jsonl(tmp_path / name / "questions.jsonl", rows, images)
        config = config_of(file, micro.path, tmp_path)
        found.append(Questions(micro, read_datasets(config), 6).pictures)
        images = images.rename(tmp_path / f"{name} moved")
    assert found[0] == found[1]
    Image.new("RGB", (64, 64)).save(images / rows[0]["image"])
    write_jsonl(file, rows, images)
    assert Questions(micro, read_datasets(config), 6).pictures != found[0]


def test_weights_that_blow_up_stop_the_run_in_one_line(questions, micro, short, tmp_path):
    options = {"reward": short, "epochs": 4, "learning_rate": 1e30, "optimizer": "sgd"}
    with pytest.raises(InbolError, match="lower --learning-rate"):
        rl(config_of(questions, micro.path, tmp_path, **options))


def test_pmap_trains_as_jit_does(questions, micro, short, tmp_path):
    options = {"reward": short, "num_iterations": 2, "kl_coef": 0.05}
    for name in ("jit", "pmap"):
        rl(config_of(questions, micro.path, tmp_path / name, parallel=name, **options))
    assert_same_runs(tmp_path / "jit", tmp_path / "pmap", atol=1e-4)


def test_in_bfloat16_the_ratio_is_1_as_well(questions, micro, short, tmp_path):
    """The log-probabilities that it is taken to are of the same forward pass, not the sampler's."""
    options = {"dtype": "bfloat16", "num_iterations": 2, "batch_size": 12, "learning_rate": 1e-9}
    rl(config_of(questions, micro.path, tmp_path, reward=short, clip_epsilon=0.01, **options))
    (row,) = metrics_of(tmp_path)
    assert row["clip_fraction"] < 0.05
    assert np.isfinite(row["gradient_norm"])


@pytest.mark.slow
def test_a_trained_model_learns_what_it_cannot_know(small_world, tmp_path):
    """The shipped model on questions of all three types: the user value rises, and what it refuses
    more are the questions of Type 3."""
    config = RlConfig.from_options(
        data=(small_world / "test",), out=tmp_path, batch_size=20, epochs=10, learning_rate=3e-4
    )
    rl(config)
    log = metrics_of(tmp_path)
    assert log[-1]["reward"] > log[0]["reward"] + 0.2, [row["reward"] for row in log]
    assert log[-1]["refusal_rate"] > log[0]["refusal_rate"]
