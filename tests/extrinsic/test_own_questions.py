"""The generators that ask an example's own question, about another image or an unreadable one."""

import numpy as np
import pytest
from extrinsic_cases import COLORS, THINGS, Eye, example, run_funnel
from PIL import Image

from inbol_jax.answers import Generation
from inbol_jax.data.images import load_image
from inbol_jax.extrinsic.other_image import existence_question
from inbol_jax.extrinsic.unreadable import DEGREES, FLAWS, blurred


def test_another_image_lacks_what_the_question_is_about():
    examples = [example(i, objects=[f"{COLORS[i % 2]} {THINGS[i % 8]}"]) for i in range(64)]
    examples += [example(64, "How many dogs are there?", objects=["red dog"])]
    rows, _, set_aside = run_funnel(examples, "other_image")
    assert len(rows) == 64
    assert set_aside == {("other_image", "question presumes nothing that could be missing"): 1}
    things = {e.image: e.extra["objects"][0].split()[1] for e in examples}
    for row in rows:
        assert things[row["images"][0]] not in row["question"]
    assert len({row["images"][0] for row in rows}) > 20


def test_a_copy_under_another_name_is_no_other_image(tmp_path):
    """Nor is one that is missing, which is 2.png."""
    for i, colour in enumerate(((255, 0, 0), (255, 0, 0), None, (0, 0, 255))):
        if colour:
            Image.new("RGB", (8, 8), colour).save(tmp_path / f"{i}.png")
    things = (["dog"], ["cat"], ["cat"], ["cat"])
    examples = [
        example(i, "What color is the dog?" if not i else "What is this?", objects=o)
        for i, o in enumerate(things)
    ]
    for seed in range(4):
        rows = run_funnel(examples, "other_image", root=tmp_path, seed=seed).rows
        assert [row["images"] for row in rows] == [["3.png"]]


class Witness:
    """A "model" that sees the things of images by their names, and is never sure about q1's."""

    def __init__(self):
        self.asked = []

    def __call__(self, questions, label):
        self.asked.append(len(questions))
        return [self.answer(q) for q in questions]

    def answer(self, question):
        there = THINGS[int(question.image[:-4]) % 8] in question.question
        unsure = question.id.startswith("q1 ")
        return Generation("yes" if there else "No.", -1.0 if unsure else -0.01, 1)


def test_a_model_says_which_image_lacks_it():
    """No thing is rare here, so silence tells nothing."""
    examples, model = [example(i) for i in range(16)], Witness()
    assert not run_funnel(examples, "other_image").rows
    rows, _, set_aside = run_funnel(examples, "other_image", model=model)
    assert model.asked == [16 * 5]
    assert {row["id"] for row in rows} == {f"q{i}-other_image" for i in range(16) if i != 1}
    assert set_aside == {("other_image", "nothing to ask about"): 1}
    for row in rows:
        assert THINGS[int(row["images"][0][:-4]) % 8] not in row["question"]


def test_a_model_is_believed_where_it_sees_the_thing_everywhere():
    """Silence would tell that the kite is missing: it is rare."""
    examples = [example(i, f"What color is the {'wall' if i else 'kite'}?") for i in range(100)]
    assert run_funnel(examples, "other_image").rows
    always = lambda questions, label: [Generation("yes", -0.01, 1) for _ in questions]  # noqa: E731
    assert not run_funnel(examples, "other_image", model=always).rows


def test_every_image_has_a_background():
    examples = [example(i, "What is in the background?") for i in range(8)]
    never = lambda questions, label: [  # noqa: E731
        Generation("yes" if q.id.endswith(" 0") else "no", -0.01, 1) for q in questions
    ]
    assert not run_funnel(examples, "other_image", model=never).rows


def test_two_dogs_are_dogs():
    things = (["dog"], ["dogs"], ["cat"])
    asked = ("What color is the dog?", "What color is the dog?", "What is this?")
    examples = [
        example(i, q, objects=o) for i, (q, o) in enumerate(zip(asked, things, strict=True))
    ]
    rows = run_funnel(examples[:2], "other_image").rows
    assert not rows
    assert {r["images"][0] for r in run_funnel(examples, "other_image").rows} == {"2.png"}


@pytest.mark.parametrize(
    ("thing", "question"),
    [
        ("red star", "Is there a red star?"),
        ("old clock", "Is there an old clock?"),
        ("shoes", "Are there shoes?"),
        ("hour glass", "Is there an hour glass?"),
        ("uniform", "Is there a uniform?"),
        ("umbrella", "Is there an umbrella?"),
        ("one-way sign", "Is there a one-way sign?"),
    ],
)
def test_whether_a_thing_is_there(thing, question):
    assert existence_question(thing) == question


def pictures(folder, n):
    """Red dots on noise."""
    rng = np.random.default_rng(0)
    for i in range(n):
        image = Image.fromarray(rng.integers(90, 110, (40, 60, 3), np.uint8))
        image.paste((255, 0, 0), (20, 10, 40, 30))
        image.save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("flaw", FLAWS)
def test_nothing_is_left_at_the_last_degree(tmp_path, flaw):
    image = load_image(pictures(tmp_path, 1) / "0.png")
    red = np.zeros((40, 60), bool)
    red[10:30, 20:40] = True
    told = []
    for degree in range(DEGREES):
        seen = np.asarray(flaw(image, degree, np.random.default_rng(1)), float)
        assert seen.shape == (40, 60, 3)
        shown, rest = (seen[where].mean(axis=0) for where in (red, ~red))
        told.append(np.abs(shown - rest).max())
    assert told[-1] < (40 if flaw is blurred else 25)
    assert told[-1] <= told[0] + 1


def test_how_much_is_needed_is_what_blinds_the_model(tmp_path):
    eye = Eye(pictures(tmp_path, 12))
    examples = [example(i, "What color is the dot?") for i in range(12)]
    rows = run_funnel(examples, "unreadable", root=tmp_path, model=eye).rows
    assert eye.asked == [12, 12 * DEGREES]
    assert {row["removed"]["how"] for row in rows} == {flaw.__name__ for flaw in FLAWS}
    for row in rows:
        assert eye.answer(tmp_path / row["images"][0]).text == "no"
    alone = run_funnel(examples, "unreadable", root=tmp_path).rows
    assert {(r["removed"]["how"], r["removed"]["degree"]) for r in alone} == {
        ("dark", DEGREES - 1),
        ("covered", DEGREES - 1),
    }
    assert run_funnel(examples, "unreadable", root=tmp_path).rows == alone
    named = [example(i, "What is the dot called?") for i in range(12)]
    rows = run_funnel(named, "unreadable", root=tmp_path).rows
    assert {row["removed"]["how"] for row in rows} == {flaw.__name__ for flaw in FLAWS}


def test_questions_about_one_picture_have_pictures_of_their_own(tmp_path):
    """What is drawn is drawn by the question, so a shared file would hold the last one's."""
    pictures(tmp_path, 1)
    examples = [example(i, f"What is the dot {i} called?", image="0.png") for i in range(30)]
    rows = run_funnel(examples, "unreadable", root=tmp_path, model=Eye(tmp_path)).rows
    assert len({row["images"][0] for row in rows}) == len(rows) == 30


def test_the_grain_of_a_large_picture_stays_when_it_is_made_smaller():
    half = np.zeros((2000, 2000, 3), np.uint8)
    half[:, :1000] = 255
    rng = np.random.default_rng(0)
    seen = np.asarray(FLAWS[1](Image.fromarray(half), 0, rng).resize((224, 224)), float)
    assert seen[:, :100].std() > 3


def test_a_flaw_may_be_the_answer(tmp_path):
    examples = [example(0, "Is it day or night?"), example(1, "What color is the dot?")]
    rows, _, set_aside = run_funnel(examples, "unreadable", root=pictures(tmp_path, 2))
    assert [row["id"] for row in rows] == ["q1-unreadable"]
    assert set_aside == {("unreadable", "question about light or sharpness"): 1}
