"""Tells a refusal from an answer by rules, in English, from the text alone.

A text is cut into clauses. It is a refusal if a rule recognises one of them, unless

- what stands before that clause is an answer, and no apology, reason or description of the image,
- another clause ventures an answer: "I think it is red, but I am not sure" is an answer, hedged,
- the refusal is quoted or reported: "the sign says 'I don't know'", "he does not know".

Precision and recall stand in docs/responses.md. In wording that the rules were not written with,
precision holds and recall is clearly lower, so that a refusal rate errs on the low side. Every
pattern is bounded, so that time is linear in the length of the text.
"""

import functools
import re
from collections.abc import Iterable, Iterator

from inbol_jax.responses.refusal_exceptions import FILLERS, REASONS, REPORTS, VENTURES
from inbol_jax.responses.refusal_rules import ANYWHERE, AT_START, Rule

# "don't", "dont" and "do not" are one, and so are "cannot" and "can not".
_NEGATED = {
    f"{verb}n{apostrophe}t": f"{ {'ca': 'can', 'wo': 'will'}.get(verb, verb) } not"
    for verb in (
        *("do", "does", "did", "is", "are", "was", "were", "has", "have", "had"),
        *("ca", "wo", "could", "would", "should"),
    )
    for apostrophe in ("'", "")
}
_SHORT_FORMS = _NEGATED | {
    "cannot": "can not", "i'm": "i am", "im": "i am", "i've": "i have", "ive": "i have",
    "i'd": "i would", "i'll": "i will", "it's": "it is", "its": "it is", "that's": "that is",
    "thats": "that is", "there's": "there is", "theres": "there is", "we're": "we are",
    "you're": "you are", "he's": "he is", "she's": "she is", "they're": "they are",
    "what's": "what is", "idk": "i do not know", "dunno": "do not know", "info": "information",
}  # fmt: skip
_QUOTES = str.maketrans(dict.fromkeys("‘’ʼ´`′", "'") | dict.fromkeys("“”„«»", '"'))  # noqa: RUF001
_DOUBLE_QUOTED = re.compile(r'"[^"]*"')
_SINGLE_QUOTED = re.compile(r"(?<!\w)'(?:[^']|(?<=\w)'(?=\w))*'(?!\w)")
_CLAUSE_END = re.compile(
    r"[.!?;:,()\n]+|(?:^|\s)(?:but|however|although|though)(?=\s|$)|\s[-\u2013\u2014]+\s"
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def _any_of(rules: Iterable[Rule]) -> str:
    return "|".join(rule.pattern for rule in rules)


def _any_of_named(rules: Iterable[Rule]) -> str:
    """Like `_any_of`, but a match's `lastgroup` is the name of its rule. That is twice as slow."""
    return "|".join(f"(?P<{rule.name}>{rule.pattern})" for rule in rules)


# They decide. The same two with names, `_named_patterns`, tell which rule it was.
_ANYWHERE = re.compile(rf"\b(?:{_any_of(ANYWHERE)})\b")
_AT_START = re.compile(_any_of(AT_START))

_FILLER = re.compile(rf"(?:{_any_of(FILLERS)})(?: that(?! is))?(?: |$)")
_VENTURES = re.compile(rf"(?:and |so |then |yes |no )?(?:{_any_of(VENTURES)})")
_REASON = re.compile(rf"\b(?:{_any_of(REASONS)})\b")
_REPORTS = re.compile(rf"\b(?:{_any_of(REPORTS)})\b")
_STATES = re.compile(r"(?:it|he|she|this|that|they|there) (?:is|are|was|were) ")
_FOLLOWS = re.compile(r"(?:and )?(?:so|thus|hence|therefore)\b")

# Words; after a refusal a clause as short as that is the answer itself: "not sure, a wolf?".
_SHORT_CLAUSE = 3


def _clauses(text: str) -> Iterator[tuple[str, bool]]:
    """Yields each clause, and whether it follows from the one before ("so ...").

    Clauses are in lower case and have lost the fillers that open them.
    """
    text = text.translate(_QUOTES).lower().strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1]
    text = _SINGLE_QUOTED.sub(" quoted ", _DOUBLE_QUOTED.sub(" quoted ", text))
    for part in _CLAUSE_END.split(text):
        clause = " ".join(_SHORT_FORMS.get(word, word) for word in _WORD.findall(part))
        start = 0
        while start < len(clause) and (filler := _FILLER.match(clause, start)):
            start = filler.end()
        if start < len(clause):
            yield clause[start:], bool(_FOLLOWS.match(clause))


@functools.cache
def _named_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    return re.compile(rf"\b(?:{_any_of_named(ANYWHERE)})\b"), re.compile(_any_of_named(AT_START))


def _match(
    clause: str, anywhere: re.Pattern[str], at_start: re.Pattern[str]
) -> re.Match[str] | None:
    """Returns where a clause refuses, if it does.

    Behind a verb of reporting it does not: somebody else refuses there.
    """
    refusal = anywhere.search(clause)
    if refusal:
        report = _REPORTS.search(clause)
        if not (report and report.start() < refusal.start()):
            return refusal
    return at_start.match(clause)


def _refusing_clause(text: str) -> str | None:
    """Returns the first clause of a refusal that refuses; None if the text is an answer."""
    refusing = None
    answered = False
    for clause, follows in _clauses(text):
        if _match(clause, _ANYWHERE, _AT_START):
            refusing = refusing or clause
            # "The screen is blank, so I cannot tell": what stood before was the reason.
            answered = answered and not follows
            continue
        if _VENTURES.match(clause):
            return None
        # Before a refusal, every clause that gives no reason is an answer. After one, only a clause
        # that also states something or is very short.
        states = not refusing or _STATES.match(clause) or len(clause.split()) <= _SHORT_CLAUSE
        if states and not _REASON.search(clause):
            answered = True
    return None if answered else refusing


def matching_rule(text: str) -> str | None:
    """Returns the name of the rule by which a text is a refusal; None if it is an answer.

    If several clauses refuse, the rule of the first one is returned.
    """
    clause = _refusing_clause(text)
    match = clause and _match(clause, *_named_patterns())
    return match.lastgroup if match else None


def is_refusal(text: str) -> bool:
    """Tells whether a response declines to answer, rather than answers, hedges or denies.

    Args:
      text: a whole response. Case, white space, kinds of apostrophe and missing punctuation do not
        matter. Empty text is no refusal.
    """
    return _refusing_clause(text) is not None
