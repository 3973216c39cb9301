"""What a sampled response is worth: the user value by its outcome, or a function of one's own.

A reward of one's own is a Python file that registers it and then calls the command line, see
docs/on-policy.md. Nothing is imported by a string.
"""

import math
from collections.abc import Callable
from typing import TypeVar

from inbol_jax.errors import InbolError
from inbol_jax.losses.registry import register_in
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome, user_value

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
    """The reward of that name.

    Raises:
      InbolError: if it is not registered; later, if it returns no finite number.
    """
    if name not in REWARDS:
        raise InbolError(f"--reward {name!r}: choose one of {', '.join(REWARDS)}")
    reward = REWARDS[name]

    def checked(example: VQAExample, text: str) -> float:
        value = reward(example, text)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InbolError(
                f"--reward {name}: it returns {value!r} for {text[:60]!r} as a response to "
                f"question {example.id!r}; a finite number is needed"
            )
        return float(value)

    return checked
