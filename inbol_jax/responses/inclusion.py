"""The metric `inclusion`: whether a response gives a gold answer in a sentence.

The usual inclusion rule calls a response right if it holds a gold answer anywhere. So does this
one, but for mentions that are no answer: words of the question said again, what is denied ("not
red"), one of several candidates ("red or blue", "Lyon, Paris and Nice"), and whatever comes behind
the first sentence, unless that sentence says nothing. `benchmarks/answer_inclusion.py` prints
precision and recall on labelled responses, among them those of a published model.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence

from inbol_jax.responses.numbers import written_in_digits
from inbol_jax.responses.vqa_accuracy import exact_score
from inbol_jax.responses.yes_no import read_yes_no

_DENIES, _GOES_ON, _SAYS = (
    frozenset(words.split())
    for words in (
        # What a clause denies, compares or doubts is not its answer.
        """not no never neither nor nothing none cannot hardly barely without except excluding
        unlike than instead near between like less least thought formerly previously until some""",
        # Behind "and", these go on with the sentence and name no second candidate.
        """it is are was has have had they he she this that which also in on at its serves
        belongs located""",
        # A sentence without one of these lists or names, and says nothing of it.
        "is are was were has have s = be been called known belongs means",
    )
)
_CLAUSE = (",", ";", ":", "but")  # a new clause begins behind these
_JOINS = ("and", "or", "/", "&")
_EQUALS = ("=", "is", "are", "equals", "equal", "be", "makes", "to", "was", "answer", ":")
LONGEST = 200  # words of a sentence that are read

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_CONCLUSION = re.compile(r"\banswer\b[^.\n]{0,40}?(?:\bis\b|:)\s*(?=\S)", re.IGNORECASE)
_ABBREVIATION = re.compile(r"\b([A-Z]|St|Mt|Ft|Dr|Mrs?|Ms)\.(?=\s?\w)")  # E. coli, D.C., St. Louis
_TOKEN = re.compile(r"-?\d+(?:[.,:]\d+)*(?![\w.]*\d)|\w+|n't\b|[,;:()=/&]")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@functools.lru_cache(maxsize=1 << 16)  # The same few answers come back with every sample.
def _tokens(text: str) -> tuple[str, ...]:
    """Words, numbers and marks, without articles, diacritics and Markdown; the case is kept."""
    text = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text))
    text = (
        re.sub(r"[*_`\"\u201c\u201d]|(?<=\d),(?=\d{3}\b)", "", text)
        .replace("\u2019", "'")
        .replace("n't", " not")
    )
    text = _ABBREVIATION.sub(r"\1", text)
    text = written_in_digits(text) or text
    tokens = (t for t in _TOKEN.findall(text) if t.lower() not in ("a", "an", "the"))
    return tuple(f"{float(t):.15g}" if _NUMBER.fullmatch(t) else t for t in tokens)  # 7.0 is 7


def _words(text: str) -> list[str]:
    """The tokens in lower case, without marks."""
    return [token.lower() for token in _tokens(text) if token[0].isalnum() or token[0] == "-"]


def _places(tokens: Sequence[str], gold: Sequence[str]) -> Iterator[int]:
    """Where a gold answer stands. One of few letters, such as a chemical symbol, is told from a
    word by its case, and by not beginning the sentence."""
    short = len(gold) == 1 and len(gold[0]) <= 2 and gold[0].isalpha()
    lower = [token.lower() for token in tokens]
    said, wanted = (tokens, list(gold)) if short else (lower, [word.lower() for word in gold])
    for at in range(len(tokens) - len(gold) + 1):
        if list(said[at : at + len(gold)]) == wanted and not (short and at == 0 < len(tokens) - 1):
            yield at


def _echoed(words: Sequence[str], at: int, end: int, question: Sequence[str]) -> bool:
    """Whether the question has these words too, with the word before them or the one behind."""
    # "Kuwait" at 1 of (of, kuwait, city): the runs "of kuwait" and "kuwait city".
    runs = [words[max(at - 1, 0) : end], words[at : end + 1]]
    n = end - at + 1
    said = {tuple(question[i : i + n]) for i in range(len(question) - n + 1)}
    return any(tuple(run) in said for run in runs if len(run) == n)


def _is_candidate_among_others(words: Sequence[str], at: int, end: int, golds: set[str]) -> bool:
    """Whether what stands at a place is joined to something else that would be an answer too."""
    before, after = words[:at], words[end:]
    if before and before[-1] in _JOINS and not (len(before) > 1 and before[-2] in golds):
        return True
    if after[:1] == [","] and after[1:2] and after[1] in _JOINS:
        after = after[1:]
    if after and after[0] in _JOINS:
        return bool(after[1:]) and after[1] not in (*golds, *_GOES_ON)
    # "Africa, Europe, and Asia"
    listed = after[:1] == [","] and any(after[i : i + 2] == [",", "and"] for i in (2, 3))
    return listed or ("or" in after and after[after.index("or") + 1 :][:1] != ["so"])


def _gives(sentence: str, golds: Sequence[tuple[str, ...]], question: Sequence[str]) -> bool:
    """Whether a sentence gives one of the gold answers."""
    tokens = _tokens(sentence)[:LONGEST]
    lower = [token.lower() for token in tokens]
    if tokens.count(",") >= 2 and not _SAYS & set(lower):
        return False  # a list of candidates
    firsts = {gold[0].lower() for gold in golds}
    for gold in golds:
        number = len(gold) == 1 and _NUMBER.fullmatch(gold[0])
        for at in _places(tokens, gold):
            end = at + len(gold)
            start = max((i for i in range(at) if lower[i] in _CLAUSE), default=-1) + 1
            if not number and _echoed(lower, at, end, question):
                continue
            if "," in lower[:at] and not _SAYS & set(lower):
                continue  # "grey, red"
            # Within a longer name: "China" in "the South China Sea".
            if at > 0 and end < len(tokens) and tokens[at - 1].istitle() and tokens[end].istitle():
                continue
            denied_behind = lower[end : end + 1] == ["not"] or lower[end + 1 : end + 2] == ["not"]
            if set(lower[start:at]) & _DENIES or (
                denied_behind and "," not in lower[end : end + 1]
            ):
                continue
            if number:
                numbers = {t for t in lower if _NUMBER.fullmatch(t) and t not in question}
                if numbers != {gold[0]} and not (at and lower[at - 1] in _EQUALS):
                    continue
            if not _is_candidate_among_others(lower, at, end, firsts):
                return True
    return False


def _chooses(sentence: str, golds: Sequence[tuple[str, ...]], question: Sequence[str]) -> bool:
    """Of a question that offers candidates ("a cat or a dog"): whether the first that the sentence
    names is right, and not joined to another."""
    joined = [i for i, word in enumerate(question) if word == "or"]
    offered = {question[j] for i in joined for j in (i - 1, i + 1) if 0 <= j < len(question)}
    lower = [token.lower() for token in _tokens(sentence)]
    named = [i for i, word in enumerate(lower) if word in offered]
    right = {word.lower() for gold in golds for word in gold}
    if not named or lower[named[0]] not in right or set(lower[: named[0]]) & _DENIES:
        return False
    return not set(lower[named[0] + 1 : named[0] + 2]) & {*_JOINS, ","} or len(named) == 1


def inclusion_score(prediction: str, answers: Sequence[str], question: str = "") -> float:
    """1 if the response gives one of the gold answers, in a sentence or alone, else 0.

    Case, articles, diacritics and the spelling of numbers do not matter. A gold answer that is yes
    or no is read as such.

    Args:
      prediction: the response.
      answers: alternatives, any of which is right.
      question: its words are no answers, unless it offers them ("a cat or a dog").
    """
    return _inclusion_score(prediction, tuple(answers), question)


@functools.lru_cache(maxsize=1 << 16)
def _inclusion_score(prediction: str, answers: tuple[str, ...], question: str) -> float:
    if exact_score(prediction, answers):
        return 1.0
    said = [read_yes_no(a) if a.strip(" .").lower() in ("yes", "no") else None for a in answers]
    if any(said):
        return float(read_yes_no(prediction) in filter(None, said))
    golds = [gold for gold in map(_tokens, answers) if gold]
    text = _ABBREVIATION.sub(r"\1", prediction)
    *_, concluded = 0, *(match.end() for match in _CONCLUSION.finditer(text))
    text = text[concluded:]
    asked = _words(question)
    offered = "or" in asked and any(word.lower() in asked for gold in golds for word in gold)
    reads = _chooses if offered else _gives
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if _words(sentence)]
    if len(sentences) > 1 and not any(_SAYS & set(_words(sentence)) for sentence in sentences):
        return 0.0  # a list of candidates, one per line
    for sentence in sentences:
        said = _words(sentence)
        if sentence.endswith("?"):
            continue  # asks back
        if reads(sentence, golds, asked):
            return 1.0
        if set(said) - set(asked) and not sentence.endswith("!") and not set(said) & _DENIES:
            return 0.0  # says something else
    return 0.0
