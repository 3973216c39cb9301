import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, BoundaryRecord, Instruction, PairKind, Preference, Response

UNIT = st.floats(0, 1)
PATHS = st.text(min_size=1).filter(str.strip)
IMAGES = PATHS | st.lists(PATHS, max_size=3).map(tuple).filter(lambda paths: len(paths) != 1)


@st.composite
def records(draw):
    texts = draw(st.lists(st.text(), min_size=1, max_size=8, unique=True))
    found = ([], [], [])
    boundary, type = draw(
        st.sampled_from([("known", 1), ("mixed", None), ("unknown", 2), ("unknown", 3)])
    )
    for text in texts:
        count = draw(st.integers(0, 5))
        outcome = draw(st.integers(1 if type == 3 else 0, 2))
        found[outcome].append(Response(text, count, draw(st.floats(-99, 0)) if count else None))
    low, confidence, high = sorted(draw(st.tuples(UNIT, UNIT, UNIT)))
    return BoundaryRecord(
        id=draw(st.text(min_size=1)),
        image=draw(IMAGES),
        question=draw(st.text()),
        answers=draw(st.lists(st.text()).map(tuple)),
        type=type,
        boundary=Boundary(boundary),
        confidence=0.0 if type == 3 else confidence,
        n_correct=sum(r.count for r in found[0]),
        n_samples=sum(r.count for rs in found for r in rs),
        wilson_low=0.0 if type == 3 else low,
        wilson_high=high,
        correct=tuple(found[0]),
        incorrect=tuple(found[1]),
        refusal=tuple(found[2]),
        source=draw(st.text()),
        split=draw(st.text()),
        metric=draw(st.sampled_from(["vqa", "yes_no", "numeric:0.1"])),
        options=draw(st.lists(st.text(), max_size=3).map(tuple)),
        generator=draw(st.none() | st.text()),
        filters=draw(st.lists(st.text(), max_size=3).map(tuple)),
    )


PREFERENCES = st.builds(
    Preference,
    id=st.text(),
    image=IMAGES,
    question=st.text(),
    chosen=st.text(),
    rejected=st.text(),
    kind=st.sampled_from(PairKind),
    confidence=UNIT,
    type=st.sampled_from([1, 2, 3, None]),
)


INSTRUCTIONS = st.builds(
    Instruction,
    id=st.text(),
    image=IMAGES,
    question=st.text(),
    response=st.text(),
    boundary=st.sampled_from([*Boundary, None]),
    type=st.sampled_from([1, 2, 3, None]),
)


def through_json(value):
    return json.loads(json.dumps(value, ensure_ascii=False))


@given(records())
def test_record_round_trip(record):
    assert BoundaryRecord.from_json(through_json(record.to_json())) == record


@given(PREFERENCES)
def test_preference_round_trip(preference):
    row = through_json(preference.to_json())
    assert Preference.from_json(row) == preference
    assert row["kind"] == preference.kind.name.lower()  # words on disk, not the losses' integers


@given(INSTRUCTIONS)
def test_instruction_round_trip(instruction):
    assert Instruction.from_json(through_json(instruction.to_json())) == instruction


def test_an_instruction_that_a_user_wrote_needs_image_question_and_response_alone():
    row = {"image": "a.png", "question": "What?", "response": "red"}
    assert Instruction.from_json(row) == Instruction("", "a.png", "What?", "red")
    for name in row:
        for bad in ({k: v for k, v in row.items() if k != name}, row | {name: 3}):
            with pytest.raises(InbolError, match=f"'{name}' is missing or of the wrong type"):
                Instruction.from_json(bad)
    with pytest.raises(InbolError, match="'certain' is not a valid Boundary"):
        Instruction.from_json(row | {"boundary": "certain"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(
            ({name: None}, f"'{name}' is missing or of the wrong type; run `inbol build`")
            for name in ("id", "image", "question", "chosen", "rejected", "kind", "confidence")
        ),
        ({"chosen": 3}, "'chosen' is missing or of the wrong type"),
        ({"confidence": "0.5"}, "'confidence' is missing or of the wrong type"),
        ({"confidence": 1.5}, "confidence 1.5 is not between 0 and 1"),
        ({"confidence": float("nan")}, "confidence nan is not between 0 and 1"),
        ({"kind": "wrong_over_correct"}, "kind 'wrong_over_correct': it must be one of correct_"),
    ],
)
def test_a_row_that_is_no_preference_pair(changes, message):
    kind = PairKind.CORRECT_OVER_REFUSAL
    pair = Preference("q1", "a.png", "What?", "red", "I don't know.", kind, 0.5, 1)
    with pytest.raises(InbolError, match=message):
        Preference.from_json(through_json(pair.to_json()) | changes)


@given(PREFERENCES)
def test_a_pair_may_have_more_columns(preference):
    assert Preference.from_json(through_json(preference.to_json()) | {"extra": 1}) == preference


def test_the_integers_of_pair_kinds_are_stable():
    assert {k.name: int(k) for k in PairKind} == {
        "CORRECT_OVER_REFUSAL": 0,
        "CORRECT_OVER_INCORRECT": 1,
        "REFUSAL_OVER_INCORRECT": 2,
        "REFUSAL_OVER_ANSWER": 3,
    }


def row(**changes):
    responses = (
        (Response("red", 8, -1.0),),
        (Response("blue", 2, -2.0),),
        (Response("I don't know."),),
    )
    record = BoundaryRecord(
        "q1", "a.png", "What?", ("red",), 1, Boundary.KNOWN, 0.8, 8, 10, 0.5, 0.9, *responses
    )
    return through_json(record.to_json()) | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 0}, "record q1: version 0, this program reads 3; run `inbol build` again"),
        ({"version": 2}, "version 2"),
        ({"version": None}, "version None"),
        ({"shape": 1}, r"record q1: fields differ: \['shape'\]"),
        ({"boundary": "certain"}, "record q1: 'certain' is not a valid Boundary"),
        ({"answers": 3}, "record q1: answers, options and filters are lists"),
        ({"answers": "red"}, "record q1: answers, options and filters are lists"),
        ({"answers": [3]}, "answers, .* are texts"),
        ({"question": None}, "question, .* are texts"),
        ({"generator": 3}, "generator .* are texts"),
        ({"metric": "bleu"}, "record q1: metric 'bleu' is not known"),
        ({"metric": 3}, "record q1: "),
        ({"filters": [{}]}, "filters are texts"),
        ({"correct": [{"text": "red", "number": 3}]}, "record q1: .*number"),
        ({"incorrect": ["red"]}, "record q1: "),
        ({"type": 4}, "record q1: type 4 is not possible with boundary known"),
        ({"type": 2}, "type 2 is not possible with boundary known"),
        ({"type": 3, "boundary": "unknown"}, "Type 3 has no correct samples and confidence 0"),
        ({"n_correct": 11}, "11 of 10 correct is not possible"),
        ({"n_correct": -1}, "-1 of 10 correct is not possible"),
        ({"n_correct": "8"}, "record q1: "),
        ({"n_samples": None}, "record q1: "),
        ({"n_samples": 11}, "10 responses, 8 of them correct, were counted, not 11 and 8"),
        ({"n_correct": 7}, "not 10 and 7"),
        ({"confidence": 0.95}, "confidence 0.95 is not within its interval 0.5 to 0.9"),
        ({"confidence": float("nan")}, "confidence nan"),
        ({"confidence": "0.8"}, "record q1: "),
        ({"wilson_high": 1.1}, "interval 0.5 to 1.1 within 0 to 1"),
        (
            {"incorrect": [{"text": "blue", "count": 2, "logprob": float("-inf")}]},
            "logprob is a finite number or null",
        ),
        (
            {"refusal": [{"text": "I don't know.", "count": 0, "logprob": -1.0}]},
            "null if a response was not sampled",
        ),
        ({"refusal": [{"text": "red", "count": 0, "logprob": None}]}, "a response is there twice"),
    ],
)
def test_a_row_that_is_no_record(changes, message):
    with pytest.raises(InbolError, match=message):
        BoundaryRecord.from_json(row(**changes))


def test_a_sampled_response_may_lack_its_log_probability():
    """As of an endpoint that gives none."""
    changed = row(incorrect=[{"text": "blue", "count": 2, "logprob": None}])
    assert BoundaryRecord.from_json(changed).incorrect[0].logprob is None


def test_a_row_without_a_field():
    short = row()
    del short["refusal"]
    with pytest.raises(InbolError, match=r"record q1: fields differ: \['refusal'\]"):
        BoundaryRecord.from_json(short)
    with pytest.raises(InbolError, match=r"record \(no id\): version None"):
        BoundaryRecord.from_json({})
