import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.responses import refusal
from inbol_jax.responses.refusal import DECISIONS, is_refusal, matching_rule, refusal_kind
from inbol_jax.responses.refusal_rules import RULES
from inbol_jax.taught_refusals import REFUSALS


def labelled(name):
    return [
        json.loads(line)
        for line in Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    ]


RESPONSES = labelled("responses.jsonl")
# Labelled before the rules took their present form, and measured after it. Nothing was tuned on it.
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
    assert matching_rule(rule.example) == rule.name


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


def test_the_rule_that_fired_is_named_if_and_only_if_a_text_refuses():
    for row in RESPONSES + UNSEEN:
        assert (matching_rule(row["text"]) is not None) is is_refusal(row["text"]), row["text"]
    assert matching_rule("I don't know. It is too small to read.") == "do_not_know"
    assert matching_rule("I don't know, but I think it is red.") is None


@pytest.mark.parametrize("template", REFUSALS)
def test_every_template_is_a_refusal_with_or_without_punctuation(template):
    assert is_refusal(template)
    assert is_refusal(template.translate(str.maketrans("", "", ".,'")))
    assert is_refusal(template.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}"))


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", False),
        (" \n", False),
        ("...", False),
        ("No", False),
        ("I don't know", True),
        ("I don't know, but I think it is red.", False),
        ("I think it is red, but I don't know.", False),
        ("I don't know. It is too blurry.", True),
        ("I don't know. It is red.", False),
        ("the sign says 'I don't know'", False),
        ("I don't know what the sign says", True),
        ("it does not show any cars, zero", False),
        ("it does not show that", True),
        ("no, the dog is unknown", False),
        ("the answer is unknown", True),
        ("the unknown soldier", False),
        ("The screen is blank, so I cannot tell.", True),
        ("The screen is blank. I cannot tell.", False),
        ("The car is red, but I can't tell the make.", False),
        # What could not be told goes on behind commas and in brackets.
        ("I can't tell whether it is red, blue or green.", True),
        ("It is not possible to say what kind of hat, if any, he has on.", True),
        ("Not sure, a wolf?", False),
        # Reasons, with and without a subject.
        ("Cannot tell based on this image", True),
        ("Can't answer as only the lower part is visible", True),
        ("As the photo is cropped we cannot tell.", True),
        ("To find the sum we need both lengths. Without them, the sum cannot be computed.", True),
        ("The steps are not visible", True),
        ("The plate is hidden from view.", True),
        ("There is no legible text visible.", True),
        ("The text is too blurry to be read.", True),
        ("The information provided is insufficient.", True),
        ("Unknown at this time", True),
        ("No possible answer", True),
        # What a document is about is no answer.
        ("The passage discusses its history, but does not specify any year.", True),
        ("The picture only shows a part. It does not state the total.", True),
        ("The red car, a Ford, is old. Its price is not given.", False),
        # An abbreviation ends no sentence, and one's own words may stand in quotation marks.
        ("The text does not say who met St. Mary there.", True),
        ("I don't know which of them, i.e. of the two, it is.", True),
        ('There is a tower. Therefore, I must answer: "Not specified."', True),
        ('He read a sign. Therefore, it says "not specified".', False),
        # Denying that one can is no answer "no", and mistakes in the question are none either.
        ("No, I cannot identify him.", True),
        ("No, he is not here. I cannot identify him.", False),
        ("I couldn't find any information on Zorb. It might be a misspelling.", True),
        ("I couldn't find any information on Zorb. It might be red.", False),
        ("I can't verify that. However, I can tell you about its city.", True),
        ("I don't know of one. However, I can make a guess.", False),
        ("We can't find them above the ground.", False),
        # The last sentence decides if it has grounds, or is the second one that refuses.
        ("It is a city. Without landmarks, it is impossible to tell which.", True),
        ("It may be Rome. Without landmarks, it is impossible to tell which.", False),
        ("The total is a sum. The debts are not provided. The total cannot be computed.", True),
        ("Although he smiles, it is impossible to tell why.", True),
        ("He left and it is unclear when he will be back.", False),
        ("There are two of them and it is unclear which one is being asked about.", True),
        ("### Response:\nThe text does not specify the year.", True),
        ("1. The year is not given.", True),
        ("The net assets (NA) of the company are not provided in the text.", True),
        (
            "I could not find an answer. However, I can offer some general insights: tea is hot.",
            True,
        ),
        (
            "No, there is no evidence in the text that he won. It does not mention any victory.",
            False,
        ),
        ("The book does not show the man pouring tea.", False),
        # Plain negative answers.
        ("The image does not depict that", False),
        ("a shark cannot be seen", False),
        ("The man's hat is not in the box", False),
        ("There are no visible dogs.", False),
        ("We cannot see a hat.", False),
        ("The boat is not present in this image. It shows a street.", False),
        ("The tie is not in the image.", False),
        # An answer is named behind the refusal, or is stated there.
        ("I cannot tell how old they are. Therefore, the answer is (B).", False),
        ("I cannot tell. The answer is: cannot be determined", True),
        ("I can't determine the cause from the image. Answer: J", False),
        ("The report gives no such cost, so the costs are 0.", False),
        ("The text does not name a year. However, it mentions that he was born in May.", False),
        ("I'm not a chef. However, here is a recipe: boil it.", False),
    ],
)
def test_close_calls(text, refusal):
    assert is_refusal(text) is refusal


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I can't assist with that.", "declines"),
        ("I cannot fulfill your request. Violence is wrong.", "declines"),
        ("Sorry, but I can't help with naming people.", "declines"),
        ("I am an AI and do not condone violence. It is important to be kind.", "declines"),
        ("I don't know. I cannot assist with that.", "declines"),
        ("I cannot provide an exact number.", "does_not_know"),
        ("I can't tell who that is.", "does_not_know"),
        ("red", None),
        ("The sign says 'I can't help you'.", None),
    ],
)
def test_declining_is_a_kind_of_its_own(text, kind):
    assert refusal_kind(text) == kind
    assert is_refusal(text) is (kind is not None)


@pytest.mark.parametrize("text", REFUSALS)
def test_predefined_refusals_refuse_any_question(text):
    assert is_refusal(text)
    assert is_refusal(text, yes_no=True)


@pytest.mark.parametrize(
    "text",
    [
        "His dog can't be seen in the photo.",
        "We cannot see the flag.",
        "The dog's leash is not visible.",
        "His leash is not in this picture.",
    ],
)
def test_to_a_yes_no_question_what_is_not_shown_is_an_answer(text):
    assert is_refusal(text)
    assert not is_refusal(text, yes_no=True)
    assert matching_rule(text, yes_no=True) is refusal_kind(text, yes_no=True) is None
    assert is_refusal("I cannot tell.", yes_no=True)
    assert is_refusal(f"{text} So I cannot tell.", yes_no=True)


COLOUR = "What colour is the boat's sail?"
CAPITAL = "What is the capital of Neboria?"


@pytest.mark.parametrize(
    ("question", "text", "denies"),
    [
        (COLOUR, "There is no boat in the image.", True),
        (COLOUR, "There's no boat", True),
        (COLOUR, "The boat is not in the image.", True),
        (COLOUR, "Boats can't be seen here.", True),
        (COLOUR, "The image does not depict any boats, only cars.", True),
        (COLOUR, "The boat doesn't have a sail.", True),
        (COLOUR, "There is no boat. It is a train.", True),
        ("What is the man wearing on his head?", "The man isn't wearing anything.", True),
        ("How many horses run?", "No horse is visible.", True),
        (CAPITAL, "Neboria is a fictional country.", True),
        (CAPITAL, "Neboria does not exist.", True),
        (CAPITAL, "There is no country called Neboria, as far as I know.", True),
        (CAPITAL, "Neboria is not a real place, so it has no capital.", True),
        # It answers beside the denial, or denies something else.
        (COLOUR, "Red.", False),
        (COLOUR, "The sail is red. There is no flag on the boat.", False),
        (COLOUR, "There is no sail, but I think that it would be red.", False),
        (COLOUR, "There is no doubt: red.", False),
        (COLOUR, "It is not red.", False),
        (COLOUR, "The boat is not old.", False),
        (CAPITAL, "The capital is Neb.", False),
        ("Who is the fictional detective?", "Holmes is a fictional detective.", False),
        ("Where is Surin?", "Surin is a region made up of two towns.", False),
        ("What is not in the picture?", "The boat is not in the picture.", False),
        ("", "There is no boat in the image.", False),
    ],
)
def test_who_denies_what_the_question_takes_for_granted(question, text, denies):
    """It refuses that question alone: without one, the text is an answer."""
    assert refusal_kind(text, question=question) == ("denies_premise" if denies else None)
    assert is_refusal(text, question=question) is denies
    assert matching_rule(text, question=question) == ("denies_premise" if denies else None)
    assert not is_refusal(text)


def test_a_refusal_remains_one_of_its_kind_whatever_was_asked():
    assert refusal_kind("There is no boat, so I cannot tell.", question=COLOUR) == "denies_premise"
    assert refusal_kind("I cannot tell. There is no boat.", question=COLOUR) == "does_not_know"
    assert refusal_kind("I can't help with boats.", question=COLOUR) == "declines"


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


@given(st.text())
def test_any_text_is_read(text):
    assert is_refusal(text) in (True, False)
