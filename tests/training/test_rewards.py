"""What a response is worth."""

import pytest

from inbol_jax.errors import InbolError
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


@pytest.mark.parametrize("value", [None, "1", float("nan"), float("-inf")])
def test_a_reward_that_is_no_number_is_refused(monkeypatch, value):
    monkeypatch.setitem(REWARDS, "bad", lambda example, text: value)
    with pytest.raises(InbolError, match=r"--reward bad: it returns .* to question 'q'; a finite"):
        reward_function("bad")(CAT, "dog")
