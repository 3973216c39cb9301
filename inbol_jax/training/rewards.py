"""What a sampled response is worth: the user value by its outcome, or a function of one's own.

A reward of one's own is a Python file that registers it and then calls the command line, see
docs/on-policy.md. Nothing is imported by a string.
"""

import functools
import math
from collections.abc import Callable
from typing import TypeVar

from inbol_jax.errors import InbolError
from inbol_jax.losses.registry import register_in
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.training.rl_config import RewardConfig

# (question with its gold answers, text of the response) -> what it is worth
Reward = Callable[[VQAExample, str], float]
F = TypeVar("F", bound=Reward)
_DEFAULT = RewardConfig()

REWARDS: dict[str, Callable] = {}


def register_reward(name: str) -> Callable[[F], F]:
    """Decorator that registers a reward, for --reward. Raises ValueError if the name is taken."""
    return register_in(REWARDS, name)


@register_reward("value")
def user_value(example: VQAExample, text: str, *, values: RewardConfig = _DEFAULT) -> float:
    """What a response is worth to the user, by its outcome and whether there is an answer.

    With the default values its mean is T: a correct answer is worth 1, a refusal 0 and a wrong
    answer -1; if the question cannot be answered, a refusal is worth 1 and any answer -1.
    """
    found = outcome(example, text)
    if example.answerable is False:
        return values.reward_refusal_type3 if found == "refused" else values.reward_answer_type3
    return {
        "correct": values.reward_correct,
        "refused": values.reward_refusal,
        "wrong": values.reward_wrong,
    }[found]


def reward_function(options: RewardConfig) -> Reward:
    """The reward that the options name.

    Raises:
      InbolError: if it is not registered; later, if it returns no finite number.
    """
    if options.reward not in REWARDS:
        raise InbolError(f"--reward {options.reward!r}: choose one of {', '.join(REWARDS)}")
    if options.reward == "value":
        return functools.partial(user_value, values=options)
    reward = REWARDS[options.reward]

    def checked(example: VQAExample, text: str) -> float:
        value = reward(example, text)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InbolError(
                f"--reward {options.reward}: it returns {value!r} for {text[:60]!r} as a response "
                f"to question {example.id!r}; a finite number is needed"
            )
        return float(value)

    return checked
