"""The option of a multiple-choice question that a response chooses, by letter or by text."""

import functools
import re
from collections.abc import Callable, Sequence

from inbol_jax.questions import LETTERS
from inbol_jax.responses.vqa_accuracy import answer_key
from inbol_jax.responses.yes_no import read_yes_no

# A letter stands for an option if nothing else is there, in brackets, before a mark, or behind "the
# answer is". In "A dog", "the answer is a dog" and "I see" it does not.
_IS = r"\s*(?:is\s*)?(?::\s*)?"  # one way to read blanks: time stays linear in their number
_ANSWER_IS = rf"(?:the\s+)?(?:correct\s+)?(?:answer|option|choice){_IS}"
_BEFORE = re.compile(rf"^\s*{_ANSWER_IS}", re.IGNORECASE)
_END = r"(?=[.,:;)!?'\"*]*(?:\s|$))"  # not the C of "C++" or "D.C."
_CAPITAL = rf"(?:A(?!\s(?!(?:as|because|due|for|since)\b)[a-z])|I(?!['\s])|[B-HJ-Z]){_END}"
_OPTION = re.compile(
    rf"\s*(?:{_ANSWER_IS})?(?:\(([a-z])\)|([a-z])\s*(?:[.:),](?!\w)|$))"
    rf"|\s*{_ANSWER_IS}(?-i:({_CAPITAL}|[b-hj-z]{_END}))",
    re.IGNORECASE,
)


def _read_option(text: str, key: Callable[[str], str] = answer_key) -> tuple[str, str]:
    """Returns a chosen option's letter and the key of the text beside it; either may be empty."""
    option = _OPTION.match(text)
    if option is None:
        return "", key(text)
    return option[option.lastindex].lower(), key(text[option.end() :])


# Letters that are named elsewhere than at the start: "Because it is round, the answer is (B)."
_LETTER = rf"{_IS}(?:option\s*)?(?:\(([a-zA-Z])\)|({_CAPITAL}))"
_NAMED = re.compile(rf"\b(?:answer|option|choice){_LETTER}|\(([A-Z])\)")
_CONCLUDED = re.compile(rf"\banswer{_LETTER}")
_NEGATED = re.compile(
    r"\b(?:not|no(?!\.? ?\d)|neither|nor|none|cannot|without|except)\b|n['\u2019]t\b", re.IGNORECASE
)


def _exact(text: str) -> str:
    return text.strip().removesuffix(".")


@functools.lru_cache(maxsize=1 << 12)
def _keys(options: tuple[str, ...]) -> tuple[Callable[[str], str], dict[str, int]]:
    """The coarsest reading that tells all options apart, and the options by what it makes of them:
    "the cat" and "a cat", or "5" and "-5", are one to the official normalisation."""
    for key in (answer_key, lambda text: _exact(text).lower(), _exact):
        read = {key(option): i for i, option in enumerate(options)}
        if len(read) == len(options):
            break
    return key, read


def read_choice(text: str, options: Sequence[str]) -> int | None:
    """The option that a response chooses by its letter, or by a text that is the whole response or
    its first sentence; None if it chooses none.

    The exact text of an option goes first, unless it is a letter. The last letter that is named as
    the answer counts: reasons come before it.
    """
    letters = LETTERS[: len(options)].lower()
    key, keys = _keys(tuple(options))
    if text in options and text.strip(" ().").lower() not in [*letters]:
        return options.index(text)
    text = text if "**" in "".join(options) else text.replace("**", "")  # bold in Markdown
    for said in (text, _BEFORE.sub("", text)):
        if len(whole := key(said)) > 1 and whole in keys:  # "E. coli" is no letter
            return keys[whole]
    letter, rest = _read_option(text, key)
    for match in _CONCLUDED.finditer(text):
        letter = next(filter(None, match.groups())).lower()
    if letter:  # or else the text of an option: "I" of "I" and "II"
        return letters.index(letter) if letter in letters else keys.get(letter)
    first = key(re.split(r"[.;\n]\s", text, maxsplit=1)[0])
    chosen = keys.get(rest, keys.get(first))
    named = [next(filter(None, match.groups())).lower() for match in _NAMED.finditer(text)]
    if chosen is None and named and named[-1] in letters:
        return letters.index(named[-1])
    return chosen


def mentioned_option(text: str, options: Sequence[str]) -> int | None:
    """The only option whose words a response holds, unless it denies something; else None.

    In "dark red" the option "red" is not mentioned if "dark red" is an option too.
    """
    key, keys = _keys(tuple(options))
    if keys.keys() == {"yes", "no"}:
        reading = read_yes_no(text)
        return None if reading is None else keys[reading]
    if _NEGATED.search(text):
        return None
    said, found = f" {key(text)} ", set()  # with blanks, so that whole words are found
    for option in sorted(keys, key=len, reverse=True):
        if (spared := re.sub(rf"(?<![\w.]){re.escape(option)}(?!\w|\.\d)", "|", said)) != said:
            said = spared  # the longer option hides the one within it
            found.add(keys[option])
    return found.pop() if len(found) == 1 else None


def choice_score(prediction: str, answers: Sequence[str], options: Sequence[str] = ()) -> float:
    """1 if the response chooses a gold option by letter ("(b)", "B. dog") or text, else 0.

    A response in which no choice can be read scores 0; none is ever drawn for it.

    Args:
      answers: texts or letters of the right options. The exact text of an option goes before a
        letter: of the options "B" and "A", the answer "A" is the second.
      options: of the question; without them letters and texts are compared as they are.
    """
    if options:
        chosen = read_choice(prediction, options)
        if chosen is None:
            chosen = mentioned_option(prediction, options)
        places = (options.index(a) if a in options else read_choice(a, options) for a in answers)
        gold = {options[place] for place in places if place is not None}
        return float(chosen is not None and options[chosen] in gold)
    letter, text = _read_option(prediction)
    for answer in answers:
        gold_letter, gold_text = _read_option(answer)
        if letter and gold_letter:
            if letter == gold_letter:
                return 1.0
        elif text and text == gold_text:
            return 1.0
    return 0.0
