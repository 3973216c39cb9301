"""The metric `inclusion`: whether a response, perhaps a sentence, gives a gold answer and no other.

The usual inclusion rule calls a response right if it holds a gold answer anywhere, so that "not
red" and "red or blue" are right. Here the answer must stand where sentences have their answers
("It is red", "Red, I think", "Paris is the capital of France"), and nothing may compete with it. So
each word is given one of a few classes, and patterns over the classes decide. The rules know
English; `benchmarks/answer_inclusion.py` prints their precision and recall on labelled responses.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from inbol_jax.responses.numbers import written_in_digits
from inbol_jax.responses.vqa_accuracy import exact_score
from inbol_jax.responses.yes_no import read_yes_no

# The classes of words. Besides, G is the gold answer that is looked at, g any other mention of
# one, q a word of the question, z a possessive, and x any other word: one that could compete.
_CLASSES = {
    # verbs that have the answer before or behind them
    "b": """am are be is was were = equal equals become becomes became remains has have had mean
        means serves serve served represents represent denotes denote says say reads shows
        show showing depicts depict displays features contains contain includes makes make
        gives uses use using speaks speak spoke wrote""",
    "d": "a an the this these those its his her their my our your some any",
    "p": "it they he she i we you there here one",
    "k": """city town country state color colour language type kind sort species breed name
        amount total number sum year made consists composed material piece slice pair
        photo photograph picture image drawing painting republic kingdom""",
    "t": "of",
    "i": "in on at by with from to for under above behind over inside into as during since around",
    # behind these, a clause or a modifier says something of the answer
    "r": """which who whose whom where that because since due when located situated called named
        known hanging sitting standing lying holding wearing playing running walking eating
        looking written painted directed invented discovered founded built created used
        spoken found given per if""",
    # these are no answers themselves
    "f": """so therefore thus hence then well ok okay yes sure certainly surely please probably
        likely possibly perhaps maybe most definitely clearly obviously apparently actually
        exactly simply just only also currently now today officially usually commonly mainly
        primarily about approximately roughly think believe guess assume would could should
        can may might must will do does did seem seems appear appears look looks like feel
        sounds see seen tell know sure certain confident correct right true final answer
        question response result been being option scene visible present displayed shown
        depicted official common standard small large big little tall young beautiful famous
        dark light bright deep pale single very quite rather fairly too all both each own
        entire whole based further explanation note let me us im boxed add subtract multiply
        divide count calculate find need them together got ca wo hello hi 'll 've 'd""",
    # what follows is denied, or was believed and is not so
    "n": """not no never neither nor nothing nobody none nowhere without except excluding unlike
        cannot hardly barely scarcely less than near thought formerly previously once until
        sometimes some many others mistaken""",
    "a": "and plus & +",
    "o": "or / versus vs",
    "u": "but however although though while whereas yet otherwise alternatively instead",
    ",": ", ; : [ ]",
    "(": "(",
    ")": ")",
}
LONGEST = 200  # words of a sentence that may give an answer
_CLASS_OF = {word: mark for mark, words in _CLASSES.items() for word in words.split()}

# What is said in several words, or shortly, in the words of the classes.
_REWRITTEN = [
    (re.compile(pattern, re.IGNORECASE), new)
    for pattern, new in (
        (r"[\u2018\u2019]", "'"),
        (r"[*_#`\"$\\{}\u201c\u201d]+", " "),  # Markdown, LaTeX and quotation marks
        (r"\s[-\u2013\u2014]+\s|\u2014", ", "),
        (r"\b(?:[A-Z]\.){2,}", lambda found: found[0].replace(".", "")),  # D.C.
        (r"\b([A-Z]|st|mt|ft|dr|mrs?|ms|prof|approx)\. (?=\w)", r"\1 "),  # E. coli, St. Louis
        (r"(?:^|(?<=\n))\s*(?:[-\u2022]|\d[.)])\s+(?=\D)", ""),  # the marks of a list
        (r"\bused to be\b", "was formerly"),
        (r"\b(?:there is )?(?:no|without a) doubt\b|\bof course\b", "surely"),
        (r"\b(?:instead of|rather than|other than|anything but)\b", "not"),
        (r"\b(?:might|may|would) (?:think|expect|guess)\b", "thought"),
        (r"\b(?:similar to|looked like|(?<!look )(?<!looks )like|at least|at most)\b", "near"),
        (r"\bas well as\b", "and"),
    )
]
_MONTH = r"(?:jan|febr)uary|march|april|may|june|july|august|(?:sept|nov|dec)ember|october"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
# The day before a year: it is no other number.
_DATE = re.compile(
    rf"\b(?:{_DAY}(?: of)? (?:{_MONTH})|(?:{_MONTH})(?: {_DAY})?),? (?=\d{{4}}\b)", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_CONCLUSION = re.compile(r"\banswer\b[^.\n]{0,40}?(?:\bis\b|:)", re.IGNORECASE)
_SUFFIX = r"'(?:s|m|re|ll|ve|d)\b"
_TOKEN = re.compile(
    r"(?P<number>(?:(?<![\w.])-)?\d\w*(?:[.,:]\d\w*)*)"
    rf"|(?P<word>n't\b|{_SUFFIX}|[^\W\d_]+?(?=n't\b)|[^\W\d_]+(?:(?!{_SUFFIX})'[^\W\d_]+)*\w*)"
    r"|(?P<range>(?<=\d)-(?=\d))|(?P<mark>[,;:()\[\]/&+=])"
)
_NUMBER = re.compile(r"(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)(?!(?:st|nd|rd|th|s)\b)([^\W\d_]*)")
_SHORT_FOR = {"'m": "am", "'re": "are", "n't": "not"}
_TAKES_IS = frozenset(("it", "that", "this", "there", "here", "he", "she", "what", "who", "where"))


class _Token(NamedTuple):
    text: str
    key: str  # what equal words share


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    return re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text)).casefold()


def _tidy(text: str) -> str:
    for pattern, new in _REWRITTEN:
        text = pattern.sub(new, text)
    text = _DATE.sub("", text)
    return written_in_digits(text) or text


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    for match in _TOKEN.finditer(text):
        said = match[0]
        if match.lastgroup == "number":
            number = _NUMBER.fullmatch(said)
            if number is None:
                tokens.append(_Token(said, said.lower()))
                continue
            tokens.append(_Token(number[1], f"{float(number[1].replace(',', '')):.15g}"))
            if number[2]:
                tokens.append(_Token(number[2], _fold(number[2])))
        elif match.lastgroup == "range":
            tokens.append(_Token(said, "or"))
        else:
            key = _fold(said)
            if key == "'s" and tokens and tokens[-1].key in _TAKES_IS:
                key = "is"
            tokens.append(_Token(said, _SHORT_FOR.get(key, key)))
    return tokens


_ARTICLES = ("a", "an", "the")
_PASSED_OVER = frozenset((*_ARTICLES, *_CLASSES[","].split(), "(", ")"))  # within a gold answer


class _Gold(NamedTuple):
    """A gold answer in words."""

    keys: tuple[str, ...]  # without articles and marks
    exactly: str  # how it must be written; empty if in any way
    number: bool


@functools.lru_cache(maxsize=1 << 14)
def _gold(answer: str) -> _Gold:
    tokens = [token for token in _tokens(_tidy(answer)) if token.key not in _PASSED_OVER]
    if not tokens and (tokens := _tokens(answer)):
        tokens = tokens[:1]  # "A", of a blood group
    keys = tuple(token.key for token in tokens)
    # "He", "In", "As": the symbols of elements are words as well.
    word = len(tokens) == 1 and _CLASS_OF.get(keys[0], "k") not in "k"
    number = len(tokens) == 1 and _NUMBER.fullmatch(keys[0]) is not None
    return _Gold(keys, tokens[0].text if word else "", number)


@functools.lru_cache(maxsize=1 << 16)
def _alike(key: str, other: str) -> bool:
    """Whether two words have one stem, as far as their letters say."""
    stems = (re.sub(r"(?<=\w{3})(?:ing|ed|es|s)$", "", word) for word in (key, other))
    shared = max(4, min(len(key), len(other)) - 1)
    return len(set(stems)) == 1 or (
        len(key) >= shared <= len(other) and key[:shared] == other[:shared]
    )


class _Question(NamedTuple):
    keys: frozenset[str]
    choices: frozenset[str]  # words of "a cat or a dog", which compete with each other

    def names(self, key: str) -> bool:
        """Whether the question has the word, perhaps in another form: "Japanese" of "Japan"."""
        return any(map(functools.partial(_alike, key), self.keys))


@functools.lru_cache(maxsize=1 << 12)
def _question(text: str) -> _Question:
    tokens = _tokens(_tidy(text))
    classes = [_CLASS_OF.get(token.key, "x") for token in tokens]
    choices = set()
    if "o" in classes:
        asks_which = bool(tokens) and tokens[0].key.startswith(("wh", "how"))
        words = [i for i, mark in enumerate(classes) if mark not in "dt"]
        for before, at in itertools.pairwise(words):
            if classes[before] in ("o", ","):
                choices.add(tokens[at].key)
            if classes[at] == "o" or (classes[at] == "," and not asks_which):
                choices.add(tokens[before].key)
    keys = frozenset(t.key for t, mark in zip(tokens, classes, strict=True) if mark in "xkr")
    return _Question(keys - choices, frozenset(choices))


def _matches(tokens: Sequence[_Token], at: int, gold: _Gold) -> int:
    """How many tokens from one on are the gold answer, 0 if they are not."""
    end = at
    for key in gold.keys:
        while end < len(tokens) and end > at and tokens[end].key in _PASSED_OVER:
            end += 1
        if end == len(tokens) or tokens[end].key != key:
            return 0
        end += 1
    if gold.exactly and (tokens[at].text != gold.exactly or (at == 0 and end < len(tokens))):
        return 0
    return end - at


def _classes(sentence: str, golds: Sequence[_Gold], question: _Question) -> str:
    """The classes of a sentence's words, a letter for each; every gold answer is one "g"."""
    tokens = _tokens(sentence)
    classes, at, units = "", 0, 0
    while at < len(tokens):
        key = tokens[at].key
        length, number = max(((_matches(tokens, at, g), g.number) for g in golds), default=(0, 0))
        if length:
            classes, at, units = classes + "g", at + length, 3 if number else 0
            continue
        mark = _CLASS_OF.get(key, "x")
        if key == "'s":
            mark = "z"
        elif key == "1" and tokens[at].text == "1" and "one" in question.keys:
            mark = "p"
        elif key in question.choices:
            mark = "x"
        elif mark in "xr" and question.names(key):
            mark = "q"
        elif mark == "x" and units and not key[0].isdigit():
            mark = "f"  # "7 apples"
        units = max(units - 1, 0) if mark in "fdq" else 0
        classes, at = classes + mark, at + 1
    aside = re.sub(r"\((?!o)[^()g]*(?:\)|$)", "", classes)  # "the euro (EUR)"
    return aside.replace("(", ",").replace(")", ",")


# Where an answer stands. A sentence falls into parts at its commas and at "but", "while".
_EARLIER_PART = re.compile("[^x]*|.*n.*|[iru].*")  # says nothing, denies something, or introduces
_TO_PREDICATE = re.compile("(?:[^bno]*b)?(?:[fdiqpgbrz]|kt?)*")  # "The color of the bus is"
_TO_SUBJECT = re.compile("(?:[fdipgz]|kt)*q*")  # "The city of", "The Swiss"
_SAFE = "[fqkpdgbzt]"  # words that compete with no answer
_MODIFIER = "(?:r[^,u]*|[it][^,uaon]*)"  # "because it rains", "on the sofa"
_BEHIND_PREDICATE = f"(?![bz])[fqkpdg]*{_MODIFIER}?"
_BEHIND_SUBJECT = r"(?=[^,u]*q)f*[bq](?![fd]*n)(?:[^,uabr]|rb?|a(?![^,u]*x[^,u]*b))*"
_LATER_PART = (
    f"(?:,*(?:,{_SAFE}*{_MODIFIER}?|,n[^,u]*|,d[fx]*[kq][^,u]*"
    f"|a[pbf][^,u]*|a{_SAFE}*{_MODIFIER}?|og[^,u]*|o{_SAFE}*|un[^,u]*|u(?:{_SAFE}|n)*))*"
)
_AFTER = re.compile(f"{_BEHIND_PREDICATE}{_LATER_PART}")
_AFTER_SUBJECT = re.compile(f"{_BEHIND_SUBJECT}{_LATER_PART}")
_DESCRIPTION = re.compile(r"(?:the|this|in the) (?:image|picture|photo|scene)\b", re.IGNORECASE)
_BARE = re.compile("[dfgx]{1,4}")
_CORRECTION = re.compile("[ou]|n,")


def _answers_at(classes: str, at: int) -> bool:
    """Whether the gold answer at a place of a sentence is what the sentence gives as the answer."""
    *earlier, own = re.split("[,u]", classes[:at])
    if not all(map(_EARLIER_PART.fullmatch, earlier)):
        return False
    after = classes[at + 1 :]
    return bool(
        (_TO_PREDICATE.fullmatch(own) and _AFTER.fullmatch(after))
        or (_TO_SUBJECT.fullmatch(own) and _AFTER_SUBJECT.fullmatch(after))
    )


@functools.lru_cache(maxsize=1 << 16)  # The same few answers come back with every sample.
def _gives(response: str, golds: tuple[_Gold, ...], question: _Question) -> bool:
    text = _tidy(response)
    for conclusion in _CONCLUSION.finditer(text):
        text = text[conclusion.end() :] if conclusion.end() < len(text) else text
    sentences = [s for s in _SENTENCE_END.split(text) if s.strip()]
    found = None  # the classes of the sentence that gives the answer
    for sentence in sentences:
        classes = _classes(sentence, golds, question)
        if found is not None:
            wrong = "g" not in classes and "x" in classes
            if wrong and _CORRECTION.match(classes):
                return False
            if wrong and _BARE.fullmatch(classes) and _BARE.fullmatch(found):
                return False  # a list
            if re.sub("x+", "g", classes) == found:
                return False  # the same sentence with another answer
        elif len(classes) > LONGEST:
            return False
        elif "g" not in classes:
            says_other = "x" in classes and not sentence.endswith("?") and "n" not in classes
            if says_other and not _DESCRIPTION.match(sentence.strip()):
                return False
        elif sentence.endswith("?") and "b" in classes:
            continue
        elif any(_answers_at(classes, m.start()) for m in re.finditer("g", classes)):
            found = classes
        else:
            return False
    return found is not None


def inclusion_score(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """1 if the response gives exactly one of the gold answers, in a sentence or alone, else 0.

    Case, articles, diacritics and the spelling of numbers do not matter. A gold answer that is yes
    or no is read as such.

    Args:
      prediction: the response.
      answers: alternatives, any of which is right.
      question: its words are no answers, unless it offers them ("a cat or a dog").
    """
    if exact_score(prediction, answers):
        return 1.0
    said = [read_yes_no(a) if a.strip(" .").lower() in ("yes", "no") else None for a in answers]
    if any(said) and read_yes_no(prediction) in filter(None, said):
        return 1.0
    golds = [_gold(a) for a, yes_no in zip(answers, said, strict=True) if yes_no is None]
    golds = tuple(gold for gold in golds if gold.keys)
    return float(bool(golds) and _gives(prediction, golds, _question(question)))
