import inspect
from pathlib import Path

import pytest
from extrinsic_cases import candidate, example, rejects

from inbol_jax.extrinsic import config
from inbol_jax.extrinsic.contents import ImageContents
from inbol_jax.extrinsic.filters import FILTERS, get_filters
from inbol_jax.extrinsic.generators import subject

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


def test_filters_are_applied_in_their_order():
    assert [*get_filters(["duplicate", "ill_formed"], lists_objects=False)] == [
        "ill_formed",
        "duplicate",
    ]
    assert list(FILTERS)[-1] == "duplicate"  # it remembers what has passed all others


def test_ungrammatical_judges_english_alone():
    asked = candidate(example(0), "Welche Farbe Farbe hat es?")
    assert rejects("ungrammatical", [example(0)])(asked)
    german = [example(0, "Welche Farbe hat der Hund?")]
    assert rejects("ungrammatical", german)(asked) is None


def test_help_and_page_name_every_filter_with_its_default():
    """Both list them in their order; a filter that is missing there is easily forgotten."""
    assert f"Filters to use: {', '.join(FILTERS)}." in " ".join(inspect.getsource(config).split())
    page = (Path(__file__).parents[2] / "docs/extrinsic.md").read_text().split("## Filters")[1]
    wanted = {
        name: "always" if made.with_objects else "without `objects`"
        for name, made in FILTERS.items()
    }
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    listed = {name.strip("`"): default for name, _, default in rows[: len(FILTERS)]}
    assert list(listed.items()) == list(wanted.items())


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
