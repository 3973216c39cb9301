import pytest

from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.answers import AnswerStore
from inbol_jax.extrinsic.generators import Reply


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
