"""`inbol confidence` as a whole: options, resumption, several processes."""

import shutil
import socket

import datasets
import pytest
from command_lines import QUICK, confidence, finish, start
from scripted import Scripted, run

from inbol_jax.answers import Generation
from inbol_jax.artifacts import read_jsonl, read_meta, write_jsonl
from inbol_jax.cli import main
from inbol_jax.confidence import estimate
from inbol_jax.confidence.samples import Samples
from inbol_jax.errors import InbolError
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.responses.yes_no import read_yes_no
from inbol_jax.sampling.config import SamplingOptions


def said(*files):
    """{id: the line} of stores."""
    return {row["id"]: row for file in files for row in read_jsonl(file)}


def build(out, *options):
    (out / "records.jsonl").unlink(missing_ok=True)
    return main(["build", "--out", str(out), *map(str, options)])


def test_a_run_that_is_there_samples_nothing(small_world, tmp_path, capsys):
    first = run(small_world / "test", tmp_path)
    assert len(first.asked) == len(first.judged) == 60
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    capsys.readouterr()
    again = run(small_world / "test", tmp_path)
    assert (again.asked, again.judged) == ([], [])
    assert "60 questions x 2 samples, mean confidence 0." in capsys.readouterr().out
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json*")} == before


def test_a_dataset_that_changed(small_world, tmp_path, capsys):
    """Answers are judged again, and what is new, or asks something else, is asked alone: of all
    lines that were there none is touched. P(True) likewise."""
    out, data = (tmp_path / name for name in ("out", "test"))
    shutil.copytree(small_world / "test", data)
    run(data, out)
    files = [out / "confidence" / name for name in ("test.jsonl", "p_true/test.jsonl")]
    before, rows = [file.read_bytes() for file in files], list(read_jsonl(data / "data.jsonl"))
    change = next(row for row in rows[1:] if row["answerable"])
    change["answers"] = [f"about {change['id']}"]
    images = {"images": read_meta(data / "data.jsonl").get("images", ".")}
    write_jsonl(data / "data.jsonl", [*rows[1:], rows[2] | {"id": "new"}], images)
    (data / rows[5]["images"][0]).write_bytes((data / rows[-1]["images"][0]).read_bytes())
    assert build(out) == 2
    assert "test.jsonl: 2 of 60 questions have no answer yet; give" in capsys.readouterr().err
    assert sorted(run(data, out).asked) == sorted(["new", rows[5]["id"]])
    for path, old in zip(files, before, strict=True):
        assert path.read_bytes().startswith(old)
    (question,) = [q for q in Samples.open(files[0]) if q.example.id == change["id"]]
    assert question.n_correct > 0
    assert build(out, "--delta-k", 0.5) == 0


class Rambling(Scripted):
    """All it says is cut, and wrong."""

    def generate(self, examples, images, *, prompt, label, set_aside):
        for example in examples:
            yield [(example, [Generation("and on", -1.0, 3, cut=True)] * 2)]


@pytest.mark.parametrize("early", [10, 50])
def test_a_run_that_cannot_end_well_says_so_once(small_world, tmp_path, monkeypatch, capsys, early):
    """After the first questions, or at the end if there are fewer."""
    monkeypatch.setattr(estimate, "EARLY", early)
    run(small_world / "test", tmp_path, Rambling(), p_true=False)
    lines = capsys.readouterr().out.splitlines()
    (end,) = [i for i, line in enumerate(lines) if "60 questions x 2 samples" in line]
    assert "mean confidence 0.000, 100.0% of the samples cut ->" in lines[end]
    warned = [i for i, line in enumerate(lines) if line.startswith("Warning: test: ")]
    assert len(warned) == 2
    assert all((i < end) == (early == 10) for i in warned)
    assert '2 of 2 say "and on"; gold is' in lines[warned[1] + 1]


@pytest.mark.usefixtures("unreadable_weights")
def test_a_model_that_cannot_be_asked_is_refused_before_its_weights_are_read(
    small_world, untold, tmp_path, capsys
):
    assert confidence(small_world / "test", tmp_path / "out", "--model", untold) == 2
    assert "its chat template writes the question 0 times" in capsys.readouterr().err


def test_options_of_sampling_are_part_of_what_a_store_is(small_world, tmp_path):
    run(small_world / "test", tmp_path)
    for name, value in (("top_k", 5), ("top_p", 0.5)):
        sampling = SamplingOptions(n=2, **{name: value})
        with pytest.raises(InbolError, match=f", and now --{name.replace('_', '-')} .*: choose an"):
            run(small_world / "test", tmp_path, sampling=sampling)
    with pytest.raises(InbolError, match=", and now --seed 1: choose another --out"):
        run(small_world / "test", tmp_path, seed=1)


def test_another_estimator_builds_other_records_from_the_same_samples(sampled, capsys):
    before = (sampled / "confidence/test.jsonl").read_bytes()
    found = {}
    for estimator in ("accuracy", "consistency", "likelihood"):
        assert build(sampled, "--estimator", estimator, "--delta-k", 0.6) == 0
        found[estimator] = {r["id"]: r["confidence"] for r in read_jsonl(sampled / "records.jsonl")}
    assert (sampled / "confidence/test.jsonl").read_bytes() == before
    assert len({tuple(values.values()) for values in found.values()}) == 3
    assert all(found["consistency"][id] >= found["accuracy"][id] for id in found["accuracy"])
    assert build(sampled, "--estimator", "vibes") == 2
    assert "--estimator 'vibes'" in capsys.readouterr().err


@pytest.mark.parametrize("first", [0, 1])
def test_processes_share_one_store(small_world, tmp_path, first):
    """Each writes a file of its own, and all are one store, with which one process goes on."""
    one, both, data = tmp_path / "one", tmp_path / "both", small_world / "test"
    run(data, one)
    engines = [run(data, both, Scripted(index, 2)) for index in (first, 1 - first)]
    assert len(engines[0].asked) == len(engines[1].asked) == 30
    for name in ("confidence", "confidence/p_true"):
        files = sorted((both / name).glob("*.jsonl"))
        assert [file.name for file in files] == ["test.jsonl", "test.process-1.jsonl"]
        assert said(*files).keys() == said(one / name / "test.jsonl").keys()
    (both / "confidence/test.process-1.jsonl").unlink()
    assert len(run(data, both).asked) == 30
    assert build(both, "--delta-k", 0.5) == 0


@pytest.mark.slow
def test_two_processes_give_the_samples_of_one(sampled, small_world, tmp_path, tmp_path_factory):
    """To the last bit. P(True) likewise."""
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
        assert said(*files) == said(one / name / "test.jsonl")


def test_a_set_of_the_hub_is_sampled_and_matched_as_it_says(small_world, tmp_path):
    """A local copy with pictures in its rows; the shipped model's answers are read by the set's own
    metric."""
    rows = list(read_jsonl(small_world / "test/data.jsonl"))[:12]
    asked = [
        {"question_id": str(i), "question": r["question"], "answer": "yes", "category": "random",
         "image": {"bytes": (small_world / "test" / r["images"][0]).read_bytes(), "path": None}}
        for i, r in enumerate(rows)
    ]  # fmt: skip
    (tmp_path / "POPE").mkdir()
    made = datasets.Dataset.from_list(asked).cast_column("image", datasets.Image())
    made.to_parquet(tmp_path / "POPE/test-00000-of-00001.parquet")
    options = ["--format", "pope", "--id", tmp_path / "POPE", "--out", tmp_path / "data/POPE"]
    assert main(["data", "import", *map(str, options)]) == 0
    assert confidence(tmp_path / "data/POPE", tmp_path / "out", *QUICK) == 0
    found = list(Samples.open(tmp_path / "out/confidence/POPE.jsonl"))
    assert {question.example.id for question in found} == {f"random-{i}" for i in range(12)}
    for question in found:
        assert (question.example.metric, question.example.source) == ("yes_no", "pope")
        for sample in question.samples:
            right = "correct" if read_yes_no(sample.text) == "yes" else "wrong"
            assert sample.outcome == ("refused" if is_refusal(sample.text) else right)
