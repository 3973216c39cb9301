"""The option of a multiple-choice question that a response chooses, by letter or by text."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from inbol_jax.questions import LETTERS
from inbol_jax.responses.vqa_accuracy import answer_key
from inbol_jax.responses.yes_no import read_yes_no

# A letter stands for an option if nothing else is there, in brackets, before a mark, or behind "the
# answer is". In "A dog", "the answer is a dog" and "I see" it does not.
_IS = r"\s*(?:is\s*)?(?::\s*)?"  # one way to read blanks: time stays linear in their number
_ANSWER_IS = rf"(?:the\s+)?(?:correct\s+)?(?:answer|option|choice){_IS}"
_CAPITAL = r"(?:A\b(?!\s(?!(?:as|because|due|for|since)\b)[a-z])|I\b(?!['\s])|[B-HJ-Z]\b)"
_OPTION = re.compile(
    rf"\s*(?:{_ANSWER_IS})?(?:\(([a-z])\)|([a-z])\s*(?:[.:),](?!\w)|$))"
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


class _Options(NamedTuple):
    """Options, some of whose texts are marked: replaced by a character that no text has."""

    letters: str  # "abcd"
    keys: dict[str, int]  # what equal texts share, of those that only one option has
    marks: dict[str, str]  # by text
    marked: re.Pattern[str]

    def mark(self, text: str) -> str:
        """The text with what would be misread marked."""
        if not self.marks:
            return text

        def mark(found: re.Match[str]) -> str:
            said = found[0]
            return f" {self.marks.get(said) or self.marks.get(said.lower(), said)} "

        return self.marked.sub(mark, text)


# A letter alone that could be read as that of an option: in "A.C. Milan", not in "A cat".
_ALONE = re.compile(r"(?<!\w)(?:[B-HJ-Zb-hj-z](?!\w)|[AaIi](?=[^\w\s]))")


@functools.lru_cache(maxsize=1 << 12)
def _options(options: tuple[str, ...]) -> _Options:
    """Marks the options that hold a letter alone, and those that normalisation cannot tell apart
    ("-5" and "5", "the cat" and "a cat").
    """
    letters = LETTERS[: len(options)].lower()
    keys = [answer_key(option) for option in options]
    read: dict[str, int] = {key: i for i, key in enumerate(keys) if keys.count(key) == 1}
    lower = [option.lower() for option in options]
    marks: dict[str, str] = {}
    patterns = []
    for i, option in sorted(enumerate(options), key=lambda item: -len(item[1])):
        misread = (len(option) > 1 and _ALONE.search(option)) or keys[i] not in read
        if misread and not _is_letter(option, letters) and option not in marks:
            mark = chr(0xE000 + i)  # of Unicode's private use
            read[mark] = i
            marks[option] = mark
            if one_case := lower.count(lower[i]) == 1:
                marks[lower[i]] = mark
            patterns.append(f"(?i:{re.escape(option)})" if one_case else re.escape(option))
    return _Options(
        letters, read, marks, re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w|\.\d)")
    )


def _is_letter(text: str, letters: str) -> bool:
    letter = text.strip(" ().").lower()
    return len(letter) == 1 and letter in letters


def read_choice(text: str, options: Sequence[str]) -> int | None:
    """The option that a response chooses by its letter, or by a text that is the whole response or
    its first sentence; None if it chooses none.

    The exact text of an option goes first, unless it is a letter. The last letter that is named as
    the answer counts: reasons come before it.
    """
    letters, keys, *_ = known = _options(tuple(options))
    if text in options and not _is_letter(text, letters):
        return options.index(text)
    text = known.mark(text.replace("**", ""))  # bold in Markdown
    letter, rest = _read_option(text)
    for match in _CONCLUDED.finditer(text):
        letter = next(filter(None, match.groups())).lower()
    if letter:  # or else the text of an option: "I" of "I" and "II"
        return letters.index(letter) if letter in letters else keys.get(letter)
    first = answer_key(re.split(r"[.;\n]\s", text, maxsplit=1)[0])
    chosen = keys.get(rest, keys.get(first))
    named = [next(filter(None, match.groups())).lower() for match in _NAMED.finditer(text)]
    if chosen is None and named and named[-1] in letters:
        return letters.index(named[-1])
    return chosen


def mentioned_option(text: str, options: Sequence[str]) -> int | None:
    """The only option whose words a response holds, unless it denies something; else None.

    In "dark red" the option "red" is not mentioned if "dark red" is an option too.
    """
    known = _options(tuple(options))
    if known.keys.keys() == {"yes", "no"}:
        reading = read_yes_no(text)
        return None if reading is None else known.keys[reading]
    text = known.mark(text)
    if _NEGATED.search(text):
        return None
    said, found = f" {answer_key(text)} ", set()  # with blanks, so that whole words are found
    for key in sorted(known.keys, key=len, reverse=True):
        if f" {key} " in said:
            said = said.replace(f" {key} ", " | ")  # the longer option hides the one within it
            found.add(known.keys[key])
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
        gold = {a if a in options else _text_of(read_choice(a, options), options) for a in answers}
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


def _text_of(option: int | None, options: Sequence[str]) -> str | None:
    return None if option is None else options[option]
