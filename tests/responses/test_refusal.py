import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.responses import refusal
from inbol_jax.responses.refusal import DECISIONS, find_refusal, is_refusal
from inbol_jax.responses.refusal_rules import RULES
from inbol_jax.taught_refusals import REFUSALS


def labelled(name):
    return [
        json.loads(line)
        for line in Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    ]


RESPONSES = labelled("responses.jsonl")
# Labelled before the rules took their present form. Nobody looked at which of its texts they miss.
UNSEEN = labelled("unseen.jsonl")


def precision_and_recall(rows):
    found = [row for row in rows if is_refusal(row["text"])]
    hits = sum(row["refusal"] for row in found)
    return hits / len(found), hits / sum(row["refusal"] for row in rows)


def test_precision_and_recall_on_the_labelled_list():
    assert len({row["text"] for row in RESPONSES + UNSEEN}) == len(RESPONSES + UNSEEN)
    wrong = [row["text"] for row in RESPONSES if is_refusal(row["text"]) != row["refusal"]]
    precision, recall = precision_and_recall(RESPONSES)
    assert precision >= 0.97, wrong
    assert recall >= 0.97, wrong
    precision, recall = precision_and_recall(UNSEEN)
    assert precision >= 0.95
    assert recall >= 0.75


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_recognises_its_example(rule):
    assert find_refusal(rule.example) == rule


def test_rules_have_names_of_their_own_and_bounded_repetitions():
    """Of single characters alone, so of a word, there may be any number."""
    assert len({rule.name for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert re.compile(rule.pattern).groups == 0
        assert not re.search(r"[*+]", re.sub(r"(?:\\w|\[[^]]*\])[*+]", "", rule.pattern))


@pytest.mark.parametrize(("pattern", "refuses", "example"), DECISIONS, ids=lambda part: str(part))
def test_a_row_decides_its_example_and_no_row_before_it_does(pattern, refuses, example):
    labels, _ = refusal._read(example, False, "What colour is the boat?")
    assert next(row for row in DECISIONS if re.search(row[0], labels))[0] == pattern
    assert is_refusal(example, question="What colour is the boat?") is refuses


def test_the_rule_of_the_first_clause_that_refuses_is_named():
    assert find_refusal("I don't know. It is too small to read.").name == "do_not_know"
    assert find_refusal("I don't know, but I think it is red.") is None


@pytest.mark.parametrize("template", REFUSALS)
def test_a_refusal_that_is_taught_is_one_of_any_question_with_or_without_punctuation(template):
    assert is_refusal(template)
    assert is_refusal(template, yes_no=True)
    assert is_refusal(template.translate(str.maketrans("", "", ".,'")))
    assert is_refusal(template.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}"))


@pytest.mark.parametrize("row", labelled("close_calls.jsonl"), ids=str)
def test_close_calls(row):
    """Texts whose like were once misread: what surrounds a refusal, yes/no questions, and questions
    of Type 3 whose premise the text denies; without the question it does not refuse."""
    about = {"yes_no": row.get("yes_no", False), "question": row.get("question", "")}
    rule = find_refusal(row["text"], **about)
    kind = rule and rule.kind
    assert (row["kind"] == kind) if "kind" in row else row["refusal"] == (kind is not None)
    assert not ("question" in row and is_refusal(row["text"]))


COLOUR = "What colour is the boat's sail?"


def test_a_refusal_remains_one_of_its_kind_whatever_was_asked():
    for text, kind in (
        ("There is no boat, so I cannot tell.", "denies_premise"),
        ("I cannot tell. There is no boat.", "does_not_know"),
        ("I can't help with boats.", "declines"),
    ):
        assert find_refusal(text, question=COLOUR).kind == kind


# Of each kind: a text, whether it is a refusal with one of the first examples in it, those, and
# similar ones with which it is the opposite.
SURROUNDINGS = (
    (
        "{}, I don't know.",
        True,
        "i am so very sorry; i am afraid; my apologies; i apologise; sadly; to be honest; i "
        "must admit; frankly; hmm; uhm; well; and; therefore; about this; answer; as an ai; "
        "as an ai language model; thank you; please",
        "an afraid dog; an honest man; a well; about ten; an ai robot; a thank you card",
    ),
    (
        "I don't know, {}.",
        False,
        "i think it is red; i would probably go with red; my best guess is red; maybe red; "
        "most likely red; looks like red to all of us here; it might be red; the old car "
        "looks red; they are probably red; yes; no",
        "i think it is not visible here; i guess so and that is not much; too unlikely to be "
        "seen; the old car is too dark; no light at all",
    ),
    (
        "{}. I don't know.",
        True,
        "this is a photo of a street; he faces the camera; it is blurred; her face is hidden; "
        "he is turned away; it is too far; there is no label; all that i see are two people; "
        "i wish to help",
        "this is a street; it is bright; there is a label; i help",
    ),
    (
        "{}",
        False,
        "the sign says that we can not tell; a book titled i can not say",
        "i can not tell what the sign says",
    ),
)


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        pytest.param(text.format(example), expected, id=example)
        for text, refusal, examples, opposites in SURROUNDINGS
        for texts, expected in ((examples, refusal), (opposites, not refusal))
        for example in texts.split("; ")
    ],
)
def test_what_stands_around_a_refusal_decides(text, refusal):
    assert is_refusal(text) is refusal


def test_case_and_surrounding_white_space_do_not_matter():
    for row in RESPONSES + UNSEEN:
        expected = is_refusal(row["text"])
        assert is_refusal(row["text"].upper()) is expected, row["text"]
        assert is_refusal(f"\n\t {row['text']}  \r\n") is expected, row["text"]


WORDS = (
    *("i", "do", "not", "know", "can", "sure", "the", "image", "unknown", "red", "but", "sorry"),
    *("it", "is", "'", '"', ",", ".", "\n"),
)


@given(
    st.one_of(
        st.text(alphabet=st.characters(max_codepoint=127)),
        st.lists(st.sampled_from(WORDS)).map(" ".join),
    )
)
def test_case_and_white_space_on_any_text(text):
    assert is_refusal(text.upper()) is is_refusal(text)
    assert is_refusal(f"  {text}\n") is is_refusal(text)
