"""The official VQA accuracy, and exact match under its normalisation.

Source of the VQA soft score and its normalisation: Antol et al. 2015 (arXiv 1505.00468), section 5,
and the behaviour of the VQA v2.0 evaluation as of 2021. Its oddities are included: a score that is
to be compared with published ones must make the same mistakes. The code is our own.
"""

import functools
import re
from collections.abc import Sequence

MIN_ANNOTATORS = 4  # With fewer gold answers, leave-one-out cannot reach 1.

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_DIGITS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS.split())} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
_COMMA_IN_NUMBER = re.compile(r"\d,\d")  # of any script, as in the official code
_FULL_STOP = re.compile(r"\.(?!\d)")
_MAX_FULL_STOPS = 32  # The official code passes a flag where a count belongs; its value is 32.

# A form is restored if one of its apostrophes is missing: "dont", "couldn'tve", "couldnt've".
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""
_CONTRACTIONS = {
    form[:i] + form[i + 1 :]: form
    for form in _CONTRACTED.split()
    for i, character in enumerate(form)
    if character == "'"
}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # The official table has this one the wrong way round.


def _clean(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@functools.lru_cache(maxsize=1 << 16)  # The same few answers come back with every sample.
def normalize_answer(text: str) -> str:
    """The official normalisation: punctuation, then case, number words, articles, contractions.

    A punctuation mark is removed everywhere if it touches a space anywhere in the text, and every
    mark is removed if the text holds a number with a comma. Any other mark becomes a space. A full
    stop is removed unless a digit follows or 32 were removed before it. The words "zero" to "ten"
    and "none" become digits, and articles are removed.
    """
    text = _clean(text)
    joins = _COMMA_IN_NUMBER.search(text) is not None
    gone = {
        ord(mark): "" if joins or f"{mark} " in text or f" {mark}" in text else " "
        for mark in _PUNCTUATION
    }
    text = _FULL_STOP.sub("", text.translate(gone), count=_MAX_FULL_STOPS)
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def answer_key(text: str) -> str:
    """What equal answers share: the normal form, or the text if that is empty, as of choice "A"."""
    return normalize_answer(text) or _clean(text).lower()


def exact_score(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals a gold answer when both are normalised, else 0."""
    return float(answer_key(prediction) in map(answer_key, answers))


def vqa_soft_score(prediction: str, answers: Sequence[str]) -> float:
    """VQA soft accuracy: the mean of min(1, matches / 3) over the leave-one-out answer subsets.

    As in the official evaluation, texts are normalised only if the gold answers differ: "Red." or
    "two" scores 0 against ten "red" or "2". With fewer than four gold answers, which no official
    set has, the score is `exact_score`.

    Args:
      prediction: the response.
      answers: gold answers with multiplicity, in any order.
    """
    n = len(answers)
    if n < MIN_ANNOTATORS:
        return exact_score(prediction, answers)
    gold = [_clean(answer) for answer in answers]
    response = _clean(prediction)
    if len(set(gold)) > 1:
        gold = [normalize_answer(answer) for answer in gold]
        response = normalize_answer(response)
    matches = gold.count(response)
    # Of n subsets, `matches` leave out a matching answer, and matches - 1 are left; the others keep
    # all. The sum is of integers, so that 0.5 is exactly 0.5.
    return (matches * min(3, matches - 1) + (n - matches) * min(3, matches)) / (3 * n)
