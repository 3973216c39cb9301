import json

import pytest
from endpoint_server import said

from inbol_jax.responses.chat import Choice, read_choices


def read(*texts, **about):
    """The answers of a reply, as `endpoint_server.said` makes it."""
    return read_choices(json.dumps(said(*texts, **about)[1]))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (" red\n", "red"),
        ("<think>It may be red.</think>\n\nI don't know.", "I don't know."),
        ("It may be red.\n</think>\nblue", "blue"),  # the template has written the first mark
        ("<think>a</think>b<think>c</think> d", "d"),
        ("<think>It may be", ""),  # cut while it was thinking
        ("a < b", "a < b"),
        ("", ""),
        (None, ""),
    ],
)
def test_the_answer_is_what_stands_behind_the_thoughts(content, text):
    assert read(content, finish_reason="length") == [Choice(text, None, None, "length")]


def test_a_model_that_declines_in_a_field_of_its_own():
    message = {"content": None, "refusal": "I can't help with that."}
    (choice,) = read(None, message=message)
    assert choice.text == "I can't help with that."


def test_log_probabilities_are_those_of_the_answer():
    """Its end counts, and thoughts do not, also if they are in a field of their own."""
    both = read("dark red", "<think> hm, </think> red", scored=True)
    assert [choice[:3] for choice in both] == [("dark red", -1.5, 3), ("red", -1.0, 2)]
    tokens = [("a", -1.0), ("</th", -2.0), ("ink>\n", -3.0), ("red", -0.25), ("", -0.5)]
    content = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    assert read("red", logprobs={"content": content}) == [Choice("red", -0.75, 2, "stop")]


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": []}])
def test_without_log_probabilities_there_are_none(logprobs):
    (choice,) = read("red", logprobs=logprobs)
    assert (choice.logprob, choice.tokens) == (None, None)


@pytest.mark.parametrize(
    "reply",
    [
        *(None, [], {}, {"choices": []}, {"choices": "x"}, {"choices": [{}]}, {"choices": {}}),
        {"choices": [{"message": None}]},
        {"choices": [{"message": {}}]},
        said(5)[1],
        {"choices": [*said("a")[1]["choices"], None]},
        said("red", logprobs={"content": [{"token": "red"}]})[1],
        said("red", logprobs={"content": [{"token": "red", "logprob": "nan"}]})[1],
        said("red", logprobs={"content": [{"token": "red", "logprob": 0.5}]})[1],
        said("red", logprobs={"content": [{"token": "red", "logprob": -1e308}] * 2})[1],
        said("red", logprobs={"content": 5})[1],
    ],
)
def test_what_is_no_chat_completion(reply):
    with pytest.raises(ValueError, match=r"Expected|missing required|not finite"):
        read_choices(json.dumps(reply))
