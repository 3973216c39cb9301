import json

import pytest
from store_lines import build_fails, built, four_groups, negatives, store

from inbol_jax.artifacts import read_meta
from inbol_jax.construction.build import FILES


@pytest.fixture
def out(tmp_path):
    store(tmp_path / "run", "train", four_groups())
    return tmp_path / "run"


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
