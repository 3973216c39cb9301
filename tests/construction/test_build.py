import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_lines import (
    LINES,
    UNCAPPED,
    any_line,
    build_fails,
    built,
    four_groups,
    line,
    preferences,
    records,
    store,
)

from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.cli import main
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.construction.build import FILES, BuildConfig, build
from inbol_jax.errors import InbolError
from inbol_jax.records import Boundary, BoundaryRecord, Preference
from inbol_jax.taught_refusals import SHORT_REFUSALS, TEMPLATES

NO_RESPONSE = '"responses": [], "counts": [], "logprobs": [], "tokens": [], "cut": []'


@pytest.fixture
def out(tmp_path):
    store(tmp_path / "run", "train", LINES[:7])
    store(tmp_path / "run", "extrinsic", LINES[7:])
    return tmp_path / "run"


def test_build_writes_three_files_that_can_be_read_again(out):
    build(BuildConfig(out, templates="short", **UNCAPPED))
    written = list(read_jsonl(out / FILES[0], BoundaryRecord.from_json))
    assert {r.id: r for r in written} == {r.id: r for r in records()}
    taught = [i["id"] for i in read_jsonl(out / FILES[1])]
    assert taught == [r.id for r in written if r.boundary is not Boundary.MIXED]
    pairs = list(read_jsonl(out / FILES[2], Preference.from_json))
    assert pairs == preferences(written)
    for file in FILES:
        meta = read_meta(out / file)
        assert (out / meta["images"]).samefile(out.parent / "data")
        assert {"command", "settings", "inputs", "rows", "prompt"} <= set(meta)


def test_build_is_deterministic_and_takes_its_options(out):
    assert built(out) == built(out)
    made, _, _ = built(out, thresholds=Thresholds(delta_k=0.9, delta_uk=0.0))
    classes = {r["id"]: r["boundary"] for r in made}
    assert (classes["known"], classes["sure"]) == ("mixed", "known")
    assert (classes["hardly"], classes["unknown"]) == ("mixed", "unknown")
    refusals = {}
    for name, templates in TEMPLATES.items():
        _, instructions, _ = built(out, templates=name)
        refusals[name] = {i["response"] for i in instructions} - {"red"}
        assert refusals[name] <= {text for by_type in templates for text in by_type}
    assert len(refusals["one"]) == 1 < len(refusals["short"])
    assert refusals["all"] - set(SHORT_REFUSALS)


def nothing_is_built(out, message):
    build_fails(out, message)
    assert not any((out / name).exists() for name in FILES)


@pytest.mark.parametrize(("rows", "missing"), [(LINES[4:], "known"), (LINES[:4], "unknown")])
def test_a_class_without_questions(tmp_path, rows, missing):
    store(tmp_path / "run", "train", rows)
    nothing_is_built(tmp_path / "run", f"no question is {missing}: nothing to teach")


def test_one_id_in_two_stores(out):
    store(out, "more", [LINES[0]])
    nothing_is_built(out, r"train\.jsonl: id known is in another store too")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"counts": [10]', '"counts": [0]', "0 responses, where 10 were asked for"),
        ('"counts": [10]', '"counts": [9]', "cannot be read .*9 responses, where 10 .*delete that"),
        ('"counts": [10]', '"counts": [1.5]', "cannot be read"),
        ('"responses": ["red"]', '"responses": [1]', "cannot be read"),
        ('"logprobs": [-1.0]', '"logprobs": [1.0]', "cannot be read"),
        ('"logprobs": [-1.0]', '"logprobs": ["x"]', "cannot be read"),
        ('"tokens": [2]', '"tokens": [-2]', "cannot be read"),
        ('"tokens": [2]', '"tokens": [0]', "cannot be read"),
        ('"cut"', '"cat"', "cannot be read"),
        ('"cut": [false]', '"cut": ["x"]', "cannot be read"),
        (
            NO_RESPONSE.replace("[]", "[{}]").format('"red"', 10, -1.0, 2, "false"),
            NO_RESPONSE,
            "0 responses, where 10 were asked for",
        ),
        ('"key"', '"kay"', r"zzz\.jsonl:2: not a line of answers"),
    ],
)
def test_a_line_that_is_none_of_a_store(out, old, new, message):
    file = store(out, "zzz", [line("fine", "c" * 10), line("q", "c" * 10)])
    whole = file.read_text()
    assert old in whole
    fine, bad = whole.splitlines(keepends=True)
    file.write_text(fine + bad.replace(old, new))
    nothing_is_built(out, message)


def test_a_build_that_fails_leaves_the_one_before(out):
    built(out)
    (out / FILES[0]).unlink()
    before = [(out / name).read_bytes() for name in FILES[1:]]
    store(out, "more", [line("known", "c" * 10)])
    build_fails(out, "id known is in another store too")
    assert [(out / name).read_bytes() for name in FILES[1:]] == before


def test_a_build_that_was_killed_is_given_again(out, kills):
    build(BuildConfig(out))
    before = {name: (out / name).read_bytes() for name in FILES}
    for name in FILES:
        (out / name).unlink()
    assert kills(lambda: build(BuildConfig(out))) > 3
    assert {name: (out / name).read_bytes() for name in FILES} == before


@pytest.mark.parametrize("name", FILES)
def test_a_build_that_lost_a_file_makes_it_again(out, name):
    build(BuildConfig(out))
    before = (out / name).read_bytes()
    (out / name).write_bytes(before[: before.index(b"\n") + 1])
    with pytest.raises(InbolError, match=f"{name} holds 1 lines, and by its header .*; delete it"):
        build(BuildConfig(out))
    (out / name).unlink()
    build(BuildConfig(out))
    assert (out / name).read_bytes() == before


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "max_refusals": st.sampled_from([0.5, 1.0]),
        "templates": st.sampled_from(["short", "reason"]),
        "seed": st.integers(0, 9),
    },
)


def rows_of_build(out, rows, options, asked=None):
    """The sorted rows of each file, or the error's message."""
    store(out, "train", rows, asked=asked)
    try:
        files = built(out, **options)
    except InbolError as error:  # too few of a group for its share: then for every order
        return str(error)
    return [sorted(json.dumps(row, sort_keys=True) for row in rows) for rows in files]


@settings(max_examples=10, deadline=None)
@given(st.data(), OPTIONS)
def test_construction_is_deterministic_and_independent_of_who_asked(data, options):
    rows = [data.draw(any_line(f"q{i}", least=10)) for i in range(12)]
    rows.append(line("known", "c" * 10))
    rows.append(line("unknown", "w" * 10))
    rows.append(line("beyond", "w" * 10, answerable=False))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    shuffled = data.draw(st.permutations(rows))
    parts = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        whole, again, shared = (
            rows_of_build(Path(folder) / name / "run", rows, options, asked)
            for name, asked in (("whole", None), ("again", None), ("shared", parts))
        )
    assert whole == again == shared


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_refusals": 0}, "--max-refusals 0: more than 0 and at most 1"),
        ({"templates": "terse"}, "--templates 'terse': choose one of one, short, long, reason, al"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InbolError, match=message):
        BuildConfig(Path("run"), **options)


def test_the_command_line_takes_all_options(tmp_path, capsys):
    out = tmp_path / "run"
    store(out, "train", four_groups())
    words = "--templates reason --seed 4 --partial --delta-k 0.8 --max-refusals 0.7"
    run = ["build", "--out", str(out), *words.split(), "--estimator", "accuracy"]
    assert main(run) == 0
    assert "instructions" in capsys.readouterr().out
