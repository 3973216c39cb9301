"""`inbol confidence` as a whole: options, resumption, status, plot, several processes."""

import json
import os
import shutil
import socket

import datasets
import pytest
from command_lines import QUICK, confidence, finish, start

from inbol_jax.artifacts import meta_path, read_jsonl, read_meta, write_jsonl
from inbol_jax.cli import main
from inbol_jax.confidence.store import p_true_file, shards
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.responses.yes_no import read_yes_no


def without_starts(folder):
    """Every file but the time in the headers."""
    found = {p: p.read_text() for p in folder.rglob("*.json*")}
    for path, text in found.items():
        if path.name.endswith("meta.json"):
            header = json.loads(text).items()
            found[path] = {k: v for k, v in header if k not in ("started", "started_with")}
    return found


def test_a_run_that_is_there_samples_nothing(sampled, small_world, capsys):
    before = without_starts(sampled)
    capsys.readouterr()
    assert confidence(small_world / "test", sampled, *QUICK) == 0
    assert "60 questions x 2 samples, mean confidence (accuracy) 0." in capsys.readouterr().out
    assert without_starts(sampled) == before


def test_a_dataset_that_changed(sampled, small_world, tmp_path, capsys):
    """Sampled with P(True), then edited: `inbol build`, --plot and --estimator p-true refuse what
    is outdated; the same command scores again, drops, and samples what is new alone."""
    out, data = (tmp_path / name for name in ("out", "test"))
    shutil.copytree(small_world / "test", data)
    assert confidence(data, out, *QUICK, "--p-true") == 0
    rows = list(read_jsonl(data / "data.jsonl"))
    texts = {row["id"]: row["samples"] for row in read_jsonl(out / "confidence/test.jsonl")}
    change = next(r for r in rows[1:] if r["answerable"] and any(texts[r["id"]]))
    change["answers"] = [next(filter(None, texts[change["id"]]))]
    new = rows[2] | {"id": "new"}
    images = {"images": read_meta(data / "data.jsonl").get("images", ".")}
    write_jsonl(data / "data.jsonl", [*rows[1:], new], images)
    capsys.readouterr()
    for words in (["build", "--out", out], ["confidence", "--data", data, "--out", out, "--plot"]):
        assert main(list(map(str, words))) == 2
        assert "data.jsonl was changed since" in capsys.readouterr().err
    assert confidence(data, out, *QUICK) == 0
    assert (
        "test.jsonl: 1 scored again, as answers or other columns of theirs changed; 1 dropped, "
        "as they are no longer in the dataset\n" in capsys.readouterr().out
    )
    found = {row["id"]: row for row in read_jsonl(out / "confidence/test.jsonl")}
    assert found.keys() == texts.keys() - {rows[0]["id"]} | {"new"}
    assert {id: row["samples"] for id, row in found.items() if id != "new"} == {
        id: samples for id, samples in texts.items() if id != rows[0]["id"]
    }
    assert found[change["id"]]["n_correct"] > 0
    assert main(["build", "--out", str(out), "--estimator", "p-true"]) == 2
    assert "has p_true for 60 questions so far" in capsys.readouterr().err
    assert confidence(data, out, *QUICK, "--p-true") == 0
    assert "p_true/test.jsonl: 1 dropped, as they are no longer" in capsys.readouterr().out
    assert main(["build", "--out", str(out)]) == 0
    assert {row["id"] for row in read_jsonl(p_true_file(out / "confidence/test.jsonl"))} == {*found}
    (data / rows[1]["images"][0]).write_bytes((data / rows[-1]["images"][0]).read_bytes())
    assert confidence(data, out, *QUICK) == 2
    assert "or had another image, when it was sampled" in capsys.readouterr().err


def test_status_reads_and_nothing_else(sampled, small_world, tmp_path, capsys):
    store = sampled / "confidence/test.jsonl"
    before = without_starts(sampled)
    capsys.readouterr()
    options = ("--status", "--model", tmp_path / "no model is needed")
    assert confidence(small_world / "test", sampled, *options) == 0
    rows = [r for r in read_jsonl(store) if r["answerable"]]
    mean = sum(r["n_correct"] for r in rows) / sum(r["n_samples"] for r in rows)
    cut = sum(sum(r["samples_cut"]) for r in read_jsonl(store)) / 120
    line = capsys.readouterr().out
    assert line.startswith("test: 60 answered, 0 pending, 0 set aside")
    about = f"mean confidence (accuracy) {mean:.3f}, {cut:.1%} of the samples cut\n"
    assert line.endswith(about)
    assert without_starts(sampled) == before


def test_status_of_a_store_that_is_being_filled(sampled, small_world, tmp_path, capsys):
    folder, source = tmp_path / "confidence", sampled / "confidence/test.jsonl"
    folder.mkdir()
    lines = source.read_bytes().splitlines(keepends=True)
    (folder / "test.jsonl").write_bytes(b"".join(lines[:15]) + lines[15][:40])
    header = json.loads(meta_path(source).read_text())
    del header["rows"], header["set_aside"]
    meta_path(folder / "test.jsonl").write_text(
        json.dumps(header | {"started": 1000.0, "started_with": 5})
    )
    os.utime(folder / "test.jsonl", (0, 1004.0))
    capsys.readouterr()
    assert confidence(small_world / "test", tmp_path, "--status", "--estimator", "consistency") == 0
    line = capsys.readouterr().out
    assert line.startswith(
        "test: 15 answered, 45 pending, 0 set aside, 2.5 questions/s in the latest run, "
        "mean confidence (consistency) "
    )


def test_plot(sampled, small_world, capsys):
    for estimator in ("accuracy", "likelihood"):
        (sampled / "confidence/test.png").unlink(missing_ok=True)
        capsys.readouterr()
        options = ("--plot", "--estimator", estimator, "--delta-k", 0.9)
        assert confidence(small_world / "test", sampled, *options) == 0
        # Two samples: every Wilson interval holds a threshold. A likelihood is no share of samples,
        # and has none.
        expected = {"accuracy": "100%", "likelihood": "0%"}[estimator]
        assert (
            f"40 confidences, {expected} of the labels lie within sampling noise of a threshold"
            in capsys.readouterr().out
        )
        assert (sampled / "confidence/test.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--status", "--plot"])
def test_nothing_to_read(small_world, tmp_path, option, capsys):
    assert confidence(small_world / "test", tmp_path, option) == 2
    assert "nothing was sampled yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--estimator", "vibes"),
            "--estimator 'vibes': choose one of accuracy, consistency, likelihood, p-true",
        ),
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
        assert main(["build", "--out", str(sampled), *options]) == 0
        found[estimator] = {r["id"]: r["confidence"] for r in read_jsonl(sampled / "records.jsonl")}
    assert (sampled / "confidence/test.jsonl").read_bytes() == before
    assert len({tuple(values.values()) for values in found.values()}) == 3
    assert all(found["consistency"][id] >= found["accuracy"][id] for id in found["accuracy"])
    assert main(["build", "--out", str(sampled), "--estimator", "vibes"]) == 2
    assert "--estimator 'vibes'" in capsys.readouterr().err


def rows(*files):
    return sorted(line for file in files for line in file.read_text().splitlines())


def test_two_processes_give_the_samples_of_one(sampled, small_world, tmp_path, tmp_path_factory):
    """To the last bit; each process writes a shard, `inbol build` and --status read them together.
    P(True) likewise."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    options = (*QUICK, "--p-true", "--distributed")
    words = ("confidence", "--data", small_world / "test", "--out", tmp_path, *options)
    both = [start(*words, **shared, JAX_PROCESS_ID=str(i)) for i in range(2)]
    for process in both:
        finish(process)
    files = shards(tmp_path / "confidence/test.jsonl")
    assert [f.name for f in files] == ["test.0001-of-0002.jsonl", "test.0002-of-0002.jsonl"]
    assert [read_meta(f)["rows"] for f in files] == [30, 30]
    assert rows(*files) == rows(sampled / "confidence/test.jsonl")
    # One process does not go on with the shards of two.
    assert confidence(small_world / "test", tmp_path, *QUICK) == 2
    one = shutil.copytree(sampled, tmp_path_factory.mktemp("one"), dirs_exist_ok=True)
    assert confidence(small_world / "test", one, *QUICK, "--p-true") == 0
    assert rows(*map(p_true_file, files)) == rows(one / "confidence/p_true/test.jsonl")
    for options in ((), ("--estimator", "p-true", "--delta-uk", "0.5", "--delta-k", "0.53")):
        assert main(["build", "--out", str(tmp_path), *options]) == 0
    assert confidence(small_world / "test", tmp_path, "--status", "--estimator", "p-true") == 0
    files[1].unlink()
    assert main(["build", "--out", str(tmp_path)]) == 2


def test_a_set_of_the_hub_is_sampled_and_matched_as_it_says(small_world, tmp_path, capsys):
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
    found = {row["id"]: row for row in read_jsonl(tmp_path / "out/confidence/POPE-test.jsonl")}
    assert found.keys() == {f"random-{i}" for i in range(12)}
    for row in found.values():
        about = [row[name] for name in ("metric", "source", "split", "kind")]
        assert about == ["yes_no", "pope", "test", "random"]
        assert row["outcomes"] == [
            "refused" if is_refusal(t) else "correct" if read_yes_no(t) == "yes" else "wrong"
            for t in row["samples"]
        ]
        assert (tmp_path / "out/data/POPE-test" / row["images"][0]).is_file()
    capsys.readouterr()
    assert main(["confidence", *map(str, options), *QUICK, "--status"]) == 0
    assert "POPE-test: 12 answered, 0 pending, 0 set aside" in capsys.readouterr().out
    # What was imported is a dataset folder, which any other command reads.
    again = ("--data", tmp_path / "out/data/POPE-test", "--out", tmp_path / "again")
    assert main(["confidence", *map(str, again), *QUICK]) == 0
    read = list(read_jsonl(tmp_path / "again/confidence/POPE-test.jsonl"))
    assert {r["id"]: r["samples"] for r in read} == {i: r["samples"] for i, r in found.items()}


def test_yes_no_questions_are_evaluated_as_such(small_world, tmp_path):
    rows = list(read_jsonl(small_world / "test/data.jsonl"))[:8]
    rows = [row | {"answers": ["yes"], "answerable": True, "metric": "yes_no"} for row in rows]
    images = os.path.relpath(small_world / "test", tmp_path / "pope")
    write_jsonl(tmp_path / "pope/data.jsonl", rows, {"images": images})
    options = ["--in-domain", str(tmp_path / "pope"), "--out", str(tmp_path / "out"), *QUICK]
    assert main(["evaluate", *options]) == 0
    found = list(read_jsonl(tmp_path / "out/predictions.jsonl"))
    assert {r["metric"] for r in found} == {"yes_no"}
