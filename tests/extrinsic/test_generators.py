import pytest
from extrinsic_cases import example, run_funnel

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.generators import (
    GENERATORS,
    Proposal,
    fill,
    register_generator,
)


def test_a_generator_of_ones_own():
    @register_generator("weather")
    def weather(example, context, rng):
        yield Proposal("What will the weather be tomorrow?", "weather", extra={"tense": "future"})

    try:
        rows = run_funnel([example(i) for i in range(3)], "weather").rows
        assert [(r["generator"], r["kind"], r["tense"]) for r in rows] == [
            ("weather", "weather", "future")
        ] * 3
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


def test_neither_names_nor_deeds_are_asked_about():
    things = ["Nicaragua", "facepalming", "brass bell"]
    rows = run_funnel([example(i, "What is this?", objects=things) for i in range(20)], "unseeable")
    assert len(rows.rows) == 20
    assert all("bell" in row["question"] for row in rows.rows)


@pytest.mark.parametrize("name", ["unseeable", "mismatched"])
def test_what_asks_in_english_is_not_used_on_another_language(name):
    examples = [example(i, f"Welche Farbe hat Bild {i}?") for i in range(4)]
    with pytest.raises(InbolError, match="choose other --generators"):
        run_funnel(examples, name)
