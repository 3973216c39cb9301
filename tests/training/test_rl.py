"""On-policy refusal: what a rollout draws and packs, what the step minimises, and whole runs."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from training_data import assert_same_runs, metrics_of, weights_of

from inbol_jax.artifacts import read_jsonl
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.losses import group_advantages, policy_gradient_loss
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.prompts import BARE
from inbol_jax.sampling.sampler import Samples
from inbol_jax.sharding import make_mesh
from inbol_jax.training.config import PolicyGradientConfig, RlConfig
from inbol_jax.training.dataset import picture_fingerprint
from inbol_jax.training.model import load_model, take_apart
from inbol_jax.training.parallel import Jit
from inbol_jax.training.rl import (
    LABEL,
    ask,
    judge,
    pack,
    policy_gradient_objective,
    question_batch,
    rl,
    sampling_function,
    with_fresh_numbers,
)
from inbol_jax.training.settings import Schedule, run_settings
from inbol_jax.training.step import init_state, make_program, merge_variables, target_logprobs

# Twelve questions in three steps per epoch
OPTIONS = {"n": 4, "max_new_tokens": 6, "batch_size": 4, "learning_rate": 3e-3, "save_steps": 2}
OPTIONS |= {"epochs": 1}


def config_of(questions, model, out, **options):
    data = questions if isinstance(questions, tuple) else (questions,)
    options = OPTIONS | options
    return RlConfig.from_options(data=data, out=out, model=model, **options).with_rate(
        adapters=False
    )


class Setup:
    """A run before its first step, and its first rollout."""

    def __init__(self, questions, model, out, **options):
        self.config = config = config_of(questions, model, out, **options)
        mesh = make_mesh()
        self.checkpoint = checkpoint = load_model(config, mesh, BARE)
        self.model = checkpoint.model
        self.questions = ask(
            checkpoint, [*map(load_dataset_folder, config.data)], config.max_new_tokens
        )
        trainable, self.frozen = take_apart(checkpoint, config)
        objective = policy_gradient_objective(self.model, config.policy_gradient)
        program = make_program(objective, config, 3)
        self.parallel = Jit(program, mesh)
        self.state = self.parallel.place(init_state(trainable, program.optimizer))
        self.draw = self.parallel.rows(sampling_function(self.model, config))
        places = np.arange(4)
        self.asked = question_batch(checkpoint, self.questions, np.array([0, 3, 9, 11]), places)
        self.samples = self.sample()
        self.groups, self.batch = self.packed(self.samples)

    def sample(self, number=0):
        batch = self.parallel.shard(with_fresh_numbers(self.asked, number))
        return self.draw(self.state, self.frozen, batch)

    def packed(self, samples):
        checkpoint, asked, config = self.checkpoint, self.asked, self.config
        groups = judge(checkpoint, self.questions, asked, samples, config)
        return groups, pack(checkpoint, asked, samples, groups, config)

    def tokens(self, i, j):
        return self.samples.tokens[i, j, : self.samples.lengths[i, j]].tolist()


@pytest.fixture(scope="module")
def setup(questions, micro, short, tmp_path_factory):
    return Setup(questions, micro.path, tmp_path_factory.mktemp("rl"), reward=short)


def test_rewards_and_outcomes_are_those_of_the_texts(setup):
    decode = setup.checkpoint.processor.tokenizer.decode
    for i in range(4):
        for j in range(4):
            text = decode(setup.tokens(i, j), skip_special_tokens=True).strip()
            assert setup.groups["rewards"][i, j] == np.float32(-len(text) / 10)
    assert not setup.groups["correct"].any()  # the random model is always wrong
    mean, square = (np.mean(setup.batch["advantages"] ** k, axis=1) for k in (1, 2))
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    np.testing.assert_allclose(square, 1, atol=0.05)


def test_the_objective_is_the_mean_over_all_samples(setup):
    """Each in a row of its own; so is its gradient."""
    frozen, samples, batch = setup.frozen, setup.samples, setup.batch
    advantages = np.ravel(group_advantages(setup.groups["rewards"]))
    length, rows = setup.asked["input_ids"].shape[1] + 8, []
    for i in range(4):
        prompt = setup.asked["input_ids"][i][setup.asked["attention_mask"][i] != 0].tolist()
        pixels = {n: x[i] for n, x in setup.asked.items() if n.startswith("pixel_")}
        branches = [[Branch(setup.tokens(i, j))] for j in range(4)]
        rows += [pack_row(prompt, one, RowShape(length, 8)) | pixels for one in branches]
    single = collate(rows, len(rows))

    def plain(params):
        logprobs = target_logprobs(setup.model, merge_variables(params, frozen), single)
        mask = single["target_segment"] > 0
        loss = policy_gradient_loss(logprobs, logprobs, None, advantages, mask, average=True)
        return loss.mean()

    options = PolicyGradientConfig(length_normalized=True)
    objective = policy_gradient_objective(setup.model, options)

    def packed(params):
        metrics = objective(merge_variables(params, frozen), batch)
        return metrics["loss"][0] / metrics["loss"][1], metrics

    expected = jax.jit(jax.value_and_grad(plain))(setup.state.params)
    (found, metrics), gradient = jax.jit(jax.value_and_grad(packed, has_aux=True))(
        setup.state.params
    )
    assert found == pytest.approx(float(expected[0]), abs=1e-5)
    for path, x in expected[1].items():
        np.testing.assert_allclose(gradient[path], x, rtol=1e-4, atol=1e-4, err_msg=path)
    rewards = setup.groups["rewards"].mean()
    assert metrics["reward"][0] / metrics["reward"][1] == pytest.approx(rewards)
    assert metrics["informative_groups"] == (4, 4)
    # The sampler's own numbers: what was drawn is what is scored.
    logprobs = target_logprobs(setup.model, merge_variables(setup.state.params, frozen), batch)
    total = np.where(batch["target_segment"] > 0, logprobs, 0).sum(axis=1)
    np.testing.assert_allclose(total, samples.logprobs.sum(axis=(1, 2)), atol=1e-3)


def test_groups_without_variance_teach_nothing_and_rows_that_fill_up_count_nowhere(setup):
    asked = {name: np.array(x) for name, x in setup.asked.items()}
    asked["valid"][3] = False
    samples = Samples(*map(np.array, setup.samples))
    for values in samples:
        values[0] = values[0, 0]  # equal responses
    groups = judge(setup.checkpoint, setup.questions, asked, samples, setup.config)
    batch = pack(setup.checkpoint, asked, samples, groups, setup.config)
    assert batch["advantages"].any(axis=1).tolist() == [False, True, True, False]
    assert batch["valid"].tolist() == [True, True, True, False]
    assert not batch["target_segment"][3].any()


def test_samples_depend_on_seed_question_and_step(setup):
    one, other = (setup.sample(number).tokens for number in (0, 1))
    np.testing.assert_array_equal(one, setup.samples.tokens)
    assert (one != other).any()
    numbers = np.arange(50, dtype=np.uint32)
    fresh = [with_fresh_numbers({"question": numbers}, step) for step in range(20)]
    found = {n for batch in fresh for n in batch["question"].tolist()}
    assert len(found) == 1000


def test_several_datasets_are_asked_as_one(questions, small_world, micro, tmp_path):
    config = config_of((small_world / "test", questions), micro.path, tmp_path)
    datasets = [*map(load_dataset_folder, config.data)]
    asked = ask(micro, datasets, 6)
    assert len(asked) == 60 + 12
    for index, (number, place) in ((0, (0, 0)), (59, (0, 59)), (60, (1, 0)), (71, (1, 11))):
        dataset = datasets[number]
        assert asked[index].prompted.example == dataset.examples[place]
        assert asked[index].root == dataset.root
    with pytest.raises(InbolError, match="--max-new-tokens 4000: the longest question has"):
        ask(micro, datasets, 4000)


def cut(run, step):
    """As if a run had been killed after the checkpoint of a step: what came later is gone."""
    shutil.rmtree(run / "model")
    for folder in (run / "checkpoints").iterdir():
        if folder.is_dir() and folder.name.isdigit() and int(folder.name) > step:
            shutil.rmtree(folder)


@pytest.mark.parametrize(
    "options",
    [
        {"scale_rewards": False},
        pytest.param({"lora_rank": 2}, marks=pytest.mark.slow),
        pytest.param({"gradient_accumulation_steps": 2}, marks=pytest.mark.slow),
    ],
    ids=["whole", "adapters", "micro-batches"],
)
def test_a_run_that_was_stopped_ends_with_the_same_weights(
    questions, micro, short, tmp_path, options
):
    """To the last bit, and with the same log. What is frozen stays."""
    config = config_of(questions, micro.path, tmp_path / "run", epochs=2, reward=short, **options)
    rl(config)
    shutil.copytree(config.out, tmp_path / "whole")
    log = metrics_of(config.out)
    assert log[-1]["step"] == 6
    cut(config.out, 4)
    rl(config)
    assert metrics_of(config.out) == log
    assert_same_runs(tmp_path / "whole", config.out, atol=0)
    if "lora_rank" not in options:
        before, after = weights_of(micro.path), weights_of(config.out / "model")
        changed = {name for name, x in after.items() if (x != before[name]).any()}
        assert any("q_proj" in name for name in changed)
        assert not any("vision_tower" in name or "embed_tokens" in name for name in changed)


def test_another_reward_or_group_is_another_run(questions, micro, short, tmp_path):
    settings = []
    for options in ({}, {"n": 5}, {"reward": short}, {"scale_rewards": False}):
        config = config_of(questions, micro.path, tmp_path, **options)
        schedule = Schedule(4, 4, 1, 3)
        settings.append(run_settings(LABEL, config, micro, schedule, data="", pictures=""))
    assert len({str(s) for s in settings}) == len(settings)


def test_other_pictures_are_another_run(small_world, tmp_path):
    images = shutil.copytree(small_world / "test", tmp_path / "images")
    names = [row["images"][0] for row in read_jsonl(small_world / "test/data.jsonl")]

    def pictures(folder):
        return picture_fingerprint(folder / name for name in names)

    found = pictures(images)
    moved = images.rename(tmp_path / "moved")
    assert pictures(moved) == found
    Image.new("RGB", (64, 64)).save(moved / names[0])
    assert pictures(moved) != found


def test_weights_that_blow_up_stop_the_run_in_one_line(questions, micro, short, tmp_path):
    options = {"reward": short, "epochs": 4, "learning_rate": 1e30}
    with pytest.raises(InbolError, match="lower --learning-rate"):
        rl(config_of(questions, micro.path, tmp_path, **options))


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
