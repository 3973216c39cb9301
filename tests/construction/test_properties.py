"""What holds of any construction."""

import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_lines import OUTCOME, line, store

from inbol_jax.artifacts import read_jsonl
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.construction.build import FILES, BuildConfig, build
from inbol_jax.construction.instructions import make_instructions
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.construction.record import make_record
from inbol_jax.construction.templates import REFUSALS, TEMPLATES, RefusalMix
from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, PairKind
from inbol_jax.responses.refusal import is_refusal

TEXTS = {
    "c": ("red", "Red.", "a red"),
    "w": ("blue", "pink", "", "no", "unknown pleasures"),
    "r": REFUSALS[:3],
}
THRESHOLDS = (
    st.tuples(st.integers(0, 10), st.integers(0, 10))
    .filter(lambda t: t[0] < t[1])
    .map(lambda t: Thresholds(t[1] / 10, t[0] / 10))
)
SAMPLES = st.lists(
    st.sampled_from([(o, text) for o, texts in TEXTS.items() for text in texts]),
    min_size=1,
    max_size=10,
)
MIXES = st.sampled_from(
    [RefusalMix(), RefusalMix((("all", 1.0),)), RefusalMix((("reason", 0.5), ("short", 0.5)))]
)


@st.composite
def row(draw, id="q"):
    samples, answerable = draw(SAMPLES), draw(st.sampled_from([True, True, False, None]))
    answers = ["red"] if answerable else draw(st.sampled_from([[], ["red"]]))
    if not answers:
        samples = [("w" if o == "c" else o, text) for o, text in samples]
    outcomes = [OUTCOME[o] for o, _ in samples]
    changes = {
        "answerable": answerable,
        "answers": answers,
        "samples": [t for _, t in samples],
        "outcomes": outcomes,
    }
    return line(id, "".join(o for o, _ in samples)) | changes


ROWS = st.integers(0, 12).flatmap(lambda n: st.tuples(*(row(f"q{i}") for i in range(n))))


@settings(deadline=None)
@given(ROWS, THRESHOLDS, MIXES, st.integers(0, 3))
def test_every_question_ends_in_exactly_one_class_and_mixed_never_enters_idk(
    rows, thresholds, mix, seed
):
    records = [make_record(r, thresholds) for r in rows]
    assert [r.id for r in records] == [r["id"] for r in rows]
    instructions = Counter(i.id for i in make_instructions(records, mix, seed))
    for record in records:
        # Known, Mixed and Unknown by their definition, and Type 3 apart from them: one of four, never two.
        c = record.n_correct / record.n_samples
        beyond = record.type == 3
        classes = [
            beyond,
            not beyond and c >= thresholds.delta_k - 1e-9,
            not beyond and c <= thresholds.delta_uk + 1e-9,
        ]
        assert sum(classes) <= 1
        wanted = (
            (Boundary.UNKNOWN, Boundary.KNOWN, Boundary.UNKNOWN)[classes.index(True)]
            if any(classes)
            else Boundary.MIXED
        )
        assert record.boundary is wanted
        known_without_answer = wanted is Boundary.KNOWN and not record.correct
        assert instructions[record.id] == (
            0 if wanted is Boundary.MIXED or known_without_answer else 1
        )


@settings(deadline=None)
@given(ROWS, THRESHOLDS, MIXES, st.integers(0, 3))
def test_instructions_answer_what_is_known_and_refuse_the_rest(rows, thresholds, mix, seed):
    records = {r["id"]: make_record(r, thresholds) for r in rows}
    for instruction in make_instructions(records.values(), mix, seed):
        record = records[instruction.id]
        if record.boundary is Boundary.KNOWN:
            assert instruction.response in {r.text for r in record.correct}
            assert not is_refusal(instruction.response)
        else:
            assert instruction.response in {
                text for sets in TEMPLATES.values() for text in sets[record.type == 3]
            }


@settings(deadline=None)
@given(row(), THRESHOLDS, THRESHOLDS)
def test_thresholds_move_questions_in_one_direction_only(one, a, b):
    order = [Boundary.UNKNOWN, Boundary.MIXED, Boundary.KNOWN]
    if a.delta_k > b.delta_k or (a.delta_k == b.delta_k and a.delta_uk > b.delta_uk):
        a, b = b, a
    low, high = make_record(one, a), make_record(one, b)
    if a.delta_uk <= b.delta_uk:  # both thresholds rise: towards Unknown, never back
        assert order.index(high.boundary) <= order.index(low.boundary)
    else:  # further apart: into Mixed, from either side, and nothing out of it
        assert high.boundary in (low.boundary, Boundary.MIXED)
        assert low.boundary is not Boundary.MIXED or high.boundary is Boundary.MIXED
    assert (low.correct, low.incorrect, low.refusal, low.confidence) == (
        high.correct,
        high.incorrect,
        high.refusal,
        high.confidence,
    )
    if low.type == 3:
        assert high.type == 3


@settings(deadline=None)
@given(ROWS, THRESHOLDS, MIXES, st.integers(0, 3), st.integers(1, 4))
def test_no_pair_has_equal_sides_and_each_side_is_what_its_kind_says(
    rows, thresholds, mix, seed, pairs
):
    records = {r["id"]: make_record(r, thresholds) for r in rows}
    found = list(make_preferences(records.values(), mix, seed, pairs=pairs))
    for pair in found:
        record = records[pair.id]
        assert pair.chosen != pair.rejected
        assert pair.chosen.strip()
        assert pair.rejected.strip()
        assert is_refusal(pair.chosen) is (
            pair.kind in (PairKind.REFUSAL_OVER_INCORRECT, PairKind.REFUSAL_OVER_ANSWER)
        )
        assert is_refusal(pair.rejected) is (pair.kind is PairKind.CORRECT_OVER_REFUSAL)
        assert (pair.kind is PairKind.REFUSAL_OVER_ANSWER) is (record.type == 3)
    counts = Counter((p.id, p.kind) for p in found)
    assert max(counts.values(), default=0) <= pairs
    assert len({(p.id, p.kind, p.chosen, p.rejected) for p in found}) == len(found)


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "types": st.sampled_from([((3, 0.2),), ((1, 0.5), (2, 0.3), (3, 0.2))]),
        "kinds": st.sampled_from(
            [
                (("refusal_over_incorrect", 0.3),),
                (("correct_over_refusal", 0.5), ("refusal_over_answer", 0.2)),
            ]
        ),
        "templates": st.sampled_from(["short", "reason"]),
        "pairs": st.integers(1, 3),
        "seed": st.integers(0, 9),
    },
)


@settings(max_examples=25, deadline=None)
@given(st.data(), OPTIONS)
def test_construction_is_deterministic_and_independent_of_the_order_of_the_shards(data, options):
    rows = [data.draw(row(f"q{i}")) for i in range(12)]
    rows += [
        line("known", "c" * 10),
        line("unknown", "w" * 10),
        line("beyond", "w" * 10, answerable=False),
    ]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    shuffled = data.draw(st.permutations(rows))
    parts = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for name, shards in (("whole", [rows]), ("again", [rows]), ("shards", parts)):
            out = Path(folder) / name / "run"
            for number, shard in enumerate(shards, 1):
                store(
                    out,
                    "train" if len(shards) == 1 else f"train.{number:04}-of-{len(shards):04}",
                    shard,
                )
            try:
                build(BuildConfig(out, **options))
            except InbolError as error:  # too few of a group for its share: then for every order
                results.append(str(error))
                continue
            results.append(
                [
                    sorted(json.dumps(r, sort_keys=True) for r in read_jsonl(out / file))
                    for file in FILES
                ]
            )
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize(
    "mix",
    [RefusalMix((("short", 0.5), ("long", 0.5))), RefusalMix((("long", 0.5), ("short", 0.5)))],
)
def test_a_mix_keeps_its_refusals_whatever_else_is_built(mix):
    assert [mix.pick(f"q{i}", 2) for i in range(50)] == [
        mix.pick(f"q{i}", 2) for i in reversed(range(50))
    ][::-1]
