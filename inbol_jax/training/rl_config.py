"""Options of on-policy refusal (`inbol rl`). Imports are light: help must be fast."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar

from inbol_jax.defaults import (
    NEW_TOKENS,
    BatchSize,
    Bounded,
    Bounds,
    NumNewTokens,
    NumSamples,
    Seed,
)
from inbol_jax.errors import InbolError
from inbol_jax.prompts import AUTO, PromptOptions
from inbol_jax.training.config import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(Bounded):
    """What responses are worth, and the loss of a response (`losses.policy_gradient_loss`)."""

    reward: str = "value"
    """Function that scores a response: value (the user value: the mean reward is T), or one of your
    own (docs/on-policy.md)."""
    abstention_bonus: Annotated[float, Bounds(0)] = 0.0
    """Weight lambda of what refusals get besides: lambda * (1 - 2 p), where p is the share of
    correct answers among the answers of the group (TIAR, arXiv 2605.25850)."""
    scale_rewards: bool = True
    """Divide the advantages of a group by the standard deviation of its rewards (GRPO)."""
    kl_coef: Annotated[float, Bounds(0)] = 0.0
    """Weight of the KL divergence from the frozen model that training starts from. With 0 that
    model is not computed."""
    length_normalized: bool = False
    """Take the mean over the tokens of a response (GRPO) instead of the sum, whose gradient is the
    unbiased one. With the mean a refusal, which is longer than most answers, is learnt slower."""


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
    n: Annotated[NumSamples, Bounds(2)] = 10
    """Responses per question, drawn at temperature 1 and without truncation, that is, from the
    policy itself. They are compared with each other."""
    max_new_tokens: NumNewTokens = NEW_TOKENS
    """A response that has not ended by itself is cut after this number of tokens."""
    prompt: PromptOptions = AUTO
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
