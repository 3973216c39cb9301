"""`inbol rl`: on-policy refusal, a policy gradient on groups of the model's own responses.

A rollout draws n responses to each question of a batch from the policy, scores and packs them; then
one or more steps are trained on it. What is drawn is a function of the weights, the seed and the
number of the rollout, so a run resumes exactly. Checkpoints lie between rollouts, never within one.
"""

import functools
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from inbol_jax.artifacts import file_fingerprint
from inbol_jax.errors import InbolError
from inbol_jax.losses import abstention_bonus, group_advantages, kl_estimate, policy_gradient_loss
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.models.processor import prompt_for
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.processes import from_all, is_main, one_writer
from inbol_jax.progress import say
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import to_text
from inbol_jax.sampling.sampler import Samples, sample
from inbol_jax.sharding import local_rows, make_mesh
from inbol_jax.training.dataset import HostBatch, stream_batches, training_order
from inbol_jax.training.finetune import save_trained
from inbol_jax.training.model import load_model
from inbol_jax.training.parallel import PARALLEL, round_batch_size
from inbol_jax.training.rewards import reward_function
from inbol_jax.training.rl_config import PolicyGradientConfig, RlConfig
from inbol_jax.training.rl_questions import Questions, read_datasets
from inbol_jax.training.run import Run
from inbol_jax.training.settings import make_schedule, run_settings
from inbol_jax.training.step import (
    Metrics,
    Objective,
    TrainState,
    init_state,
    make_program,
    target_logprobs,
    token_counts,
)
from inbol_jax.training.variables import Flat, merge_variables, take_apart

LABEL = "on-policy refusal"
# name -> (sum, weight), as the step's metrics, but on the host
HostMetrics = dict[str, tuple[np.float32, np.float32]]


@one_writer
def rl(config: RlConfig) -> Path:
    """Runs or resumes on-policy refusal. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    # The questions, and the model on the mesh
    reward_function(config.rewards)  # an unknown name is refused before all else
    updates = config.policy_gradient.num_iterations
    datasets = read_datasets(config)
    files = [dataset.file for dataset in datasets]
    data = file_fingerprint(*files)
    mesh = make_mesh(*config.runtime.mesh)
    count = sum(len(dataset.examples) for dataset in datasets)
    schedule = make_schedule(config, count, mesh, updates=updates)
    tell = say if is_main() else lambda line: None
    prompt = prompt_for(config.model, config.prompt, files, tell)
    checkpoint = load_model(config, mesh, prompt)
    questions = Questions(checkpoint, datasets, config.group.max_new_tokens)

    # What is trained, and the programs on the devices
    parts = take_apart(checkpoint, config, reference=config.policy_gradient.kl_coef > 0)
    objective = policy_gradient_objective(checkpoint.model, config.policy_gradient)
    program = make_program(objective, config, schedule.steps)
    parallel = PARALLEL[config.runtime.parallel](program.train_step, mesh, program.eval_step)
    frozen, reference = parallel.place(parts.frozen), parallel.place(parts.reference)
    draw = parallel.by_rows(sampling_function(checkpoint.model, config))
    score = parallel.by_rows(scoring_function(checkpoint.model, config.policy_gradient))

    def in_parts(function: Callable[..., Any], state: TrainState, batch: HostBatch) -> Any:
        """The function's rows for this process's rows, a micro-batch at a time."""
        split = {n: np.split(x, config.gradient_accumulation_steps) for n, x in batch.items()}
        micros = [dict(zip(split, xs, strict=True)) for xs in zip(*split.values(), strict=True)]
        results = [function(state, frozen, reference, parallel.shard(micro)) for micro in micros]
        return jax.tree.map(lambda *rows: np.concatenate(rows), *results)

    # The questions of rollout i, for any i
    size, rollouts = schedule.batch_size, schedule.steps // updates
    order = training_order(questions.lengths, size, schedule.epochs, config.seed, grouped=False)
    batches = functools.partial(
        stream_batches, questions, order, local_rows(mesh, size), stop=rollouts
    )
    run = Run(
        config,
        run_settings(checkpoint, config, schedule, LABEL, data=data, pictures=questions.pictures),
        label=LABEL,
        parallel=parallel,
        total_steps=schedule.steps,
        stride=updates,
    )
    with run:
        state = run.resume(init_state(parts.trainable, program.optimizer, mesh))
        first = run.step // updates
        for number, asked in enumerate(batches(first), first):
            samples = in_parts(draw, state, with_fresh_numbers(asked, number))
            check_finite(samples, run.step)
            groups = judge(questions, asked, samples, config)
            batch, rollout_metrics = pack(questions, asked, groups, config, mesh)
            if updates > 1 or config.policy_gradient.kl_coef:
                batch |= in_parts(score, state, batch)
            placed = parallel.shard(batch)
            for _ in range(updates):
                state, metrics = parallel.run(state, frozen, reference, placed)
                run.end_step(state, {**metrics, **rollout_metrics})
        state = run.finish(state)
    return save_trained(checkpoint, config, parts, state, LABEL)


# ---- Responses


def with_fresh_numbers(asked: HostBatch, rollout: int) -> HostBatch:
    """A batch of questions as `sample` takes it, their numbers u32[b] other ones in each rollout:
    random keys are folded from them."""
    numbers = [zlib.crc32(f"{rollout}:{number}".encode()) for number in asked["question"]]
    batch = {name: x for name, x in asked.items() if name != "row"}
    return batch | {"question": np.array(numbers, np.uint32)}


def sampling_options(config: RlConfig) -> SamplingOptions:
    """How responses are drawn: from the policy as it is."""
    return SamplingOptions(n=config.group.n, max_new_tokens=config.group.max_new_tokens)


def sampling_function(model: VisionLanguageModel, config: RlConfig) -> Callable[..., Samples]:
    """Draws the n responses to each question of a batch from the policy."""
    options = sampling_options(config)

    def draw(state: TrainState, frozen: Flat, reference: Flat | None, batch) -> Samples:
        variables = merge_variables(state.params, frozen)
        return sample(model, variables, batch, key=jax.random.key(config.seed), options=options)

    return draw


def check_finite(samples: Samples, step: int) -> None:
    """Raises InbolError if the log-probabilities are not finite."""
    if not np.isfinite(samples.logprobs).all():
        raise InbolError(
            f"{LABEL}: what the model computes is not finite after {step} steps; lower "
            "--learning-rate"
        )


class Groups(NamedTuple):
    """The n responses to each of b questions, with what they are worth."""

    branches: list[list[Branch]]
    """The distinct responses to each question, in the order in which they were drawn first."""
    index: np.ndarray
    """i32[b, n]: which of these each response is."""
    rewards: np.ndarray
    """f32[b, n], the bonus of abstaining not included."""
    correct: np.ndarray
    """bool[b, n]"""
    refused: np.ndarray
    """bool[b, n]"""


def judge(questions: Questions, asked: HostBatch, samples: Samples, config: RlConfig) -> Groups:
    """The groups of the questions that are valid: what their responses are, and are worth."""
    reward, options = reward_function(config.rewards), sampling_options(config)
    branches, columns = [], []
    for i, row in enumerate(asked["row"][asked["valid"]].tolist()):
        example, _ = questions.example(row)
        # Equal responses are one branch, which is scored once: (number, reward, correct, refused)
        distinct: dict[tuple[int, ...], tuple[int, float, bool, bool]] = {}
        scores = []
        for tokens, logprobs, length in zip(*(x[i] for x in samples), strict=True):
            ids = tuple(tokens[:length].tolist())
            if ids not in distinct:
                text = to_text(questions.checkpoint, options, tokens, logprobs, length).text
                worth, found = reward(example, text), outcome(example, text)
                distinct[ids] = len(distinct), worth, found == "correct", found == "refused"
            scores.append(distinct[ids])
        branches.append([Branch(ids) for ids in distinct])
        columns.append(scores)
    table = np.array(columns, np.float32).reshape(len(branches), config.group.n, 4)
    index, rewards, correct, refused = np.moveaxis(table, 2, 0)
    return Groups(branches, index.astype(np.int32), rewards, correct > 0, refused > 0)


# ---- What is trained on


def pack(
    questions: Questions, asked: HostBatch, groups: Groups, config: RlConfig, mesh: Mesh
) -> tuple[HostBatch, HostMetrics]:
    """This process's rows of the batch to train on, and the metrics of the whole rollout.

    A group whose responses are all worth the same has no gradient and is left out. From a peaked
    policy that is most groups, so batches come in a few sizes, on which all processes agree.

    Returns:
      packed rows with their images and the columns
      advantages: f32[b, n], of each branch; 0 behind the last one.
      shares: f32[b, n], how much of its group each branch is; 0 behind the last one.
      groups: f32[b], whose sum is the number of all groups, those left out included.
    """
    n, accumulate = config.group.n, config.gradient_accumulation_steps
    bonus = abstention_bonus(groups.correct, groups.refused)
    rewards = groups.rewards + np.float32(config.rewards.abstention_bonus) * np.asarray(bonus)
    scale = config.policy_gradient.scale_rewards
    advantages = np.asarray(group_advantages(rewards, scale=scale))  # [b, n], of each response
    differ = advantages.any(axis=1)
    kept = np.flatnonzero(differ | (config.policy_gradient.kl_coef > 0))  # KL has a gradient always

    # The smallest sizes that hold the kept rows of every process, and the targets of each row
    targets = [sum(len(branch.ids) for branch in groups.branches[i]) for i in kept]
    rows, target = from_all(np.array([len(kept), max(targets, default=0)])).max(axis=0)
    largest, unit = (round_batch_size(b, mesh, accumulate) for b in (config.batch_size, 1))
    size = next(s for s in halves(largest, unit) if len(local_rows(mesh, s)) >= rows)
    target = next(s for s in halves(n * config.group.max_new_tokens, 4) if s >= target)
    shape = RowShape(asked["input_ids"].shape[1] + target, target)

    def packed(i: int, branches: Sequence[Branch]) -> HostBatch:
        prompt = asked["input_ids"][i][asked["attention_mask"][i] != 0]
        row = pack_row(prompt.tolist(), branches, shape)
        row |= {name: asked[name][i] for name in questions.checkpoint.config.image_shapes(1)}
        row |= {name: np.zeros(n, np.float32) for name in ("shares", "advantages")}
        if branches:
            index = groups.index[i]
            row["shares"] = np.bincount(index, minlength=n).astype(np.float32) / np.float32(n)
            row["advantages"][index] = advantages[i]  # equal responses have the same
        return row

    # If no group is kept, one row without branches gives the shapes; it is not valid.
    some = [packed(i, groups.branches[i]) for i in kept] or [packed(0, [])]
    batch = collate(some, len(local_rows(mesh, size)), valid=len(kept))
    batch["groups"] = np.zeros(len(batch["valid"]), np.float32)
    batch["groups"][0] = len(advantages)
    return batch, _rollout_metrics(groups, differ)


def halves(largest: int, unit: int) -> list[int]:
    """The largest size, its half and its quarter, each rounded up to whole units; rising."""
    return sorted({-(-largest // (unit * 2**i)) * unit for i in range(3)})


def _rollout_metrics(groups: Groups, differ: np.ndarray) -> HostMetrics:
    """Means over the groups of all processes, as (sum, weight)."""
    values = {
        "reward": groups.rewards,
        "accuracy": groups.correct,
        "refusal_rate": groups.refused,
        "informative_groups": differ[:, None],
    }
    sums = [x.mean(axis=1, dtype=np.float32).sum() for x in values.values()]
    *sums, count = from_all(np.array([*sums, len(differ)], np.float32)).sum(axis=0)
    return {name: (total, count) for name, total in zip(values, sums, strict=True)}


def scoring_function(
    model: VisionLanguageModel, options: PolicyGradientConfig
) -> Callable[..., dict[str, jax.Array]]:
    """The log-probabilities that the loss compares with, f32[b, a] of a packed batch's targets:
    ref_logprobs if there is a KL term, and old_logprobs if there is more than one update.

    In the first update the policy is the one that drew the responses.
    """

    def score(state: TrainState, frozen: Flat, reference: Flat | None, batch) -> dict:
        columns = {}
        if options.num_iterations > 1:
            variables = merge_variables(state.params, frozen)
            columns["old_logprobs"] = target_logprobs(model, variables, batch)
        if options.kl_coef:
            assert reference is not None
            variables = merge_variables(reference, frozen)
            columns["ref_logprobs"] = target_logprobs(model, variables, batch)
        return columns

    return score


def policy_gradient_objective(
    model: VisionLanguageModel, options: PolicyGradientConfig
) -> Objective:
    """The mean over groups of the mean loss (`losses.policy_gradient_loss`) of their responses.

    The batch is one of `pack`, with the columns of `scoring_function`. Dropout is
    not used: the policy that is trained is the one that responds.
    """
    loss = functools.partial(
        policy_gradient_loss,
        clip_epsilon=options.clip_epsilon,
        kl_coef=options.kl_coef,
        average=options.length_normalized,
    )

    def objective(variables, reference, batch, key=None) -> Metrics:
        logprobs = target_logprobs(model, variables, batch)  # [b, a]
        old = batch.get("old_logprobs", logprobs)
        ref = batch.get("ref_logprobs")
        shares = batch["shares"]  # [b, n]
        branches = 1 + jnp.arange(shares.shape[1])
        of_branch = batch["target_segment"][:, None] == branches[:, None]  # [b, n, a]

        def per_branch(x: jax.Array | None) -> jax.Array | None:
            return None if x is None else jnp.broadcast_to(x[:, None], of_branch.shape)

        losses = loss(
            per_branch(logprobs), per_branch(old), per_branch(ref), batch["advantages"], of_branch
        )  # [b, n]
        metrics = {"loss": (jnp.sum(shares * losses), jnp.sum(batch["groups"]))}
        weight = jnp.sum(shares[..., None] * of_branch, axis=1)  # [b, a], of each token
        if "old_logprobs" in batch:
            moved = jnp.abs(jnp.exp(logprobs - old) - 1.0) > options.clip_epsilon
            metrics["clip_fraction"] = (jnp.sum(weight * moved), weight.sum())
        if ref is not None:
            kl = jnp.sum(weight * kl_estimate(logprobs, ref))
            metrics["kl"] = (kl, weight.sum())
        return metrics | token_counts(batch)

    return objective
