"""`inbol rl`: on-policy refusal, a policy gradient on groups of the model's own responses.

A rollout samples n responses to each question of a batch, scores and packs them; then one or more
steps are trained on it. What is drawn is a function of the weights, the seed and the number of the
rollout, so a run resumes exactly. Checkpoints lie between rollouts, never within one.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from inbol_jax.errors import InbolError
from inbol_jax.losses import kl_estimate, policy_gradient_loss
from inbol_jax.models.processor import prompt_for
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.processes import is_main, one_writer
from inbol_jax.progress import say
from inbol_jax.sampling.sampler import Samples, sample
from inbol_jax.sharding import local_rows
from inbol_jax.training.dataset import stream_batches, training_order
from inbol_jax.training.finetune import Prepared, prepare, train_and_save
from inbol_jax.training.model import load_model
from inbol_jax.training.parallel import PARALLEL, Parallel, RowFunction
from inbol_jax.training.rewards import reward_function
from inbol_jax.training.rl_config import PolicyGradientConfig, RlConfig
from inbol_jax.training.rollout import (
    HostMetrics,
    RolloutPacker,
    fresh_numbers,
    make_prompts,
    read_datasets,
    sampling_options,
)
from inbol_jax.training.step import (
    Metrics,
    Objective,
    TrainState,
    make_program,
    target_logprobs,
    token_counts,
)
from inbol_jax.training.trainer import Batches, HostBatch, StepInfo, Trainer
from inbol_jax.training.variables import Flat, merge_variables

LABEL = "on-policy refusal"


@one_writer
def rl(config: RlConfig) -> Path:
    """Runs or resumes on-policy refusal. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    reward = reward_function(config.rewards)
    datasets = read_datasets(config)
    tell = say if is_main() else lambda line: None
    prompt = prompt_for(config.model, config.prompt, [data.file for data in datasets], tell)
    checkpoint = load_model(config, prompt)
    questions = make_prompts(checkpoint, datasets, config)
    prepared = prepare(
        checkpoint, config, label=LABEL, reference=config.policy_gradient.kl_coef > 0
    )
    packer = RolloutPacker(questions, config, prepared.mesh, reward)
    trainer, optimizer = make_trainer(prepared, packer)
    updates = config.policy_gradient.num_iterations
    batches = question_batches(prepared, packer)
    folder = train_and_save(
        prepared,
        trainer,
        optimizer,
        batches,
        pictures=questions.pictures,
        steps_per_rollout=updates,
    )
    if is_main():
        say(f"{LABEL} on {len(questions)} questions, {config.epochs} epochs -> {folder}")
    return folder


def make_trainer(
    prepared: Prepared, packer: RolloutPacker
) -> tuple["OnPolicyTrainer", optax.GradientTransformation]:
    """The trainer of a run, and its optimizer."""
    config = packer.config
    rollouts = -(-len(packer.questions) * config.epochs // prepared.batch_size)
    steps = rollouts * config.policy_gradient.num_iterations
    objective = policy_gradient_objective(prepared.checkpoint.model, config.policy_gradient)
    program = make_program(objective, config, steps)
    parallel = PARALLEL[config.runtime.parallel](
        program.train_step, prepared.mesh, program.eval_step
    )
    return OnPolicyTrainer(prepared, parallel, steps, packer), program.optimizer


def question_batches(prepared: Prepared, packer: RolloutPacker) -> Batches:
    """The questions of each rollout, from the one on that comes after so many steps."""
    config, questions, size = packer.config, packer.questions, prepared.batch_size
    order = training_order(questions.lengths, size, config.epochs, config.seed, grouped=False)
    mine, rollouts = local_rows(prepared.mesh, size), -(-len(questions) * config.epochs // size)

    def batches(done: int) -> Iterable[HostBatch]:
        first = done // config.policy_gradient.num_iterations
        return stream_batches(questions, order, mine, first, rollouts)

    return batches


class OnPolicyTrainer(Trainer):
    """A trainer whose batches are drawn from the policy that it trains."""

    def __init__(
        self, prepared: Prepared, parallel: Parallel, total_steps: int, packer: RolloutPacker
    ):
        super().__init__(
            parallel,
            total_steps,
            frozen=prepared.frozen,
            reference=prepared.reference,
            label=prepared.label,
        )
        self._packer, config = packer, packer.config
        self._updates = config.policy_gradient.num_iterations
        self._parts = config.gradient_accumulation_steps
        model = prepared.checkpoint.model
        self._sample = parallel.by_rows(sampling_function(model, config))
        options = config.policy_gradient
        scoring = options.num_iterations > 1 or options.kl_coef
        self._score = parallel.by_rows(scoring_function(model, options)) if scoring else None

    def steps(self, state: TrainState, batches: Iterable[HostBatch]) -> Iterator[StepInfo]:
        """Trains from a state on the devices to the last step.

        Args:
          batches: of questions, from the rollout on that the state is at.
        Raises:
          InbolError: if the state lies within a rollout, or what it computes is not finite.
        """
        step = self.steps_done(state)
        if step % self._updates:
            raise InbolError(
                f"--num-iterations {self._updates}: the checkpoint of step {step} lies within a "
                "rollout of so many steps; choose another --out"
            )
        for number, questions in enumerate(batches, step // self._updates):
            batch, rollout_metrics = self.rollout(state, questions, number)
            placed = self.parallel.shard(batch)
            for _ in range(self._updates):
                step += 1
                state, metrics = self.parallel.run(state, self.frozen, self.reference, placed)
                metrics = {**metrics, **rollout_metrics}
                yield StepInfo(step, step == self.total_steps, state, metrics)

    def rollout(
        self, state: TrainState, questions: HostBatch, number: int
    ) -> tuple[HostBatch, HostMetrics]:
        """What the policy responds to a batch of questions, as a batch to train on."""
        batch, metrics = self._packer.batch(questions, self.draw(state, questions, number))
        if self._score:
            batch |= self._in_parts(self._score, state, batch)
        return batch, metrics

    def draw(self, state: TrainState, questions: HostBatch, number: int) -> Samples:
        """What the policy responds in the rollout of that number, on the host.

        Raises:
          InbolError: if the log-probabilities are not finite.
        """
        asked = {name: x for name, x in questions.items() if name != "row"}
        asked["question"] = fresh_numbers(questions["question"], number)
        samples = self._in_parts(self._sample, state, asked)
        if not np.isfinite(samples.logprobs).all():
            raise InbolError(
                f"{self.label}: what the model computes is not finite after "
                f"{self.steps_done(state)} steps; lower --learning-rate"
            )
        return samples

    def _in_parts(self, program: Callable[..., Any], state: TrainState, batch: HostBatch) -> Any:
        """The program's rows for this process's rows, a micro-batch at a time."""
        parts = [
            {name: np.split(x, self._parts)[i] for name, x in batch.items()}
            for i in range(self._parts)
        ]
        results = [
            program(state, self.frozen, self.reference, self.parallel.shard(part)) for part in parts
        ]
        return jax.tree.map(lambda *rows: np.concatenate(rows), *results)


def sampling_function(model: VisionLanguageModel, config: RlConfig) -> RowFunction:
    """Draws the n responses to each question of a batch from the policy: `Samples`."""
    options = sampling_options(config)

    def draw(state: TrainState, frozen: Flat, reference: Flat | None, batch) -> Samples:
        variables = merge_variables(state.params, frozen)
        return sample(model, variables, batch, key=jax.random.key(config.seed), options=options)

    return draw


def scoring_function(model: VisionLanguageModel, options: PolicyGradientConfig) -> RowFunction:
    """The log-probabilities that the loss compares with, f32[b, a] of a packed batch's targets:
    ref_logprobs if there is a KL term, and old_logprobs if there is more than one update.

    In the first update the policy is the one that drew the responses.
    """

    def score(state: TrainState, frozen: Flat, reference: Flat | None, batch) -> Mapping[str, Any]:
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

    The batch is one of `RolloutPacker.batch`, with the columns of `scoring_function`. Dropout is
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
