"""`inbol extrinsic` from its options to its files: trail, evaluation splits, models, endpoints, runs that were stopped."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest
from endpoint_server import said
from PIL import Image

from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.cli import main
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic import extrinsic as stage
from inbol_jax.extrinsic.answers import AnswerStore
from inbol_jax.extrinsic.extrinsic import ExtrinsicConfig, extrinsic, trail_file
from inbol_jax.extrinsic.generators import Reply
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.world.export import ExportConfig, export
from inbol_jax.world.splits import Split

THINGS = ("dog", "kite", "bus", "cake", "clock", "horse", "sofa", "laptop")
COLORS = ("brown", "red")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(24):
        name = f"images/{i}.png"
        Image.new("RGB", (24, 24), (10 * i, 0, 0)).save(folder / name)
        rows.append({"id": f"q{i}", "image": name, "question": f"What color is the {THINGS[i % 8]}?", "answers": [COLORS[i % 2]],
                     "answerable": True, "source": "photos", "split": "train"})  # fmt: skip
    (folder / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def test_the_world_by_default_is_what_the_results_were_made_with(tmp_path):
    """Measured before there were more than two generators: docs/results.md holds only as long as these bytes come out."""
    export(ExportConfig(tmp_path / "train", Split.TRAIN, 300, seed=5))
    file = extrinsic(ExtrinsicConfig(tmp_path / "train", tmp_path / "out", seed=5))
    assert hashlib.sha256(file.read_bytes()).hexdigest()[:16] == "62cb6ad9e8afbe92"


def test_every_dropped_question_is_in_the_trail(photos, tmp_path):
    file = extrinsic(ExtrinsicConfig(photos, tmp_path / "out", share=1.0))
    meta, kept, dropped = (
        read_meta(file),
        list(read_jsonl(file)),
        list(read_jsonl(trail_file(file))),
    )
    assert dropped
    told = Counter(f"{row['generator']}: {row['filter']}" for row in dropped) + Counter(
        f"{row['generator']}: kept" for row in kept
    )
    assert told == meta["counts"]
    assert meta["filters"] == list(stage.FILTERS_WITHOUT)
    for row in dropped:
        assert set(row) == {"id", "image", "question", "generator", "passed", "filter", "reason"}
        assert row["passed"] == meta["filters"][: meta["filters"].index(row["filter"])]
    for row in kept:
        assert row["filters"] == meta["filters"]
        assert (row["source"], row["split"]) == ("photos", "train")
    read = load_dataset_folder(file)
    assert len(read.examples) == len(kept)
    assert read.root.samefile(photos)
    assert (tmp_path / "out" / meta["data"]).samefile(photos / "data.jsonl")


def test_filters_can_be_chosen_and_left_out(photos, tmp_path):
    chosen = extrinsic(
        ExtrinsicConfig(
            photos,
            tmp_path / "a",
            share=1.0,
            filters=("duplicate", "ill_formed"),
            generators=("mismatched",),
        )
    )
    assert read_meta(chosen)["filters"] == ["ill_formed", "duplicate"]
    left = extrinsic(
        ExtrinsicConfig(
            photos, tmp_path / "b", share=1.0, no_filters=("answer_present", "language")
        )
    )
    assert read_meta(left)["filters"] == ["ill_formed", "present", "duplicate", "near_duplicate"]
    assert read_meta(left)["config"] != read_meta(chosen)["config"]


def test_questions_of_an_evaluation_split_are_dropped(photos, tmp_path):
    first = extrinsic(ExtrinsicConfig(photos, tmp_path / "first", share=1.0))
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    leaked = list(read_jsonl(first))[:12]
    for i, row in enumerate(leaked):
        (evaluation / f"copy{i}.png").write_bytes((photos / row["image"]).read_bytes())
    (evaluation / "data.jsonl").write_text(
        "".join(json.dumps(r | {"image": f"copy{i}.png"}) + "\n" for i, r in enumerate(leaked))
    )
    second = extrinsic(
        ExtrinsicConfig(photos, tmp_path / "second", share=1.0, against=(evaluation,))
    )
    asked = {(r["image"], r["question"]) for r in read_jsonl(second)}
    assert not asked & {(r["image"], r["question"]) for r in leaked}
    dropped = {
        (r["image"], r["question"])
        for r in read_jsonl(trail_file(second))
        if r["filter"] == "leaked"
    }
    assert (
        dropped
    )  # after the first of them the random choices go another way, so not all come up again
    assert dropped <= {(r["image"], r["question"]) for r in leaked}
    with pytest.raises(InbolError, match=r"--against .*nowhere: no dataset there"):
        extrinsic(ExtrinsicConfig(photos, tmp_path / "third", against=(tmp_path / "nowhere",)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generators": ("taste",)}, "--generators taste: there is no such generator"),
        ({"filters": ("taste",)}, "--filters taste: there is no such filter"),
        ({"no_filters": ("taste",)}, "--filters taste: there is no such filter"),
        ({"filters": ("answered",)}, "--filters answered: needs --model"),
        ({"filters": ("leaked",)}, "--filters leaked: needs --against"),
        ({"language": "klingon"}, "--language klingon: choose auto or one of en, de"),
        ({"near_duplicate": 0.0}, "--near-duplicate 0.0: a similarity"),
        ({"agreement": 0.5}, "--agreement 0.5: a share above 0.5"),
        ({"model_samples": 0}, "--model-samples 0: at least 1"),
        ({"batch_size": 0}, "--batch-size 0: at least 1"),
        (
            {"generators": ("model_written",)},
            "--generators model_written: needs --model, or --endpoint",
        ),
        (
            {"generators": ("evidence_removed",)},
            "--generators evidence_removed: needs a column `evidence` or `boxes`",
        ),
        (
            {"endpoint": EndpointConfig(endpoint="http://127.0.0.1:9/v1")},
            "--endpoint: only the generator model_written asks it",
        ),
        (
            {
                "endpoint": EndpointConfig(endpoint="http://127.0.0.1:9/v1"),
                "generators": ("model_written",),
            },
            "--endpoint-model",
        ),
    ],
)
def test_options_that_cannot_be(photos, tmp_path, options, message):
    with pytest.raises(InbolError, match=message):
        extrinsic(ExtrinsicConfig(photos, tmp_path / "out", **options))
    assert (
        not list((tmp_path / "out").glob("*extrinsic.*jsonl"))
        or not (tmp_path / "out/extrinsic.jsonl").exists()
    )


def test_nothing_left_says_which_filters_took_it(photos, tmp_path):
    with pytest.raises(
        InbolError, match=r"no question is left .*unseeable: language 24.*--no-filters"
    ):
        extrinsic(
            ExtrinsicConfig(
                photos, tmp_path / "out", generators=("unseeable",), language="de", share=1.0
            )
        )
    assert not list((tmp_path / "out").iterdir())


def test_a_run_that_failed_leaves_no_half_file_and_no_header(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    file = extrinsic(ExtrinsicConfig(photos, out))
    whole = file.read_bytes()

    def breaks(*arguments):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "propose", breaks)
    with pytest.raises(KeyboardInterrupt):
        extrinsic(ExtrinsicConfig(photos, out, seed=1))
    assert file.read_bytes() == whole
    assert read_meta(file) == {}
    assert {p.name for p in out.iterdir()} == {"extrinsic.jsonl", "extrinsic.trail.jsonl"}
    monkeypatch.undo()
    extrinsic(ExtrinsicConfig(photos, out))
    assert file.read_bytes() == whole


def written(body, number):
    return said("1. Who built the thing in the far distance?\n2. What color is it?")


def test_an_endpoint_writes_questions_once(photos, tmp_path, serve):
    server = serve(written)
    words = [
        "extrinsic",
        "--data",
        photos,
        "--out",
        tmp_path / "out",
        "--generators",
        "model_written",
        "--share",
        "1",
    ]
    words += ["--endpoint", server.url, "--endpoint-model", "writer"]
    assert main([str(w) for w in words]) == 0
    file = tmp_path / "out/extrinsic.jsonl"
    rows = list(read_jsonl(file))
    assert {r["question"] for r in rows} == {"Who built the thing in the far distance?"}
    assert len(rows) == 24
    assert len(server.asked) == 24
    content = server.asked[0][2]["messages"][0]["content"]
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    (tmp_path / "out/extrinsic.jsonl.meta.json").unlink()
    before = file.read_bytes()
    assert main([str(w) for w in words]) == 0
    assert file.read_bytes() == before
    assert len(server.asked) == 24  # its answers were kept


def test_a_torn_line_of_answers_is_asked_again(tmp_path):
    file = tmp_path / "answers.jsonl"
    with AnswerStore(file) as store:
        store.add({"a": [Reply("red", -0.5)], "b": [Reply("ünï", 0.0), Reply("", -1.0)]})
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"key": "c", "repl')
    with AnswerStore(file) as store:
        assert "a" in store
        assert "c" not in store
        assert store.get("b") == [Reply("ünï", 0.0), Reply("", -1.0)]
        assert store.get("c") == []
        store.add({"c": [Reply("x")]})
    assert file.read_bytes() == whole + b'{"key": "c", "replies": [["x", 0.0]]}\n'
    with AnswerStore(file), pytest.raises(InbolError, match="is being written by another run"):
        AnswerStore(file)
    file.write_bytes(b"[]\n" + whole)
    with pytest.raises(InbolError, match=r"answers\.jsonl:1: not a line of answers"):
        AnswerStore(file)


def test_a_model_filters_writes_and_finds_evidence(micro, small_world, tmp_path):
    """A random model: nothing that it says matters, everything must come out the same again without asking."""
    data = tmp_path / "data"  # a copy: images without their evidence are written beside the others
    (data / "images").mkdir(parents=True)
    rows = list(read_jsonl(small_world / "train/data.jsonl"))[:24]
    for row in rows:
        (data / row["image"]).write_bytes((small_world / "train" / row["image"]).read_bytes())
        row["evidence"] = [[4, 4, 30, 30]]
    (data / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = ExtrinsicConfig(data, tmp_path / "out", share=1.0, model=micro.path, model_samples=3, agreement=1.0,
                             generators=("unseeable", "mismatched", "evidence_removed"))  # fmt: skip
    file = extrinsic(config)
    meta = read_meta(file)
    assert meta["filters"] == [*stage.FILTERS_WITH_OBJECTS, "text_only", "answered"]
    assert meta["model"] == micro.fingerprint
    answers = (tmp_path / "out/extrinsic.answers.jsonl").read_bytes()
    assert answers.count(b"\n") > 20
    before = file.read_bytes(), trail_file(file).read_bytes()
    (tmp_path / "out/extrinsic.jsonl.meta.json").unlink()
    half = answers[: len(answers) // 2]  # a run that was killed in the middle of a line
    (tmp_path / "out/extrinsic.answers.jsonl").write_bytes(half)
    extrinsic(config)
    assert (file.read_bytes(), trail_file(file).read_bytes()) == before
    again = (tmp_path / "out/extrinsic.answers.jsonl").read_bytes()
    assert sorted(again.splitlines()) == sorted(answers.splitlines())
    assert again.startswith(half[: half.rindex(b"\n")])


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(photos, tmp_path, serve):
    server = serve(written)
    words = [
        "extrinsic",
        "--data",
        photos,
        "--out",
        tmp_path / "out",
        "--generators",
        "model_written",
        "--share",
        "1",
    ]
    words += ["--endpoint", server.url, "--endpoint-model", "writer", "--endpoint-concurrency", "1"]
    command = [
        sys.executable,
        "-c",
        "import sys; from inbol_jax.cli import main; sys.exit(main())",
        *map(str, words),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(server.asked) < 5 and process.poll() is None:
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out/extrinsic.jsonl").exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert len(list(read_jsonl(tmp_path / "out/extrinsic.jsonl"))) == 24
    assert 24 <= len(server.asked) <= 24 + 3  # what was in flight when it was killed
