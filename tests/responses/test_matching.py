import random
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inbol_jax.errors import InbolError
from inbol_jax.questions import LETTERS
from inbol_jax.records import METRICS
from inbol_jax.responses.choices import read_choice
from inbol_jax.responses.matching import CORRECT_AT, SCORERS, score
from inbol_jax.responses.numbers import read_number
from inbol_jax.responses.vqa_accuracy import exact_score, normalize_answer, vqa_soft_score
from inbol_jax.responses.yes_no import read_yes_no


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red.", "red"),
        ("  the Dog\n", "dog"),
        ("two", "2"),
        ("None", "0"),
        ("eleven", "eleven"),
        ("a cat and an owl", "cat and owl"),
        ("A", ""),
        ("dont", "don't"),
        ("don't", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),  # the official table has it so
        # "Im" is in the official table, but words are lower-cased before they are looked up.
        ("Im", "im"),
        ("whos there?", "who's there"),
        ("3.5 m", "3.5 m"),
        (".5", ".5"),
        ("p.m.", "pm"),
        ("1. first", "1 first"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("t-shirt", "t shirt"),
        ("t-shirt - blue", "tshirt blue"),  # one "-" beside a space takes every "-" with it
        ("1,000", "1000"),
        ("1,000/day", "1000day"),  # a comma inside a number takes all punctuation with it
        ("red,blue", "red blue"),
        ("it's: ok", "it's: ok"),  # ":" and "'" are not in the official list
        ("two.", "2"),
        ("(two)", "2"),
        ("", ""),
    ],
)
def test_normalize_answer(text, expected):
    assert normalize_answer(text) == expected


@given(st.text(alphabet="aA .,'-/[]?1250\n\tndotwhe", max_size=32) | st.text(max_size=32))
def test_normalising_twice_changes_nothing(text):
    once = normalize_answer(text)
    assert normalize_answer(once) == once


def test_digits_of_any_script_keep_their_marks():
    # Full-width and Arabic-Indic digits; a superscript is no digit.
    assert normalize_answer("\uff11,\uff10\uff10\uff10/x") == "\uff11\uff10\uff10\uff10x"
    assert normalize_answer("\uff11.\uff15") == "\uff11.\uff15"
    assert normalize_answer("\u0663.\u0664 m") == "\u0663.\u0664 m"
    assert normalize_answer("x.\u00b2") == "x\u00b2"


def test_normalising_twice_matters_after_32_full_stops():
    assert normalize_answer("." * 40) == "." * 8
    assert normalize_answer("." * 8) == ""


# Those that random_answer() can say; "thered" comes from "the" and "red" run together.
SLOW_CONTRACTIONS = {
    "dont": "don't",
    "whats": "what's",
    "couldnt've": "couldn't've",
    "oclock": "o'clock",
    "thered": "there'd",
}


NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def slow_normalize(text):
    """The same rules character by character, without translate() or substitution."""
    text = "".join(" " if c in "\n\t" else c for c in text).strip()
    number_comma = any(
        a.isdecimal() and b == "," and c.isdecimal()
        for a, b, c in zip(text, text[1:], text[2:], strict=False)
    )
    kept = ""
    for c in text:
        if c not in ';/[]"{}()=+\\_-><@`,?!':
            kept += c
        elif not (number_comma or c + " " in text or " " + c in text):
            kept += " "
    out = ""
    for i, c in enumerate(kept):
        if c != "." or kept[i + 1 : i + 2].isdecimal():
            out += c
    words = []
    for word in out.lower().split():
        if word in ("a", "an", "the"):
            continue
        if word == "none":
            word = "0"
        for value, name in enumerate(NUMBERS):
            if word == name:
                word = str(value)
        words.append(SLOW_CONTRACTIONS.get(word, word))
    return " ".join(words)


def slow_soft_score(prediction, answers):
    """Leave-one-out spelt out."""
    clean = [re.sub("[\n\t]", " ", a).strip() for a in answers]
    said = re.sub("[\n\t]", " ", prediction).strip()
    if len(set(clean)) > 1:
        clean, said = [slow_normalize(a) for a in clean], slow_normalize(said)
    total = 0.0
    for left_out in range(len(clean)):
        others = [a for i, a in enumerate(clean) if i != left_out]
        total += min(1.0, sum(a == said for a in others) / 3)
    return total / len(clean)


def random_answer(rng):
    pieces = ["red", "Red", "two", "2", "the", "a", "dont", "isn't", "whats", "couldnt've"]
    pieces += ["oclock", "1,000", "3.5", "t-shirt", "none"]
    ends = [" ", " ", "", ". ", ", ", "/", "?", "\n", "\t", " - "]
    return "".join(rng.choice(pieces) + rng.choice(ends) for _ in range(rng.randint(0, 3)))


def test_agrees_with_a_slow_implementation():
    """On words, and on every mark that normalisation knows, stops, commas in numbers and blanks."""
    rng = random.Random(0)
    alphabet = ';/[]"{}()=+\\_-><@`,?!' + "..,,  \n\t" + "012" + "AaBé'"
    scores = []
    for i in range(2_000):
        if i % 2:
            pool = ["".join(rng.choices(alphabet, k=rng.randint(0, 24)))]
            pool += [pool[0].lower(), pool[0].replace(",", ""), "the " + pool[0]]
        else:
            pool = [random_answer(rng) for _ in range(rng.randint(1, 4))]
        answers = rng.choices(pool, k=rng.randint(4, 12))
        prediction = rng.choice([*pool, random_answer(rng), pool[0].upper(), pool[0].strip() + "."])
        assert normalize_answer(prediction) == slow_normalize(prediction), prediction
        scores.append(vqa_soft_score(prediction, answers))
        expected = pytest.approx(slow_soft_score(prediction, answers), abs=1e-12)
        assert scores[-1] == expected, (prediction, answers)
    assert 0.2 < sum(scores) / len(scores) < 0.8  # the cases say something
    assert len(set(scores)) > 20


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_soft_score_of_ten_annotators(matches, expected):
    answers = ["red"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert vqa_soft_score("red", answers) == pytest.approx(expected, abs=1e-15)


def test_normalised_only_where_annotators_differ():
    agreed, differing = ["2"] * 10, ["2"] * 9 + ["3"]
    assert vqa_soft_score("two", agreed) == 0
    assert vqa_soft_score("two", differing) == 1
    assert vqa_soft_score(" 2\n", agreed) == 1
    assert vqa_soft_score("2.", agreed) == 0
    assert exact_score("two", agreed) == 1
    # White space does not make annotators differ; spelling does.
    assert vqa_soft_score("two", ["2"] * 9 + [" 2\t"]) == 0
    assert vqa_soft_score("two", ["2"] * 9 + ["two"]) == 1


def test_fewer_than_four_answers():
    for answers in (["red"], ["red", "blue"], ["red", "red", "blue"]):
        assert vqa_soft_score("Red.", answers) == 1
        assert vqa_soft_score("green", answers) == 0
    assert vqa_soft_score("Red.", ["red"] * 4) == 0  # from four on, the official rule
    assert vqa_soft_score("red", ["red", "red", "blue", "green"]) == 0.5 == CORRECT_AT


def test_without_gold_answers_nothing_is_correct():
    assert vqa_soft_score("", []) == 0
    assert exact_score("red", []) == 0


def test_answers_that_normalise_to_nothing_are_compared_as_they_are():
    assert exact_score("A", ["a"]) == 1
    assert exact_score("the", ["A"]) == 0
    assert exact_score("", ["A"]) == 0


def test_score_by_name():
    assert tuple(SCORERS) == METRICS
    answers = ["red"] * 2 + ["blue"] * 8
    assert score("red", answers, "vqa") == vqa_soft_score("red", answers)
    assert score("It is red.", answers) == 1
    assert score("red", answers, "exact") == 1
    with pytest.raises(InbolError, match="'bleu' is not known; choose one of inclusion, vqa"):
        score("red", ["red"], "bleu")
    assert score("104", ["100"], "numeric") == 1


# What is said, and the responses that say it, apart from each other by "; ".
YES_NO = {
    "yes": "yes; Yes, there is no doubt.; The answer is yes; There is a dog.; there are two;"
    " yes or no",
    "no": "No.; No, yes is wrong; There is no dog in the picture.; It isn't there; it isnt there;"
    " I do not see one",
    None: "a dog; either yes or no; none; ",
}


def rows(table):
    """(text, what it says) of a table."""
    return [(text, said) for said, texts in table.items() for text in texts.split("; ")]


@pytest.mark.parametrize(("text", "said"), rows(YES_NO))
def test_yes_and_no(text, said):
    assert read_yes_no(text) == said
    for gold in ("yes", "no"):
        assert score(text, [gold], "yes_no") == float(said == gold)


@pytest.mark.parametrize(
    ("said", "gold", "expected"),
    [
        ("B", "B", 1),
        ("b", "(B)", 1),
        ("B.", "B", 1),
        ("(B) a dog", "B", 1),
        ("B: dog", "B. dog", 1),
        ("The answer is B", "B", 1),
        ("the correct answer is (b)", "B", 1),
        ("Answer: B.", "B", 1),
        ("dog", "B. dog", 1),
        ("Dog.", "dog", 1),
        ("B", "B. dog", 1),
        ("C", "B", 0),
        ("A dog", "A", 0),
        ("A dog", "A. cat", 0),
        ("a dog", "dog", 1),
        ("cat", "B. dog", 0),
        ("B. cat", "A. cat", 0),
        ("", "B", 0),
        ("", "", 0),
        ("I think so", "I", 0),
    ],
)
def test_choices(said, gold, expected):
    assert score(said, [gold], "choice") == expected
    assert score(said, ["Z", gold], "choice") == expected


COLOURS = ("red", "dark red", "blue")


SAID = {
    "dark red": "B; **B. dark red**; It is not (A), so the answer is B; Dark red.;"
    " The bus looks dark red in the sun",
    "blue": "(c) blue; The correct choice is (C), not (B); Option C; Blue. The sky is reflected.;"
    " It may be number no. 2, blue",
    None: "A bus; D; (F) none of the above; red or dark red; It is not blue; reddish; ",
}


@pytest.mark.parametrize(("said", "chosen"), rows(SAID))
def test_choices_among_options(said, chosen):
    """Gold is given by letter or by text; what cannot be read scores 0 whatever is gold."""
    for letter, option in zip("ABC", COLOURS, strict=True):
        for gold in (letter, f"({letter.lower()})", option, f"{letter}. {option}"):
            assert score(said, [gold], "choice", COLOURS) == (option == chosen), gold


def test_yes_and_no_as_options():
    assert score("No, there is no dog.", ["B"], "choice", ("Yes", "No")) == 1
    assert score("Yes, I do not see why not.", ["B"], "choice", ("Yes", "No")) == 0


@given(st.text(), st.lists(st.text(min_size=1), min_size=1, max_size=26))
def test_any_response_to_any_options_has_a_score(said, options):
    assert score(said, ["A"], "choice", options) in (0, 1)
    assert score("A", ["A"], "choice", options) == ("A" not in options[1:])


NUMBERS_SAID = {
    0: "None.",
    0.2: "2E-1m",
    0.5: ".5",
    2: "two",
    3: "3; 3e",
    4: "4 = 4; 4 m²; 4 in the fifth row",
    5: "5eV",
    12: "about 12 %; twelve; a dozen eggs; 12V",
    -3.5: "-3.5",
    -5: "\u22125; minus five; \u20135; (\u20135); about \u20145; -$5; minus $5; -€5",
    22: "twenty two",
    24: "2 dozen",
    42: "the answer is 42.",
    56: "Fifty-six.",
    205: "two hundred and five",
    500: "five hundred",
    1200.5: "$1,200.50",
    1500: "1.5e3",
    3000: "3k",
    100_000: "1e+5",
    1_500_000: "1.5 million",
    5_000_000: "5 million; 5mn",
    # What cannot be read for certain is no number.
    None: "3 or 4; 1e999; 1.000.000; 1.5.2; 1,0000; 0x10; 3K; hundreds; two and a half;"
    " nineteen eighty; 7-8; 10:30; B2; 1,2; ; 5 k; 5 M; 1½; 2²; 2π; √4; 3 mil; 2 grand;"
    " 5 gazillion; 5 quadrillion; 5 billions; two thousands; three score; 5 sixths; three fifths;"
    " one fifth; no one",
}


@pytest.mark.parametrize(("text", "number"), rows(NUMBERS_SAID))
def test_numbers(text, number):
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("said", "answers", "expected"),
    [
        ("190", ["200"], 1),
        ("210", ["200"], 1),
        ("189.9", ["200"], 0),
        ("211", ["200"], 0),
        ("two hundred", ["200"], 1),
        ("two hundred", ["300"], 0),
        ("0", ["0"], 1),
        ("0.001", ["0"], 0),
        ("-200", ["200"], 0),
        ("Blue", ["blue"], 1),
        ("3", ["blue", "3"], 1),
        ("", [""], 1),
    ],
)
def test_numbers_are_correct_within_the_tolerance(said, answers, expected):
    assert score(said, answers, "numeric") == expected


ANSWERS = st.sampled_from(["red", "Red", "red.", "2", "two", "the", "a cat", "", "no"])


@given(
    ANSWERS,
    st.lists(ANSWERS, max_size=12),
    st.randoms(use_true_random=False),
    st.sampled_from(sorted(SCORERS)),
)
def test_score_is_a_share_and_ignores_the_order(prediction, answers, rng, metric):
    value = score(prediction, answers, metric)
    assert 0 <= value <= 1
    shuffled = list(answers)
    rng.shuffle(shuffled)
    assert score(prediction, shuffled, metric) == value


@given(ANSWERS, st.lists(ANSWERS, min_size=4, max_size=12))
def test_one_more_match_never_lowers_the_score(prediction, answers):
    assume(len({a.strip() for a in answers}) > 1)
    more = vqa_soft_score(prediction, [*answers[1:], prediction])
    assert more >= vqa_soft_score(prediction, answers) or len(set(answers[1:])) == 1


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is a dog.", "b"),  # by its text
        ("Answer: A dog", "b"),
        ("Answer: I think it is a dog", None),
        ("The answer is A because it purrs", "a"),
        ("The answer is b because it barks", "b"),
        ("The correct answer is: B.", "b"),
        ("A: no. B: yes. The answer is B", "b"),
        ("B. The other option (A) is wrong", "b"),
        (f"So the answer{' ' * 20_000}is B", "b"),  # hours, if blanks could be read in many ways
    ],
)
def test_a_letter_behind_the_answer_is(text, letter):
    chosen = read_choice(text, ("cat", "dog", "cow"))
    assert (None if chosen is None else "abc"[chosen]) == letter


@pytest.mark.parametrize(
    "options",
    [
        ("A.C. Milan", "Inter", "Juventus"),
        ("-5", "5", "0"),
        ("C++", "C"),
        ("C++", "Java", "C#", "Ada"),
        ("x+1", "x-1"),
        ("I", "II"),
        ("E. coli", "S. aureus", "cholera", "typhus", "plague"),
        ("the cat", "a cat", "a dog"),
        ("D.C.", "Ohio", "Iowa", "Utah"),
        ("Pa", "PA"),
        ("2**3", "23", "32"),
        ("x²", "x2", "x^2"),
        ("H2O", "H₂O"),
        ("Vitamin C", "Vitamin B", "Vitamin A"),
        ("10", "1,0", "1.0"),
    ],
)
@pytest.mark.parametrize("sentence", ["{}", "{}.", "It is {}", "**{}**"])
def test_options_that_look_like_letters_or_like_each_other(options, sentence):
    for said in options:
        scores = [score(sentence.format(said), [gold], "choice", options) for gold in options]
        assert scores == [float(gold == said) for gold in options], said
        others = [gold for gold in options if gold != said]
        assert score(f"The answer is {said}", others, "choice", options) == 0


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=26, unique=True))
def test_a_gold_answer_s_text_or_letter_is_right_and_no_other_option_is(options):
    # What is one option's letter and another one's text can be read as either.
    letters = LETTERS[: len(options)]
    assume(all(o.strip() and o.strip(" ().").upper() not in {*letters, "İ"} for o in options))
    for i, gold in enumerate(options):
        for j, said in enumerate(options):
            assert score(said, [gold], "choice", options) == (i == j)
            assert score(letters[j], [gold], "choice", options) == (i == j)
            assert score(said, [letters[i]], "choice", options) == (i == j)


def test_a_text_that_is_another_option_s_letter():
    """As a gold answer it is its own option; as a response it is the letter that it names."""
    assert score("B", ["B"], "choice", ("B", "A")) == 0
    assert score("A", ["B"], "choice", ("B", "A")) == 1
    assert score("C", ["C"], "choice", ("A", "B", "C")) == 1
