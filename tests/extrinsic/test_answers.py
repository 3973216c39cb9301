import pytest
from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.answers import AnswerStore, StoredAnswers
from inbol_jax.extrinsic.generators import ImageQuestion, Reply


def test_a_torn_line_of_answers_is_asked_again(tmp_path):
    file = tmp_path / "answers.jsonl"
    with AnswerStore(file) as store:
        store.add({"a": [Reply("red", -0.5)], "b": [Reply("ünï", 0.0), Reply("", -1.0)]})
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"key": "c", "repl')
    with AnswerStore(file) as store:
        assert "a" in store.answers
        assert "c" not in store.answers
        assert store.answers["b"] == [Reply("ünï", 0.0), Reply("", -1.0)]
        store.add({"c": [Reply("x")]})
    assert file.read_bytes() == whole + b'{"key": "c", "replies": [["x", 0.0]]}\n'
    with AnswerStore(file), pytest.raises(InbolError, match="is being written by another run"):
        AnswerStore(file)
    file.write_bytes(b"[]\n" + whole)
    with pytest.raises(InbolError, match=r"answers\.jsonl:1: not a line of answers"):
        AnswerStore(file)


def test_an_image_that_changed_is_asked_about_again(tmp_path):
    file, asked = tmp_path / "a.png", []

    def ask(examples, label, sampling, tell):
        asked.extend(e.question for e in examples)
        yield {e.id: [Reply(str(len(asked)))] for e in examples}

    def draw():
        return Image.open(file)

    questions = [
        ImageQuestion("of the file", file, "a.png"),
        ImageQuestion("of a part", draw, "a.png without", file),
        ImageQuestion("of no file", lambda: Image.new("RGB", (4, 4)), "blank"),
    ]
    with AnswerStore(tmp_path / "answers.jsonl") as store:
        for pixels, again in (((0, 0, 0), 3), ((0, 0, 0), 0), ((9, 0, 0), 2)):
            Image.new("RGB", (4, 4), pixels).save(file)
            asked.clear()
            answerer = StoredAnswers(store, lambda sampling: [], ask)
            assert all(answerer(questions, label="", n=1))
            assert len(asked) == again
    assert "of no file" not in asked
