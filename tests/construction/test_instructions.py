from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_lines import ANY_LINES, LINES, SETS, THRESHOLDS, instructions, line, question_of, records

from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.construction.record import make_record
from inbol_jax.records import Boundary, Sample, SampledQuestion
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.taught_refusals import REFUSALS, SHORT_REFUSALS, TEMPLATES, pick_refusal


def test_instructions_teach_the_answer_if_it_is_known_and_a_refusal_if_it_is_not():
    by_id = {i.id: i for i in instructions(records())}
    assert set(by_id) == {row["id"] for row in LINES} - {"mixed"}
    for name in ("known", "sure", "torn"):
        assert (by_id[name].response, by_id[name].type) == ("red", 1)
        assert by_id[name].boundary is Boundary.KNOWN
    for name in ("unknown", "hardly", "shy", "empty"):
        assert by_id[name].response in SHORT_REFUSALS
        assert (by_id[name].boundary, by_id[name].type) == (Boundary.UNKNOWN, 2)
    for name in ("type3", "type3-refused"):
        assert by_id[name].response in SHORT_REFUSALS
        assert by_id[name].type == 3
    assert by_id["known"].question == "What color is thing known?"
    assert by_id["known"].image == "x.png"


@pytest.mark.parametrize(
    ("texts", "logprobs", "cut", "taught"),
    [
        (["It is red"] * 2 + ["Red."] * 8, None, None, "Red."),
        ([f"Red {i}" for i in range(10)], range(-10, 0), None, "Red 9"),
        (["It is red and"] * 9 + ["Red."], None, [True] * 9 + [False], "Red."),
        (["It is red and"] * 10, None, [True] * 10, "red"),
        (["It is red"] * 10, None, [True] + [False] * 9, "It is red"),
    ],
    ids=["frequent", "likely", "whole", "gold", "cut once"],
)
def test_the_form_that_is_taught(texts, logprobs, cut, taught):
    """The model's own; of equally frequent ones the likeliest; nothing that was cut."""
    example = question_of(line("q", "c")).example
    samples = [
        Sample(text, logprob, 2, "correct", cut)
        for text, logprob, cut in zip(
            texts, logprobs or [-1.0] * 10, cut or [False] * 10, strict=True
        )
    ]
    record = make_record(SampledQuestion(example, tuple(samples)), Thresholds())
    (instruction,) = instructions([record])
    assert instruction.response == taught


def test_all_templates_are_in_use():
    unknown = records([line(f"q{i}", "wwwwwwwwww") for i in range(300)])
    for name in ("one", "short", "long", "all"):
        taught = instructions(unknown, name)
        assert {i.response for i in taught} == set(TEMPLATES[name][0])
    assert instructions(unknown) != instructions(unknown, seed=1)
    beyond = records([line(f"q{i}", "w" * 10, answerable=False) for i in range(300)])
    for made, texts in zip((unknown, beyond), TEMPLATES["reason"], strict=True):
        assert {i.response for i in instructions(made, "reason")} == set(texts)


def test_every_template_is_a_refusal_and_short_is_short():
    assert all(is_refusal(text) for sets in TEMPLATES.values() for texts in sets for text in texts)
    assert len({*REFUSALS}) == len(REFUSALS)
    assert all(len(text.split()) <= 6 for text in SHORT_REFUSALS)  # as the embedded world needs
    assert all(len(text.split()) > 6 for text in TEMPLATES["long"][0])


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_question_without_an_image_is_refused_without_one(name):
    keys = [(f"q{i}", type) for i in range(100) for type in (2, 3)]
    picked = {pick_refusal(name, *key, pictured=False) for key in keys}
    assert picked == {text for text in TEMPLATES[name][0] if "image" not in text}


def test_a_refusal_depends_on_the_key_alone():
    """Fixed for good: a change would rewrite every dataset that was built."""
    chosen = [SHORT_REFUSALS.index(pick_refusal("short", f"q{i}", 2)) for i in range(3)]
    assert chosen == [3, 2, 3]


@settings(deadline=None)
@given(ANY_LINES, THRESHOLDS, SETS, st.integers(0, 3))
def test_every_question_is_in_exactly_one_class_and_mixed_never_enters_idk(
    lines, thresholds, templates, seed
):
    made = records(lines, thresholds)
    assert [r.id for r in made] == [row["id"] for row in lines]
    lines = instructions(made, templates, seed)
    counts = Counter(i.id for i in lines)
    by_id = {record.id: record for record in made}
    for lesson in lines:
        record = by_id[lesson.id]
        known = {r.text for r in record.correct if not is_refusal(r.text)}
        refusals = {text for sets in TEMPLATES.values() for text in sets[record.type == 3]}
        assert lesson.response in (known if record.boundary is Boundary.KNOWN else refusals)
    for record in made:
        # Known, Mixed and Unknown by their definition, and Type 3 apart from them: one of four.
        c = record.n_correct / record.n_samples
        beyond = record.type == 3
        known = not beyond and c >= thresholds.delta_k - 1e-9
        unknown = not beyond and c <= thresholds.delta_uk + 1e-9
        assert sum([beyond, known, unknown]) <= 1
        wanted = Boundary.MIXED
        if known:
            wanted = Boundary.KNOWN
        elif beyond or unknown:
            wanted = Boundary.UNKNOWN
        assert record.boundary is wanted
        nothing_to_teach = known and not record.correct
        assert counts[record.id] == (0 if wanted is Boundary.MIXED or nothing_to_teach else 1)
