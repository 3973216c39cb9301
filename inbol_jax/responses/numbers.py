"""Numbers as responses write them: "1,200.5 cm", "$3", "twenty-two", "5 million"."""

import math
import re
from collections.abc import Sequence

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_VALUES = {word: value for value, word in enumerate(_ONES.split())}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_SCALES = {"trillion": 10**12, "billion": 10**9, "million": 10**6, "thousand": 10**3, "dozen": 12}
_SCALES |= {"tn": 10**12, "bn": 10**9, "mn": 10**6, "crore": 10**7, "lakh": 10**5}

# A number in digits, with all that touches it: "1.5e3", "5kg", "1.5.2", "0x10".
_TOUCHING = r"(?<![\w.])-?\.?\d(?:[\w.,]|(?<=[eE])[-+](?=\d))*(?<![.,])"
_DIGITS = re.compile(
    r"(-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))(?:e[-+]?\d+)?)([^\W\d_]*)", re.IGNORECASE
)
_WORD = rf"(?:{'|'.join(('hundred', *_VALUES, *_SCALES))})\b"
_RUN = re.compile(
    rf"(?:\b(?P<one>a)\s+|(?P<digits>{_TOUCHING})\s+)?\b(?P<words>{_WORD}(?:(?:\s+and)?[\s-]+{_WORD})*)",
    re.IGNORECASE,
)
_SCALED_UNITS = {"k": 10**3} | {name: _SCALES[name] for name in ("tn", "bn", "mn")}
_UNCERTAIN_UNITS = {"K", "M", "B"}  # thousands or kelvins, millions or metres
# What makes another number of one: a fraction, a scale that is not read, a power, "no one".
_CHANGED = re.compile(
    r"\b(?:half|quarters?|thirds?|\w*illions?|hundreds?|thousands?|dozens?|crores?|lakhs?|no 1)\b"
    r"|\d[\s-](?:four|fif|six|seven|eigh|nin|ten)ths?\b|\d\s(?-i:[kKMB]|mil|grand|score)\b"
    r"|[\u221a\u00bc-\u00be\u2150-\u215e]|\d[\u00b2\u00b3\u00b9\u2070-\u2079\u03c0]",
    re.IGNORECASE,
)
# The dashes that models and typesetters write for a minus, and words for it.
_SIGN = re.compile(
    r"\b(?:minus|negative)\s+(?=[$\d.])|\u2212|(?<![^\s(])[\u2010-\u2015](?=[$\d.])", re.IGNORECASE
)


def _read_digits(text: str) -> float | None:
    match = _DIGITS.fullmatch(text)
    if match is None or match[2] in _UNCERTAIN_UNITS:
        return None
    value = float(match[1].replace(",", "")) * _SCALED_UNITS.get(match[2], 1)
    return value if math.isfinite(value) else None


def _read_words(words: Sequence[str], start: float | None) -> float | None:
    """The number of words such as "two hundred five thousand", None if they are no one number.

    Args:
      words: in lower case, without "and".
      start: the number before them ("5 million", "a dozen"), if there is one.
    """
    total, group, last_scale, last = 0.0, start, math.inf, ""
    for word in words:
        value = _VALUES.get(word)
        if value is not None:
            # "twenty two", "two hundred five"; "nineteen eighty" is no one number
            ones_behind_tens = _VALUES.get(last, 0) >= 20 and 1 <= value <= 9
            if group is not None and last != "hundred" and not ones_behind_tens:
                return None
            group = (group or 0) + value
        elif group is None:
            return None
        elif word == "hundred":
            if (last not in _VALUES and last) or not 0 < group < 100:
                return None
            group *= 100
        else:
            if _SCALES[word] >= last_scale:  # scales fall: "two million five thousand"
                return None
            last_scale = _SCALES[word]
            total, group = total + group * last_scale, None  # the next group begins anew
        last = word
    return total + (group or 0)


def written_in_digits(text: str) -> str | None:
    """The text with its number words in digits: "about 5 million" becomes "about 5000000".

    None if number words are there that are no one number, as "nineteen eighty".
    """
    unreadable = False

    def digits(match: re.Match[str]) -> str:
        nonlocal unreadable
        start = 1.0 if match["one"] else None
        if match["digits"]:
            start = _read_digits(match["digits"])
            unreadable |= start is None
        words = re.sub(r"\band\b|-", " ", match["words"].lower()).split()
        value = _read_words(words, start)
        unreadable |= value is None
        return "" if value is None else f"{value:.15g}" if value % 1 else f"{value:.0f}"

    written = _RUN.sub(digits, text)
    return None if unreadable else written


def read_number(text: str) -> float | None:
    """Reads the number that a text names; None if it names none, several, or one that cannot be
    read for certain ("1.5.2", "0x10", "two and a half").

    "about 1,200.5 cm", "$3", "12%", "1.5e3", "3k", "twenty-two" and "5 million" name one.
    """
    written = written_in_digits(re.sub(r"\bnone\b", "0", text, flags=re.IGNORECASE))
    if written is None or _CHANGED.search(written):
        return None
    signed = re.sub(r"-[$\u20ac\u00a3](?=[\d.])", "-", _SIGN.sub("-", written))
    numbers = {_read_digits(chunk) for chunk in re.findall(_TOUCHING, signed)}
    return numbers.pop() if len(numbers) == 1 else None
