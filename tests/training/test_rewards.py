"""What a response is worth."""

import pytest

from inbol_jax.records import VQAExample
from inbol_jax.training.rl import REWARDS, register_reward, reward_function

CAT = VQAExample("q", ("i.png",), "What is this?", ("cat",) * 10, True)
UNSEEN = VQAExample("q", ("i.png",), "What is behind it?", (), False)
VENTURED = VQAExample("q", ("i.png",), "What is behind it?", ("cat",) * 10, False)
CASES = [(CAT, "cat"), (CAT, "I don't know."), (CAT, "dog"), (UNSEEN, "I don't know.")]
CASES += [(UNSEEN, "cat"), (VENTURED, "cat")]


def test_the_default_is_the_user_value():
    assert [reward_function("value")(*case) for case in CASES] == [1, 0, -1, 1, -1, -1]


def test_a_reward_of_ones_own(monkeypatch):
    monkeypatch.setitem(REWARDS, "long", lambda example, text: len(text) + len(example.question))
    reward = reward_function("long")
    assert reward(CAT, "dog") == 16.0
    with pytest.raises(ValueError, match="'long' is registered already"):
        register_reward("long")(reward)
