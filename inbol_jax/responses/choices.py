"""The option of a multiple-choice question that a response chooses, by letter or by text."""

import re
from collections.abc import Sequence

from inbol_jax.questions import LETTERS
from inbol_jax.responses.vqa_accuracy import answer_key
from inbol_jax.responses.yes_no import read_yes_no

# A letter stands for an option if nothing else is there, in brackets, before a mark, or behind "the
# answer is". In "A dog", "the answer is a dog" and "I see" it does not.
_IS = r"\s*(?:is\s*)?(?::\s*)?"  # one way to read blanks: time stays linear in their number
_ANSWER_IS = rf"(?:the\s+)?(?:correct\s+)?(?:answer|option|choice){_IS}"
_CAPITAL = r"(?:A\b(?!\s(?!(?:as|because|due|for|since)\b)[a-z])|I\b(?!['\s])|[B-HJ-Z]\b)"
_OPTION = re.compile(
    rf"\s*(?:{_ANSWER_IS})?(?:\(([a-z])\)|([a-z])\s*(?:[.:),]|$))"
    rf"|\s*{_ANSWER_IS}(?-i:({_CAPITAL}|[b-hj-z]\b))",
    re.IGNORECASE,
)


def _read_option(text: str) -> tuple[str, str]:
    """Returns a chosen option's letter and the key of the text beside it; either may be empty."""
    option = _OPTION.match(text)
    if option is None:
        return "", answer_key(text)
    return option[option.lastindex].lower(), answer_key(text[option.end() :])


# Letters that are named elsewhere than at the start: "Because it is round, the answer is (B)."
_LETTER = rf"{_IS}(?:option\s*)?(?:\(([a-zA-Z])\)|({_CAPITAL}))"
_NAMED = re.compile(rf"\b(?:answer|option|choice){_LETTER}|\(([A-Z])\)")
_CONCLUDED = re.compile(rf"\banswer{_LETTER}")
_NEGATED = re.compile(
    r"\b(?:not|no(?!\.? ?\d)|neither|nor|none|cannot|without|except)\b|n['\u2019]t\b", re.IGNORECASE
)


def read_choice(text: str, options: Sequence[str]) -> int | None:
    """The option that a response chooses by its letter, or by a text that is the whole response or
    its first sentence; None if it chooses none.

    The last letter that is named as the answer counts: reasons come before it.
    """
    text = text.replace("**", "")  # bold in Markdown
    letters = LETTERS[: len(options)].lower()
    letter, rest = _read_option(text)
    for match in _CONCLUDED.finditer(text):
        letter = next(filter(None, match.groups())).lower()
    if letter:
        return letters.find(letter) if letter in letters else None
    keys = [answer_key(option) for option in options]
    for said in (rest, answer_key(re.split(r"[.;\n]\s", text, maxsplit=1)[0])):
        if keys.count(said) == 1:
            return keys.index(said)
    named = [next(filter(None, match.groups())).lower() for match in _NAMED.finditer(text)]
    return letters.find(named[-1]) if named and named[-1] in letters else None


def mentioned_option(text: str, options: Sequence[str]) -> int | None:
    """The only option whose words a response holds, unless it denies something; else None.

    In "dark red" the option "red" is not mentioned if "dark red" is an option too.
    """
    keys = [answer_key(option) for option in options]
    if set(keys) == {"yes", "no"}:
        reading = read_yes_no(text)
        return None if reading is None else keys.index(reading)
    if _NEGATED.search(text):
        return None
    said, found = f" {answer_key(text)} ", []
    for key in sorted(filter(None, keys), key=len, reverse=True):
        if f" {key} " in said:
            said = said.replace(f" {key} ", " | ")
            found.append(key)
    return keys.index(found[0]) if len(found) == 1 and keys.count(found[0]) == 1 else None


def choice_score(prediction: str, answers: Sequence[str], options: Sequence[str] = ()) -> float:
    """1 if the response chooses a gold option by letter ("(b)", "B. dog") or text, else 0.

    A response in which no choice can be read scores 0; none is ever drawn for it.

    Args:
      answers: letters or texts of the right options.
      options: of the question; without them letters and texts are compared as they are.
    """
    if options:
        chosen = read_choice(prediction, options)
        if chosen is None:
            chosen = mentioned_option(prediction, options)
        gold = {read_choice(answer, options) for answer in answers}
        return float(chosen is not None and chosen in gold)
    letter, text = _read_option(prediction)
    for answer in answers:
        gold_letter, gold_text = _read_option(answer)
        if letter and gold_letter:
            if letter == gold_letter:
                return 1.0
        elif text and text == gold_text:
            return 1.0
    return 0.0
