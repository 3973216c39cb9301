import pytest
from endpoint_server import said

from inbol_jax.responses.chat import Choice, read_choices


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
    (choice,) = read_choices(said(content, finish_reason="length")[1])
    assert choice == Choice(text, None, None, "length")


def test_a_model_that_declines_in_a_field_of_its_own():
    message = {"content": None, "refusal": "I can't help with that."}
    (choice,) = read_choices({"choices": [{"message": message}]})
    assert choice.text == "I can't help with that."


def test_log_probabilities_are_those_of_the_answer():
    """Its end counts, and thoughts do not, also where they are in a field of their own."""
    both = read_choices(said("dark red", "<think> hm, </think> red", scored=True)[1])
    assert [choice[:3] for choice in both] == [("dark red", -1.5, 3), ("red", -1.0, 2)]
    tokens = [("a", -1.0), ("</th", -2.0), ("ink>\n", -3.0), ("red", -0.25), ("", -0.5)]
    content = [{"token": token, "logprob": logprob} for token, logprob in tokens]
    reply = {"choices": [{"message": {"content": "red"}, "logprobs": {"content": content}}]}
    assert read_choices(reply) == [Choice("red", -0.75, 2, None)]


@pytest.mark.parametrize("logprobs", [None, [], {}, {"content": None}, {"content": []}, "x"])
def test_without_log_probabilities_there_are_none(logprobs):
    (choice,) = read_choices(said("red", logprobs=logprobs)[1])
    assert (choice.logprob, choice.tokens) == (None, None)


@pytest.mark.parametrize(
    "tokens",
    [
        [{"token": "red"}],
        [{"token": "red", "logprob": None}],
        [{"token": "red", "logprob": "nan"}],
        [{"token": "red", "logprob": -1e308}] * 2,
        [{"token": 5, "logprob": -1.0}],
        ["red"],
        {"red": -1.0},
        5,
    ],
)
def test_damaged_log_probabilities_are_no_reply(tokens):
    choice = {"message": {"content": "red"}, "logprobs": {"content": tokens}}
    with pytest.raises(ValueError, match="not a chat completion"):
        read_choices({"choices": [choice]})


@pytest.mark.parametrize(
    "reply",
    [None, [], {}, {"choices": []}, {"choices": "x"}, {"choices": [{}]}, {"choices": {"a": 1}},
     {"choices": [{"message": {"content": 5}}]}, {"choices": [{"message": None}]},
     {"choices": [{"message": {}}]}, {"choices": [said("a")[1]["choices"][0], None]}],
)  # fmt: skip
def test_what_is_no_chat_completion(reply):
    with pytest.raises(ValueError, match="not a chat completion"):
        read_choices(reply)
