"""`inbol confidence` as a whole: options, resumption, several processes."""

import os
import shutil
import socket

import datasets
import pytest
from command_lines import QUICK, confidence, finish, start

from inbol_jax.artifacts import read_jsonl, read_meta, write_jsonl
from inbol_jax.cli import main
from inbol_jax.confidence.samples import Samples
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.responses.yes_no import read_yes_no


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.json*")}


def said(*files):
    """{id: the line} of stores."""
    return {row["id"]: row for file in files for row in read_jsonl(file)}


def test_a_run_that_is_there_samples_nothing(sampled, small_world, capsys):
    before = contents(sampled)
    capsys.readouterr()
    assert confidence(small_world / "test", sampled, *QUICK) == 0
    assert "60 questions x 2 samples, mean confidence 0." in capsys.readouterr().out
    assert contents(sampled) == before


def test_a_dataset_that_changed(sampled, small_world, tmp_path, capsys):
    """Answers are judged again, and what is new, or asks something else, is asked alone: of all
    lines that were there none is touched. P(True) likewise."""
    out, data = (tmp_path / name for name in ("out", "test"))
    shutil.copytree(small_world / "test", data)
    assert confidence(data, out, *QUICK, "--p-true") == 0
    file, extra = (out / "confidence" / name for name in ("test.jsonl", "p_true/test.jsonl"))
    before, rows = [file.read_bytes(), extra.read_bytes()], list(read_jsonl(data / "data.jsonl"))
    texts = {id: row["responses"] for id, row in said(file).items()}
    change = next(r for r in rows[1:] if r["answerable"] and any(texts[r["id"]]))
    change["answers"] = [next(filter(None, texts[change["id"]]))]
    new = rows[2] | {"id": "new"}
    images = {"images": read_meta(data / "data.jsonl").get("images", ".")}
    write_jsonl(data / "data.jsonl", [*rows[1:], new], images)
    (data / rows[5]["images"][0]).write_bytes((data / rows[-1]["images"][0]).read_bytes())
    assert main(["build", "--out", str(out)]) == 2
    assert "test.jsonl: 2 of 60 questions have no answer yet; give" in capsys.readouterr().err
    assert confidence(data, out, *QUICK, "--p-true") == 0
    assert "60 questions x 2 samples" in capsys.readouterr().out
    for path, old in zip((file, extra), before, strict=True):
        assert path.read_bytes().startswith(old)
    added = [row["id"] for row in read_jsonl(file)][60:]
    assert sorted(added) == sorted(["new", rows[5]["id"]])
    (question,) = [q for q in Samples.open(file) if q.example.id == change["id"]]
    assert question.n_correct > 0
    options = ("--estimator", "p-true", "--delta-uk", 0.5, "--delta-k", 0.52)
    assert main(["build", "--out", str(out), *map(str, options)]) in (0, 2)
    assert "no P(True) yet" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--top-k", -1), "--top-k -1: "),
        (("--min-p", 1.5), "--min-p 1.5: "),
        (("--stop", ""), "--stop ('',): "),
        (("--stop-tokens", 5000), "--stop-tokens 5000: the model's vocabulary has 1102 tokens"),
    ],
)
def test_options_that_cannot_be_meant(small_world, tmp_path, options, message, capsys):
    assert confidence(small_world / "test", tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.rglob("*.jsonl*")) == []


@pytest.mark.usefixtures("unreadable_weights")
def test_a_model_that_cannot_be_asked_is_refused_before_its_weights_are_read(
    small_world, untold, tmp_path, capsys
):
    assert confidence(small_world / "test", tmp_path / "out", "--model", untold) == 2
    assert "its chat template writes the question 0 times" in capsys.readouterr().err


def test_options_of_sampling_are_part_of_what_a_store_is(sampled, small_world, capsys):
    for option, value in (
        ("--top-k", 5),
        ("--min-p", 0.1),
        ("--stop", "x"),
        ("--stop-tokens", 7),
        ("--seed", 1),
        ("--top-p", 0.5),
    ):
        assert confidence(small_world / "test", sampled, *QUICK, option, value) == 2
        assert f", and now {option} {value}: choose another --out" in capsys.readouterr().err


def test_another_estimator_builds_other_records_from_the_same_samples(sampled, capsys):
    before = (sampled / "confidence/test.jsonl").read_bytes()
    found = {}
    for estimator in ("accuracy", "consistency", "likelihood"):
        options = ("--estimator", estimator, "--delta-k", "0.6")
        (sampled / "records.jsonl").unlink(missing_ok=True)
        assert main(["build", "--out", str(sampled), *options]) == 0
        found[estimator] = {r["id"]: r["confidence"] for r in read_jsonl(sampled / "records.jsonl")}
    assert (sampled / "confidence/test.jsonl").read_bytes() == before
    assert len({tuple(values.values()) for values in found.values()}) == 3
    assert all(found["consistency"][id] >= found["accuracy"][id] for id in found["accuracy"])
    assert main(["build", "--out", str(sampled), "--estimator", "vibes"]) == 2
    assert "--estimator 'vibes'" in capsys.readouterr().err


def test_two_processes_give_the_samples_of_one(sampled, small_world, tmp_path, tmp_path_factory):
    """To the last bit; each process writes a file of its own, and all are one store, with which one
    process goes on. P(True) likewise."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    options = (*QUICK, "--p-true", "--distributed")
    words = ("confidence", "--data", small_world / "test", "--out", tmp_path, *options)
    both = [start(*words, **shared, JAX_PROCESS_ID=str(i)) for i in range(2)]
    for process in both:
        finish(process)
    one = shutil.copytree(sampled, tmp_path_factory.mktemp("one"), dirs_exist_ok=True)
    assert confidence(small_world / "test", one, *QUICK, "--p-true") == 0
    for name in ("confidence", "confidence/p_true"):
        files = sorted((tmp_path / name).glob("*.jsonl"))
        assert [file.name for file in files] == ["test.jsonl", "test.process-1.jsonl"]
        assert said(*files) == said(one / name / "test.jsonl")
    files[1].unlink()
    assert confidence(small_world / "test", tmp_path, *QUICK, "--p-true") == 0
    assert said(files[0]) == said(one / name / "test.jsonl")
    options = ("--estimator", "p-true", "--delta-uk", "0.5", "--delta-k", "0.53")
    assert main(["build", "--out", str(tmp_path), *options]) == 0


def test_a_set_of_the_hub_is_sampled_and_matched_as_it_says(small_world, tmp_path):
    """A local copy with pictures in its rows; the shipped model's answers are read by the set's own
    metric."""
    rows = list(read_jsonl(small_world / "test/data.jsonl"))[:20]
    asked = [
        {"id": str(i), "question_id": str(i), "question": r["question"], "answer": "yes"}
        for i, r in enumerate(rows)
    ]
    pictures = [
        {"bytes": (small_world / "test" / r["images"][0]).read_bytes(), "path": None} for r in rows
    ]
    made = datasets.Dataset.from_list(
        [a | {"category": "random", "image": p} for a, p in zip(asked, pictures, strict=True)]
    )
    (tmp_path / "POPE").mkdir()
    made.cast_column("image", datasets.Image()).to_parquet(
        tmp_path / "POPE/test-00000-of-00001.parquet"
    )
    options = ["--data.format", "pope", "--data.id", tmp_path / "POPE", "--data.split", "test"]
    options += ["--data.limit", 12, "--out", tmp_path / "out"]
    assert main(["confidence", *map(str, options), *QUICK]) == 0
    file = tmp_path / "out/confidence/POPE-test.jsonl"
    found = {question.example.id: question for question in Samples.open(file)}
    assert found.keys() == {f"random-{i}" for i in range(12)}
    for question in found.values():
        example = question.example
        about = [example.metric, example.source, example.split, example.extra["kind"]]
        assert about == ["yes_no", "pope", "test", "random"]
        for sample in question.samples:
            right = "correct" if read_yes_no(sample.text) == "yes" else "wrong"
            assert sample.outcome == ("refused" if is_refusal(sample.text) else right)
    # What was imported is a dataset folder, which any other command reads.
    again = ("--data", tmp_path / "out/data/POPE-test", "--out", tmp_path / "again")
    assert main(["confidence", *map(str, again), *QUICK]) == 0
    assert said(tmp_path / "again/confidence/POPE-test.jsonl").keys() == found.keys()


def test_yes_no_questions_are_evaluated_as_such(small_world, tmp_path):
    rows = list(read_jsonl(small_world / "test/data.jsonl"))[:8]
    rows = [row | {"answers": ["yes"], "answerable": True, "metric": "yes_no"} for row in rows]
    images = os.path.relpath(small_world / "test", tmp_path / "pope")
    write_jsonl(tmp_path / "pope/data.jsonl", rows, {"images": images})
    options = ["--in-domain", str(tmp_path / "pope"), "--out", str(tmp_path / "out"), *QUICK]
    assert main(["evaluate", *options]) == 0
    found = list(read_jsonl(tmp_path / "out/predictions.jsonl"))
    assert {r["metric"] for r in found} == {"yes_no"}
