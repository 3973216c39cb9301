import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic import evidence
from inbol_jax.extrinsic.evidence import evidence_boxes, remove
from inbol_jax.extrinsic.facts import ImageFacts, hash_texts
from inbol_jax.extrinsic.filters import Sources, get_filters
from inbol_jax.extrinsic.funnel import propose
from inbol_jax.extrinsic.generators import (
    GENERATORS,
    Asked,
    Context,
    Proposal,
    Reply,
    fill,
    get_generators,
    register_generator,
    usual_answer,
)
from inbol_jax.extrinsic.templates import BEYOND_FRAME, FALSE_PREMISE, WRITER_PROMPT
from inbol_jax.extrinsic.written import parse_questions
from inbol_jax.records import VQAExample

THINGS = ("dog", "kite", "bus", "cake", "clock", "horse", "sofa", "laptop")


def example(i, question=None, answers=("red",), **extra):
    return VQAExample(
        f"q{i}",
        f"{i}.png",
        question or f"What color is the {THINGS[i % 8]}?",
        tuple(answers),
        True,
        extra,
    )


def run(
    examples,
    *generators,
    n=100,
    filters=("ill_formed", "present", "duplicate"),
    root=Path(),
    **context,
):
    facts = ImageFacts(examples)
    counts = Counter()
    c = Context(examples, facts, root, **context)
    made = get_generators(generators)
    for generator in made:
        if generator.check:
            generator.check(c)
    return (
        list(propose(c, made, get_filters(filters, Sources(examples, facts, root)), n, 0, counts)),
        counts,
        c,
    )


def pictures(folder, n, size=(40, 30)):
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(
            folder / f"{i}.png"
        )
    return folder


def test_false_premises_are_about_what_is_missing():
    examples = [example(i) for i in range(16)]
    rows, counts, _ = run(examples, "false_premise")
    assert len(rows) == counts["false_premise", "kept"] == 16
    for row in rows:
        template = next(
            t
            for t in FALSE_PREMISE
            if re.fullmatch(re.escape(t).replace(r"\{noun\}", r"(\w+)"), row["question"])
        )
        noun = re.fullmatch(re.escape(template).replace(r"\{noun\}", r"(\w+)"), row["question"])[1]
        assert noun in THINGS
        assert noun != THINGS[int(row["image"][:-4]) % 8]


def test_beyond_the_frame_names_only_what_is_shown():
    examples = [example(i) if i % 2 else example(i, "How many are there?") for i in range(60)]
    rows, _, _ = run(examples, "beyond_frame")
    assert len(rows) == 60
    seen = set()
    for row in rows:
        i = int(row["image"][:-4])
        template = (
            row["question"].replace(f"the {THINGS[i % 8]}", "the {noun}")
            if i % 2
            else row["question"]
        )
        assert template in BEYOND_FRAME
        assert i % 2 or "{noun}" not in template
        seen.add(template)
    assert len(seen) > 6


def test_what_no_question_is_made_of_is_counted():
    rows, counts, context = run(
        [example(0), example(1, "How many are there?"), example(2, "How many?")], "unseeable"
    )
    assert len(rows) == counts["unseeable", "kept"] == 1
    assert context.set_aside == {("unseeable", "nothing to ask about"): 2}


def test_a_generator_of_ones_own():
    @register_generator("weather")
    def weather(example, context, rng):
        yield Proposal("What will the weather be tomorrow?", "weather", extra={"tense": "future"})

    try:
        rows, _, _ = run([example(i) for i in range(3)], "weather")
        assert [(r["generator"], r["kind"], r["tense"]) for r in rows] == [
            ("weather", "weather", "future")
        ] * 3
        assert rows[0]["filters"] == ["ill_formed", "present", "duplicate"]
    finally:
        del GENERATORS["weather"]


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("dog", "How old is the dog?"), ("shoes", "How old are the shoes?"), ("cross", "How old is the cross?"),
     ("bus", "How old is the bus?"),
     ("people", "How old are the people?"), ("", "How old is the ?")],
)  # fmt: skip
def test_verbs_agree(noun, expected):
    assert fill("How old is the {noun}?", noun) == expected
    assert fill("What is on top of the {noun}?", noun) == f"What is on top of the {noun}?"
    assert fill("What does the {noun} do?", noun).split()[1] == (
        "do" if " are " in expected else "does"
    )


def test_names_that_are_none():
    with pytest.raises(
        InbolError,
        match="--generators guess: there is no such generator; choose among unseeable, mismatched",
    ):
        get_generators(["guess"])
    for names in ((), ("unseeable", "unseeable")):
        with pytest.raises(InbolError, match="each generator once, and at least one"):
            get_generators(names)


def test_the_usual_answer_is_the_most_frequent_one():
    assert usual_answer(example(0, answers=("red", "blue", "blue", "red", "grey"))) == "red"
    assert usual_answer(example(0, answers=())) == ""


def test_chunks_change_nothing(monkeypatch):
    examples = [example(i) for i in range(50)]
    names = ("unseeable", "mismatched", "false_premise", "beyond_frame")
    whole, counts, _ = run(examples, *names)
    monkeypatch.setattr("inbol_jax.extrinsic.funnel.CHUNK", 3)
    assert run(examples, *names)[:2] == (whole, counts)
    assert run(examples, *names, n=7)[0] == whole[:7]


def test_facts_hold_what_a_dictionary_of_sets_would():
    facts = ImageFacts([example(0), example(0, "Who holds the leash?", ["a woman"]), example(1)])
    assert facts.present("0.png", "dog leash woman red")
    assert not facts.present("0.png", "kite")
    assert facts.absent("0.png", "kite")
    assert not facts.absent("0.png", "zebra")
    assert not facts.annotated
    assert not ImageFacts([example(0, objects="dog")]).annotated  # a list is wanted
    assert hash_texts("a", "b") != hash_texts("ab", "") != hash_texts("", "ab")


# Evidence


def test_boxes_of_a_record():
    labelled = [{"box": [1, 2, 3, 4], "label": "Dog"}, {"box": [5, 5, 5, 5], "label": "tree"}]
    assert evidence_boxes(example(0, evidence=[[1, 2, 3, 4.5]])) == [(1, 2, 3, 4.5)]
    assert evidence_boxes(example(0, evidence=[{"box": [1, 2, 3, 4]}])) == [(1, 2, 3, 4)]
    assert evidence_boxes(example(0, boxes=labelled)) == [(1, 2, 3, 4)]  # the dog is asked about
    assert evidence_boxes(example(0, answers=["a tree"], boxes=labelled)) == [
        (1, 2, 3, 4),
        (5, 5, 5, 5),
    ]
    assert evidence_boxes(example(1, boxes=labelled)) is None
    assert evidence_boxes(example(0, boxes=[[1, 2, 3, 4]])) is None  # of what?
    assert evidence_boxes(example(0)) is None


@pytest.mark.parametrize(
    "bad",
    [
        "1 2 3 4",
        [[1, 2, 3]],
        [[1, 2, 3, "4"]],
        [[1, 2, float("inf"), 4]],
        [[1, 2, 0, 4]],
        [{}],
        [None],
    ],
)
def test_boxes_that_are_none(bad):
    with pytest.raises(InbolError, match="evidence "):
        evidence_boxes(example(0, evidence=bad))


@pytest.mark.parametrize("how", ["mask", "blur", "crop"])
def test_what_is_removed_is_gone_and_the_rest_is_there(how):
    pixels = np.random.default_rng(1).integers(0, 256, (60, 80, 3), np.uint8)
    pixels[20:30, 10:26] = (255, 0, 0)
    pixels[20:30, 14:16] = (0, 255, 0)
    result, done = remove(Image.fromarray(pixels), [(10, 20, 16, 10)], how)
    found = np.asarray(result)
    assert done == how
    if how == "crop":
        assert np.array_equal(found, pixels[:, 27:])  # what is right of the box is the largest part
        return
    changed = (found != pixels).any(axis=2)
    assert changed[20:30, 10:26].all()
    outside = changed.copy()
    outside[19:31, 9:27] = False
    assert not outside.any()
    inside = found[20:30, 10:26].astype(int)
    steps = max(np.abs(np.diff(inside, axis=0)).max(), np.abs(np.diff(inside, axis=1)).max())
    assert steps <= (
        0 if how == "mask" else 20
    )  # of 255 that the stripe had: it cannot be made out


def test_boxes_at_the_borders():
    image = Image.new("RGB", (20, 10), "red")
    assert remove(image, [(-5, -5, 100, 100)], "crop")[1] == "mask"  # nothing would be left
    assert remove(image, [(15, 5, 50, 50), (900, 0, 5, 5)], "mask")[1] == "mask"
    for box in ((20, 0, 5, 5), (-9, 0, 5, 5), (0, 10, 5, 5)):
        with pytest.raises(InbolError, match="evidence outside the image"):
            remove(image, [box], "mask")


def test_evidence_by_boxes(tmp_path):
    examples = [
        example(i, f"What is the {THINGS[i % 8]} doing?", evidence=[[4, 4, 8, 8]])
        for i in range(12)
    ]
    examples += [
        example(12, evidence=[[100, 100, 5, 5]]),
        example(13, evidence="here"),
        example(14, evidence=[[1, 1, 5, 5]]),
        example(15),
    ]
    pictures(tmp_path, 14)
    (tmp_path / "14.png").write_bytes(b"no picture")
    rows, _, context = run(examples, "evidence_removed", root=tmp_path)
    assert len(rows) == 12
    assert context.set_aside == {
        ("evidence_removed", "evidence outside the image"): 1,
        ("evidence_removed", "evidence not a list"): 1,
        ("evidence_removed", "not an image"): 1,
        ("evidence_removed", "record does not say where"): 1,
    }
    assert {r["removed"]["how"] for r in rows} == {"mask", "blur", "crop"}
    for row in rows:
        i = int(row["id"].removeprefix("q").split("-")[0])
        assert row["question"] == examples[i].question
        assert row["removed"] | {"how": ""} == {
            "image": f"{i}.png",
            "how": "",
            "by": "boxes",
            "boxes": [[4, 4, 8, 8]],
        }
        assert not row["answerable"]
        assert row["answers"] == []
        assert row["image"].startswith("evidence_removed/")
        whole, changed = load_image(tmp_path / f"{i}.png"), load_image(tmp_path / row["image"])
        assert (changed.size != whole.size) == (row["removed"]["how"] == "crop")
    assert len({r["image"] for r in rows}) == 12
    before = {p.name: p.read_bytes() for p in (tmp_path / "evidence_removed").iterdir()}
    assert run(examples, "evidence_removed", root=tmp_path)[0] == rows
    assert {
        p.name: p.read_bytes() for p in (tmp_path / "evidence_removed").iterdir()
    } == before  # nothing else is left there


def test_a_color_is_never_left_by_a_blur(tmp_path):
    examples = [example(i, evidence=[[4, 4, 8, 8]]) for i in range(12)]
    rows, _, _ = run(examples, "evidence_removed", root=pictures(tmp_path, 12))
    assert {r["removed"]["how"] for r in rows} == {"mask", "crop"}


def test_a_changed_jpeg_is_a_jpeg(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.JPG", "JPEG")
    row = VQAExample(
        "1", "a.JPG", "What color is the dog?", ("red",), True, {"evidence": [[1, 1, 9, 9]]}
    )
    (made,) = run([row], "evidence_removed", root=tmp_path)[0]
    with Image.open(tmp_path / made["image"]) as image:
        assert image.format == "JPEG"


def test_evidence_needs_boxes_or_a_model_and_a_folder_to_write(tmp_path):
    with pytest.raises(
        InbolError, match="needs a column `evidence` or `boxes` in the data, or --model"
    ):
        run([example(0)], "evidence_removed", root=tmp_path)
    (tmp_path / "evidence_removed").rmdir()
    (tmp_path / "evidence_removed").write_text("a file in its place")
    with pytest.raises(InbolError, match="cannot be written, and images without their evidence"):
        run([example(0)], "evidence_removed", root=tmp_path)


class Eye:
    """A "model" that says how red the image is, "no" where no pixel is red, and counts what it is asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, asked, *, n, temperature, max_new_tokens, label):
        self.calls.append((label, len(asked)))
        replies = []
        for a in asked:
            pixels = np.asarray(
                load_image(a.image) if isinstance(a.image, Path) else a.image()
            ).astype(int)
            red = ((pixels[..., 0] > 200) & (pixels[..., 1:].max(axis=2) < 60)).mean()
            replies.append([Reply("red" if red else "no", -1.0 + float(red))] * n)
        return replies


def test_evidence_by_occlusion(tmp_path):
    for i, corner in enumerate([(2, 2), (30, 20), None]):
        image = Image.new("RGB", (40, 40), (90, 90, 90))
        if corner:
            image.paste((255, 0, 0), (*corner, corner[0] + 5, corner[1] + 5))
        image.save(tmp_path / f"{i}.png")
    eye = Eye()
    examples = [example(i, answers=["red"]) for i in range(3)] + [example(2, answers=["no"])]
    rows, _, context = run([e if i < 3 else VQAExample("q3", "2.png", *(e.question, e.answers, True)) for i, e in enumerate(examples)],
                           "evidence_removed", root=tmp_path, model=eye)  # fmt: skip
    assert {r["id"]: r["removed"]["boxes"] for r in rows} == {
        "q0-evidence_removed": [[0, 0, 15, 15]],
        "q1-evidence_removed": [[25, 15, 15, 20]],
    }
    assert {r["removed"]["by"] for r in rows} == {"occlusion"}
    assert context.set_aside == {
        ("evidence_removed", "model does not know the answer"): 1,
        ("evidence_removed", "no occlusion changes the answer"): 1,
    }
    for row in rows:
        assert (
            Eye()(
                [Asked("", tmp_path / row["image"], "")],
                n=1,
                temperature=0,
                max_new_tokens=1,
                label="",
            )[0][0].text
            == "no"
        )
    assert [n for _, n in eye.calls] == [4, 3 * evidence.GRID**2, 3 * len(evidence.COVERED)]


# Model-written


def test_lines_of_what_a_model_wrote():
    text = '1. What is behind the wall?\n- "Who owns it?"\n\n2) What is behind the wall?\n* **What is next?**\nSure!'
    assert parse_questions(text) == [
        "What is behind the wall?",
        "Who owns it?",
        "What is next?",
        "Sure!",
    ]
    assert parse_questions("") == []
    assert parse_questions("3 dogs are there, why?") == ["3 dogs are there, why?"]


def test_model_written_questions_go_through_the_filters():
    asked = []

    def writer(items, *, n, temperature, max_new_tokens, label):
        asked.extend(items)
        texts = {
            "0.png": "Here are some:\n1. Who took it?\n2. What is hidden behind the dog?",
            "1.png": "What color is the kite?",
        }
        return [[Reply(texts[item.name])] if item.name in texts else [] for item in items]

    rows, counts, context = run(
        [example(i) for i in range(3)], "model_written", writer=writer, root=Path("images")
    )
    assert [(r["image"], r["question"]) for r in rows] == [("0.png", "Who took it?")]
    assert counts == {
        ("model_written", "ill_formed"): 1,
        ("model_written", "kept"): 1,
        ("model_written", "duplicate"): 1,
    }
    assert context.set_aside == {("model_written", "could not be asked"): 1}
    assert sorted(a.image for a in asked) == [Path(f"images/{i}.png") for i in range(3)]
    assert {a.question for a in asked} == {
        WRITER_PROMPT.format(n=3, question=example(i).question) for i in range(3)
    }


def test_nobody_to_write():
    with pytest.raises(InbolError, match="needs --model, or --endpoint with --endpoint-model"):
        run([example(0)], "model_written")
