import json
import random
import re
from collections import Counter

import pytest
from store_lines import line, store

from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.construction.build import FILES, BuildConfig, build
from inbol_jax.construction.instructions import make_instructions
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.construction.record import make_record
from inbol_jax.construction.templates import REFUSALS, SHORT_REFUSALS, TEMPLATES, RefusalMix
from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, BoundaryRecord, PairKind, Preference
from inbol_jax.responses.refusal import is_refusal

SHORT = RefusalMix((("short", 1.0),))

LINES = [
    line("known", "ccccccccww"),
    line("sure", "cccccccccc"),
    line("mixed", "cccccwwwwr"),
    line("torn", "cccccccc" + "rr"),
    line("unknown", "wwwwwwwwww"),
    line("hardly", "cwwwwwwwww"),
    line("shy", "rrrrrrrrrr"),
    line("type3", "wwwwwwwwrr", answerable=False, generator="unseeable"),
    line("type3-refused", "rrrrrrrrrr", answerable=False),
    line("empty", "wwwwwwwwww", samples=[""] * 10),
]


def records(lines=LINES):
    return [make_record(row, Thresholds()) for row in lines]


def test_instructions_teach_the_answer_where_it_is_known_and_a_refusal_where_it_is_not():
    found = {i.id: i for i in make_instructions(records(), SHORT, 0)}
    assert set(found) == {row["id"] for row in LINES} - {"mixed"}
    for name in ("known", "sure", "torn"):
        assert (found[name].response, found[name].boundary, found[name].type) == (
            "red",
            Boundary.KNOWN,
            1,
        )
    for name in ("unknown", "hardly", "shy", "empty"):
        assert found[name].response in SHORT_REFUSALS
        assert (found[name].boundary, found[name].type) == (Boundary.UNKNOWN, 2)
    for name in ("type3", "type3-refused"):
        assert found[name].response in SHORT_REFUSALS
        assert found[name].type == 3
    assert found["known"].question == "What color is thing known?"
    assert found["known"].image == "images/known.png"


def test_a_known_question_is_taught_the_answer_that_the_model_gave_most_often():
    row = line("q", "cccccccccc", samples=["a red"] * 6 + ["red"] * 4)
    (instruction,) = make_instructions(records([row]), SHORT, 0)
    assert instruction.response == "a red"


def test_pairs_by_class():
    kinds = {}
    for pair in make_preferences(records(), SHORT, 0):
        kinds.setdefault(pair.id, set()).add(pair.kind)
    answers = {PairKind.CORRECT_OVER_REFUSAL, PairKind.CORRECT_OVER_INCORRECT}
    assert kinds == {
        "known": answers,
        "sure": {PairKind.CORRECT_OVER_REFUSAL},  # nothing wrong was said
        "mixed": answers | {PairKind.REFUSAL_OVER_INCORRECT},
        "torn": {PairKind.CORRECT_OVER_REFUSAL},
        "unknown": {PairKind.REFUSAL_OVER_INCORRECT},
        "hardly": {
            PairKind.REFUSAL_OVER_INCORRECT
        },  # one sample was right: to prefer it would teach to guess
        "type3": {PairKind.REFUSAL_OVER_ANSWER},
        # "shy" and "type3-refused" only ever refused, "empty" said nothing: no pair
    }


def test_sides_of_a_pair():
    refuses = {
        PairKind.CORRECT_OVER_REFUSAL: "rejected",
        PairKind.CORRECT_OVER_INCORRECT: None,
        PairKind.REFUSAL_OVER_INCORRECT: "chosen",
        PairKind.REFUSAL_OVER_ANSWER: "chosen",
    }
    by_id = {r.id: r for r in records()}
    pairs = [p for seed in range(20) for p in make_preferences(by_id.values(), SHORT, seed)]
    for pair in pairs:
        record, sides = by_id[pair.id], {"chosen": pair.chosen, "rejected": pair.rejected}
        assert pair.chosen != pair.rejected
        assert pair.chosen.strip()
        assert pair.rejected.strip()
        assert (pair.confidence, pair.type, pair.question, pair.image) == (
            record.confidence,
            record.type,
            record.question,
            record.image,
        )
        assert {name for name, text in sides.items() if is_refusal(text)} == {
            refuses[pair.kind]
        } - {None}
        if pair.kind in (PairKind.CORRECT_OVER_REFUSAL, PairKind.CORRECT_OVER_INCORRECT):
            assert pair.chosen == record.correct[0].text
        if pair.kind is not PairKind.CORRECT_OVER_REFUSAL:
            assert pair.rejected in {r.text for r in record.incorrect}
    assert (
        len({(p.id, p.kind, p.rejected) for p in pairs if p.id == "unknown"}) == 3
    )  # blue, pink and green are each drawn


def test_incorrect_responses_are_drawn_as_often_as_they_were_given():
    samples = ["blue"] * 8 + ["pink"] * 2
    one = records([line("q", "w" * 10, samples=samples)])
    many = records([line(f"q{i}", "w" * 10, samples=samples) for i in range(1000)])
    by_seed = Counter(
        pair.rejected for seed in range(1000) for pair in make_preferences(one, SHORT, seed)
    )
    by_question = Counter(pair.rejected for pair in make_preferences(many, SHORT, 0))
    for drawn in (by_seed, by_question):
        assert drawn.total() == 1000
        assert drawn["blue"] == pytest.approx(800, abs=50)


def test_equal_sides_make_no_pair():
    row = line(
        "q", "wwwwwwwwww", samples=[SHORT_REFUSALS[0]] * 10
    )  # a template that some detector took for an answer
    assert not list(make_preferences(records([row]), RefusalMix(), 0))
    assert len(list(make_preferences(records([row]), RefusalMix((("reason", 1.0),)), 0))) == 1


def test_all_templates_are_in_use():
    rows = [line(f"q{i}", "wwwwwwwwww") for i in range(300)]
    for name in ("one", "short", "long", "all"):
        assert {
            i.response for i in make_instructions(records(rows), RefusalMix(((name, 1.0),)), 0)
        } == set(TEMPLATES[name][0])
    assert set(TEMPLATES["all"][0]) == set(REFUSALS)


def test_a_question_s_instruction_and_pairs_depend_neither_on_the_others_nor_on_their_order():
    shuffled = LINES[:]
    random.Random(0).shuffle(shuffled)
    for make in (make_instructions, make_preferences):
        whole = list(make(records(), SHORT, 0))
        assert list(make(records(), SHORT, 0)) == whole
        key = lambda item: json.dumps(item.to_json(), sort_keys=True)
        assert sorted(make(records(shuffled), SHORT, 0), key=key) == sorted(whole, key=key)
        for row in LINES:
            assert list(make(records([row]), SHORT, 0)) == [
                item for item in whole if item.id == row["id"]
            ]
        many = [line(f"q{i}", "cwwwwwwwww") for i in range(50)]
        assert list(make(records(many), SHORT, 0)) != list(make(records(many), SHORT, 1))


@pytest.fixture
def out(tmp_path):
    store(tmp_path / "run", "train", LINES[:7])
    store(tmp_path / "run", "extrinsic", LINES[7:])
    return tmp_path / "run"


def test_build_writes_three_files_that_can_be_read_again(out, capsys):
    build(BuildConfig(out, templates="short"))
    written = [BoundaryRecord.from_json(row) for row in read_jsonl(out / FILES[0])]
    assert {r.id: r for r in written} == {r.id: r for r in records()}
    assert [i["id"] for i in read_jsonl(out / FILES[1])] == [
        r.id for r in written if r.boundary is not Boundary.MIXED
    ]
    pairs = [Preference.from_json(row) for row in read_jsonl(out / FILES[2])]
    assert pairs == list(make_preferences(written, SHORT, 0))
    for file in FILES:
        meta = read_meta(out / file)
        assert (out / meta["images"]).samefile(out.parent / "data")
        assert {"command", "seed", "config", "inputs", "rows"} <= set(meta)
    lines = capsys.readouterr().out.splitlines()
    columns = [
        "",
        "questions",
        "instructions",
        "pairs",
        "correct > refusal",
        "correct > incorrect",
        "refusal > incorrect",
        "refusal > answer",
    ]
    assert [re.split(r"  +", line) for line in lines[:6]] == [
        columns,
        ["Type 1, known", "3", "3", "4", "3", "1", "0", "0"],
        ["mixed", "1", "0", "3", "1", "1", "1", "0"],
        ["Type 2, unknown", "4", "4", "2", "0", "0", "2", "0"],
        ["Type 3", "2", "2", "1", "0", "0", "0", "1"],
        ["all", "10", "9", "10", "4", "2", "3", "1"],
    ]
    assert lines[-2].endswith("of the labels lie within sampling noise of a threshold")
    assert lines[-1] == f"10 records, 9 instructions, 10 pairs -> {out}"


def test_build_is_deterministic_and_takes_its_options(out, capsys):
    build(BuildConfig(out))
    before = {name: (out / name).read_bytes() for name in FILES}
    build(BuildConfig(out))
    assert {name: (out / name).read_bytes() for name in FILES} == before
    build(BuildConfig(out, Thresholds(delta_k=0.9, delta_uk=0.0)))
    classes = {r["id"]: r["boundary"] for r in read_jsonl(out / "records.jsonl")}
    assert (classes["known"], classes["sure"], classes["hardly"], classes["unknown"]) == (
        "mixed",
        "known",
        "mixed",
        "unknown",
    )
    refusals = {}
    for name, templates in TEMPLATES.items():
        build(BuildConfig(out, templates=name))
        refusals[name] = {i["response"] for i in read_jsonl(out / "instructions.jsonl")} - {"red"}
        assert refusals[name] <= {text for by_type in templates for text in by_type}
    assert len(refusals["one"]) == 1 < len(refusals["short"])
    assert refusals["all"] - set(SHORT_REFUSALS)


def rejected(out, message, **options):
    with pytest.raises(InbolError, match=message) as caught:
        build(BuildConfig(out, **options))
    assert "\n" not in str(caught.value)
    assert not any((out / name).exists() for name in FILES)


def test_build_without_confidence(tmp_path):
    rejected(tmp_path, "holds no .jsonl file; run `inbol confidence")


@pytest.mark.parametrize(("rows", "missing"), [(LINES[4:], "known"), (LINES[:4], "unknown")])
def test_build_with_an_empty_class(tmp_path, rows, missing):
    store(tmp_path / "run", "train", rows)
    rejected(tmp_path / "run", f"no question is {missing}: nothing to teach")


def test_build_with_one_id_in_two_stores(out):
    store(out, "more", [LINES[0]])
    rejected(out, r"train.jsonl:1: id known is in another store too")


def test_build_with_stores_that_do_not_belong_together(out):
    store(out, "more", [line("other", "cccccccccc")], model="m2")
    rejected(out, "of different models or image folders")
    store(out, "more", [line("other", "cccccccccc")], images="../../elsewhere")
    rejected(out, "of different models or image folders")


@pytest.mark.parametrize("header", [{}, {"rows": 9}])
def test_build_from_a_store_that_is_still_being_filled(out, header):
    (out / "confidence/train.jsonl.meta.json").write_text(
        json.dumps({"model": "m1", "images": "../../data"} | header)
    )
    rejected(
        out, r"train\.jsonl is not finished: 7 questions so far; give `inbol confidence` again"
    )


def test_build_with_other_templates(out):
    rejected(
        out,
        "--templates or --refusal-mix 'terse': choose one of one, short, long, reason, all",
        templates="terse",
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"id": "q"},
        line("q", "ccc", samples=["red"]),
        line("q", "ccc") | {"outcomes": ["right"] * 3},
        line("q", "ccc", n_samples=None),
        line("q", "", n_samples=0),
    ],
    ids=["fields", "lengths", "outcomes", "count", "no samples"],
)
def test_build_with_a_line_that_is_none(out, bad):
    store(out, "zzz", [line("fine", "ccc"), bad])
    rejected(out, r"zzz\.jsonl:2: not a line of a confidence store")
