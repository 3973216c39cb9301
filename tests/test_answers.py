"""One store for whatever models said: by key, never stale, whole after any kill."""

import hashlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import datasets
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax import answers
from inbol_jax.answers import AnswerStore, Asker, Generation, ImageHashes, from_row, to_row
from inbol_jax.artifacts import json_line
from inbol_jax.errors import InbolError
from inbol_jax.prompts import BARE, Prompt
from inbol_jax.records import VQAExample

SAID = st.lists(
    st.builds(
        Generation,
        st.sampled_from(["red", "blue", "", "I don't know."]),
        st.none() | st.floats(-9, 0),
        st.none() | st.integers(1, 9),
        st.booleans(),
    ),
    min_size=1,
    max_size=10,
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "answers/train.jsonl"


def rows(*numbers):
    return {f"k{i}": to_row([Generation(f"ünï {i}", -0.5, 2)]) for i in numbers}


@given(SAID)
def test_a_row_holds_every_response_and_how_often_it_came(said):
    row = json.loads(json_line(to_row(said)))
    expanded = [g for g, count in from_row(row, len(said)) for _ in range(count)]
    rounded = [g._replace(logprob=g.logprob and round(g.logprob, 5)) for g in said]
    assert Counter(expanded) == Counter(rounded)  # of equal numbers, such as 0 and -0
    assert [g for g, _ in from_row(row, len(said))] == list(dict.fromkeys(rounded))


def test_what_was_added_is_there_for_the_next_run(file):
    with AnswerStore(file, 0) as store:
        assert "k0" not in store
        store.add(rows(0, 2))
        store.add(rows(1))
        assert from_row(store["k2"], 1) == [(Generation("ünï 2", -0.5, 2), 1)]
    for process in (None, 0):
        with AnswerStore(file, process) as again:
            assert [*again] == ["k0", "k2", "k1"]
            assert from_row(again["k1"], 1) == [(Generation("ünï 1", -0.5, 2), 1)]


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_torn_last_line_is_asked_again(file, cut):
    with AnswerStore(file, 0) as store:
        store.add(rows(0, 1, 2))
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert [*AnswerStore(file)] == ["k0", "k1"]
    with AnswerStore(file, 0) as store:
        store.add(rows(2))
    assert file.read_bytes() == whole


@pytest.mark.parametrize("line", [b"[]\n", b'{"key": 1}\n', b"\xff\n", b"\n"])
def test_a_whole_line_that_is_none_is_named(file, line):
    with AnswerStore(file, 0) as store:
        store.add(rows(0))
    with file.open("ab") as lines:
        lines.write(line)
    with pytest.raises(InbolError, match=r"train\.jsonl:2: not a line of answers .*delete"):
        AnswerStore(file)


def test_one_run_writes_and_any_may_read(file):
    with AnswerStore(file, 0) as store:
        with pytest.raises(InbolError, match=r"train\.jsonl is being written by another run"):
            AnswerStore(file, 0)
        store.add(rows(0))
        assert "k0" in AnswerStore(file)


def test_a_run_that_adds_nothing_leaves_no_file(file):
    with AnswerStore(file, 0):
        assert file.exists()
    assert not file.exists()
    with AnswerStore(file, 0) as store:
        store.add(rows(0))
    with AnswerStore(file, 0):
        pass
    assert [*AnswerStore(file)] == ["k0"]


def test_several_processes_write_one_store(file):
    """Another number of them goes on with it."""
    with AnswerStore(file, 0) as first, AnswerStore(file, 1) as second:
        first.add(rows(0))
        second.add(rows(1))
    for process in range(3):
        with AnswerStore(file, process) as store:
            assert {*store} == {"k0", "k1"}
            assert from_row(store["k1"], 1)[0][0].text == "ünï 1"


def test_what_could_not_be_asked_is_noted_and_asked_again(file):
    with AnswerStore(file, 0) as store:
        store.add({"k0": {"set_aside": "a.png: damaged"}, "k1": {"set_aside": "no"}})
        assert "k0" not in store
        assert "k0" in store.set_aside
        store.add(rows(0))
        assert "k0" not in store.set_aside
    again = AnswerStore(file)
    assert [*again] == ["k0"]
    assert [key in again.set_aside for key in ("k0", "k1", "k2")] == [False, True, False]


def test_a_full_disk_is_one_error_and_keeps_the_lines_before(file):
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with AnswerStore(file, 0) as store:
        store.add(rows(0))
    whole = file.read_bytes()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 9, most))
        message = r"train\.jsonl: File too large; free space"
        with AnswerStore(file, 0) as store, pytest.raises(InbolError, match=message):
            store.add(rows(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    with AnswerStore(file, 0) as store:
        assert [*store] == ["k0"]
        store.add(rows(3))
    assert file.read_bytes().startswith(whole)


WRITER = """
import sys; from pathlib import Path; from inbol_jax import answers
from inbol_jax.answers import *
with AnswerStore(Path(sys.argv[1]), 0) as store:
    for i in range(10_000):
        if f"k{i}" not in store:
            store.add({f"k{i}": to_row([Generation("red" * (i % 50), -1.0, 2)])})
            print(i, flush=True)
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_kill_at_any_moment_loses_nothing(file, name):
    """What a run has said that it wrote is there, once, and the next run goes on behind it."""
    said = -1
    for wait in (0.0, 0.01, 0.03):
        command = [sys.executable, "-c", WRITER, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            first = int(process.stdout.readline())
            time.sleep(wait)
            process.send_signal(getattr(signal, name))
            rest = process.stdout.read().split("\n")[:-1]
        assert first <= said + 2  # the last line may be there without having been said
        said = int(rest[-1]) if rest else first
        keys = [*AnswerStore(file)]
        assert keys[: said + 1] == [f"k{i}" for i in range(said + 1)]
        assert len(keys) <= said + 2


def test_the_lines_open_elsewhere(file):
    """In pandas and `datasets`, a line that was set aside among them."""
    with AnswerStore(file, 0) as store:
        aside = {name: [] for name in to_row([Generation("x", -1.0, 1)])}
        store.add(rows(*range(3)) | {"k9": aside | {"set_aside": "damaged"}})
    assert pd.read_json(file, lines=True)["set_aside"].notna().tolist() == [False] * 3 + [True]
    folder = str(file.parent / "cache")
    loaded = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=folder)
    assert loaded["responses"][1] == ["ünï 1"]


# --- what identifies a question


EXAMPLE = VQAExample(
    "q", ("a.png",), "What?", answers=("red",), answerable=True, extra={"kind": "x"}
)


@pytest.fixture
def key(tmp_path):
    def key(example=EXAMPLE, settings=None, prompt=BARE, picture=b"one", text=None):
        (tmp_path / "a.png").write_bytes(picture)
        settings = {"model": "m", "n": 10, "temperature": 1.0, "seed": 0} | (settings or {})
        return Asker(settings, prompt, ImageHashes(tmp_path)).key(example, text)

    return key


def test_hashes_are_of_the_bytes_and_each_file_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "HASHED", 2)  # several rounds
    names = [f"{i}.png" for i in range(5)]
    for name in names:
        (tmp_path / name).write_text(name)
    hashes = ImageHashes(tmp_path)
    expected = {name: hashlib.sha256(name.encode()).hexdigest()[:16] for name in names}
    assert hashes.of([*names, *names, "gone.png"]) == expected | {"gone.png": ""}
    (tmp_path / "0.png").write_text("another")
    assert hashes.of(names)["0.png"] == expected["0.png"]
    assert ImageHashes(tmp_path).of(["0.png"])["0.png"] != expected["0.png"]


def test_what_an_answer_depends_on_gives_another_key(key):
    def changed(**fields):
        about = {"id": "q", "images": ("a.png",), "question": "What?"} | fields
        return VQAExample(**about)

    keys = [
        key(),
        key(settings={"model": "m2"}),
        key(settings={"n": 20}),
        key(settings={"temperature": 0.0}),
        key(settings={"seed": 1}),
        key(prompt=Prompt("short")),
        key(prompt=Prompt("bare", "Be kind.")),
        key(picture=b"two"),
        key(text="Is it true?"),
        key(changed(question="Who?")),
        key(changed(id="other")),
        key(changed(options=("a", "b"))),
        key(changed(images=())),
        key(changed(images=("a.png", "a.png"))),
    ]
    for one, other in itertools.combinations(keys, 2):
        assert one != other


def test_what_it_does_not_depend_on_gives_the_same(key, tmp_path):
    os.makedirs(tmp_path / "moved")
    (tmp_path / "moved/b.png").write_bytes(b"one")
    others = [
        VQAExample("q", ("a.png",), "What?", answers=("blue",), answerable=False),
        VQAExample("q", ("moved/b.png",), "What?", metric="exact", source="s", split="test"),
    ]
    assert {key(other) for other in others} == {key()}
