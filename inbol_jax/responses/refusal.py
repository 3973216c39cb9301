"""Tells a refusal from an answer by rules, in English, from the text alone.

A text is cut into clauses. It is a refusal if a rule recognises one of them, unless

- what stands before that clause is an answer, and no apology, reason or description of the image,
- another clause ventures an answer: "I think it is red, but I am not sure" is an answer, hedged,
- the refusal is quoted or reported: "the sign says 'I don't know'", "he does not know".

Precision and recall stand in docs/responses.md. In wording that the rules were not written with,
precision holds and recall is clearly lower, so that a refusal rate errs on the low side. Every
pattern is bounded, so that time is linear in the length of the text.
"""

import re
from collections.abc import Iterable, Iterator

from inbol_jax.responses.refusal_rules import ANYWHERE, AT_START, IMAGE, Rule

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


_ANYWHERE = re.compile(rf"\b(?:{_any_of(ANYWHERE)})\b")
_AT_START = re.compile(_any_of(AT_START))

# Fillers say nothing by themselves. They open a clause, or are one.
_FILLER = re.compile(
    r"(?:(?:i am |so |very ){0,4}(?:sorry|afraid)|my apologies|i (?:do )?apologi[sz]e"
    r"|unfortunately|sadly|regrettably|honestly|frankly|actually|to be honest|really"
    r"|i (?:must|have to) (?:say|admit)|i feel|h+m+|u+h*m+|oh|well"
    r"|and|so|then|thus|hence|therefore|yet|also|simply|just|but|however|although|though"
    r"|(?:for|about) (?:this|that)|at all|answer"
    r"|as an? ai(?: \w+){0,2}|thanks?(?: you)?|please)(?: that(?! is))?(?: |$)"
)
# A clause that begins so ventures an answer, if only as a guess.
_VENTURE = re.compile(
    r"(?:and |so |then |yes |no )?(?:"
    r"i (?:would |will |do |can )?(?:\w+ly )?"
    r"(?:think|believe|guess|suppose|assume|say|bet|suspect|imagine|go (?:for|with))\b"
    r"(?! (?:so|it is not|not))|my (?:best )?guess"
    r"|maybe|perhaps|probably|possibly|likely|most likely|presumably|apparently"
    r"|looks? like|seems? (?:to|like)"
    r"|(?:it|he|she|they|this|that|there|the \w+|the \w+ \w+) (?:\w+ )?"
    r"(?:looks?|seems?|appears?|resembles?|might|may|could|must"
    r"|is (?:probably|likely|possibly|perhaps|maybe)|are (?:probably|likely|possibly))\b"
    r"|yes$|no$)"
)
# A clause with one of these words gives a reason not to answer: it is no answer itself.
_REASON = re.compile(
    rf"\b(?:{IMAGE}|camera"
    r"|blurr\w+|hidden|obscured|unclear|dark|covered|visible|shown|cropped|low|small|turned|away"
    r"|clear\w*|cut|angle|above|beyond|out|not|no|without|while|too|enough"
    r"|wish|sorry|see|know|knowledge|provide|based|given|ask\w*)\b"
)
# Behind a verb of reporting somebody else refuses.
_REPORT = re.compile(
    r"\b(?:says?|said|saying|reads|reading|writes|written|titled|called|named|spells|caption)\b"
)
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


def _refusal_in(clause: str) -> re.Match[str] | None:
    refusal = _ANYWHERE.search(clause)
    if refusal and not _REPORT.search(clause, 0, refusal.start()):
        return refusal
    return _AT_START.match(clause)


def _first_refusal(text: str) -> re.Match[str] | None:
    """Returns the match in the first clause that refuses; None if the text is an answer."""
    first = None
    answered = False
    for clause, follows in _clauses(text):
        if refusal := _refusal_in(clause):
            first = first or refusal
            # "The screen is blank, so I cannot tell": what stood before was the reason.
            answered = answered and not follows
        elif _VENTURE.match(clause):
            return None
        elif not _REASON.search(clause):
            # Before a refusal every such clause is an answer. After one, only a clause that also
            # states something or is very short.
            short = len(clause.split()) <= _SHORT_CLAUSE
            answered = answered or not first or short or bool(_STATES.match(clause))
    return None if answered else first


def matching_rule(text: str) -> str | None:
    """Returns the name of the rule by which a text is a refusal; None if it is an answer.

    If several clauses refuse, the rule of the first one is returned.
    """
    refusal = _first_refusal(text)
    if refusal is None:
        return None
    rules, end = (AT_START, "") if refusal.re is _AT_START else (ANYWHERE, r"\b")
    return next(
        rule.name
        for rule in rules
        if re.compile(f"(?:{rule.pattern}){end}").match(refusal.string, refusal.start())
    )


def is_refusal(text: str) -> bool:
    """Tells whether a response declines to answer, rather than answers, hedges or denies.

    Args:
      text: a whole response. Case, white space, kinds of apostrophe and missing punctuation do not
        matter. Empty text is no refusal.
    """
    return _first_refusal(text) is not None
