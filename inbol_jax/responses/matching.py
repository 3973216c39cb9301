"""Does a response match the gold answers: the official VQA evaluation's normalisation and soft score, and the scorers of other sets.

Source: Antol et al. 2015 (arXiv 1505.00468), section 5, and the behaviour of the VQA v2.0 evaluation as of 2021, oddities
included: a score that is to be compared with published ones must make the same mistakes. Written anew.
"""

import functools
import re
from collections.abc import Callable, Sequence

from inbol_jax.records import parse_metric

CORRECT_AT = 0.5  # a sample counts as correct from this score on
MIN_ANNOTATORS = 4  # fewest gold answers with which leave-one-out can reach 1

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
)
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
_CONTRACTIONS = {
    form[:i] + form[i + 1 :]: form
    for form in _SPELT_OUT.split()
    for i, c in enumerate(form)
    if c == "'"
}
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
    gone = {
        ord(mark): "" if joins or f"{mark} " in text or f" {mark}" in text else " "
        for mark in _PUNCTUATION
    }
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


def read_yes_no(text: str) -> str | None:
    """ "yes" or "no" as a response says it, None where it says neither: "Yes, two.", "There is no dog.", "The answer is yes".

    Its first word decides, else the only one of the two that it holds, else a negation ("isn't", "not") or "there is".
    """
    words = normalize_answer(text).split()
    said = [word for word in ("yes", "no") if word in words]
    if words and words[0] in said:
        return words[0]
    if len(said) == 1:
        return said[0]
    if "not" in words or any(word.endswith("n't") for word in words):
        return "no"
    return "yes" if words[:2] in (["there", "is"], ["there", "are"]) else None


def yes_no_score(prediction: str, answers: Sequence[str]) -> float:
    """1 where the response and a gold answer are both a yes, or both a no; what says neither scores 0."""
    said = read_yes_no(prediction)
    return float(said is not None and any(read_yes_no(answer) == said for answer in answers))


# A letter that stands for an option: all there is, in brackets, before a mark, or behind "the answer is". "A dog" is a dog.
_OPTION = re.compile(
    r"\s*(?:(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)\s*(?:is|:)?\s*)?(?:\(([a-z])\)|([a-z])\s*(?:[.:),]|$))",
    re.IGNORECASE,
)
_BEHIND_ANSWER = re.compile(
    r"\s*(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)\s*(?:is|:)?\s+([a-z])\b", re.IGNORECASE
)


def _read_option(text: str) -> tuple[str, str]:
    """Letter of a chosen option, and what is said beside it; each empty where it is not there."""
    found = _OPTION.match(text) or _BEHIND_ANSWER.match(text)
    letter = next(filter(None, found.groups()), "").lower() if found else ""
    return letter, answer_key(text[found.end() :] if found else text)


def choice_score(prediction: str, answers: Sequence[str]) -> float:
    """1 where the response chooses the option of a gold answer, by its letter ("B", "(b)", "B. dog", "the answer is B") or its text."""
    letter, said = _read_option(prediction)
    for answer in answers:
        gold_letter, gold = _read_option(answer)
        if letter and gold_letter:
            if letter == gold_letter:
                return 1.0
        elif said and said == gold:
            return 1.0
    return 0.0


TOLERANCE = 0.05  # of `numeric_score`, relative: that of the relaxed accuracy of ChartQA (Masry et al. 2022, arXiv 2203.10244)
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))")


def read_number(text: str) -> float | None:
    """The number that a text names: "about 1,200.5 cm", "$3", "twelve" not, "two" yes. None where it names none or several.

    A percent sign is not read: 12% is 12.
    """
    spelt = " ".join(_DIGITS.get(word, word) for word in text.lower().rstrip(". \n\t").split())
    numbers = {float(found.group().replace(",", "")) for found in _NUMBER.finditer(spelt)}
    return numbers.pop() if len(numbers) == 1 else None


def numeric_score(prediction: str, answers: Sequence[str], tolerance: float = TOLERANCE) -> float:
    """1 where the number of the response is within the tolerance of a gold number; a gold answer that is no number is matched exactly.

    Args:
      tolerance: relative to the gold number; zero is met by zero alone.
    """
    said = read_number(prediction)
    for answer in answers:
        gold = read_number(answer)
        if gold is not None and said is not None and abs(said - gold) <= tolerance * abs(gold):
            return 1.0
    return float(
        exact_score(prediction, [answer for answer in answers if read_number(answer) is None])
    )


SCORERS: dict[str, Callable[..., float]] = {
    "vqa": vqa_soft_score,
    "exact": exact_score,
    "yes_no": yes_no_score,
    "choice": choice_score,
    "numeric": numeric_score,
}


def score(prediction: str, answers: Sequence[str], metric: str = "vqa") -> float:
    """The score of a response under a named metric, with its option if it has one; it is correct from `CORRECT_AT` on.

    Raises:
      InbolError: where `metric` is not one of `SCORERS`.
    """
    name, option = parse_metric(metric)
    return (
        SCORERS[name](prediction, answers)
        if option is None
        else SCORERS[name](prediction, answers, option)
    )
