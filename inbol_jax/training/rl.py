"""`inbol rl`: on-policy refusal, a policy gradient on groups of the model's own responses.

Each step draws n responses to each question of a batch from the policy as it is, scores and packs
them, and is trained on them. What is drawn is a function of the weights, the seed and the step, so
a run resumes exactly.
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from inbol_jax.artifacts import file_fingerprint
from inbol_jax.data.vqa import VQADataset, load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.losses import group_advantages, policy_gradient_loss
from inbol_jax.losses.registry import register_in
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.models.processor import make_text_encoder, prompt_for
from inbol_jax.models.stacking import unstack_layers
from inbol_jax.models.tiles import padded_tiles
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.processes import from_all, is_main, one_writer
from inbol_jax.progress import say
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome, user_value
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import (
    BatchShape,
    PromptedExample,
    encode_prompts,
    model_inputs,
    padded_length,
    to_text,
)
from inbol_jax.sampling.sampler import Samples, sample
from inbol_jax.sharding import local_rows, make_mesh
from inbol_jax.training.config import PolicyGradientConfig, RlConfig
from inbol_jax.training.dataset import (
    HostBatch,
    picture_fingerprint,
    read_batch,
    stream_batches,
    training_order,
)
from inbol_jax.training.model import load_model, save_trained, take_apart
from inbol_jax.training.settings import make_schedule, run_settings
from inbol_jax.training.step import (
    Flat,
    Metrics,
    Objective,
    TrainState,
    make_program,
    merge_variables,
    target_logprobs,
    token_counts,
)
from inbol_jax.training.trainer import Trainer

LABEL = "on-policy refusal"


@one_writer
def rl(config: RlConfig) -> Path:
    """Runs or resumes on-policy refusal. Returns the folder of the trained checkpoint.

    Raises:
      InbolError: for what is wrong with data, images, model or options, before training starts.
    """
    # ---- The questions, and the model on the mesh
    reward_function(config.policy_gradient.reward)  # an unknown name is refused before all else
    datasets = [load_dataset_folder(path, judged=True) for path in config.data]
    files = [dataset.file for dataset in datasets]
    mesh = make_mesh(*config.runtime.mesh)
    schedule = make_schedule(config, sum(len(dataset.examples) for dataset in datasets), mesh)
    tell = say if is_main() else lambda line: None
    prompt = prompt_for(config.model, config.prompt, files, tell)
    checkpoint = load_model(config, mesh, prompt)
    config = config.with_rate(adapters=checkpoint.model.lora is not None)
    questions = ask(checkpoint, datasets, config.max_new_tokens)

    # ---- The loss, and the run
    objective = policy_gradient_objective(checkpoint.model, config.policy_gradient)
    program = make_program(objective, config, schedule.steps)
    variables = take_apart(checkpoint, config)
    pictures = picture_fingerprint(path for question in questions for path in question.images)
    about = {"data": file_fingerprint(*files), "pictures": pictures}
    settings = run_settings(LABEL, config, checkpoint, schedule, **about)
    trainer = Trainer(config, program, *variables, mesh, settings, schedule.steps)

    # ---- Rollouts: the batch of each step is made of responses of the policy as it is then
    draw = trainer.parallel.rows(sampling_function(checkpoint.model, config))
    one_each = [1] * len(questions)
    order = training_order(
        one_each, schedule.batch_size, schedule.epochs, config.seed, grouped=False
    )
    mine = local_rows(mesh, schedule.batch_size)

    def rollouts(start: int) -> Iterable[HostBatch]:
        read = lambda step: question_batch(checkpoint, questions, order(step), mine)  # noqa: E731
        for step, asked in enumerate(stream_batches(read, start, schedule.steps), start):
            placed = trainer.parallel.shard(with_fresh_numbers(asked, step))
            samples = draw(trainer.state, trainer.frozen, placed)
            if not np.isfinite(samples.logprobs).all():
                raise InbolError(
                    f"{LABEL}: what the model computes is not finite after {step} steps; lower "
                    "--learning-rate"
                )
            groups = judge(checkpoint, questions, asked, samples, config)
            yield pack(checkpoint, asked, samples, groups, config)

    state = trainer.fit(rollouts)
    return save_trained(checkpoint, config, state, LABEL)


# ---- Questions


class Question(NamedTuple):
    """A question as the model is asked it."""

    prompted: PromptedExample
    root: Path
    """The folder that its images are relative to."""

    @property
    def images(self) -> list[Path]:
        """The paths of its images."""
        return [self.root / name for name in self.prompted.example.images]


def ask(
    checkpoint: Checkpoint, datasets: Sequence[VQADataset], max_new_tokens: int
) -> list[Question]:
    """The questions of several datasets.

    Raises:
      InbolError: if a question cannot be asked, or leaves no room for a response.
    """

    def refuse(example: VQAExample, reason: str) -> None:
        raise InbolError(f"question {example.id}: {reason}")

    encoder, questions = make_text_encoder(checkpoint), []
    for dataset in datasets:
        texts = ((example, encoder.text(example)) for example in dataset.examples)
        asked = encode_prompts(encoder, texts, dataset.root, refuse)
        questions += [Question(prompted, dataset.root) for prompted in asked]
    room = checkpoint.config.text.max_positions
    longest = max(len(question.prompted.prompt) for question in questions)
    if longest + max_new_tokens > room:
        raise InbolError(
            f"--max-new-tokens {max_new_tokens}: the longest question has {longest} tokens, and "
            f"the model was made for {room}"
        )
    return questions


def question_batch(
    checkpoint: Checkpoint, questions: Sequence[Question], indices: np.ndarray, mine: np.ndarray
) -> HostBatch:
    """This process's rows of a batch of questions as `sample` takes them, and `row` i32[b].

    Args: as of `read_batch`. Prompts and tiles are padded to those of the whole batch.
    """
    asked = [questions[i].prompted for i in indices]
    length, tiles = max(len(one.prompt) for one in asked), max(one.tiles for one in asked)
    shape = BatchShape(padded_length(length), padded_tiles(tiles))

    def read(index: int) -> HostBatch:
        prompted, root = questions[index]
        return model_inputs(checkpoint, prompted, shape, root) | {"row": np.int32(index)}

    return read_batch(read, indices, mine)


# ---- Rewards

# (question with its gold answers, text of the response) -> what it is worth
Reward = Callable[[VQAExample, str], float]
F = TypeVar("F", bound=Reward)

REWARDS: dict[str, Reward] = {
    "value": lambda example, text: user_value(outcome(example, text), example.answerable is False)
}


def register_reward(name: str) -> Callable[[F], F]:
    """Decorator that registers a reward, for --reward. Raises ValueError if the name is taken."""
    return register_in(REWARDS, name)


def reward_function(name: str) -> Reward:
    """The reward of that name; raises InbolError if it is not registered."""
    if name not in REWARDS:
        raise InbolError(f"--reward {name!r}: choose one of {', '.join(REWARDS)}")
    return REWARDS[name]


# ---- Responses


def with_fresh_numbers(asked: HostBatch, step: int) -> HostBatch:
    """A batch of questions as `sample` takes it, their numbers u32[b] other ones in each step:
    random keys are folded from them."""
    numbers = [zlib.crc32(f"{step}:{number}".encode()) for number in asked["question"]]
    batch = {name: x for name, x in asked.items() if name != "row"}
    return batch | {"question": np.array(numbers, np.uint32)}


def sampling_function(model: VisionLanguageModel, config: RlConfig) -> Callable[..., Samples]:
    """Draws the n responses to each question of a batch from the policy."""
    options = SamplingOptions(n=config.n, max_new_tokens=config.max_new_tokens)

    def draw(state: TrainState, frozen: Flat, batch) -> Samples:
        variables = unstack_layers(merge_variables(state.params, frozen), model.config)
        return sample(model, variables, batch, key=jax.random.key(config.seed), options=options)

    return draw


def judge(
    checkpoint: Checkpoint,
    questions: Sequence[Question],
    asked: HostBatch,
    samples: Samples,
    config: RlConfig,
) -> HostBatch:
    """What the n responses to each of b questions are: rewards f32[b, n], correct and refused
    bool[b, n]; 0 in rows that fill up the batch."""
    reward = reward_function(config.policy_gradient.reward)
    shape = len(asked["row"]), config.n
    rewards, correct, refused = (np.zeros(shape, kind) for kind in (np.float32, bool, bool))
    for i in np.flatnonzero(asked["valid"]):
        example = questions[asked["row"][i]].prompted.example
        for j, response in enumerate(zip(*(x[i] for x in samples), strict=True)):
            text = to_text(checkpoint, *response).text
            found = outcome(example, text)
            rewards[i, j] = reward(example, text)
            correct[i, j], refused[i, j] = found == "correct", found == "refused"
    return {"rewards": rewards, "correct": correct, "refused": refused}


# ---- What is trained on


def pack(
    checkpoint: Checkpoint, asked: HostBatch, samples: Samples, groups: HostBatch, config: RlConfig
) -> HostBatch:
    """This process's rows of the batch to train on: each question with its n responses as branches,
    its images, what `judge` says, and the advantages f32[b, n]."""
    # Rewards (1, -1, 1, 1) of a group become advantages (0.58, -1.73, 0.58, 0.58). In a group whose
    # rewards are all the same they are 0, and so is its gradient.
    scale = config.policy_gradient.scale_rewards
    advantages = np.asarray(group_advantages(groups["rewards"], scale=scale))  # [b, n]
    columns = groups | {"advantages": advantages}

    # All processes run one program: the targets of the longest row, as a power of two. Of ten
    # responses with 53 tokens in all, the row has 64 targets.
    longest = int(from_all(samples.lengths.sum(axis=1)).max())
    targets = 1 << (longest - 1).bit_length()
    shape = RowShape(asked["input_ids"].shape[1] + targets, targets)

    def packed(i: int) -> HostBatch:
        prompt = asked["input_ids"][i][asked["attention_mask"][i] != 0].tolist()
        responses = zip(samples.tokens[i], samples.lengths[i], strict=True)
        row = pack_row(prompt, [Branch(ids[:n].tolist()) for ids, n in responses], shape)
        row |= {name: asked[name][i] for name in checkpoint.config.image_shapes(1)}
        return row | {name: values[i] for name, values in columns.items()}

    size = len(asked["valid"])
    return collate([packed(i) for i in range(size)], size, valid=int(asked["valid"].sum()))


def policy_gradient_objective(
    model: VisionLanguageModel, options: PolicyGradientConfig
) -> Objective:
    """The mean over groups of the mean loss (`losses.policy_gradient_loss`) of their responses.

    The batch is one of `pack`. The policy that is trained is the one that responded: the ratio to
    it is 1.
    """

    def objective(variables, batch) -> Metrics:
        logprobs = target_logprobs(model, variables, batch)  # [b, a]
        # Targets of a row lie one behind another; `target_segment` says whose each of them is.
        branches = 1 + jnp.arange(batch["advantages"].shape[1])  # [n]
        of_branch = batch["target_segment"][:, None] == branches[:, None]  # [b, n, a]
        # The policy is the one that responded, so its log-probabilities stand for the old ones too.
        # The ratio is then 1, and its gradient is that of the log-probability (REINFORCE).
        policy = jnp.broadcast_to(logprobs[:, None], of_branch.shape)
        losses = policy_gradient_loss(  # [b, n]
            policy, policy, None, batch["advantages"], of_branch, average=options.length_normalized
        )
        valid = batch["valid"].astype(jnp.float32)
        values = {
            "loss": losses,
            "reward": batch["rewards"],
            "accuracy": batch["correct"].astype(jnp.float32),
            "refusal_rate": batch["refused"].astype(jnp.float32),
            "informative_groups": jnp.any(batch["advantages"] != 0, axis=1, keepdims=True),
        }
        metrics = {
            name: (jnp.sum(valid * jnp.mean(x, axis=1)), valid.sum()) for name, x in values.items()
        }
        return metrics | token_counts(batch)

    return objective
