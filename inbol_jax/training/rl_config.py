"""Options of on-policy refusal (`inbol rl`). Imports are light: help must be fast."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from inbol_jax.defaults import (
    NEW_TOKENS,
    BatchSize,
    Bounded,
    Bounds,
    Finite,
    NumEpochs,
    NumNewTokens,
    NumSamples,
    Seed,
)
from inbol_jax.errors import InbolError
from inbol_jax.prompts import AUTO, PromptOptions
from inbol_jax.training.config import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupConfig(Bounded):
    """The group of responses that is sampled to each question.

    They are drawn at temperature 1 and without truncation, that is, from the policy itself.
    """

    n: Annotated[NumSamples, Bounds(2)] = 10
    """Responses per question. They are compared with each other."""
    max_new_tokens: NumNewTokens = NEW_TOKENS
    """A response that has not ended by itself is cut after this number of tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig(Bounded):
    """What a response is worth. The default is the user value: the mean reward is T."""

    reward: str = "value"
    """Function that scores a response: value (by its outcome, with the numbers below), or one of
    your own (docs/on-policy.md)."""
    reward_correct: Finite = 1.0
    """Value of a correct answer."""
    reward_refusal: Finite = 0.0
    """Value of a refusal, if the question can be answered."""
    reward_wrong: Finite = -1.0
    """Value of a wrong answer."""
    reward_refusal_type3: Finite = 1.0
    """Value of a refusal, if the question cannot be answered from the image (Type 3)."""
    reward_answer_type3: Finite = -1.0
    """Value of any answer to such a question."""
    abstention_bonus: Annotated[float, Bounds(0)] = 0.0
    """Weight lambda of what refusals get besides: lambda * (1 - 2 p), where p is the share of
    correct answers among the answers of the group (TIAR, arXiv 2605.25850)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reward == "value":
            return
        for field in dataclasses.fields(self):
            value, option = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if field.name not in ("reward", "abstention_bonus") and value != field.default:
                raise InbolError(f"{option} {value} does nothing with --reward {self.reward}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(Bounded):
    """The loss of a response (`losses.policy_gradient_loss`)."""

    num_iterations: NumEpochs = 1
    """Optimizer steps per group of responses. With more than one, responses are drawn less often,
    and the ratio to the policy that drew them is clipped."""
    clip_epsilon: Annotated[float, Bounds(above=0, below=1)] = 0.2
    """How far that ratio may move from 1 before it has no gradient."""
    kl_coef: Annotated[float, Bounds(0)] = 0.0
    """Weight of the KL divergence from the frozen model that training starts from. With 0 that
    model is not computed."""
    scale_rewards: bool = True
    """Divide the advantages of a group by the standard deviation of its rewards (GRPO)."""
    length_normalized: bool = False
    """Take the mean over the tokens of a response (GRPO) instead of the sum, whose gradient is the
    unbiased one. With the mean a refusal, which is longer than most answers, is learnt slower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_iterations == 1 and self.clip_epsilon != PolicyGradientConfig.clip_epsilon:
            raise InbolError(
                f"--clip-epsilon {self.clip_epsilon} does nothing with --num-iterations 1: "
                "the ratio is 1"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlConfig(RunConfig):
    """On-policy refusal: a policy gradient on the model's own responses.

    Each question gets a group of responses, drawn from the model as it is. What a response is worth
    beyond the mean of its group is its advantage. The frozen reference is the model that training
    starts from.
    """

    method: ClassVar[str] = "rl"

    data: tuple[Path, ...]
    """Dataset folders, or .jsonl files: questions with their answers, and questions that cannot be
    answered from the image (Type 3)."""
    batch_size: BatchSize = 32
    """Questions per optimizer step, each with n responses."""
    seed: Seed = 0
    """Seed of the order of the data, of the responses and of new adapters."""
    prompt: PromptOptions = AUTO
    group: GroupConfig = GroupConfig()
    rewards: RewardConfig = RewardConfig()
    policy_gradient: PolicyGradientConfig = PolicyGradientConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise InbolError("--data: at least one dataset is needed")
        if self.lora.lora_dropout:
            raise InbolError(
                f"--lora-dropout {self.lora.lora_dropout}: the policy that is trained must be the "
                "one that responds, which has none; drop the option"
            )
