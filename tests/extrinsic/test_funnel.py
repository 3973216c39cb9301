import re
from collections import Counter

import pytest
from extrinsic_cases import example, run_funnel

from inbol_jax.extrinsic.generators import GENERATORS as GENERATORS_BY_NAME
from inbol_jax.extrinsic.generators import (
    UNSEEABLE,
    CannotPropose,
    Proposal,
    register_generator,
)
from inbol_jax.world.config import Split
from inbol_jax.world.export import examples as world_examples

GENERATORS = ("unseeable", "mismatched")


def propose(examples, n, seed):
    return run_funnel(examples, *GENERATORS, n=n, seed=seed)


@pytest.fixture(scope="module")
def world():
    """Questions of which no picture is drawn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inbol_jax.world.export.render", lambda *_, **__: None)
        found = [
            example
            for split, n in ((Split.TRAIN, 250), (Split.TEST, 375))
            for example, _ in world_examples(split, n, 11)
        ]
    return [e for e in found if e.answerable]


@pytest.fixture(scope="module")
def proposed(world):
    return propose(world, 300, 0)


def unanswerable(question, objects):
    """Whether the question, by its words, has no answer if these are the objects ("red star")."""
    colors, nouns = (set(words) for words in zip(*(o.split() for o in objects), strict=True))
    if asked := re.fullmatch(r"What shape is the (\w+) object\?", question):
        return asked[1] not in colors
    kinds = "What color is|Where is|What size is|What pattern does|What is"
    asked = re.fullmatch(rf"(?:{kinds}) the (\w+)(?: have)?\?", question)
    # No other kind presumes a thing that objects could tell to be missing.
    assert asked, question
    return asked[1] not in nouns


def test_no_kept_question_of_the_world_can_be_answered(world, proposed):
    objects = {e.image: e.extra["objects"] for e in world}
    templates = {t: re.escape(t).replace(r"\{noun\}", r"(\w+)") for t in UNSEEABLE.values()}
    used = Counter()
    for row in proposed.rows:
        question, shown = row["question"], objects[row["images"][0]]
        if row["generator"] == "mismatched":
            assert unanswerable(question, shown), row
            continue
        ((template, noun),) = (
            (t, match[1])
            for t, form in templates.items()
            if (match := re.fullmatch(form, question))
        )
        assert noun in {o.split()[1] for o in shown}, row
        used[template] += 1
    assert set(used) == set(UNSEEABLE.values())


def test_counts_add_up(proposed):
    rows, verdicts, *_ = proposed
    assert len(rows) == 300
    kept = {name: verdicts[name, "kept"] for name in GENERATORS}
    assert Counter(row["generator"] for row in rows) == kept
    assert min(kept.values()) > 100
    assert {verdict for _, verdict in verdicts} <= {"kept", "present", "duplicate", "ill_formed"}
    assert verdicts["mismatched", "present"] > 0


def test_rows_are_type_3_questions_with_ids_of_their_own(world, proposed):
    rows = proposed.rows
    ids = [row["id"] for row in rows]
    assert len({*ids, *(e.id for e in world)}) == len(ids) + len(world)
    asked = [(e.image, e.question) for e in world] + [(r["images"][0], r["question"]) for r in rows]
    assert len(set(asked)) == len(asked)
    for row in rows:
        assert (row["answers"], row["answerable"], row["kind"]) == ([], False, row["generator"])


def test_deterministic(world, proposed):
    assert propose(world, 300, 0).rows == proposed.rows
    assert propose(world, 20, 0).rows == proposed.rows[:20]
    assert propose(world, 300, 1).rows != proposed.rows


def test_an_example_of_which_no_question_is_made_is_counted():
    examples = [example(0), example(1, "How many are there?"), example(2, "How many?")]
    rows, verdicts, set_aside = run_funnel(examples, "unseeable")
    assert len(rows) == verdicts["unseeable", "kept"] == 1
    assert set_aside == {("unseeable", "nothing to ask about"): 2}


def test_the_size_of_the_chunks_changes_nothing(monkeypatch):
    examples = [example(i) for i in range(50)]
    whole = run_funnel(examples, *GENERATORS)
    monkeypatch.setattr("inbol_jax.extrinsic.funnel.CHUNK", 3)
    assert run_funnel(examples, *GENERATORS) == whole
    assert run_funnel(examples, *GENERATORS, n=7).rows == whole.rows[:7]


@pytest.fixture
def half():
    """Two generators that ask an example's own question, one of them of every second one."""

    def even(example, context, rng):
        if int(example.id[1:]) % 2:
            raise CannotPropose("odd")
        yield Proposal(example.question, "even", image=f"{rng.integers(1 << 40)}.png")

    def ever(example, context, rng):
        yield Proposal(example.question, "ever", image=f"ever/{context.prepared[example.id]}")

    def prepare(examples, context):
        return {e.id: e.image for e in examples}

    register_generator("even", own_question=True)(even)
    register_generator("ever", prepare=prepare, own_question=True)(ever)
    yield "even", "ever"
    del GENERATORS_BY_NAME["even"], GENERATORS_BY_NAME["ever"]


def test_what_one_generator_cannot_do_with_an_own_question_the_next_one_does(half, monkeypatch):
    """So that the words of a set occur as often among the questions as in the set."""
    examples = [example(i, f"What is the number {i}?") for i in range(40)]
    made = run_funnel(examples, *half)
    assert Counter(r["question"] for r in made.rows) == Counter(e.question for e in examples)
    assert {r["id"] for r in made.rows if r["generator"] == "even"} < {
        f"q{i}-even" for i in range(0, 40, 2)
    }
    assert 0 < made.set_aside["even", "odd"] < 20  # of those whose turn it was
    mixed = run_funnel(examples, "even", "unseeable", "ever").rows  # nothing is shown to ask about
    assert {r["generator"] for r in mixed} == {"even", "ever"}
    assert len(mixed) == 27  # two of three turns, each of which is made use of
    monkeypatch.setattr("inbol_jax.extrinsic.funnel.CHUNK", 7)
    again = run_funnel(examples, *half)
    assert again.rows == made.rows
