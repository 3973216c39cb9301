import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.extrinsic import (
    FILTERS_WITH_OBJECTS,
    FILTERS_WITHOUT,
    GENERATORS_WITH_OBJECTS,
    GENERATORS_WITHOUT,
    ExtrinsicConfig,
    extrinsic,
)
from inbol_jax.extrinsic.facts import ImageFacts
from inbol_jax.extrinsic.filters import Sources, get_filters
from inbol_jax.extrinsic.funnel import propose as run
from inbol_jax.extrinsic.generators import Context, get_generators, subject
from inbol_jax.extrinsic.templates import UNSEEABLE
from inbol_jax.records import VQAExample
from inbol_jax.world.export import examples as world_examples
from inbol_jax.world.splits import Split


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What color is the star?", "star"),
        ("What pattern does the circle have?", "circle"),
        ("What does the Ring smell like?", "ring"),
        ("What shape is the red object?", "red object"),
        ("What is at the top left?", "top left"),
        ("What is the symbol?", "symbol"),
        ("Where is the man's hat?", "man's hat"),
        ("What is behind the t-shirt, if anything?", "t-shirt"),
        ("What is the dog in the car doing?", "dog"),
        ("What color is the ball", "ball"),
        ("What is the color of the car?", "car"),
        ("What is pinned to the right of the tie?", "tie"),
        ("What is in the background?", "background"),
        ("How many objects are there?", None),
        ("Is there a star?", None),
        ("What are these?", None),
        ("What is theirs?", None),
        ("", None),
    ],
)
def test_subject(question, expected):
    assert subject(question) == expected


@given(st.text())
def test_subject_is_in_the_question(question):
    found = subject(question)
    assert found is None or found in question.lower()


def example(id, image, question, answers=("yes",), objects=None, answerable=True):
    return VQAExample(
        id,
        image,
        question,
        tuple(answers),
        answerable,
        {} if objects is None else {"objects": objects},
    )


def test_facts_of_annotated_images():
    facts = ImageFacts(
        [
            example("1", "a", "What?", objects=["red star", "Blue ring"]),
            example("2", "b", "What?", objects=["green star"]),
        ]
    )
    assert facts.absent("b", "ring")
    assert facts.absent("b", "red star")  # a star there is, but none is red
    assert not facts.absent("a", "red star")
    assert not facts.absent("a", "unicorn")  # named nowhere: who knows
    assert facts.present("a", "star")
    assert facts.present("a", "blue ring")
    assert not facts.present("b", "red star")


def test_facts_from_questions_and_answers_alone():
    facts = ImageFacts(
        [
            example("1", "a", "What color is the dog?", ["brown"]),
            example("2", "b", "Who holds the kite?", ["a woman"]),
        ]
    )
    assert facts.absent("b", "dog")
    assert not facts.absent("a", "dog")
    assert not facts.absent("b", "woman")
    assert facts.present("b", "kite")


def test_a_verb_behind_the_subject_does_not_make_it_absent():
    facts = ImageFacts(
        [
            example("1", "a", "What does the sign say?", ["stop"]),
            example("2", "b", "What color is the sign?", ["red"]),
        ]
    )
    assert not facts.absent(
        "b", subject("What does the sign say?")
    )  # the sign is there, and b answers the question


def propose(
    examples, n, seed, counts, generators=GENERATORS_WITH_OBJECTS, filters=FILTERS_WITH_OBJECTS
):
    facts = ImageFacts(examples)
    made = get_filters(filters, Sources(examples, facts, Path()))
    return run(Context(examples, facts), get_generators(generators), made, n, seed, counts)


@pytest.fixture(scope="module")
def world():
    return [
        e for split in (Split.TRAIN, Split.TEST) for e, _ in world_examples(split, 500, 0.0, 11)
    ]


@pytest.fixture(scope="module")
def proposed(world):
    counts = Counter()
    return list(propose(world, 600, 0, counts)), counts


def unanswerable(question, objects):
    """Whether the listed objects ("red star") leave the question without an answer; by its words alone, as `questions` writes them."""
    colors, nouns = (set(words) for words in zip(*(o.split() for o in objects), strict=True))
    if found := re.fullmatch(r"What shape is the (\w+) object\?", question):
        return found[1] not in colors
    found = re.fullmatch(
        r"(?:What color is|Where is|What size is|What pattern does|What is) the (\w+)(?: have)?\?",
        question,
    )
    assert found, question  # no other kind presumes a thing that objects could tell to be missing
    return found[1] not in nouns


def test_no_kept_question_of_the_world_can_be_answered(world, proposed):
    objects = {e.image: e.extra["objects"] for e in world}
    kinds = Counter()
    for row in proposed[0]:
        if row["generator"] == "mismatched":
            assert unanswerable(row["question"], objects[row["image"]]), row
        else:
            template = next(
                t
                for t in UNSEEABLE.values()
                if re.fullmatch(re.escape(t).replace(r"\{noun\}", r"\w+"), row["question"])
            )
            noun = (
                row["question"]
                .removeprefix(template.split("{noun}")[0])
                .removesuffix(template.split("{noun}")[1])
            )
            assert noun in {o.split()[1] for o in objects[row["image"]]}, row
            kinds[template] += 1
    assert set(kinds) == set(UNSEEABLE.values())


def test_counts_add_up(world, proposed):
    rows, counts = proposed
    assert len(rows) == 600
    assert Counter(r["generator"] for r in rows) == {
        g: counts[g, "kept"] for g in GENERATORS_WITH_OBJECTS
    }
    assert min(counts[g, "kept"] for g in GENERATORS_WITH_OBJECTS) > 200
    assert {verdict for _, verdict in counts} <= {"kept", "present", "duplicate", "ill_formed"}
    assert counts["mismatched", "present"] > 0


def test_rows_are_type_3_questions_with_ids_of_their_own(world, proposed):
    rows, _ = proposed
    ids = [r["id"] for r in rows]
    assert len({*ids, *(e.id for e in world)}) == len(ids) + len(world)
    asked = [(e.image, e.question) for e in world] + [(r["image"], r["question"]) for r in rows]
    assert len(set(asked)) == len(asked)
    for row in rows:
        assert (row["answers"], row["answerable"], row["kind"]) == ([], False, row["generator"])


def test_deterministic(world, proposed):
    assert list(propose(world, 600, 0, Counter())) == proposed[0]
    assert list(propose(world, 20, 0, Counter())) == proposed[0][:20]
    assert list(propose(world, 600, 1, Counter())) != proposed[0]


def test_duplicates_and_ill_formed_questions_are_rejected():
    pool = [
        example("1", "a", "What color is the dog?"),
        example("2", "b", "What color is the cat?"),
        example("3", "c", "The cat?"),
        example("4", "c", "Name the cat"),
    ]
    counts = Counter()
    rows = list(propose(pool * 1, 4, 0, counts))
    assert counts.total() == sum(counts.values()) >= len(rows)
    for row in rows:
        assert row["question"] not in ("The cat?", "Name the cat")
    for seed in range(30):
        rows = list(
            propose(
                [*pool, *(example(str(i), "a", "How many?") for i in range(5, 60))],
                60,
                seed,
                counts,
            )
        )
        assert len({(r["image"], r["question"]) for r in rows}) == len(rows)
    assert counts["mismatched", "ill_formed"] > 0
    assert counts["mismatched", "duplicate"] + counts["unseeable", "duplicate"] > 0


def write(folder: Path, rows):
    (folder / "images").mkdir(parents=True)
    for row in rows:
        (folder / row["image"]).write_bytes(b"picture")
    (folder / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def photos():
    things = ("dog", "kite", "bus", "cake", "clock", "horse", "sofa", "laptop")
    colors = ("brown", "red", "green", "white")
    return [
        example(
            f"q{i}", f"images/{i}.jpg", f"What color is the {things[i % 8]}?", [colors[i % 4]]
        ).to_json()
        for i in range(16)
    ]


def test_a_set_without_objects(tmp_path, capsys):
    data = write(tmp_path / "photos", photos())
    file = extrinsic(ExtrinsicConfig(data, tmp_path / "out", share=1.0))
    rows = list(read_jsonl(file))
    assert {r["generator"] for r in rows} == set(GENERATORS_WITHOUT)
    assert {tuple(r["filters"]) for r in rows} == {FILTERS_WITHOUT}
    noun = {r["image"]: subject(r["question"]) for r in photos()}
    for row in rows:
        if row["generator"] != "beyond_frame":
            assert (noun[row["image"]] in row["question"]) is (row["generator"] == "unseeable"), row
    meta = read_meta(file)
    assert (
        meta["rows"]
        == len(rows)
        == sum(n for verdict, n in meta["counts"].items() if verdict.endswith("kept"))
    )
    read = load_dataset_folder(file)  # the header leads to the images
    assert read.root.samefile(data)
    assert [e.id for e in read.examples] == [r["id"] for r in rows]
    assert {e.answerable for e in read.examples} == {False}
    assert capsys.readouterr().out.startswith(f"{len(rows)} Type 3 questions (")


def test_share_and_repetition(tmp_path, capsys):
    data = write(tmp_path / "photos", photos())
    config = ExtrinsicConfig(data, tmp_path / "out", share=0.5)
    file = extrinsic(config)
    assert read_meta(file)["rows"] == 8
    before = file.stat().st_mtime_ns
    extrinsic(config)
    assert file.stat().st_mtime_ns == before
    extrinsic(ExtrinsicConfig(data, tmp_path / "out", share=0.25))
    assert read_meta(file)["rows"] == 4


def test_a_handful_of_questions_gives_one(tmp_path):
    file = extrinsic(ExtrinsicConfig(write(tmp_path / "photos", photos()[:1]), tmp_path / "out"))
    assert read_meta(file)["rows"] == 1


def test_a_set_without_a_question_that_its_images_answer(tmp_path):
    data = write(
        tmp_path / "photos", [row | {"answers": [], "answerable": False} for row in photos()]
    )
    with pytest.raises(InbolError, match="holds no question that the images answer"):
        extrinsic(ExtrinsicConfig(data, tmp_path / "out"))


def test_questions_that_are_unanswerable_already_are_not_drawn_on(tmp_path, capsys):
    rows = photos()
    for row in rows[8:]:
        row |= {"answers": [], "answerable": False}
    file = extrinsic(ExtrinsicConfig(write(tmp_path / "photos", rows), tmp_path / "out", share=1.0))
    assert {r["image"] for r in read_jsonl(file)} <= {r["image"] for r in rows[:8]}


def test_a_set_that_names_no_subject(tmp_path):
    data = write(
        tmp_path / "numbers", [row | {"question": "How many dogs are there?"} for row in photos()]
    )
    with pytest.raises(InbolError, match="no question names a subject"):
        extrinsic(ExtrinsicConfig(data, tmp_path / "out", generators=("unseeable", "mismatched")))
    assert not (tmp_path / "out/extrinsic.jsonl").exists()
    assert not list((tmp_path / "out").iterdir())
    file = extrinsic(
        ExtrinsicConfig(data, tmp_path / "out", share=1.0)
    )  # what lies beyond the frame needs no subject
    assert {r["generator"] for r in read_jsonl(file)} == {"beyond_frame"}


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan")])
def test_a_share_that_is_none(tmp_path, share):
    with pytest.raises(InbolError, match="--share"):
        extrinsic(ExtrinsicConfig(tmp_path, tmp_path / "out", share=share))
