"""What a prompt is, who chooses it, and that all paths to a model keep to it."""

import re
import shutil

import pytest
from command_lines import confidence, fails
from endpoint_server import asked, said
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.artifacts import meta_path, read_jsonl, read_meta, write_json, write_jsonl
from inbol_jax.cli import main
from inbol_jax.confidence.samples import P_TRUE_PROMPT
from inbol_jax.data.sets import SETS
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.models.processor import TextEncoder
from inbol_jax.prompts import (
    BARE,
    DEFAULT,
    FILE,
    PRESETS,
    Prompt,
    PromptOptions,
    choose_prompt,
    header_prompt,
    read_prompt,
    write_prompt,
)
from inbol_jax.questions import lettered
from inbol_jax.records import Instruction, Preference, VQAExample
from inbol_jax.sampling import engines
from inbol_jax.sampling.generate import BatchRunner, Generation
from inbol_jax.training import rl

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
UNANSWERABLE = "When the provided information is insufficient, respond with 'Unanswerable'."
OPEN = VQAExample("a", (), "Is it {red}?")
CHOICE = VQAExample("b", (), "Which one?", options=("a cat", "a {dog}"))


@pytest.mark.parametrize(
    ("prompt", "question", "text"),
    [
        ("bare", OPEN, "Is it {red}?"),
        ("bare", CHOICE, "Which one?\nA. a cat\nB. a {dog}"),
        ("short", OPEN, f"Is it {{red}}?\n{SHORT}"),
        ("short", CHOICE, f"Which one?\nA. a cat\nB. a {{dog}}\n{SHORT}"),
        ("letter", CHOICE, f"Which one?\nA. a cat\nB. a {{dog}}\n{LETTER}"),
        ("vizwiz", OPEN, f"Is it {{red}}?\n{UNANSWERABLE}\n{SHORT}"),
        ("letter", OPEN, f"Is it {{red}}?\n{SHORT}"),
        ("{ Q } {question.id} {question}", CHOICE, "{ Q } {question.id} Which one?"),
        ("{question}", VQAExample("c", (), "{options} or {question}?"), "{options} or {question}?"),
        ("Choose ({options}):\n{question}", CHOICE, "Choose (A. a cat\nB. a {dog}):\nWhich one?"),
    ],
)
def test_the_text_that_is_asked(prompt, question, text):
    assert Prompt(prompt).text(question) == text


@given(st.text(min_size=1), st.lists(st.text(min_size=1), max_size=5))
def test_any_question_is_asked_as_it_is(question, options):
    example = VQAExample("q", (), question, options=tuple(options))
    whole = "\n".join([question, *lettered(options)])
    assert BARE.text(example) == whole
    for name in PRESETS:
        assert Prompt(name).text(example).startswith(whole)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("shrt", r"'shrt': give one of bare, short, letter, vizwiz, or a text "),
        ("", "'': give one of bare"),
        ("{options}", "give one of bare"),
        ("{question", "give one of bare"),
        ("{} {question}", "and no other name in braces"),
        ("{question} {option}", "and no other name in braces"),
    ],
)
def test_a_template_that_cannot_be_filled_in(prompt, message, capsys, tmp_path):
    with pytest.raises(InbolError, match=message) as error:
        Prompt(prompt)
    words = ["confidence", "--data", tmp_path, "--out", tmp_path, f"--prompt={prompt}"]
    said = (
        "--prompt '': is empty; give it a value, or leave it out"
        if not prompt
        else f"--{error.value}"
    )
    assert fails(capsys, main, *words) == f"error: {said}\n"


def test_a_line_break_may_be_typed():
    assert PromptOptions(r"{question}\nIn short:").named == Prompt("{question}\nIn short:")


@pytest.fixture
def dataset(tmp_path):
    """`dataset(name, **header)` is the file of a dataset with that header."""

    def write(name, **header):
        write_jsonl(tmp_path / f"{name}.jsonl", [{}], header)
        return tmp_path / f"{name}.jsonl"

    return write


MINE = Prompt("letter", "Be brief.")


@pytest.mark.parametrize(
    ("options", "own", "data", "prompt"),
    [
        ({}, None, None, DEFAULT),
        ({}, None, "vizwiz", Prompt("vizwiz")),
        ({}, MINE, "vizwiz", MINE),
        ({"prompt": "short"}, MINE, "vizwiz", Prompt("short", "Be brief.")),
        ({"prompt": "short"}, None, "vizwiz", Prompt("short")),
        ({"system": ""}, MINE, None, Prompt("letter")),
        ({"system": " Be kind.\n"}, None, "vizwiz", Prompt("vizwiz", "Be kind.")),
    ],
)
def test_who_chooses(options, own, data, prompt, dataset):
    files = [dataset("with", prompt=data) if data else dataset("without"), dataset("other")]
    lines = []
    chosen = choose_prompt(PromptOptions(**options), own, files, model="m", tell=lines.append)
    assert chosen == prompt
    assert lines[0].startswith(f"prompt {prompt} (")
    warning = [f"warning: m is asked with prompt {prompt}, and its inbol.json says {own}"]
    assert lines[1:] == (warning if own and own != prompt else [])


def test_datasets_that_ask_otherwise_leave_the_choice_to_the_user(dataset):
    files = [dataset("a", prompt="vizwiz"), dataset("b", prompt="bare"), dataset("c")]
    with pytest.raises(InbolError, match=r"a\.jsonl .* vizwiz, and .*b\.jsonl with bare: give --p"):
        choose_prompt(PromptOptions(), None, files, model="m")
    assert choose_prompt(PromptOptions("short"), None, files, model="m") == Prompt("short")
    assert choose_prompt(PromptOptions(), MINE, files, model="m") == MINE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "a JSON object is needed"),
        ("{}", '"prompt" must be a text'),
        ('{"prompt": "bare", "system": 1}', '"prompt" must be a text, and "system" as well'),
        ('{"prompt": "bar"}', "prompt 'bar': give one of bare"),
    ],
)
def test_what_a_folder_says_must_be_a_prompt(content, message, tmp_path):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(InbolError, match=message) as error:
        read_prompt(None, tmp_path)
    assert str(error.value).startswith(f"{tmp_path / FILE}: ")


def test_an_adapter_says_it_before_its_base(tmp_path):
    for name in ("adapter", "base"):
        (tmp_path / name).mkdir()
    folders = tmp_path / "adapter", tmp_path / "base"
    assert read_prompt(*folders) is None
    write_prompt(folders[1], BARE)
    assert read_prompt(*folders) == BARE
    write_prompt(folders[0], MINE)
    assert read_prompt(*folders) == MINE


def test_every_set_names_a_preset():
    assert {spec.prompt for spec in SETS.values()} <= {None, *PRESETS}


ASKED = Prompt("Q: {question}\n{options}\nA:", "Be brief.")
OPTIONS = ("--prompt", r"Q: {question}\n{options}\nA:", "--system", "Be brief.")
# What encoders are given beside questions: probes for the tokens that words begin with.
PROBES = {"Is it red?", "True or False?"}


class Stop(Exception):
    """Enough was asked."""


@pytest.fixture
def texts(monkeypatch):
    """The (text, prompt) of every turn that an encoder was given; nothing is computed."""
    found, prompt = set(), TextEncoder.prompt

    def recorded(self, question, *about):
        if question not in PROBES:
            found.add((question, self._asked))
        return prompt(self, question, *about)

    def run(self, questions, step, total):
        assert list(questions)
        raise Stop

    monkeypatch.setattr(TextEncoder, "prompt", recorded)
    monkeypatch.setattr(BatchRunner, "run", run)
    return found


@pytest.fixture
def answering(monkeypatch):
    """Samples that are made up: right, wrong, and cut."""

    def generate(checkpoint, examples, images, *, options, **_):
        for example in examples:
            gold = example.answers[0] if example.answers else "red"
            right = Generation(gold, -1.0, 2)
            wrong = Generation("something else", -1.0, options.max_new_tokens, cut=True)
            yield [(example, [right, wrong] * (options.n // 2))]

    monkeypatch.setattr(engines, "generate", generate)


def command(name, world, out, model):
    """The words of a command that asks, but for the options of the prompt."""
    data = {"evaluate": "--in-domain"}.get(name, "--data")
    words = [name, data, world / "test", "--out", out, "--model", model]
    if name == "evaluate":
        words[-2:] = ["--models", "base", model]
    if name == "extrinsic":
        words += ["--generators", "evidence_removed"]
    return [*map(str, words)]


@pytest.mark.parametrize("name", ["confidence", "evaluate", "calibrate", "rl"])
def test_every_command_asks_the_same_text(
    name, small_world, talkative, texts, tmp_path, monkeypatch
):
    def stop(*_, **__):
        raise Stop

    monkeypatch.setattr(rl, "take_apart", stop)
    with pytest.raises(Stop):
        main([*command(name, small_world, tmp_path, talkative), *OPTIONS])
    examples = load_dataset_folder(small_world / "test").examples
    assert texts == {(ASKED.text(example), ASKED) for example in examples}


def test_what_finds_evidence_asks_like_everything_else(small_world, talkative, texts, tmp_path):
    world = shutil.copytree(small_world, tmp_path / "world")  # pictures are written beside others
    with pytest.raises(Stop):
        main([*command("extrinsic", world, tmp_path, talkative), *OPTIONS])
    assert {prompt for _, prompt in texts} == {ASKED}
    assert all(re.fullmatch(r"Q: [^\n]+\?\nA:", text) for text, _ in texts)


def test_p_true_builds_on_the_same_text(small_world, talkative, answering, texts, tmp_path):
    words = command("confidence", small_world, tmp_path, talkative)
    with pytest.raises(Stop):
        main([*words, "--n", "2", "--p-true", *OPTIONS])
    examples = load_dataset_folder(small_world / "test").examples
    rows = {row["id"]: row for row in read_jsonl(tmp_path / "confidence/test.jsonl")}
    turns = {
        P_TRUE_PROMPT.format(question=ASKED.text(example), answer=answer)
        for example in examples
        for answer in rows[example.id]["responses"]
    }
    assert {prompt for _, prompt in texts} == {ASKED}
    assert {text for text, _ in texts} <= turns


def test_an_endpoint_is_asked_the_same_text(small_world, serve, tmp_path):
    server = serve(lambda body, n: said("red"))
    words = ["--endpoint", server.url, "--endpoint-model", "m", "--n", "1", *OPTIONS]
    assert confidence(small_world / "test", tmp_path, *words) == 0
    examples = load_dataset_folder(small_world / "test").examples
    bodies = [body for _, _, body in server.asked if asked(body)[1]]
    assert {asked(body)[0] for body in bodies} == {ASKED.text(example) for example in examples}
    system = {"role": "system", "content": ASKED.system}
    assert all(body["messages"][0] == system for body in bodies)
    settings = read_meta(tmp_path / "confidence/test.jsonl")["settings"]
    assert {name: settings[name] for name in ("prompt", "system")} == ASKED.to_json()


def test_what_is_built_and_trained_on_holds_the_same_text(
    small_world, talkative, answering, texts, tmp_path, capsys
):
    """Records hold the question, instructions and pairs the text; all headers name the prompt."""
    words = command("confidence", small_world, tmp_path, talkative)
    assert main([*words, "--n", "2", *OPTIONS]) == 0
    assert main(["build", "--out", str(tmp_path), "--delta-k", "0.5"]) == 0
    examples = {e.id: e for e in load_dataset_folder(small_world / "test").examples}
    for name, parse in (("instructions", Instruction), ("preferences", Preference)):
        file = tmp_path / f"{name}.jsonl"
        lines = list(read_jsonl(file, parse.from_json))
        assert lines
        assert all(line.question == ASKED.text(examples[line.id]) for line in lines)
        assert header_prompt(file) == ASKED
    assert header_prompt(tmp_path / "records.jsonl") == ASKED

    file = tmp_path / "confidence/test.jsonl"
    other = tmp_path / "confidence/other.jsonl"
    shutil.copy(file, other)
    for change in ({"prompt": "bare"}, {"system": ""}):
        header = read_meta(file)
        write_json(meta_path(other), header | {"settings": header["settings"] | change})
        error = fails(capsys, main, "build", "--out", tmp_path)
        assert re.search(r"other\.jsonl was made with .*--(prompt|system)\b.* in .*test", error)


def test_a_template_without_a_place_for_a_system_text(small_world, tmp_path, capsys, micro):
    words = command("confidence", small_world, tmp_path, micro.path)
    error = fails(capsys, main, *words, "--system", "Be brief.")
    assert "its chat template takes no --system: it writes the text 0 times" in error


@pytest.mark.parametrize("option", ["--prompt={question}<image>", "--system=<image>"])
def test_a_prompt_with_a_special_token(option, small_world, tmp_path, capsys, talkative):
    error = fails(capsys, main, *command("confidence", small_world, tmp_path, talkative), option)
    assert f"{option[:8]}: contains the model's image placeholder" in error
