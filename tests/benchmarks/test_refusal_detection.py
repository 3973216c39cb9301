"""benchmarks/refusal_detection.py: its labels, and a clone with texts of our own."""

import hashlib
import subprocess
from pathlib import Path

import pytest
import refusal_detection as script

from inbol_jax.errors import InbolError

LABELS = Path(__file__).parents[2] / "benchmarks/refusal_labels.tsv"


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture
def clone(tmp_path):
    """A repository with two responses in a cell, one of which the rules miss."""
    folder = tmp_path / "haloquest"
    folder.mkdir()
    (folder / "haloquest-train.csv").write_text(
        "question,groundtruth responses,hallucination type,split\n"
        "Whose boat?,I can't tell; Search me,false premises,train\n"
        "Which boat?,red,false premises,train\nWhich boat?,There is no boat,false premises,train\n"
        "Is it a boat?,There is no boat,false premises,train\n"
    )
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "texts"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", folder, *identity, *command], check=True)
    return folder


def test_the_labels_are_of_the_sources_and_every_source_has_some():
    labels = script.read_labels(LABELS)
    own = {name for name, source in script.SOURCES.items() if source.label}
    assert labels.keys() | own == script.SOURCES.keys()
    assert sum(map(len, labels.values())) >= 1500
    assert {s.split for s in script.SOURCES.values()} == {"development", "held out"}


@pytest.mark.parametrize("line", ["nowhere\tab\tanswer", "llava\tab\tperhaps"])
def test_a_wrong_label_is_named(tmp_path, line):
    file = tmp_path / "labels.tsv"
    file.write_text(f"source\tsha256\tlabel\nllava\tab\tanswer\n{line}\n")
    with pytest.raises(InbolError, match=r"labels\.tsv:3: .* is unknown"):
        script.read_labels(file)


def test_texts_of_a_clone_are_measured(clone, monkeypatch, capsys):
    texts = {"I can't tell": "does_not_know", "Search me": "does_not_know", "red": "answer"}
    labels = {digest(text): label for text, label in texts.items()} | {"ab" * 8: "answer"}
    monkeypatch.setattr(script, "read_labels", lambda _: {"haloquest": labels})
    source = script.SOURCES["haloquest"]._replace(commit="HEAD")
    monkeypatch.setitem(script.SOURCES, "haloquest", source)
    script.main(script.Config(sources=clone.parent, misses=1000))
    lines = capsys.readouterr().out.splitlines()
    assert "haloquest: 1 of 4 labelled texts are not there" in lines
    line = next(line for line in lines if line.startswith("haloquest   "))
    assert line.split()[1:4] == ["3", "2", "1.000"]
    assert "0.500 [0.095, 0.905]" in line
    assert any(line.startswith("unseen ") for line in lines)
    denied = "4 references, 1 refuse alone, 2 beside the question, 1 deny"
    assert f"  false premises, train: {denied}" in lines
    assert "  haloquest: does_not_know, rules say answer: Search me" in lines
    assert any(" texts per second, of " in line for line in lines)


def test_a_folder_without_clones_and_what_is_no_clone(tmp_path):
    with pytest.raises(InbolError, match="no clone of a source"):
        script.main(script.Config(sources=tmp_path))
    (tmp_path / "llava").mkdir()
    with pytest.raises(InbolError, match=r"llava: fatal: "):
        script.main(script.Config(sources=tmp_path))
