"""What each option of `inbol build` does."""

import fcntl
import json
from collections import Counter

import pytest
from store_lines import line, store

from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.cli import main
from inbol_jax.construction.build import FILES, BuildConfig, build
from inbol_jax.construction.templates import TEMPLATES, RefusalMix
from inbol_jax.errors import InbolError
from inbol_jax.responses.refusal import is_refusal


def lines(n=60):
    """n questions of each type, and n of Mixed."""
    shapes = {
        "known": "ccccccccww",
        "mixed": "ccccwwwwrr",
        "unknown": "wwwwwwwwcc",
        "beyond": "wwwwwwwwww",
    }
    return [
        line(f"{name}{i}", outcomes, answerable=name != "beyond")
        for name, outcomes in shapes.items()
        for i in range(n)
    ]


@pytest.fixture
def out(tmp_path):
    store(tmp_path / "run", "train", lines())
    return tmp_path / "run"


def made(out, **options):
    build(BuildConfig(out, **options))
    return [list(read_jsonl(out / name)) for name in FILES]


def fails(out, message, **options):
    with pytest.raises(InbolError, match=message) as caught:
        build(BuildConfig(out, **options))
    assert "\n" not in str(caught.value)
    left = {f.name for f in out.iterdir()}
    assert left <= {"confidence", *FILES, *(f"{name}.meta.json" for name in FILES)}, (
        "nothing temporary stays"
    )


def test_types_have_their_shares_and_mixed_stays(out):
    whole = made(out)
    records, instructions, pairs = made(out, types=((1, 0.5), (2, 0.3), (3, 0.2)))
    assert records == whole[0]
    assert Counter(i["type"] for i in instructions) == {1: 60, 2: 36, 3: 24}
    assert [i for i in whole[1] if i in instructions] == instructions
    kept = {i["id"] for i in instructions}
    assert {p["id"] for p in pairs} == kept | {f"mixed{i}" for i in range(60)}
    assert read_meta(out / FILES[1])["rows"] == 120


def test_a_share_of_type_3_leaves_the_others_in_proportion(out):
    _, instructions, _ = made(out, types=((3, 0.2),))
    counts = Counter(i["type"] for i in instructions)
    assert (counts[1], counts[2], counts[3]) == (60, 60, 30)
    _, instructions, _ = made(out, types=((3, 0.6),))
    counts = Counter(i["type"] for i in instructions)
    assert (counts[1] + counts[2], counts[3]) == (40, 60)
    assert 10 <= counts[1] <= 30
    _, instructions, pairs = made(out, types=((3, 0.0),))
    assert {i["type"] for i in instructions} == {1, 2}
    assert "refusal_over_answer" not in {p["kind"] for p in pairs}


def test_what_is_left_out_depends_on_the_seed(out):
    ids = [{i["id"] for i in made(out, types=((3, 0.2),), seed=seed)[1]} for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]


def test_kinds_have_their_shares(out):
    whole = made(out)
    assert Counter(p["kind"] for p in whole[2]) == {
        "correct_over_refusal": 120,
        "correct_over_incorrect": 120,
        "refusal_over_incorrect": 120,
        "refusal_over_answer": 60,
    }
    records, instructions, pairs = made(
        out,
        kinds=(
            ("correct_over_refusal", 0.5),
            ("refusal_over_incorrect", 0.25),
            ("refusal_over_answer", 0.25),
        ),
    )
    assert (records, instructions) == (whole[0], whole[1])
    assert Counter(p["kind"] for p in pairs) == {
        "correct_over_refusal": 120,
        "refusal_over_incorrect": 60,
        "refusal_over_answer": 60,
    }
    assert [p for p in whole[2] if p in pairs] == pairs
    _, _, pairs = made(out, types=((3, 0.1),), kinds=(("refusal_over_answer", 0.05),))
    counts = Counter(p["kind"] for p in pairs)
    assert counts["refusal_over_answer"] == 13  # of the 13 that the types leave
    assert sum(counts.values()) == 260


def test_several_pairs_a_question(out):
    one, several = made(out)[2], made(out, pairs=3, templates="short")[2]
    assert {(p["id"], p["kind"]) for p in several} == {(p["id"], p["kind"]) for p in one}
    assert len({(p["id"], p["kind"], p["chosen"], p["rejected"]) for p in several}) == len(several)
    assert max(Counter((p["id"], p["kind"]) for p in several).values()) == 3
    unknown = [p for p in several if p["id"] == "unknown0"]
    assert {p["rejected"] for p in unknown} == {"blue", "pink", "green"}
    assert made(out, pairs=1)[2] == one
    assert (
        len([p for p in made(out, pairs=3)[2] if p["kind"] == "correct_over_refusal"]) == 120
    )  # one template, one pair


def test_mix_of_refusals_with_their_shares(tmp_path):
    store(tmp_path / "run", "train", lines(300))
    _, instructions, _ = made(tmp_path / "run", refusal_mix=(("one", 0.75), ("reason", 0.25)))
    said = {
        kind: Counter(i["response"] for i in instructions if i["type"] == kind) for kind in (2, 3)
    }
    for kind, counts in said.items():
        assert counts["I don't know."] == pytest.approx(225, abs=30)
        assert set(counts) == {"I don't know.", *TEMPLATES["reason"][kind == 3]}
    _, instructions, pairs = made(tmp_path / "run", templates="reason")
    assert {i["response"] for i in instructions if i["type"] == 3} == set(TEMPLATES["reason"][1])
    assert {p["rejected"] for p in pairs if p["kind"] == "correct_over_refusal"} == set(
        TEMPLATES["reason"][0]
    )
    chosen = {i["id"]: i["response"] for i in instructions}
    assert all(
        chosen[p["id"]] == p["chosen"] for p in pairs if p["kind"] == "refusal_over_answer"
    ), "one refusal a question"


def test_every_template_is_a_refusal_and_short_is_short():
    assert all(is_refusal(text) for sets in TEMPLATES.values() for texts in sets for text in texts)
    assert max(len(text.split()) for text in TEMPLATES["short"][0]) < min(
        len(text.split()) for text in TEMPLATES["long"][0]
    )
    assert RefusalMix().pick("q", 3) == "I don't know."


def negatives(out, name="dpo_start", change=lambda row: row):
    """A second store, of a model that says other wrong things, and nothing wrong about unknown1."""
    rows = [
        change(row | {"samples": [{"blue": "mauve"}.get(t, t) for t in row["samples"]]})
        for row in lines()
        if row["id"] != "unknown0"
    ]
    rows = [
        line("unknown1", "rrrrrrrrrr") if row["id"] == "unknown1" else row for row in reversed(rows)
    ]
    store(out.parent / "idk_it", name, rows, model="m2")
    return out.parent / "idk_it/confidence"


def test_negatives_of_another_store(out, capsys):
    whole = made(out)
    folder = negatives(out)
    for path in (folder, folder / "dpo_start.jsonl"):
        records, instructions, pairs = made(out, negatives=path, pairs=9)
        assert (records, instructions) == (whole[0], whole[1])
        rejected = {p["rejected"] for p in pairs if p["kind"] != "correct_over_refusal"}
        assert rejected == {"mauve", "pink", "green"}
        assert not {"unknown0", "unknown1"} & {p["id"] for p in pairs}
        assert "1 of 240 questions are not in" in capsys.readouterr().out
    assert read_meta(out / FILES[2])["negatives"] != read_meta(out / FILES[2])["inputs"]
    assert json.loads((out / "preferences.jsonl.meta.json").read_text())["config"]


def test_negatives_that_cannot_be(out):
    fails(out, "--negatives .*nothing: no such file", negatives=out / "nothing")
    store(out.parent / "some", "train", [row for row in lines() if row["answerable"]])
    fails(
        out,
        "--negatives .* no pair is left of Type 3; sample those questions as well",
        negatives=out.parent / "some/confidence",
    )
    folder = negatives(
        out, change=lambda row: row | {"question": "Who?"} if row["id"] == "known7" else row
    )
    fails(out, "dpo_start.jsonl: known7 is another question than in the records", negatives=folder)
    folder = negatives(
        out, change=lambda row: row | {"outcomes": ["wrong"]} if row["id"] == "known7" else row
    )
    fails(out, "dpo_start.jsonl: known7: not a line of a confidence store", negatives=folder)
    (folder / "dpo_start.jsonl.meta.json").unlink()
    fails(out, "dpo_start.jsonl is not finished: 239 questions so far", negatives=folder)


def test_a_half_filled_store_is_noticed_and_taken_with_partial(out, capsys):
    file = out / "confidence/train.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 40])  # a torn last line
    fails(
        out,
        "train.jsonl is not finished: 239 questions so far; .*, or take what is there with --partial",
    )
    records, _, _ = made(out, partial=True)
    assert len(records) == 239
    assert (
        "train.jsonl is not finished: 239 questions so far, taken as it is"
        in capsys.readouterr().out
    )


def test_a_store_that_is_being_written_is_noticed(out):
    with (out / "confidence/train.jsonl").open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        fails(
            out, "train.jsonl is not finished: `inbol confidence` is writing it; wait for its end"
        )
        assert len(made(out, partial=True)[0]) == 240
    assert len(made(out)[0]) == 240


def test_a_shard_that_is_missing_is_noticed(out, capsys):
    store(out, "more.0001-of-0002", [line("m", "cccccccccc")])
    fails(
        out,
        "1 of its shards are missing; give `inbol confidence` again in every process, or take what is there",
    )
    assert len(made(out, partial=True)[0]) == 241
    assert "1 of its shards are missing, taken as it is" in capsys.readouterr().out


def test_a_known_question_that_nobody_judged_is_counted(out, capsys):
    row = line("free", "wwwwwwwwww", answers=[], answerable=None, samples=["blue"] * 10)
    store(out, "free", [row])
    _, instructions, pairs = made(
        out, estimator="consistency", thresholds=BuildConfig(out).thresholds
    )
    assert "free" not in {i["id"] for i in instructions} | {p["id"] for p in pairs}
    assert "1 Known questions have no correct response to teach" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "--pairs 0: at least 1"),
        ({"types": ((4, 0.5),)}, "--types 4: choose among 1, 2, 3"),
        ({"types": ((1, 1.5),)}, r"--types 1 1\.5: a share between 0 and 1"),
        ({"types": ((1, float("nan")),)}, "--types 1 nan: a share"),
        ({"types": ((1, 0.5), (1, 0.5))}, "--types: one of 1, 2, 3 is there twice"),
        ({"types": ((1, 0.6), (2, 0.6))}, r"--types: the shares add up to 1\.2"),
        ({"types": ((1, 0.2), (2, 0.2), (3, 0.2))}, r"--types: the shares add up to 0\.6"),
        (
            {"types": ((1, 0.0), (2, 0.5), (3, 0.5))},
            "no question is known: nothing to teach; move .* and the shares",
        ),
        ({"types": ((1, 1.0),)}, "no question is unknown: nothing to teach"),
        ({"types": ((1, 0.999), (2, 0.001))}, "--types: nothing is left of 2 .there are 60."),
        (
            {"kinds": (("correct_over_wrong", 1.0),)},
            "--kinds correct_over_wrong: choose among correct_over_refusal",
        ),
        (
            {"kinds": (("refusal_over_answer", 0.5), ("correct_over_refusal", 0.6))},
            "--kinds: the shares add up",
        ),
        (
            {"refusal_mix": (("terse", 1.0),)},
            "--templates or --refusal-mix 'terse': choose one of one, short",
        ),
        ({"refusal_mix": (("one", 0.5),)}, "--refusal-mix: .* must add up to 1"),
        ({"refusal_mix": (("one", 0.5), ("one", 0.5))}, "--refusal-mix: each set once"),
        ({"refusal_mix": (("one", 1.5), ("short", -0.5))}, "--refusal-mix: .* a share above 0"),
        (
            {"refusal_mix": (("one", 1.0),), "templates": "short"},
            "--refusal-mix and --templates: give one of them",
        ),
    ],
)
def test_options_that_cannot_be(out, options, message):
    fails(out, message, **options)


def test_a_group_that_is_to_have_a_share_and_is_not_there(tmp_path):
    rows = [row for row in lines() if row["answerable"]]
    store(tmp_path / "run", "train", rows)
    fails(
        tmp_path / "run",
        "--types: nothing is left of 3 .there are 0.; lower its share, or use more data",
        types=((3, 0.2),),
    )
    fails(tmp_path / "run", "--kinds: nothing is left of 3", kinds=(("refusal_over_answer", 0.2),))


def test_a_build_that_fails_leaves_the_one_before(out):
    made(out)
    before = {f.name: f.read_bytes() for f in out.iterdir() if f.is_file()}
    store(out, "more", [line("known0", "ccc")])
    fails(out, "id known0 is in another store too")
    assert {f.name: f.read_bytes() for f in out.iterdir() if f.is_file()} == before


def test_the_command_line_takes_all_of_them(out, capsys):
    words = [
        "--templates",
        "reason",
        "--pairs",
        "2",
        "--types",
        "3",
        "0.2",
        "--kinds",
        "refusal_over_answer",
        "0.1",
        "--seed",
        "4",
        "--partial",
        "--delta-k",
        "0.8",
    ]
    assert main(["build", "--out", str(out), "--negatives", str(negatives(out)), *words]) == 0
    assert (
        main(
            [
                "build",
                "--out",
                str(out),
                "--refusal-mix",
                "one",
                "0.5",
                "long",
                "0.5",
                "--types",
                "3",
                "0.25",
            ]
        )
        == 0
    )
    assert "instructions" in capsys.readouterr().out
