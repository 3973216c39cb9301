"""The command lines: help, what is refused before anything is loaded, and exit codes."""

import json
import os
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_lines import fails, finish, option_names, start

from inbol_jax import __version__
from inbol_jax.artifacts import write_jsonl
from inbol_jax.cli import main
from inbol_jax.commands import COMMANDS, load
from inbol_jax.defaults import TINY, Seed
from inbol_jax.errors import InbolError

CONFIGS = {name: load(command.config) for name, command in COMMANDS.items()}
UNDRAWN = {"data import", "data check", "calibrate", "convert", "probe"}


def helps(text):
    """{option: what its help says}.

    Help stands two blanks behind the option and its type, or on the next lines.
    """
    found, aliases, option = {}, {}, None
    for framed in text.splitlines():
        line = framed.strip("│ ")
        # Deeper in, an option is spoken of.
        if re.match(r"[│ ] (?:-\w, )?--\w", framed):
            header, *rest = re.split(r"\s{2,}", line, maxsplit=1)
            option, *others = re.findall(r"--\w[\w.-]*", header)
            found[option] = "".join(rest)
            aliases |= dict.fromkeys(others, option)
        elif option and set(line) <= set("─-╰╯╭╮ "):
            option = None
        elif option:
            found[option] += f" {line}"
    return found | {alias: found[option] for alias, option in aliases.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_a_line_for_every_option(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # wider, and option groups would stand side by side
    with pytest.raises(SystemExit) as left:
        main([*name.split(), "--help"])
    assert left.value.code == 0
    output = capsys.readouterr()
    assert output.err == ""
    described = helps(output.out)
    positional = {"--source": "SRC", "--out": "DST"} if name == "convert" else {}
    for option in option_names(CONFIGS[name]):
        if metavar := positional.get(option):
            assert re.search(rf"(?m)^[│ ] {re.escape(metavar)}", output.out), option
        else:
            assert any(o.split(".")[-1].lstrip("-") == option[2:] for o in described), option
    for option, text in described.items():
        words_of_help = re.sub(r"\((default|required).*", "", text).split()
        assert len(words_of_help) >= 2, f"{option}: {text!r}"
    expected = {"--help"} if name in UNDRAWN else {"--seed", "--help"}
    assert expected | (set() if name == "convert" else {"--out"}) <= set(described)


@pytest.mark.parametrize(
    ("function", "text", "words"),
    [
        ("construction.build.build", "delta_k: 8e-1\npartial: true", "--delta-k 0.8 --partial"),
        ("construction.build.build", "partial: false\ntemplates: 'short'", "--templates short"),
        (
            "evaluation.evaluate.evaluate",
            "in-domain: [a, b]\nmesh: [1, -1, 1]\nmodels: [[base, m], [idk, n]]",
            "--in-domain a b --mesh 1 -1 1 --models base m idk n",
        ),
        (
            "data.importing.import_data",
            "format: columns\nid: a b.csv\nlimit: 3",
            "--format columns --limit 3 --id",
        ),
    ],
)
def test_options_in_a_file_are_those_of_the_command_line(
    tmp_path, monkeypatch, function, text, words
):
    taken, file = [], tmp_path / "options.yaml"
    monkeypatch.setattr(f"inbol_jax.{function}", taken.append)
    (name,) = (n for n in COMMANDS if COMMANDS[n].run == ":".join(function.rsplit(".", 1)))
    file.write_text(f"{text}\nout: elsewhere\n")
    typed = [*words.split(), *(["a b.csv"] if "import" in name else [])]
    for options in (typed, ["--config", str(file)], ["--config", str(file), *typed]):
        assert main([*name.split(), *options, "--out", str(tmp_path / "out")]) == 0
        assert main([*name.split(), "--out", str(tmp_path / "out"), *options]) == 0
    assert all(config == taken[0] for config in taken)
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sead: 1", "Unrecognized options: --sead, 1; "),
        ("sead: 1", "; --sead is in FILE"),
        ("seed: x", "; --seed is in FILE"),
        ("seed: true", "; --seed is in FILE, where a flag is true or false"),
        (
            "thresholds: {delta-k: 0.8}",
            "--config FILE: cannot be read (no value may hold a mapping)",
        ),
        ("seed: 1\nseed: 2", "--config FILE: cannot be read (seed is there twice)"),
        ("seed: [1", "--config FILE: cannot be read (while parsing a flow sequence"),
        (
            "- seed",
            "--config FILE: cannot be read (a line `option: value` for each option is needed)",
        ),
        ("", "--config FILE: cannot be read (a line `option: value`"),
        ("templates: [{a: b}]", "--config FILE: cannot be read (no value may hold a mapping)"),
        ('out: "a\\0b"', "cannot be written (embedded null byte)"),
        ("seed: !!python/object/apply:os.getcwd []", "--seed is in FILE"),
        ("seed: [3, 4]", "4; "),
        ("seed: [3, 4]", "; 4 is in FILE"),
        ("templates:", "--templates '' in FILE: is empty"),
        (None, "--config FILE: cannot be read ([Errno 2] No such file"),
    ],
)
def test_a_file_of_options_that_cannot_be(tmp_path, capsys, text, message):
    file = tmp_path / "options.yaml"
    if text is not None:
        file.write_text(text)
    out = () if text and text.startswith("out") else ("--out", tmp_path / "out")
    for options in (("--config", file), (f"--config={file}",)):
        error = fails(capsys, main, "build", *out, *options)
        assert message.replace("FILE", str(file)) in error


def test_a_command_that_fails_leaves_no_empty_folder(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    for out in ("new/run", "mine"):
        fails(capsys, main, "build", "--out", tmp_path / out)
        fails(capsys, main, "sft", "--data", tmp_path / "no.jsonl", "--out", tmp_path / out)
    assert [file.name for file in tmp_path.rglob("*")] == ["mine"]


def test_an_ascii_terminal_gets_escapes(tmp_path):
    (tmp_path / "data.jsonl").write_text('{"id": "\\u00e9"}\n')
    options = ("--data", tmp_path, "--out", tmp_path / "out", "--max-rejected", 1)
    output, error = finish(start("data", "check", *options, PYTHONIOENCODING="ascii", LC_ALL="C"))
    assert "first: \\xe9" in output
    assert not error


@pytest.mark.parametrize("words", ["", "--help", "data --help", "world --help"])
def test_help_lists_the_commands_with_a_summary(words, capsys):
    group = words.removesuffix("--help").strip()
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 0
    listed = re.findall(r"(?m)^  (\w+(?: \w+)?)  +\w.*\.$", capsys.readouterr().out)
    assert listed == [name for name in COMMANDS if name.startswith(group)]


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word, capsys):
    with pytest.raises(SystemExit) as left:
        main([word])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"inbol_jax {__version__}\n"


def test_the_package_runs_as_a_module():
    run = subprocess.run(
        [sys.executable, "-m", "inbol_jax", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("inbol_jax ")


def test_who_reads_the_output_may_leave():
    """As `inbol dpo --help | head` does."""
    command = [sys.executable, "-m", "inbol_jax", "dpo", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.close()
        assert run.stderr.read() == b"the output was closed\n"
    assert run.returncode == 141


def test_a_shell_may_have_closed_the_output(tmp_path):
    command = f'"{sys.executable}" -m inbol_jax world export --n 2 --out {tmp_path}/out >&- 2>&-'
    subprocess.run(command, shell=True, check=True)
    assert len((tmp_path / "out/data.jsonl").read_text().splitlines()) == 2


def test_help_loads_no_heavy_library():
    """JAX, transformers and matplotlib take seconds to import; a help text needs none of them."""
    heavy = "jax numpy flax optax transformers datasets matplotlib PIL scipy sklearn grain"
    heavy += " openai"
    program = (
        "import sys; import inbol_jax.cli; from inbol_jax.commands import COMMANDS, load\n"
        "for command in COMMANDS.values(): load(command.config)\n"
        f"print(sorted(set({heavy.split()}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_a_machine_without_pytorch_is_not_told_so():
    """transformers says it at its import; beside it nobody needs PyTorch here."""
    program = (
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *of: name != 'torch' and find(name, *of) or None\n"
    )
    loud = os.environ | {"TRANSFORMERS_VERBOSITY": "warning"}
    for module, said in (("transformers", True), ("inbol_jax.models.loading", False)):
        command = [sys.executable, "-c", f"{program}import {module}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=loud)
        assert ("PyTorch was not found" in done.stdout + done.stderr) == said


def test_a_seed_out_of_range(tmp_path, capsys):
    for seed in (-1, 2**32):
        error = fails(capsys, main, "demo", "--out", tmp_path / "out", "--seed", seed)
        assert f"--seed {seed}: at least 0 and at most 4,294,967,295 is needed" in error
    for name in COMMANDS.keys() - UNDRAWN:
        hint = typing.get_type_hints(CONFIGS[name], include_extras=True)["seed"]
        assert set(Seed.__metadata__) <= set(hint.__metadata__)  # help adds its text
    assert not (tmp_path / "out").exists()


def test_data_that_is_not_there(tmp_path, capsys):
    nowhere = tmp_path / "nowhere"
    for words in (("confidence",), ("extrinsic",)):
        error = fails(capsys, main, *words, "--data", nowhere, "--out", tmp_path / "out")
        assert f"{nowhere} is not there: give a folder that holds data.jsonl" in error
    for words in (("sft",), ("dpo",)):
        assert f"{nowhere}: no such file; `inbol build` makes" in fails(
            capsys, main, *words, "--data", nowhere, "--out", tmp_path / "out"
        )
        assert f"cannot read {tmp_path}" in fails(
            capsys, main, *words, "--data", tmp_path, "--out", tmp_path / "out"
        )
    assert f"{nowhere} is not there: give a folder that holds data.jsonl" in fails(
        capsys, main, "evaluate", "--in-domain", nowhere, "--out", tmp_path / "out"
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


def resize(hidden_size):
    def resized(path):
        text = json.loads(path.read_text())["text_config"] | {"hidden_size": hidden_size}
        change(text_config=text)(path)

    return resized


DAMAGES = [
    ("model.safetensors", cut),
    ("config.json", Path.unlink),
    ("config.json", change(text_config=None)),
    ("config.json", change(model_type="gpt2")),
    ("config.json", resize(32)),
    ("generation_config.json", cut),
    ("tokenizer.json", cut),
    ("processor_config.json", cut),
]


@pytest.mark.parametrize(
    ("file", "damage"), DAMAGES, ids=[f"{i}-{f}" for i, (f, _) in enumerate(DAMAGES)]
)
def test_a_corrupt_checkpoint(file, damage, model, small_world, tmp_path, capsys):
    damage(model / file)
    options = ("--data", small_world / "test", "--out", tmp_path / "out", "--model", model)
    assert str(model) in fails(capsys, main, "confidence", *options)


def test_images_that_are_missing_or_damaged(tmp_path, capsys):
    same = {"question": "What is the symbol?", "answers": ["a"], "answerable": True}
    rows = [{"id": f"q{i}", "images": [f"{i}.png"]} | same for i in range(4)]
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data/data.jsonl", rows, {})
    for i in range(3):
        (tmp_path / f"data/{i}.png").write_bytes(b"no picture")
    confidence = ("confidence", "--data", tmp_path / "data", "--out", tmp_path / "out")
    missing = f"1 image missing (first: q3, looked for {tmp_path / 'data/3.png'})"
    assert (
        f"1 of 4 set aside: {missing}; at most 10% may be; `inbol data import --images` names"
        in fails(capsys, main, *confidence)
    )
    assert "3 of 3 questions set aside" in fails(capsys, main, *confidence, "--max-rejected", 0.3)
    instructions = [row | {"response": "alpha", "boundary": "known", "type": 1} for row in rows]
    for i, cause in ((3, "1 of its images cannot be used"), (0, "not an image")):
        write_jsonl(tmp_path / "instructions.jsonl", [instructions[i]], {"images": "data"})
        options = ("--data", tmp_path / "instructions.jsonl", "--out", tmp_path / f"run{i}")
        error = fails(capsys, main, "sft", *options)
        assert f"{i}.png" in error
        assert cause in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("confidence --data DATA --n 1000000000", "--n 1000000000: at least 1 and at most 10,000"),
        ("confidence --data DATA --top-p 2", "--top-p 2.0"),
        ("build --delta-k 0.2", "delta-uk < delta-k"),
        ("build --templates longest", "--templates 'longest'"),
        ("demo --seed abc", "Error parsing --seed: invalid literal for int() with base 10: 'abc'"),
        ("demo --n-test", "Missing value for argument '--n-test'"),
        ("demo --sead 1", "Unrecognized options: --sead, 1; Perhaps you meant: --seed INT Seed of"),
        ("world export --split dev", "invalid choice 'dev' for argument '--split'. Expected one"),
        ("sft", "Missing from inbol sft: --data"),
        ("confidence --data DATA --num-samples 0", "--help; the number of samples is --n"),
        ("confidence --data DATA --model RUN", "is the folder of a run; did you mean "),
        ("confidense", "no command 'confidense --out'; perhaps confidence; see inbol --help"),
        ("data impot", "no command 'data impot'; perhaps data import; see inbol --help"),
    ],
)
def test_what_the_command_line_does_not_take_is_said_on_one_line(
    small_world, tmp_path, capsys, words, message
):
    (tmp_path / "run/model").mkdir(parents=True)
    words = words.replace("DATA", str(small_world / "test")).replace("RUN", str(tmp_path / "run"))
    words = words.split()
    assert message in fails(capsys, main, *words, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "perhaps"),
    [
        ("world", "; perhaps world export"),
        ("wrld", "; perhaps world export"),
        ("data", "; perhaps data import"),
        ("data impot", "; perhaps data import"),
        ("confidense --n 3", "; perhaps confidence"),
        ("xyz", ""),
    ],
)
def test_a_command_that_is_missing(capsys, words, perhaps):
    assert f"{perhaps}; see inbol --help" in fails(capsys, main, *words.split())


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["world", "export", "--out", ""], "--out"),
        (["world", "export", "--out="], "--out"),
        (["convert", str(TINY), ""], str(TINY)),
        (["confidence", "--data", "", "--out", "out"], "--data"),
        (["evaluate", "--in-domain", "x", "--models", "base", "", "--out", "out"], "base"),
        (["sft", "--data", "x", "--model", "", "--out", "out"], "--model"),
        (["confidence", "--data", "x", "--endpoint", "", "--out", "out"], "--endpoint"),
    ],
)
def test_an_empty_value_is_refused(tmp_path, monkeypatch, capsys, words, option):
    """An empty path would be the folder that one is in, and an empty option the default."""
    monkeypatch.chdir(tmp_path)
    assert f"{option} '': is empty; give it a value" in fails(capsys, main, *words)
    assert not [*tmp_path.iterdir()]


def test_an_interruption_is_said_and_ends_with_130(tmp_path, monkeypatch, capsys):
    def stop(config):
        raise KeyboardInterrupt

    monkeypatch.setattr("inbol_jax.construction.build.build", stop)
    assert main(["build", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on from here\n"


def test_two_runs_into_one_folder(held, tmp_path, capsys):
    """The second one is refused before it writes anything."""
    for name in ("sft", "build", "world export"):
        words = [*name.split(), "--out", str(held)]
        words += ["--data", str(tmp_path)] if name == "sft" else []
        assert main(words) == 2
        assert "held is being written by another run; wait" in capsys.readouterr().err
    assert list(held.iterdir()) == []


# Confidence locks its stores, as several runs may fill one folder; calibrate locks the model if it
# gets no --out.
SHARING = {"confidence", "calibrate"}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in SHARING])
def test_a_stage_that_is_called_from_python_has_one_writer_too(name, held):
    """It looks before anything else: the config of this test holds no more than the folder."""
    with pytest.raises(InbolError, match="held is being written by another run; wait"):
        load(COMMANDS[name].run)(SimpleNamespace(out=held))


def test_a_full_device_is_said_with_what_saves_memory(tmp_path, monkeypatch, capsys):
    def full(config):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.")

    monkeypatch.setattr("inbol_jax.construction.build.build", full)
    assert main(["build", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the device's memory is full; lower --batch-size")
    assert error.count("\n") == 1


def test_a_defect_of_the_program_keeps_its_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr("inbol_jax.construction.build.build", lambda config: {}["key"])
    with pytest.raises(KeyError):
        main(["build", "--out", str(tmp_path)])


@pytest.mark.parametrize("out", ["m", "m/run", "run"])
def test_training_does_not_write_into_the_model_that_it_starts_from(out, tmp_path, capsys):
    model = tmp_path / ("run/model" if out == "run" else "m")
    model.mkdir(parents=True)
    words = ["sft", "--data", "d", "--model", str(model), "--out", str(tmp_path / out)]
    assert main(words) == 2
    assert "is where the model was loaded from" in capsys.readouterr().err
    assert not list(model.iterdir())


@pytest.mark.parametrize("path", ["a" * 300, "é" * 200])
def test_what_the_system_refuses_is_no_defect(capsys, path):
    for command in (("build", "--out"), ("audit", "--out")):
        assert "File name too long" in fails(capsys, main, *command, path)
