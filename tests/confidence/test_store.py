import pytest

from inbol_jax.artifacts import meta_path, read_meta
from inbol_jax.confidence.estimate import outcome, row
from inbol_jax.confidence.store import ConfidenceStore
from inbol_jax.errors import InbolError
from inbol_jax.records import VQAExample
from inbol_jax.sampling.generate import Generation

SETTINGS = {"command": "confidence", "model": "m1", "n": 10, "seed": 0}


def example(i, question="What color is the dog?", image="a.png"):
    return VQAExample(f"q{i}", image, question, ("red",), True, {"kind": "color"})


def line(i):
    return row(example(i), [Generation("Red", -0.1234567, 2), Generation("blue", -2.0, 2), Generation("I don't know.", -3.0, 5)])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "confidence/train.jsonl"


def test_a_line_holds_the_question_and_every_sample():
    assert line(3) == {
        "id": "q3",
        "image": "a.png",
        "question": "What color is the dog?",
        "answers": ["red"],
        "answerable": True,
        "kind": "color",
        "samples": ["Red", "blue", "I don't know."],
        "logprobs": [-0.12346, -2.0, -3.0],
        "token_counts": [2, 2, 5],
        "outcomes": ["correct", "wrong", "refused"],
        "n_correct": 1,
        "n_samples": 3,
    }


def test_outcomes():
    nothing = VQAExample("q", "a.png", "What?", (), False)
    assert [outcome(nothing, text) for text in ("red", "I don't know.", "")] == ["wrong", "refused", "wrong"]
    assert [outcome(example(1), text) for text in ("a red.", "blue", "I am not sure about this.")] == ["correct", "wrong", "refused"]


def test_what_is_there_is_not_asked_again(file):
    store = ConfidenceStore(file, SETTINGS)
    examples = [example(i) for i in range(4)]
    assert store.pending(examples) == examples
    store.append([line(0), line(2)])
    assert [e.id for e in store.pending(examples)] == ["q1", "q3"]
    again = ConfidenceStore(file, SETTINGS)
    assert [e.id for e in again.pending(examples)] == ["q1", "q3"]
    again.append([line(1), line(3)])
    assert [r["id"] for r in again.rows()] == ["q0", "q2", "q1", "q3"]
    assert read_meta(file)["model"] == "m1"


@pytest.mark.parametrize("cut", [1, 7, 150])
def test_a_torn_last_line_is_cut_off(file, cut):
    ConfidenceStore(file, SETTINGS).append([line(i) for i in range(3)])
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    store = ConfidenceStore(file, SETTINGS)
    assert [e.id for e in store.pending([example(i) for i in range(3)])] == ["q2"]
    store.append([line(2)])
    assert file.read_bytes() == whole


def test_a_first_line_that_was_torn_leaves_an_empty_store(file):
    ConfidenceStore(file, SETTINGS).append([line(0)])
    file.write_bytes(file.read_bytes()[:20])
    assert not ConfidenceStore(file, SETTINGS).done
    assert file.read_bytes() == b""


def test_other_settings_are_refused(file):
    ConfidenceStore(file, SETTINGS).append([line(0)])
    before = file.read_bytes()
    with pytest.raises(InbolError, match=r"sampled with other settings \(model, seed\); choose another --out or delete it"):
        ConfidenceStore(file, SETTINGS | {"model": "m2", "seed": 1})
    meta_path(file).unlink()
    with pytest.raises(InbolError, match=r"other settings \(command, model, n, seed\)"):
        ConfidenceStore(file, SETTINGS)
    assert file.read_bytes() == before


@pytest.mark.parametrize("changed", [example(0, question="What color is the cat?"), example(0, image="b.png")])
def test_a_question_that_was_changed_is_refused(file, changed):
    store = ConfidenceStore(file, SETTINGS)
    store.append([line(0)])
    with pytest.raises(InbolError, match="q0 was another question when it was sampled"):
        store.pending([changed])


def test_a_finished_store_says_how_many_questions_it_holds(file):
    store = ConfidenceStore(file, SETTINGS)
    assert "rows" not in read_meta(file)
    store.append([line(0), line(1)])
    store.finish()
    assert read_meta(file)["rows"] == 2
    assert ConfidenceStore(file, SETTINGS).done.keys() == {"q0", "q1"}, "the number is not one of the settings"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "confidence").write_text("a file")
    with pytest.raises(InbolError, match=r"cannot write .*confidence: .*; choose another --out"):
        ConfidenceStore(tmp_path / "confidence/train.jsonl", SETTINGS)
