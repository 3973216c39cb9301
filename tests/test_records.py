"""Records come back from their lines, and a line that is none is named with its file."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.artifacts import read_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.records import (
    Boundary,
    BoundaryRecord,
    Instruction,
    PairKind,
    Preference,
    Response,
    VQAExample,
)

UNIT = st.floats(0, 1)
TYPES = st.sampled_from([1, 2, 3, None])
TEXTS = st.lists(st.text(), max_size=3).map(tuple)
ABOUT = {
    "id": st.text(min_size=1),
    "images": st.lists(st.text(min_size=1), max_size=3).map(tuple),
    "question": st.text(),
}


@st.composite
def records(draw):
    responses = st.lists(
        st.builds(Response, st.text(), st.integers(0, 5), st.none() | st.floats(-99, 0)), max_size=3
    )
    return BoundaryRecord(
        **{name: draw(values) for name, values in ABOUT.items()},
        answers=draw(TEXTS),
        type=draw(TYPES),
        boundary=draw(st.sampled_from(Boundary)),
        **{name: draw(UNIT) for name in ("confidence", "wilson_low", "wilson_high")},
        **{name: draw(st.integers(0, 99)) for name in ("n_correct", "n_samples")},
        **{name: tuple(draw(responses)) for name in ("correct", "incorrect", "refusal")},
        source=draw(st.text()),
        metric=draw(st.sampled_from(["vqa", "yes_no", "numeric"])),
        options=draw(TEXTS),
        generator=draw(st.none() | st.text()),
    )


PREFERENCES = st.builds(
    Preference,
    **ABOUT,
    chosen=st.text(),
    rejected=st.text(),
    kind=st.sampled_from(PairKind),
    confidence=UNIT,
    type=TYPES,
)
INSTRUCTIONS = st.builds(
    Instruction,
    **ABOUT | {"id": st.text()},
    response=st.text(),
    boundary=st.sampled_from([*Boundary, None]),
    type=TYPES,
)
# Any other columns, as long as none has the name of a field.
EXTRA = st.dictionaries(
    st.text().filter(lambda name: name not in VQAExample.__struct_fields__),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.floats(0, 1)),
    max_size=3,
)
EXAMPLES = st.builds(
    VQAExample, **ABOUT, answers=TEXTS, answerable=st.sampled_from([True, False, None]),
    extra=EXTRA, source=st.text(), options=TEXTS, metric=st.sampled_from(["inclusion", "choice"])
)  # fmt: skip


@given(records() | PREFERENCES | INSTRUCTIONS | EXAMPLES)
def test_a_record_comes_back_from_its_line(record):
    line = json.dumps(record.to_json(), ensure_ascii=False)
    assert type(record).from_json(json.loads(line)) == record


ROW = {"id": "q1", "images": ["a.png"], "question": "What?"}
RECORD = ROW | {"answers": ["red"], "type": 1, "boundary": "known", "confidence": 0.8}
RECORD |= {"n_correct": 8, "n_samples": 10, "wilson_low": 0.5, "wilson_high": 0.9, "version": 4}
RECORD["correct"] = [{"text": "red", "count": 8, "logprob": -1.0}]
RECORD["incorrect"] = [{"text": "blue", "count": 2, "logprob": None}]  # as of an endpoint
RECORD["refusal"] = [{"text": "I don't know.", "count": 0, "logprob": None}]
PAIR = ROW | {"chosen": "red", "rejected": "I don't know.", "kind": "correct_over_refusal"}
PAIR |= {"confidence": 0.5, "type": 1, "a column of ones own": 1}
LESSON = {"images": ["a.png"], "question": "What?", "response": "red"}
SAID = ROW | {"answers": ["red"], "dataset": "test", "domain": "in_domain", "model": "base"}
SAID |= {"type": None, "confidence": 0.5, "prediction": "red", "outcome": "correct"}

# (a sound line, what is changed, what the message says); ... leaves a column out.
FAULTS = [
    (BoundaryRecord, RECORD, {"version": 3}, "Invalid enum value 3 - at `$.version`; mend the"),
    (BoundaryRecord, RECORD, {"shape": 1}, "unknown field `shape`"),
    (BoundaryRecord, RECORD, {"refusal": ...}, "missing required field `refusal`"),
    (BoundaryRecord, RECORD, {"boundary": "certain"}, "value 'certain' - at `$.boundary`"),
    (BoundaryRecord, RECORD, {"answers": "red"}, "Expected `array`, got `str` - at `$.answers`"),
    (BoundaryRecord, RECORD, {"correct": [{"text": 3}]}, "at `$.correct[0].text`"),
    (BoundaryRecord, RECORD, {"type": 4}, "Invalid enum value 4 - at `$.type`"),
    (BoundaryRecord, RECORD, {"n_correct": -1}, "Expected `int` >= 0 - at `$.n_correct`"),
    (BoundaryRecord, RECORD, {"wilson_high": 1.1}, "Expected `float` <= 1.0 - at `$.wilson_high`"),
    (Preference, PAIR, {"chosen": ...}, "missing required field `chosen`; mend the line, or run"),
    (Preference, PAIR, {"images": "a.png"}, "Expected `array`, got `str` - at `$.images`"),
    (Preference, PAIR, {"confidence": 1.5}, "Expected `float` <= 1.0 - at `$.confidence`"),
    (Preference, PAIR, {"kind": "wrong_over_correct"}, "'wrong_over_correct' - at `$.kind`"),
    (Instruction, LESSON, {"images": ...}, "missing required field `images`"),
    (Instruction, LESSON, {"response": 3}, "Expected `str`, got `int` - at `$.response`"),
    (Instruction, LESSON, {"boundary": "certain"}, "value 'certain' - at `$.boundary`"),
    (Prediction, SAID, {"outcome": "dunno"}, "value 'dunno' - at `$.outcome`; run `inbol evaluate"),
    (Prediction, SAID, {"domain": "../x"}, "value '../x' - at `$.domain`"),
    (Prediction, SAID, {"answers": ["red", None]}, "at `$.answers[1]`"),
    (Prediction, SAID, {"p_true": "high"}, "at `$.p_true`"),
    (Prediction, SAID, {"forced": {"prediction": "red"}}, "field `outcome` - at `$.forced`"),
]


@pytest.mark.parametrize(("kind", "sound", "changes", "message"), FAULTS)
def test_a_line_that_is_no_record_is_named(tmp_path, kind, sound, changes, message):
    bad = {name: value for name, value in (sound | changes).items() if value is not ...}
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(sound)}\n{json.dumps(bad)}\n")
    rows = read_jsonl(tmp_path / "x.jsonl", kind.from_json)
    assert isinstance(next(rows), kind)
    with pytest.raises(InbolError) as caught:
        next(rows)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'x.jsonl'}:2: ")


def test_what_numpy_has_drawn_is_written_as_any_other_value():
    drawn = np.random.default_rng(0).choice(["What?"])
    extra = {"score": np.float64(0.5), "place": np.int64(3)}
    row = VQAExample("q1", (), drawn, extra=extra).to_json()
    assert (row["question"], row["score"], row["place"]) == ("What?", 0.5, 3)


def test_kinds_of_pairs_are_words_on_disk_and_numbers_in_losses():
    assert Preference.from_json(PAIR).to_json()["kind"] == "correct_over_refusal"
    assert [kind.number for kind in PairKind] == [0, 1, 2, 3]
    assert str(PairKind.REFUSAL_OVER_ANSWER) == "refusal_over_answer"
