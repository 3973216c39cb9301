import inspect
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from extrinsic_cases import candidate, example, rejects, run_funnel
from PIL import Image

from inbol_jax.data.images import load_image
from inbol_jax.extrinsic import config
from inbol_jax.extrinsic.config import ExtrinsicConfig
from inbol_jax.extrinsic.contents import ImageContents
from inbol_jax.extrinsic.filters import (
    FILTERS,
    MODEL_FILTERS,
    FilterContext,
    language,
    settled_answer,
    usual_language,
)
from inbol_jax.extrinsic.funnel import Funnel
from inbol_jax.extrinsic.generators import (
    Generator,
    GeneratorContext,
    Proposal,
    Reply,
    subject,
)

DOG = "What color is the dog?"


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Who is she?", None),
        ("What is 5 > 3, or a < b?", None),
        ("Why?", "fewer than three words"),
        ("Name the cat now", "no question mark at its end"),
        ("What is " + "very " * 80 + "big?", "longer than 300 characters"),
        ("How old is the {noun}?", "holds '{'"),
        ("What is <image> behind it?", "holds '<image>'"),
        ("What is <|im_end|> behind it?", "holds '<|im_end|>'"),
        ("Question: what is behind it?", "holds 'Question:'"),
        ("What is\nbehind the dog?", "holds '\\n'"),
        ("What is \ufffd behind it?", "holds '\ufffd'"),
    ],
)
def test_ill_formed(question, reason):
    assert rejects("ill_formed", [])(candidate(example(0), question)) == reason


def test_present_and_answer_present():
    pool = [example(0, DOG, ["brown"]), example(1, "Who holds the kite?", ["a woman"])]
    present, answer_present = rejects("present", pool), rejects("answer_present", pool)

    def mismatched(question, subject, answer):
        fields = {"subject": subject, "absent": True, "answer": answer}
        return candidate(pool[0], question, "mismatched", **fields)

    borrowed = mismatched("Who holds the kite?", "kite", "a woman")
    assert present(borrowed) is None
    assert answer_present(borrowed) is None
    back = mismatched("What color is the cat?", "dog", "brown")
    assert present(back) == "'dog' may be in the image"
    assert answer_present(back) == "'brown' is among the image's annotations"
    for spared in (
        {"answer": "yes"},
        {"answer": "7"},
        {"answer": ""},
        {"answer": "brown", "image": "evidence_removed/1.png"},
    ):
        asked = candidate(pool[0], "What color is the cat?", **spared)
        assert answer_present(asked) is None
    assert present(candidate(pool[0], "Who owns the dog?", subject="dog")) is None


def test_duplicates_are_of_one_image_and_of_what_was_kept():
    rejected = rejects("duplicate", [example(0)])
    assert rejected(candidate(example(0), f" {DOG.upper()} ")) == "asked already"
    assert rejected(candidate(example(0), "What color, is the  dog")) == "asked already"
    elsewhere = candidate(example(1), DOG)
    assert rejected(elsewhere) is None
    assert rejected(elsewhere) == "asked already"  # it passed a moment ago
    assert rejected(candidate(example(0), DOG, image="evidence_removed/0.png")) is None


@pytest.mark.parametrize(
    ("replies", "answer", "expected"),
    [
        (["red", "Red.", "red", "red", "blue"], "", "red"),
        (["red", "red", "red", "blue", "blue"], "", None),
        (["red", "red", "blue", "blue"], "blue", "blue"),
        (["red", "green", "blue", "blue"], "blue", "blue"),
        (["red", "green", "grey", "blue"], "blue", None),
        (["I don't know."] * 5, "", None),
        (["I don't know."] * 5, "I don't know", None),
        (["I don't know.", "red", "red", "red", "red"], "", "red"),
        ([], "", None),
        ([], "blue", None),
    ],
)
def test_what_replies_agree_on(replies, answer, expected):
    assert settled_answer(replies, answer, 0.8) == expected


def test_model_filters_ask_with_and_without_the_image(tmp_path):
    """The "model" reads the picture's color, and answers questions about the moon without it."""
    asked = []

    def replies(question, n):
        drawn = not isinstance(question.image, Path)
        image = question.image() if drawn else load_image(question.image)
        if question.name == "2.png":
            return []
        if "moon" in question.question:
            return [Reply("cheese")] * n
        if tuple(np.asarray(image)[0, 0]) == (255, 0, 0):
            return [Reply("red")] * n
        return [Reply(f"guess {i}") for i in range(n)]

    def model(questions, *, n, temperature, max_new_tokens, label):
        asked.extend((question.name, n) for question in questions)
        return [replies(question, n) for question in questions]

    for i, color in enumerate(("red", "blue", "blue", "blue")):
        Image.new("RGB", (4, 4), color).save(tmp_path / f"{i}.png")

    def propose(example, context, rng):
        moon = example.id == "q3"
        yield Proposal("What is the moon made of?" if moon else "What is its color?", "own")

    rows, verdicts, _, rejected = run_funnel(
        [example(i) for i in range(4)],
        Generator("own", propose),
        filters=["answered", "text_only"],
        root=tmp_path,
        model=model,
    )
    assert [(r["id"], r["filters"]) for r in rows] == [("q1-own", ["text_only", "answered"])]
    assert verdicts == {("own", "kept"): 1, ("own", "answered"): 2, ("own", "text_only"): 1}
    assert {r["id"]: (r["filter"], r["reason"], r["passed"]) for r in rejected} == {
        "q0-own": ("answered", "answered 'red'", ["text_only"]),
        "q2-own": ("answered", "could not be asked", ["text_only"]),
        "q3-own": ("text_only", "answered 'cheese' without the image", []),
    }
    assert {n for _, n in asked} == {5}
    assert Counter(name for name, _ in asked) == {"blank": 4, "0.png": 1, "1.png": 1, "2.png": 1}


def test_filters_are_applied_in_their_order():
    source = GeneratorContext([], ImageContents([]))
    context = FilterContext(source, ExtrinsicConfig(Path(), Path()))
    funnel = Funnel(context, [], ["answered", "duplicate", "ill_formed"], keep=str, reject=str)
    assert funnel.filters == ["ill_formed", "duplicate", "answered"]
    assert list(FILTERS)[-1] == "duplicate"  # it remembers what has passed all others


def test_help_and_page_name_every_filter_with_its_default():
    """Both list them in their order; a filter that is missing there is easily forgotten."""
    names = [*FILTERS, *MODEL_FILTERS]
    assert f"Filters to use: {', '.join(names)}." in " ".join(inspect.getsource(config).split())
    page = (Path(__file__).parents[2] / "docs/extrinsic.md").read_text().split("## Filters")[1]
    wanted = {
        name: "always" if made.with_objects else "without `objects`"
        for name, made in FILTERS.items()
    } | dict.fromkeys(MODEL_FILTERS, "with `--model`")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip("`"): default for name, _, default in rows[: len(names)]}
    assert list(listed.items()) == list(wanted.items())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What color is the star?", "en"),
        ("Welche Farbe hat der Stern?", "de"),
        ("¿De qué color es el coche?", "es"),
        ("Какого цвета машина?", "ru"),
        ("車は何色ですか?", "ja"),
        ("汽车是什么颜色?", "zh"),
        ("자동차는 무슨 색입니까?", "ko"),
        ("Color?", None),
        ("", None),
    ],
)
def test_language(text, expected):
    assert language(text) == expected


def test_languages_of_a_set_and_of_its_questions():
    nouns = ("Hund", "Stern", "Ball")
    german = [example(i, f"Welche Farbe hat der {noun}?") for i, noun in enumerate(nouns)]
    german.append(example(9, "What is the dog?"))
    assert usual_language(e.question for e in german) == "de"
    assert usual_language(["?", "1"]) is None
    auto, english = rejects("language", german), rejects("language", german, language="en")
    asked = candidate(german[0], "How old is the dog?")
    assert auto(asked) == "en, not de"
    assert english(asked) is None
    for text in ("Сколько лет собаке, скажи?", "狗几岁了呢,请问一下?"):
        assert english(candidate(german[0], text))
    # No language is told of texts like these, so they pass.
    for text in ("Hund Katze Maus?", "Color?"):
        assert auto(candidate(german[0], text)) is None


def test_what_is_known_of_an_image():
    listed = ImageContents(
        [
            example(1, "What?", image="a", objects=["red star", "Blue ring"]),
            example(2, "What?", image="b", objects=["green star"]),
        ]
    )
    assert listed.absent("b", "ring")
    assert listed.absent("b", "red star")  # a star there is, but none is red
    assert not listed.absent("a", "red star")
    assert not listed.absent("a", "unicorn")  # named nowhere: who knows
    assert listed.present("a", "blue ring")
    assert not listed.present("b", "red star")
    assert listed.lists_objects
    told = ImageContents([example(0), example(0, "Who holds the leash?", ["a woman"]), example(1)])
    assert told.present("0.png", "dog leash woman red")
    assert told.absent("0.png", "kite")
    assert not told.absent("0.png", "zebra")
    assert not told.lists_objects
    assert not ImageContents([example(0, objects="dog")]).lists_objects  # a list is wanted
    # A verb behind the subject does not make it absent: b shows the sign, and answers the question.
    signs = ("What does the sign say?", "What color is the sign?")
    known = ImageContents([example(i, q, image="ab"[i]) for i, q in enumerate(signs)])
    assert not known.absent("b", subject(signs[0]))
