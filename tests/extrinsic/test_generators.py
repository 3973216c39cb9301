import re
from collections import Counter
from pathlib import Path

import pytest
from extrinsic_cases import THINGS, example, run_funnel

from inbol_jax.extrinsic.generators import (
    BEYOND_FRAME,
    FALSE_PREMISE,
    GENERATORS,
    WRITER_PROMPT,
    Proposal,
    Reply,
    fill,
    parse_questions,
    register_generator,
    usual_answer,
)


def test_false_premises_are_about_what_is_missing():
    examples = [example(i) for i in range(16)]
    rows, verdicts, *_ = run_funnel(examples, "false_premise")
    assert len(rows) == verdicts["false_premise", "kept"] == 16
    for row in rows:
        forms = (re.escape(t).replace(r"\{noun\}", r"(\w+)") for t in FALSE_PREMISE)
        noun = next(match[1] for form in forms if (match := re.fullmatch(form, row["question"])))
        assert noun in THINGS
        assert noun != THINGS[int(row["images"][0][:-4]) % 8]


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


def test_lines_of_what_a_model_wrote():
    text = """1. What is behind the wall?
- "Who owns it?"

2) What is behind the wall?
* **What is next?**
Sure!"""
    questions = ["What is behind the wall?", "Who owns it?", "What is next?", "Sure!"]
    assert parse_questions(text) == questions
    assert parse_questions("") == []
    assert parse_questions("3 dogs are there, why?") == ["3 dogs are there, why?"]


def test_model_written_questions_go_through_the_filters():
    asked = []

    def writer(items, *, n, temperature, max_new_tokens, label):
        asked.extend(items)
        texts = {
            "0.png": "Here are some:\n1. Who took it?\n2. What is hidden behind the dog?",
            "1.png": "What color is the kite?",
            "3.png": "\n",
        }
        return [[Reply(texts[item.name])] if item.name in texts else [] for item in items]

    examples = [example(i) for i in range(4)]
    rows, verdicts, set_aside, _ = run_funnel(
        examples, "model_written", writer=writer, root=Path("images")
    )
    assert [(r["images"][0], r["question"]) for r in rows] == [("0.png", "Who took it?")]
    assert verdicts == {
        ("model_written", "ill_formed"): 1,
        ("model_written", "kept"): 1,
        ("model_written", "duplicate"): 1,
    }
    assert set_aside == {
        ("model_written", "could not be asked"): 1,
        ("model_written", "model wrote no question"): 1,
    }
    assert sorted(a.image for a in asked) == [Path(f"images/{i}.png") for i in range(4)]
    assert {a.question for a in asked} == {
        WRITER_PROMPT.format(n=3, question=example(i).question) for i in range(4)
    }
