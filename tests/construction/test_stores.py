"""What `inbol build` reads: stores of confidences, finished or not."""

import json

import pytest
from store_lines import LINES, UNCAPPED, build_fails, built, line, store

from inbol_jax.answers import AnswerStore
from inbol_jax.artifacts import meta_path, read_jsonl, read_meta, write_json
from inbol_jax.confidence.samples import inputs_fingerprint
from inbol_jax.construction.build import FILES, build
from inbol_jax.construction.config import BuildConfig


def test_a_dataset_s_name_is_no_pattern(out):
    """Of "[a]" as of any other, what is stored is part of what is built from."""
    file = store(out, "[a]", [line("other", "cccccccccc")])
    before = inputs_fingerprint([file])
    file.write_text(file.read_text().replace("red", "blue"))
    assert inputs_fingerprint([file]) != before


def test_a_build_without_confidence(tmp_path):
    build_fails(tmp_path / "run", "holds no store of confidences; run `inbol confidence")


def test_stores_that_do_not_belong_together(out):
    file = store(out, "more", [line("other", "cccccccccc")], model="m2")
    build_fails(out, "--model m2, and now --model m1 in ")
    header = read_meta(store(out, "more", [line("other", "cccccccccc")]))
    write_json(meta_path(file), header | {"settings": header["settings"] | {"n": 4}})
    build_fails(out, "--n 4, and now --n 10 in .*train.jsonl: choose another --out")
    header["settings"]["prompt"] = "short"
    write_json(meta_path(file), header)
    build_fails(out, "more.jsonl was made with --prompt short, and now --prompt bare in ")


@pytest.mark.parametrize("settings", [..., [], {"model": "m1"}, {"data": 3}])
def test_a_header_that_is_none(out, settings):
    file = out / "confidence/train.jsonl"
    header = {name: value for name, value in read_meta(file).items() if name != "settings"}
    write_json(meta_path(file), header | ({} if settings is ... else {"settings": settings}))
    fault = (
        "cannot be read .Expected `object`, got `array`"
        if settings == []
        else "not the header of a store of con"
    )
    build_fails(out, rf"train\.jsonl\.meta\.json: {fault}.*; delete")


@pytest.mark.parametrize("command", ["evaluate", "confidence --p-true", None])
def test_answers_of_other_commands_are_never_read(out, command):
    """Such as those to test questions."""
    file = store(out, "test", [line("test", "cccccccccc")])
    header = read_meta(file) | {"command": command}
    write_json(file.with_name("test.jsonl.meta.json"), header)
    records, _, _ = built(out)
    assert "test" not in {record["id"] for record in records}


def test_a_store_may_lack_what_the_first_process_asked(tmp_path):
    file = store(tmp_path / "run", "train", LINES, asked=[[], LINES])
    assert not file.exists()
    records, _, _ = built(tmp_path / "run")
    assert {record["id"] for record in records} == {row["id"] for row in LINES}


def test_what_was_not_asked_is_noticed_and_left_out_with_partial(out, capsys):
    file = out / "confidence/train.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 40])  # a torn last line
    message = r"train\.jsonl: 1 of 240 questions have no answer yet"
    build_fails(out, f"{message}; .*, or take what is there with --partial")
    with AnswerStore(file, 0):  # also while it is filled
        assert len(built(out, partial=True)[0]) == 239
    assert "1 of 240 questions have no answer yet, and are left out" in capsys.readouterr().out


def changed(file, **columns):
    """Changes the first question of a dataset."""
    first, *others = read_jsonl(file)
    file.write_text("".join(json.dumps(row) + "\n" for row in (first | columns, *others)))


def test_samples_are_judged_by_the_gold_answers_of_today(out):
    before = built(out)[0][0]
    assert before["boundary"] == "known"
    changed(out.parent / "data/train.jsonl", answers=["blue"])
    after = built(out)[0][0]
    assert (after["id"], after["boundary"]) == (before["id"], "unknown")
    assert "red" in {r["text"] for r in after["incorrect"]}


@pytest.mark.parametrize("columns", [{"question": "Who?"}, {"id": "new"}])
def test_an_edited_question_has_no_answer(out, columns):
    changed(out.parent / "data/train.jsonl", **columns)
    build_fails(out, "1 of 240 questions have no answer yet")


def test_an_exchanged_picture_has_no_answer(out):
    (out.parent / "data/x.png").write_bytes(b"another")
    build_fails(out, "240 of 240 questions have no answer yet")


def test_what_was_built_is_not_built_over(out, capsys):
    built(out)
    capsys.readouterr()
    before = (out / FILES[0]).stat().st_mtime_ns
    build(BuildConfig(out, **UNCAPPED))
    assert "finished before, by the same settings (240 rows)" in capsys.readouterr().out
    assert (out / FILES[0]).stat().st_mtime_ns == before
    message = r"records\.jsonl was made with --seed 0, and now --seed 3: .*, or delete it"
    build_fails(out, message, seed=3, **UNCAPPED)
    store(out, "new", LINES[:1])
    build_fails(out, "was made of another --confidence, or of what has changed since", **UNCAPPED)
    assert (out / FILES[0]).stat().st_mtime_ns == before
