import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inbol_jax.artifacts import read_jsonl, write_jsonl
from inbol_jax.cli import evaluate, main, train
from inbol_jax.confidence.confidence import ConfidenceCommand
from inbol_jax.construction.build import BuildConfig
from inbol_jax.data.check import CheckConfig
from inbol_jax.data.importing import ImportConfig
from inbol_jax.defaults import TINY
from inbol_jax.demo import DemoConfig
from inbol_jax.evaluation.evaluate import EvaluateConfig
from inbol_jax.extrinsic.audit import AuditConfig
from inbol_jax.extrinsic.extrinsic import ExtrinsicConfig
from inbol_jax.models.convert import ConvertConfig
from inbol_jax.responses.judge import JudgeConfig
from inbol_jax.training.config import DpoConfig, SftConfig
from inbol_jax.world.export import ExportConfig
from inbol_jax.world.pretrain import PretrainConfig

COMMANDS = [
    (main, ("demo",), DemoConfig),
    (main, ("world", "export"), ExportConfig),
    (main, ("world", "pretrain"), PretrainConfig),
    (main, ("data", "import"), ImportConfig),
    (main, ("data", "check"), CheckConfig),
    (main, ("confidence",), ConfidenceCommand),
    (main, ("extrinsic",), ExtrinsicConfig),
    (main, ("audit",), AuditConfig),
    (main, ("build",), BuildConfig),
    (main, ("judge",), JudgeConfig),
    (main, ("convert",), ConvertConfig),
    (train, ("sft",), SftConfig),
    (train, ("dpo",), DpoConfig),
    (evaluate, (), EvaluateConfig),
]
UNDRAWN = (ImportConfig, CheckConfig)  # they draw nothing, so they have no --seed
IDS = [" ".join(words) or "evaluate" for _, words, _ in COMMANDS]


def helps(text):
    """Option -> what its help says. Help stands two blanks behind the option and its type, or on the next lines."""
    found, option = {}, None
    for framed in text.splitlines():
        line = framed.strip("│ ")
        if (
            option_here := re.match(r"[│ ] (?:-\w, )?(--\w[\w.-]*)", framed)
        ) is not None:  # deeper in, it is spoken of
            option = option_here[1]
            found[option] = "".join(re.split(r"\s{2,}", line, maxsplit=1)[1:])
        elif option and set(line) <= set("─-╰╯╭╮ "):
            option = None
        elif option:
            found[option] += f" {line}"
    return found


@pytest.mark.parametrize(("command", "words", "config"), COMMANDS, ids=IDS)
def test_help_has_a_line_for_every_option(command, words, config, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # wider, and option groups would stand side by side
    with pytest.raises(SystemExit) as left:
        command([*words, "--help"])
    assert left.value.code == 0
    output = capsys.readouterr()
    assert output.err == ""
    found = helps(output.out)
    for field in dataclasses.fields(config):
        if config is ConvertConfig and field.name in ("source", "out"):
            name = {"source": "SRC", "out": "DST"}[field.name]
            assert re.search(rf"\b{name} +folder", output.out), (
                "they stand in their places, without a name"
            )
            continue
        wanted = (
            {"--delta-k", "--thresholds.delta-k"}
            if field.name == "thresholds"
            else {f"--{field.name.replace('_', '-')}"}
        )
        assert wanted & set(found), f"{field.name} is not in the help"
    for name, described in found.items():
        words_of_help = re.sub(r"\((default|required).*", "", described).split()
        assert len(words_of_help) >= 2, f"{name}: {described!r}"
    assert ({"--help"} if config in UNDRAWN else {"--seed", "--help"}) | (
        {"--out"} if config is not ConvertConfig else set()
    ) <= set(found)


@pytest.mark.parametrize(
    ("command", "subcommands"),
    [(main, "demo data world confidence extrinsic audit build judge convert"), (train, "sft dpo")],
)
def test_help_lists_the_commands(command, subcommands, capsys):
    with pytest.raises(SystemExit) as left:
        command(["--help"])
    assert left.value.code == 0
    output = capsys.readouterr().out
    for name in subcommands.split():
        assert re.search(rf"• {name}\s+\w\S* \w+", output), name


def fails(capsys, command, *arguments):
    """Runs a command that must end with exit code 2 and one line on standard error. Returns the line."""
    capsys.readouterr()
    code = command([str(a) for a in arguments])
    error = capsys.readouterr().err
    assert code == 2, error
    assert error.startswith("error: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize("seed", [-1, 2**32])
@pytest.mark.parametrize(
    ("command", "words", "config"), [c for c in COMMANDS if c[2] not in UNDRAWN]
)
def test_a_seed_out_of_range(command, words, config, seed, tmp_path, capsys):
    required = {"data": ("--data", tmp_path), "in_domain": ("--in-domain", tmp_path)}
    options = [
        word for field in dataclasses.fields(config) for word in required.get(field.name, ())
    ]
    out = (tmp_path, tmp_path / "out") if config is ConvertConfig else ("--out", tmp_path / "out")
    error = fails(capsys, command, *words, *options, *out, "--seed", seed)
    assert f"--seed {seed}: a whole number from 0 to 4294967295 is needed" in error
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_there(tmp_path, capsys):
    nowhere = tmp_path / "nowhere"
    for words in (("confidence",), ("extrinsic",)):
        error = fails(capsys, main, *words, "--data", nowhere, "--out", tmp_path / "out")
        assert f"{nowhere}: no such file or folder" in error
    for words in (("sft",), ("dpo",)):
        assert f"cannot read {nowhere}" in fails(
            capsys, train, *words, "--data", nowhere, "--out", tmp_path / "out"
        )
        assert f"cannot read {tmp_path}" in fails(
            capsys, train, *words, "--data", tmp_path, "--out", tmp_path / "out"
        )
    assert f"{nowhere}: no such file or folder" in fails(
        capsys, evaluate, "--in-domain", nowhere, "--out", tmp_path / "out"
    )
    assert "inbol confidence" in fails(capsys, main, "build", "--out", tmp_path / "out")


def test_an_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/deeper", Path("/proc/inbol")):
        for command, words in ((main, ("demo",)), (main, ("build",)), (main, ("world", "export"))):
            assert f"--out {out}: cannot be written (" in fails(
                capsys, command, *words, "--out", out
            )
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_without_permission(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "Permission denied" in fails(capsys, main, "build", "--out", tmp_path)


@pytest.fixture
def model(tmp_path):
    return shutil.copytree(TINY, tmp_path / "model")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(**changes):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES = [
    ("model.safetensors", cut),
    ("model.safetensors", lambda p: p.write_bytes(b"")),
    ("model.safetensors", Path.unlink),
    ("config.json", cut),
    ("config.json", Path.unlink),
    ("config.json", lambda p: p.write_text("[]")),
    ("config.json", change(text_config=None)),
    ("config.json", change(model_type="gpt2")),
    ("config.json", change(image_token_index=None)),
    (
        "config.json",
        lambda p: change(
            text_config=json.loads(p.read_text())["text_config"] | {"hidden_size": "160"}
        )(p),
    ),
    (
        "config.json",
        lambda p: change(
            text_config=json.loads(p.read_text())["text_config"] | {"hidden_size": 32}
        )(p),
    ),
    ("generation_config.json", cut),
    ("generation_config.json", lambda p: p.write_text("[]")),
    ("tokenizer.json", cut),
    ("tokenizer.json", Path.unlink),
    ("tokenizer.json", lambda p: p.write_text("{}")),
    ("processor_config.json", cut),
    ("preprocessor_config.json", cut),
]


@pytest.mark.parametrize(
    ("file", "damage"), DAMAGES, ids=[f"{i}-{f}" for i, (f, _) in enumerate(DAMAGES)]
)
def test_a_corrupt_checkpoint(file, damage, model, small_world, tmp_path, capsys):
    damage(model / file)
    error = fails(
        capsys,
        main,
        "confidence",
        "--data",
        small_world / "test",
        "--out",
        tmp_path / "out",
        "--model",
        model,
    )
    assert str(model) in error


def test_images_that_are_missing_or_damaged(tmp_path, capsys):
    rows = [
        {
            "id": f"q{i}",
            "image": f"{i}.png",
            "question": "What is the symbol?",
            "answers": ["a"],
            "answerable": True,
        }
        for i in range(4)
    ]
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data/data.jsonl", rows, {})
    for i in range(3):
        (tmp_path / f"data/{i}.png").write_bytes(b"no picture")
    confidence = ("confidence", "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert "1 of 4 set aside: 1 image missing (q3); at most 10% may be" in fails(
        capsys, main, *confidence
    )
    assert "3 of 3 questions could not be asked" in fails(
        capsys, main, *confidence, "--max-rejected", 0.3
    )
    instructions = [row | {"response": "alpha", "boundary": "known", "type": 1} for row in rows]
    for i, cause in ((3, "1 of its images are missing"), (0, "not an image")):
        write_jsonl(tmp_path / "instructions.jsonl", [instructions[i]], {"images": "data"})
        error = fails(
            capsys,
            train,
            "sft",
            "--data",
            tmp_path / "instructions.jsonl",
            "--out",
            tmp_path / f"run{i}",
        )
        assert f"{i}.png" in error
        assert cause in error


def test_options_with_a_wrong_value(small_world, tmp_path, capsys):
    data, out = ("--data", small_world / "test"), ("--out", tmp_path / "out")
    assert "--pair-weighting 'cubic': choose one of linear, margin, uniform" in fails(
        capsys, train, "dpo", *data, *out, "--pair-weighting", "cubic"
    )
    assert "--beta 0.0 must be greater than 0" in fails(
        capsys, train, "dpo", *data, *out, "--beta", 0
    )
    assert "--epochs 0: must be greater than 0" in fails(
        capsys, train, "sft", *data, *out, "--epochs", 0
    )
    assert "--n 0: at least one sample" in fails(capsys, main, "confidence", *data, *out, "--n", 0)
    assert "--batch-size 0" in fails(capsys, main, "confidence", *data, *out, "--batch-size", 0)
    assert "top-p" in fails(capsys, main, "confidence", *data, *out, "--top-p", 2)
    assert "delta-uk < delta-k" in fails(capsys, main, "build", *out, "--delta-k", 0.2)
    assert "--templates or --refusal-mix 'longest'" in fails(
        capsys, main, "build", *out, "--templates", "longest"
    )
    assert "--steps 0" in fails(capsys, main, "world", "pretrain", *out, "--steps", 0)
    assert "--batch-size 0" in fails(capsys, main, "world", "pretrain", *out, "--batch-size", 0)
    assert "--n-train 0" in fails(capsys, main, "demo", *out, "--n-train", 0)
    assert "--n-test 1" in fails(capsys, main, "demo", *out, "--n-test", 1)


@pytest.mark.parametrize(
    "arguments",
    [("demo", "--seed", "abc"), ("world", "export", "--split", "dev"), ("nothing",), ()],
)
def test_what_the_command_line_does_not_know_is_said_on_one_line(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith("; see inbol --help\n")
    assert error.count("\n") == 1
    assert not arguments or arguments[-1] in error


def test_a_misspelt_option_gets_the_right_one(capsys):
    assert main(["demo", "--sead", "1"]) == 2
    assert (
        capsys.readouterr().err
        == "error: Unrecognized options: --sead, 1; perhaps --seed; see inbol --help\n"
    )


def test_an_interruption_is_said_and_ends_with_130(tmp_path, monkeypatch, capsys):
    def stop(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("inbol_jax.construction.build.build", stop)
    assert main(["build", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"


def test_a_defect_of_the_program_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("inbol_jax.construction.build.build", lambda config: {}["key"])
    with pytest.raises(KeyError):
        main(["build", "--out", str(tmp_path)])


# The demo, end to end.

SIZES = (
    "--n-train",
    "60",
    "--n-test",
    "40",
)  # 60 test questions, as many as for training: batches of one size are compiled once
FILES = (
    "data/train/data.jsonl",
    "data/test/data.jsonl",
    "data/ood_kinds/data.jsonl",
    "data/ood_style/data.jsonl",
    "extrinsic.jsonl",
    "confidence/train.jsonl",
    "confidence/extrinsic.jsonl",
    "records.jsonl",
    "instructions.jsonl",
    "preferences.jsonl",
    "evaluation/predictions.jsonl",
)
MODELS = ("base", "idk_it", "ca_dpo")
DOMAINS = ("in_domain", "out_of_domain")
GROUPS = ("type1", "mixed", "type2", "type12", "type3", "all")
FIELDS = ("n", "acc", "refr", "t", "t_low", "t_high")


def start(out, cache, *options):
    """`inbol demo` as a process of its own. What it compiles is quick to compile, and kept for the next one."""
    settings = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    program = "import sys; from inbol_jax.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, "demo", "--out", str(out), *SIZES, *options],
        env=os.environ | settings,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    output, error = process.communicate(timeout=900)
    assert process.returncode == 0, error
    return output, error


def metrics_of(out):
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, cache, standard output, standard error) of a whole demo, seed 0. Read-only by agreement."""
    out, cache = tmp_path_factory.mktemp("demo") / "out", tmp_path_factory.mktemp("cache")
    return (out, cache, *finish(start(out, cache)))


def test_demo_leaves_its_files(run):
    out, _, output, error = run
    assert "Traceback" not in error
    assert "Warning" not in error
    assert output.splitlines()[-1] == f"report -> {out / 'report.html'}"
    for name in FILES:
        assert list(read_jsonl(out / name)), name
        assert (out / f"{name}.meta.json").is_file(), name
    for stage in ("idk_it", "ca_dpo"):
        assert [p for p in (out / stage / "checkpoints").iterdir() if p.name.isdigit()]
        assert list(read_jsonl(out / stage / "metrics.jsonl"))
        assert {p.name for p in (out / stage / "model").iterdir()} == {
            p.name for p in TINY.iterdir() if p.suffix != ".md"
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
    assert (run[0] / "report.md").is_file()


def test_demo_metrics_have_the_agreed_layout(run):
    metrics = metrics_of(run[0])
    assert {"models", "seconds"} <= set(metrics)
    assert list(metrics["models"]) == list(MODELS)
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
    for domain, total in (("in_domain", 60), ("out_of_domain", 10 + 30)):
        assert sizes["base", domain] == sizes["idk_it", domain] == sizes["ca_dpo", domain]
        assert sizes["base", domain][-1] == total
    stages = {"world", "extrinsic", "confidence", "build", "IDK-IT", "CA-DPO", "evaluation"}
    assert set(metrics["seconds"]) >= stages
    assert all(isinstance(s, float) and s >= 0 for s in metrics["seconds"].values())


def test_demo_trains_both_stages(run):
    weights = {
        p.parent: p.read_bytes()
        for p in (TINY / "model.safetensors", *run[0].glob("*/model/model.safetensors"))
    }
    assert len(weights) == len(set(weights.values())) == 3


def test_demo_again_does_nothing(run, tmp_path, capsys):
    out = Path(shutil.copytree(run[0], tmp_path / "out"))  # its times come along
    results = {"metrics.json", "report.html", "report.md"}
    kept = [
        p
        for p in out.rglob("*")
        if p.is_file()
        and p.name not in results
        and "figures" not in p.parts
        and p.name != "demo.json"
    ]
    before = {p: p.stat().st_mtime_ns for p in kept}
    assert any("checkpoints" in p.parts for p in kept)
    metrics = metrics_of(out)
    assert main(["demo", "--out", str(out), *SIZES]) == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == before
    assert metrics_of(out) == metrics
    assert capsys.readouterr().out.count("done before") == 7


def test_demo_with_other_settings_is_refused(run, capsys):
    before = metrics_of(run[0])
    for other in ((*SIZES, "--seed", "1"), ("--n-train", "61", *SIZES[2:])):
        assert "holds a demo with other settings" in fails(
            capsys, main, "demo", "--out", run[0], *other
        )
    assert metrics_of(run[0]) == before


@pytest.mark.parametrize("content", ["{", "[1]", '{"seconds": {}}'])
def test_demo_with_a_damaged_state(tmp_path, content, capsys):
    (tmp_path / "demo.json").write_text(content)
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
def test_a_killed_demo_ends_where_an_unbroken_one_does(run, tmp_path):
    whole, cache = run[:2]
    out = tmp_path / "out"
    store = out / "confidence/train.jsonl"
    kill_when(start(out, cache), lambda: store.exists() and store.stat().st_size)
    assert not (out / "records.jsonl").exists()
    sampled = store.read_bytes()
    kill_when(start(out, cache), lambda: (out / "idk_it/checkpoints").is_dir())
    assert store.read_bytes().startswith(
        sampled[: sampled.rfind(b"\n") + 1]
    )  # what was sampled is not sampled again
    assert not (out / "idk_it/model/model.safetensors").exists()
    kill_when(start(out, cache), lambda: (out / "evaluation/predictions/base").is_dir())
    output, _ = finish(start(out, cache))
    assert output.count("done before") == 6
    found, expected = metrics_of(out), metrics_of(whole)
    assert found["models"] == expected["models"]
    assert found["differences"] == expected["differences"]
    for name in ("records.jsonl", "preferences.jsonl"):
        rows = [sorted(map(json.dumps, read_jsonl(folder / name))) for folder in (out, whole)]
        assert rows[0] == rows[1], name
