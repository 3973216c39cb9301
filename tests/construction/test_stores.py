import fcntl
import json
import shutil

import pytest
from store_lines import LINES, build_fails, built, four_groups, line, negatives, store

from inbol_jax.artifacts import file_fingerprint, read_meta, write_jsonl
from inbol_jax.construction.build import FILES
from inbol_jax.construction.stores import check_built, count_lines, unfinished
from inbol_jax.errors import InbolError


def test_a_build_without_confidence(tmp_path):
    build_fails(tmp_path / "run", "holds no .jsonl file; run `inbol confidence")


def test_stores_that_do_not_belong_together(out):
    other = [line("other", "cccccccccc")]
    store(out, "more", other, model="m2")
    build_fails(out, "of different models or image folders")
    store(out, "more", other, images="../../elsewhere")
    build_fails(out, "of different models or image folders")


@pytest.mark.parametrize("header", [{}, {"rows": 9}])
def test_a_store_that_is_still_being_filled(tmp_path, header):
    store(tmp_path / "run", "train", LINES[:7])
    meta = tmp_path / "run/confidence/train.jsonl.meta.json"
    meta.write_text(json.dumps({"model": "m1", "images": "../../data"} | header))
    message = r"train\.jsonl is not finished: 7 questions so far; give `inbol confidence` again"
    build_fails(tmp_path / "run", message)


def test_a_store_whose_dataset_was_changed_since(tmp_path):
    """A dataset that has moved away is not missed: the store holds all that is needed."""
    out = tmp_path / "run"
    about = {"data": "../../data/data.jsonl", "data_fingerprint": "of an earlier one"}
    store(out, "train", four_groups(), **about)
    assert len(built(out)[0]) == 240
    data = tmp_path / "data/data.jsonl"
    data.touch()
    build_fails(
        out, r"data\.jsonl was changed since .*train\.jsonl was made of it; give `inbol conf"
    )
    store(out, "train", four_groups(), **about | {"data_fingerprint": file_fingerprint(data)})
    assert len(built(out)[0]) == 240
    other = tmp_path / "idk_it"
    store(other, "dpo_start", four_groups(), **about)
    build_fails(out, r"dpo_start\.jsonl was made of it", negatives=other / "confidence")


def test_what_was_built_of_other_confidences_is_refused(out):
    """Scored again, asked for P(True) again, or with a store that is new; not without stores."""
    file, p_true = out / "confidence/train.jsonl", out / "confidence/p_true/train.jsonl"
    rows = []
    for row in four_groups():
        about = {name: row[name] for name in ("id", "images", "question", "fingerprint")}
        p = 0.9 if row["id"].startswith("known") else 0.1
        rows.append(about | {"proposed": "red", "p_true": p})
    write_jsonl(p_true, rows, {"set_aside": 0})
    pairs, message = out / "preferences.jsonl", r"was changed .*; give `inbol build` again"

    def changed(path, old, new):
        text = path.read_text()
        path.write_text(text.replace(old, new, 1))
        return lambda: path.write_text(text)

    built(out)
    check_built(pairs)
    put_back = changed(file, "red", "rot")
    with pytest.raises(InbolError, match=message):
        check_built(pairs)
    built(out, partial=True)
    put_back()
    check_built(pairs)
    for estimator in ("accuracy", "p-true"):
        built(out, estimator=estimator)
        put_back = changed(p_true, "0.9", "0.8")
        if estimator == "p-true":
            with pytest.raises(InbolError, match=message):
                check_built(pairs)
        else:
            check_built(pairs)
        put_back()
        check_built(pairs)
    store(out, "new", [line("new", "cccccccccc")])
    with pytest.raises(InbolError, match=message):
        check_built(pairs)
    shutil.rmtree(out / "confidence")
    check_built(pairs)


def test_a_half_filled_store_is_noticed_and_taken_with_partial(out, capsys):
    file = out / "confidence/train.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 40])  # a torn last line
    assert count_lines(file) == 239
    message = r"train\.jsonl is not finished: 239 questions so far"
    build_fails(out, f"{message}; .*, or take what is there with --partial")
    records, _, _ = built(out, partial=True)
    assert len(records) == 239
    said = "train.jsonl is not finished: 239 questions so far, taken as it is"
    assert said in capsys.readouterr().out


def test_a_store_that_is_being_written_is_noticed(out):
    file = out / "confidence/train.jsonl"
    with file.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        message = "is not finished: `inbol confidence` is writing it; wait for its end"
        build_fails(out, f"train.jsonl {message}")
        assert len(built(out, partial=True)[0]) == 240
    assert unfinished(file) is None
    assert len(built(out)[0]) == 240


def test_a_shard_that_is_missing_is_noticed(out, capsys):
    store(out, "more.0001-of-0002", [line("m", "cccccccccc")])
    missing = "1 of its shards are missing"
    again = "give `inbol confidence` again in every process, or take what is there"
    build_fails(out, f"{missing}; {again}")
    assert len(built(out, partial=True)[0]) == 241
    assert f"{missing}, taken as it is" in capsys.readouterr().out


def test_pairs_reject_the_incorrect_responses_of_another_store(out, capsys):
    whole = built(out)
    folder = negatives(out)
    for path in (folder, folder / "dpo_start.jsonl"):
        records, instructions, pairs = built(out, negatives=path, pairs_per_kind=9)
        assert (records, instructions) == (whole[0], whole[1])
        rejected = {p["rejected"] for p in pairs if p["kind"] != "correct_over_refusal"}
        assert rejected == {"mauve", "pink", "green"}
        assert not {"unknown0", "unknown1"} & {p["id"] for p in pairs}
        assert "1 of 240 questions are not in" in capsys.readouterr().out
    assert read_meta(out / FILES[2])["negatives"] != read_meta(out / FILES[2])["inputs"]
    assert json.loads((out / "preferences.jsonl.meta.json").read_text())["config"]


def test_negatives_that_cannot_be(out):
    build_fails(out, "--negatives .*nothing: no such file", negatives=out / "nothing")
    store(out.parent / "some", "train", [row for row in four_groups() if row["answerable"]])
    message = "--negatives .* no pair is left of Type 3; sample those questions as well"
    build_fails(out, message, negatives=out.parent / "some/confidence")

    def changed(**changes):
        return negatives(out, lambda row: row | changes if row["id"] == "known7" else row)

    message = r"dpo_start\.jsonl: known7 is another question than in the records"
    build_fails(out, message, negatives=changed(question="Who?"))
    folder = changed(outcomes=["wrong"])
    message = r"dpo_start\.jsonl:\d+: not a line of a confidence store"
    build_fails(out, message, negatives=folder)
    (folder / "dpo_start.jsonl.meta.json").unlink()
    message = r"dpo_start\.jsonl is not finished: 239 questions so far"
    build_fails(out, message, negatives=folder)
