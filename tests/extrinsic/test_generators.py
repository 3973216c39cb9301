from collections import Counter

import pytest
from extrinsic_cases import THINGS, example, run_funnel

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import (
    BEYOND_FRAME,
    GENERATORS,
    Proposal,
    fill,
    register_generator,
    usual_answer,
)


def test_a_generator_that_is_there_twice_has_two_turns():
    examples = [example(i) for i in range(60)]
    rows = run_funnel(examples, "beyond_frame", "unseeable", "unseeable").rows
    counts = Counter(row["generator"] for row in rows)
    assert counts == {"beyond_frame": 20, "unseeable": 40}


def test_beyond_the_frame_names_only_what_is_shown():
    examples = [example(i) if i % 2 else example(i, "How many are there?") for i in range(60)]
    rows = run_funnel(examples, "beyond_frame").rows
    assert len(rows) == 60
    seen = set()
    for row in rows:
        i = int(row["images"][0][:-4])
        template = row["question"]
        if i % 2:
            template = template.replace(f"the {THINGS[i % 8]}", "the {noun}")
        assert template in BEYOND_FRAME
        assert i % 2 or "{noun}" not in template
        seen.add(template)
    assert len(seen) > 6


def test_a_generator_of_ones_own():
    @register_generator("weather")
    def weather(example, context, rng):
        yield Proposal("What will the weather be tomorrow?", "weather", extra={"tense": "future"})

    try:
        rows = run_funnel([example(i) for i in range(3)], "weather").rows
        assert [(r["generator"], r["kind"], r["tense"]) for r in rows] == [
            ("weather", "weather", "future")
        ] * 3
        assert rows[0]["filters"] == ["ill_formed", "present", "duplicate"]
    finally:
        del GENERATORS["weather"]


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("dog", "How old is the dog?"),
        ("shoes", "How old are the shoes?"),
        ("cross", "How old is the cross?"),
        ("bus", "How old is the bus?"),
        ("people", "How old are the people?"),
        ("two men", "How old are the two men?"),
        ("", "How old is the ?"),
    ],
)
def test_verbs_agree(noun, expected):
    assert fill("How old is the {noun}?", noun) == expected
    assert fill("What is on top of the {noun}?", noun) == f"What is on top of the {noun}?"
    assert fill("What does the {noun} do?", noun).split()[1] == (
        "do" if " are " in expected else "does"
    )


def test_the_usual_answer_is_the_most_frequent_one():
    assert usual_answer(example(0, answers=("red", "blue", "blue", "red", "grey"))) == "red"
    assert usual_answer(example(0, answers=())) == ""


@pytest.mark.parametrize("name", ["unseeable", "mismatched", "beyond_frame"])
def test_what_asks_in_english_is_not_used_on_another_language(name):
    examples = [example(i, f"Welche Farbe hat Bild {i}?") for i in range(4)]
    with pytest.raises(InbolError, match="evidence_removed: --generators evidence_removed"):
        run_funnel(examples, name)
