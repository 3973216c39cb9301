"""Does a response match the gold answers: the normalisation and the soft score of the official VQA evaluation.

Source: Antol et al. 2015 (arXiv 1505.00468), section 5, and the behaviour of the VQA v2.0 evaluation as of 2021, oddities
included: a score that is to be compared with published ones must make the same mistakes. Written anew.
"""

import functools
import re
from collections.abc import Callable, Sequence

from inbol_jax.errors import InbolError

CORRECT_AT = 0.5  # a sample counts as correct from this score on
MIN_ANNOTATORS = 4  # fewest gold answers with which leave-one-out can reach 1

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(value) for value, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
_COMMA_IN_NUMBER = re.compile(r"[0-9],[0-9]")
_FULL_STOP = re.compile(r"\.(?![0-9])")
_MAX_FULL_STOPS = 32  # the official code passes a flag where a count belongs; its value is 32

# The spelling is repaired from each form with one of its apostrophes missing: "dont", "couldn'tve", "couldnt've".
_SPELT_OUT = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd
    how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't
    'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
    someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've
    they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've
    who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd
    you'd've you'll you're you've
"""
_CONTRACTIONS = {form[:i] + form[i + 1 :]: form for form in _SPELT_OUT.split() for i, c in enumerate(form) if c == "'"}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # the official table has this one the wrong way round


def _clean(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


@functools.lru_cache(maxsize=1 << 16)  # the same few answers come back with every sample
def normalize_answer(text: str) -> str:
    """The official normalisation: punctuation, then lower case, number words, articles and contractions.

    A punctuation mark goes away where it touches a space anywhere in the text, or where the text holds a number with a comma; else it
    becomes a space. Full stops go unless a digit follows. Words "zero" to "ten" and "none" become digits, articles go.

    Applying it twice changes nothing, unless the text holds more than 32 full stops that are to go: later ones survive.
    """
    text = _clean(text)
    joins = _COMMA_IN_NUMBER.search(text) is not None
    gone = {ord(mark): "" if joins or f"{mark} " in text or f" {mark}" in text else " " for mark in _PUNCTUATION}
    text = _FULL_STOP.sub("", text.translate(gone), count=_MAX_FULL_STOPS)
    words = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def answer_key(text: str) -> str:
    """What two answers must share to be equal: the normal form, or the text itself where that is empty (choice "A", an article)."""
    return normalize_answer(text) or _clean(text).lower()


def exact_score(prediction: str, answers: Sequence[str]) -> float:
    """1 where the prediction equals a gold answer, both normalised; else 0, also where there are no gold answers."""
    key = answer_key(prediction)
    return float(any(answer_key(answer) == key for answer in answers))


def vqa_soft_score(prediction: str, answers: Sequence[str]) -> float:
    """VQA soft accuracy: the mean over the leave-one-out subsets of the gold answers of min(1, matches / 3).

    As in the official evaluation, texts are normalised only where the gold answers differ. Where annotators agree on one string the
    prediction must be that string, save for surrounding white space: "Red." or "two" scores 0 against ten "red" or "2".

    The rule assumes ten annotators and reaches 1 with four or more. With fewer, which no official set has, a match with any of them scores
    1, and both sides are always normalised: a single gold answer would else always count as agreed upon, and never be normalised.

    Args:
      prediction: the response.
      answers: gold answers with multiplicity. Their order does not matter; with none, the score is 0.

    Returns: in [0, 1].
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
    # Without one of the matching answers matches - 1 are left, without another all are. In integers, for 0.5 to be exactly 0.5.
    return (matches * min(3, matches - 1) + (n - matches) * min(3, matches)) / (3 * n)


SCORERS: dict[str, Callable[[str, Sequence[str]], float]] = {"vqa": vqa_soft_score, "exact": exact_score}


def score(prediction: str, answers: Sequence[str], metric: str = "vqa") -> float:
    """The score of a response under a named metric; it is correct from `CORRECT_AT` on.

    Raises:
      InbolError: where `metric` is not one of `SCORERS`.
    """
    try:
        scorer = SCORERS[metric]
    except KeyError:
        raise InbolError(f"metric {metric!r} is not known; choose one of {', '.join(SCORERS)}") from None
    return scorer(prediction, answers)
