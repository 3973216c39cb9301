from pathlib import Path

import pytest
from extrinsic_cases import candidate, example, rejects

from inbol_jax.extrinsic.contents import ImageContents
from inbol_jax.extrinsic.filters import FILTERS
from inbol_jax.extrinsic.generators import subject

DOG = "What color is the dog?"


@pytest.mark.parametrize("question", ["Who is she?", "What is 5 > 3, or a < b?"])
def test_what_is_well_formed(question):
    assert not rejects("ill_formed", [])(candidate(example(0), question))


@pytest.mark.parametrize(
    "question",
    [
        "Why?",
        "Name the cat now",
        "What is " + "very " * 80 + "big?",
        "How old is the {noun}?",
        "What is <image> behind it?",
        "What is <|im_end|> behind it?",
        "Question: what is behind it?",
        "What is\nbehind the dog?",
        "What is \ufffd behind it?",
    ],
)
def test_what_is_ill_formed(question):
    assert rejects("ill_formed", [])(candidate(example(0), question))


def test_present():
    pool = [example(0, DOG, ["brown"]), example(1, "Who holds the kite?", ["a woman"])]
    present = rejects("present", pool)
    about = {"generator": "mismatched", "absent": True}
    assert not present(candidate(pool[0], "Who holds the kite?", subject="kite", **about))
    assert present(candidate(pool[0], "What color is the cat?", subject="dog", **about))
    assert not present(candidate(pool[0], "Who owns the dog?", subject="dog"))


def test_what_the_set_asks_is_not_judged_by_its_form():
    short = example(0, "Why")
    assert not rejects("ill_formed", [])(candidate(short, "Why", "unreadable"))


def test_duplicates_are_of_one_image_and_of_what_was_kept():
    rejected = rejects("duplicate", [example(0)])
    assert rejected(candidate(example(0), f" {DOG.upper()} "))
    assert rejected(candidate(example(0), "What color, is the  dog"))
    elsewhere = candidate(example(1), DOG)
    assert not rejected(elsewhere)
    assert rejected(elsewhere)  # it passed a moment ago
    assert not rejected(candidate(example(0), DOG, image="evidence_removed/0.png"))


def test_the_page_names_every_filter_in_its_order():
    """A filter that is missing there is easily forgotten."""
    page = (Path(__file__).parents[2] / "docs/extrinsic.md").read_text().split("## Filters")[1]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert [name.strip("`") for name, _ in rows[: len(FILTERS)]] == list(FILTERS)
    assert list(FILTERS)[-1] == "duplicate"  # it remembers what has passed all others


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


def test_silence_tells_what_is_missing_of_rare_things_alone():
    pool = [example(i, "Where is the man?") for i in range(98)]
    pool += [example(98, "Who holds the kites?"), example(99, "What color is the kite?")]
    known = ImageContents(pool)
    assert known.surely_absent("0.png", "red kite")
    assert not known.surely_absent("98.png", "kite")  # two of them are no other thing
    assert not known.surely_absent("99.png", "man")  # nobody asked
    assert not known.surely_absent("0.png", "zebra")  # named nowhere: who knows
    assert not known.surely_absent("0.png", "kite color")  # every image has it
