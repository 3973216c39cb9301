"""The demo, end to end."""

import contextlib
import io
import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from command_lines import fails, finish, start

from inbol_jax.artifacts import read_jsonl
from inbol_jax.cli import main
from inbol_jax.defaults import TINY
from inbol_jax.evaluation.prediction import BASELINES

SIZES = ("--n-train", "60", "--n-test", "24")
FILES = (
    "data/train/data.jsonl",
    "data/test/data.jsonl",
    "data/validation/data.jsonl",
    "data/ood_style/data.jsonl",
    "data/ood_kinds/data.jsonl",
    "data/ood_knowledge/data.jsonl",
    "extrinsic.jsonl",
    "confidence/train.jsonl",
    "confidence/extrinsic.jsonl",
    "records.jsonl",
    "instructions.jsonl",
    "preferences.jsonl",
    "evaluation/predictions.jsonl",
)
MODELS = ("base", "idk_it", "dpo", "ca_dpo")
DOMAINS = ("in_domain", "out_of_domain")
GROUPS = ("type1", "mixed", "type2", "type12", "type3", "all")
FIELDS = ("n", "acc", "refr", "t", "t_low", "t_high", "denied")


def metrics_of(out):
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def run(one_length, tmp_path_factory):
    """(folder, stdout, stderr) of a whole demo with seed 0. No test writes into it."""
    out = tmp_path_factory.mktemp("demo") / "out"
    said, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        assert main(["demo", "--out", str(out), *SIZES]) == 0
    return out, said.getvalue(), errors.getvalue()


def test_demo_leaves_its_files(run):
    out, output, error = run
    assert "Traceback" not in error
    assert "Warning" not in error
    assert output.splitlines()[-1] == f"report -> {out / 'report.html'}"
    for name in FILES:
        assert list(read_jsonl(out / name)), name
        assert (out / f"{name}.meta.json").is_file(), name
    for stage in ("idk_it", "dpo", "ca_dpo"):
        assert [p for p in (out / stage / "checkpoints").iterdir() if p.name.isdigit()]
        assert list(read_jsonl(out / stage / "metrics.jsonl"))
        assert {p.name for p in (out / stage / "model").iterdir()} == {
            *(p.name for p in TINY.iterdir() if p.suffix != ".md"),
            "README.md",  # the model card
        }
    assert not list(out.rglob(".*"))  # no temporary file is left
    assert not list(out.rglob("*.partial"))


def test_demo_report_opens_offline(run):
    html = (run[0] / "report.html").read_text()
    assert html.lstrip().lower().startswith("<!doctype html>")
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html)
    assert "data:image/" in html
    for name in MODELS:
        assert name in html


def test_demo_metrics_have_the_agreed_layout(run):
    metrics = metrics_of(run[0])
    assert {"models", "seconds"} <= set(metrics)
    likelihood = {f"{name}_likelihood" for name in MODELS[1:]}
    own = {f"{name}_calibrated" for name in MODELS} | likelihood
    assert list(metrics["models"])[: len(MODELS)] == list(MODELS)
    baselines = {*BASELINES} - {"base_threshold_probe"}  # nobody gave one
    assert set(metrics["models"]) == {*MODELS, *baselines, *own}
    chosen = set(metrics["models"]) - {*MODELS, "always_refuse", "oracle"}
    assert set(metrics["thresholds"]) == chosen
    by_threshold = {name for name in baselines if "threshold" in name}
    assert set(metrics["curves"]) == {*MODELS, *likelihood, *by_threshold}
    for domains in metrics["models"].values():
        assert set(domains) == set(DOMAINS)
        for groups in domains.values():
            assert tuple(groups) == GROUPS
            for values in groups.values():
                assert tuple(values) == FIELDS
                assert isinstance(values["n"], int)
                if values["n"]:
                    assert -1 <= values["t_low"] <= values["t"] <= values["t_high"] <= 1
                    assert 0 <= values["acc"] <= 1
                    assert 0 <= values["refr"] <= 1
                else:
                    assert {values[f] for f in FIELDS[1:]} == {None}
            n = {group: values["n"] for group, values in groups.items()}
            assert n["type12"] == n["type1"] + n["mixed"] + n["type2"]
            assert n["all"] == n["type12"] + n["type3"]
    sizes = {
        (m, d): [v["n"] for v in groups.values()]
        for m, ds in metrics["models"].items()
        for d, groups in ds.items()
    }
    for domain, total in (("in_domain", 24), ("out_of_domain", 12 + 4 + 4)):
        assert len({tuple(sizes[name, domain]) for name in metrics["models"]}) == 1
        assert sizes["base", domain][-1] == total
    stages = {"world", "extrinsic", "confidence", "build", "IDK-IT", "DPO", "CA-DPO", "evaluation"}
    assert set(metrics["seconds"]) >= stages
    assert all(isinstance(s, float) and s >= 0 for s in metrics["seconds"].values())


def test_demo_trains_both_stages(run):
    weights = {
        p.parent: p.read_bytes()
        for p in (TINY / "model.safetensors", *run[0].glob("*/model/model.safetensors"))
    }
    assert len(weights) == len(set(weights.values())) == 4


def test_a_probe_is_one_more_baseline(run, tmp_path, capsys):
    out = Path(shutil.copytree(run[0], tmp_path / "out"))
    assert main(["probe", "--out", str(out)]) == 0
    data = out / "data"
    words = ["evaluate", "--in-domain", data / "test", "--validation", data / "validation"]
    words += ["--models", "base", TINY, "--templates", "short", "--max-new-tokens", "12"]
    words += ["--out", out / "probed"]
    assert main([*map(str, words), "--probe", str(out / "probe.safetensors")]) == 0
    metrics = json.loads((out / "probed/metrics.json").read_text())
    assert "base_threshold_probe" in metrics["curves"]
    found, before = metrics["models"], metrics_of(out)["models"]
    assert set(BASELINES) < set(found)
    for name in {*BASELINES} - {"base_threshold_probe"}:
        assert found[name]["in_domain"] == before[name]["in_domain"]
    logits = [row["probe"] for row in read_jsonl(out / "probed/predictions.jsonl")]
    assert len({*logits}) > 10
    words[words.index(TINY)] = out / "idk_it/model"
    words[-1] = out / "another"
    assert main([*map(str, words), "--probe", str(out / "probe.safetensors")]) == 2
    assert "probe.safetensors is for another model than" in capsys.readouterr().err


def test_demo_again_does_nothing(run, tmp_path, capsys):
    out = Path(shutil.copytree(run[0], tmp_path / "out"))  # its times come along
    results = {"demo.meta.json", "metrics.json", "report.html", "predictions.html"}
    files = [p for p in out.rglob("*") if p.is_file() and "figures" not in p.parts]
    kept = [p for p in files if p.name not in results]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert any("checkpoints" in p.parts for p in kept)
    metrics = metrics_of(out)
    assert main(["demo", "--out", str(out), *SIZES]) == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == before
    assert metrics_of(out) == metrics
    assert capsys.readouterr().out.count("done before") == 8


def test_demo_with_other_settings_is_refused(run, capsys):
    before = metrics_of(run[0])
    for other in (("--seed", 1), ("--n-train", 61)):
        error = fails(capsys, main, "demo", "--out", run[0], *SIZES, *other)
        assert f"and now {other[0]} {other[1]}" in error
    assert metrics_of(run[0]) == before


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_demo_with_a_damaged_state(tmp_path, content, capsys):
    (tmp_path / "demo.meta.json").write_text(content)
    fails(capsys, main, "demo", "--out", tmp_path, *SIZES)


def kill_when(process, seen, seconds=600):
    """Kills the process as soon as `seen()`; it must still be running then."""
    end = time.monotonic() + seconds
    while not seen():
        assert process.poll() is None, "the demo ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_killed_demo_ends_where_an_unbroken_one_does(tmp_path):
    out = tmp_path / "out"
    words = ("demo", "--out", out, *SIZES)
    store = out / "confidence/train.jsonl"
    kill_when(start(*words), lambda: store.exists() and store.stat().st_size)
    assert not (out / "records.jsonl").exists()
    sampled = store.read_bytes()
    kill_when(start(*words), lambda: (out / "idk_it/checkpoints").is_dir())
    # What was sampled is not sampled again.
    assert store.read_bytes().startswith(sampled[: sampled.rfind(b"\n") + 1])
    assert not (out / "idk_it/model/model.safetensors").exists()
    kill_when(start(*words), lambda: (out / "evaluation/answers/base").is_dir())
    output, _ = finish(start(*words))
    assert output.count("done before") == 7
    unbroken = tmp_path / "unbroken"
    finish(start("demo", "--out", unbroken, *SIZES))
    found, expected = metrics_of(out), metrics_of(unbroken)
    assert found["models"] == expected["models"]
    assert found["differences"] == expected["differences"]
    for name in ("records.jsonl", "preferences.jsonl"):
        rows = [sorted(map(json.dumps, read_jsonl(folder / name))) for folder in (out, unbroken)]
        assert rows[0] == rows[1], name
