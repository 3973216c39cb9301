"""Tells a refusal from an answer by rules, in English, from the text alone.

A text is cut into sentences and clauses, and each clause gets one of `LABELS`: a refusal by a row
of `refusal_rules`, any other by a row of `AROUND`. The first row of `DECISIONS` that fits the
sequence of labels decides. "I think it is red, but I don't know." is "VR": an answer, hedged.

Precision and recall stand in docs/responses.md, also on sources that the rules were not written
with: there recall is lower, so that a refusal rate errs on the low side. Every pattern is bounded,
so that time is linear in the length of the text.
"""

import functools
import itertools
import re
from collections.abc import Iterator

from inbol_jax.responses.refusal_rules import NOT_SHOWN, RULES, Rule, fill
from inbol_jax.taught_refusals import REFUSALS

LABELS = {
    "R": "refuses: it does not know",
    "C": "concludes so: behind 'therefore', with grounds, or of the question itself",
    "D": "declines to answer",
    "P": "denies what the question takes for granted",
    "V": "ventures or names an answer",
    "A": "answers wherever it stands: 'no', a number, a few words of their own, a contrast",
    "S": "states something, which answers unless a refusal came before it",
    "G": "gives grounds",
    "-": "is a reason, an aside or a concession: neither answer nor refusal",
    ".": "ends a sentence",
}
# Rows of (pattern over the labels, whether the text refuses, example).
DECISIONS = (
    (r"^[^ASV]*D", True, "I can't assist with that. It is wrong."),
    (r"V", False, "I am not sure, but I think it is red."),
    (r"C[^A]*$", True, "The screen is blank, so I cannot tell."),
    (r"G-*R[^AS]*$", True, "It is a city. Without landmarks, it is impossible to tell which."),
    (r"^-*R.*\.[^A]*R[^A]*$", True, "I cannot tell. He stands there. I really cannot say."),
    (r"[AS].*[RCDP]", False, "The car is red, but I can't tell the make."),
    (r"P[^A]*$", True, "There is no boat. It is a train."),
    (r"A", False, "I don't know. It is red."),
    (r"[RCD]", True, "I don't know. He stands beside a tree."),
)
_DECISIONS = tuple((re.compile(pattern), refuses) for pattern, refuses, _ in DECISIONS)

# How clauses that do not refuse begin: the first row that matches gives the label, "S" otherwise.
AROUND = tuple(
    (label, re.compile(fill(pattern)))
    for label, pattern in (
        ("V", r"(?:\w+ ){0,3}(?:answer|option|choice)(?: \w+)? (?:be|is)"
              r" (?!(?:un|in|im)\w+|not\b|none\b|n a\b|can not|that\b|a matter)"),
        ("A", r"no$|.*\b(?:is|are|was|were) (?:about |approximately |around )?\d"),
        ("V", r"(?:yes |no )?i (?:would |do |can )?(?:\w+ly )?(?:think|believe|guess|suppose|assume"
              r"|say|choose|pick|go (?:for|with))\b(?! (?:so|it is not|not))|(?:my|an?|i can make"
              r" an?) (?:best |educated )?guess|here (?:is|are) (?:an?|my|some|the)\b|(?:most"
              r" )?likely|maybe|perhaps(?! you)|probably|possibly|looks? like|seems? (?:to|like)"
              r"|yes$"),
        # Not "it seems that you misspelt it": a fault of the question is no guess at its answer.
        ("V", r"(?:it|he|she|they|this|that|there|the (?:\w+ ){0,2}?\w+) (?:\w+ )?(?:(?:looks?"
              r"|seems?|appears?)(?! (?:like |that )?you\b)|resembles?|(?:might|may|could|must)(?!"
              r" (?:also )?(?:be (?:an?|necessary|helpful) |depend|have|range|refer|vary))|(?:is"
              r"|are) (?:\w+ly |very |most )?(?:probably|likely|possibly))\b"),
        ("G", r"(?:as(?! an?\b)|because|due to|given|if|since|unless|without)\b"),
        ("-", r".*\b(?:<IMAGE>|camera|depend\w*|var(?:y|ies)|blurr\w+|hidden|obscured|unclear"
              r"|dark|covered|visible|shown|cropped|low|small|away|clear\w*|angle|above|beyond|out|not"
              r"|no|without|while|too|enough|wish|sorry|see|knowledge|provide|based|given"
              r"|ask\w*)\b"),
        ("-", r"(?:\w+ ){0,2}<DOCUMENT>(?: \w+)? (?:only |also )?(?:discuss|focus|mention|refer"
              r"|suggest|talk)(?:es|s)?\b|(?:to|we|you|let|note|please|thank|according|from|for) "
              r"|(?:great|sure|certainly|of course|absolutely)$|here\b|okay|apologies|as an? "
              r"|i (?:can|am|appreciate|must|recommend|suggest|understand|want|will|would) "),
    )
)  # fmt: skip

# A refusal with its grounds, or to answer the question itself.
_CONCLUDES = re.compile(
    r"(?:because|due to|since|without)\b|.*\b(?:(?:the|this|that|your) (?:exact |correct )?"
    r"(?:answer|problem|prompt|question|request)|being (?:asked|referred))\b"
)
# Behind a verb of reporting somebody else refuses.
_REPORTS = re.compile(r"\b(?:says?|said|read|writ|titled|called|named|caption)\w*\b(?! quoted)")
_SHORT = 3  # words that are an answer by themselves: "not sure, a wolf?"
_BRIEF = 6  # words of a refusal behind which such an answer may stand
_LONGEST = 20_000  # characters that are read

_SHORT_FORMS = {
    "cannot": "can not", "can't": "can not", "cant": "can not", "won't": "will not",
    "wont": "will not", "i'm": "i am", "im": "i am", "i've": "i have", "ive": "i have",
    "i'd": "i would", "i'll": "i will", "it's": "it is", "its": "it is", "that's": "that is",
    "thats": "that is", "there's": "there is", "theres": "there is", "we're": "we are",
    "you're": "you are", "he's": "he is", "she's": "she is", "they're": "they are",
    "what's": "what is", "idk": "i do not know", "dunno": "do not know", "info": "information",
}  # fmt: skip
_QUOTES = str.maketrans(dict.fromkeys("‘’ʼ´`′", "'") | dict.fromkeys("“”„«»", '"'))  # noqa: RUF001
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
# What is replaced in a text before it is cut, in this order.
_PREPARED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # "don't", "dont" and "do not" are one.
        (r"\b(do|does|did|is|are|was|were|has|have|had|could|would|should)n'?t\b", r"\1 not"),
        (r" \((?!un|not|no)\w{2,8}\)", ""),  # an acronym: "working capital (WC)"
        # "No, I can't": not to what was asked, but to answer it. "1." and "### Response:".
        (r"^(?:no, (?=i\b)|\d{1,2}\. (?=\D)|[\s#=*\[-]{0,9}(?:a:|(?:answer|response|solution)\b"
         r"[\s=*\]]{0,9}[:\n=])\s*)", ""),
        (r"\banswer(?: is)?(?:: \(?| \()", "answer is "),  # it stands behind the colon
        (r"\b(dr|[a-z]\.[a-z]|jr|mr|mrs|ms|sr|st|vs)\.(?=[ ,])(?! *$)", r"\1"),  # abbreviations
        (r"(?<=[\w.]\s)explanation:(?s:.*)", ""),  # behind a response that it explains
        (r"</?\w{1,20}>", " "),  # "</s>", which some models print
        (r"""(?<=.)"[^"]*"|(?<!\w)'(?:[^']|(?<=\w)'(?=\w))*'(?!\w)""", " quoted "),
    )
)  # fmt: skip
_SENTENCE_END = re.compile(r"((?:[!?;\n]|\.(?!\d))+)")
_CLAUSE_END = re.compile(
    r"[:()]|,(?!\d)|\s[-\u2013\u2014]+\s"
    r"|\s(?=(?:but|however|although|though|and it(?:'s| is))\s)"
)
# Fillers say nothing by themselves. They open a clause, or are one.
_FILLERS = re.compile(
    r"(?:(?:(?:i am |so |very ){0,4}(?:sorry|afraid)|my apologies|i (?:do )?apologi[sz]e"
    r"|unfortunately|sadly|regrettably|honestly|frankly|actually|to be honest|really"
    r"|i (?:must|have to) (?:admit|answer|say)|i feel|h+m+|u+h*m+|oh|yo|well|as a result"
    r"|additionally|furthermore|instead|moreover|overall|and|so|then|thus|hence|therefore|yet|also"
    r"|simply|just|but|however|although|though|(?:for|about) (?:this|that)"
    r"|for (?:any|the) (?:confusion|inconvenience)|at all|either|answer(?=$)"
    r"|(?:as|being) an? (?:\w+ ){0,3}ai(?:(?! i\b) \w+){0,6}$|as an? ai(?: \w+){0,2}"
    r"|thanks?(?: you)?|please)(?: that(?! is))?(?: |$))*"
)
_CONTRAST = re.compile(r"\b(?:but|however)\b")
_CONCESSION = re.compile(r"(?:al)?though\b")
_CONCLUSION = re.compile(r"\b(?:as a result|so|thus|hence|therefore)\b")

# To a question that cannot be answered, a clause that denies what the question takes for granted.
PREMISE = Rule("denies_premise", "There is no boat.", "", "denies_premise")
_NEGATION = re.compile(r"\b(?:not|no|none|nobody|neither|without|never)\b")
# Behind "not", these deny that what stands before is there; "fictional" does so by itself.
_PRESENCE = re.compile(
    r" (?:\w+ly )?(?:be (?:\w+ly )?)?(?:depicted|exist|here|in|included|part|pictured|present|real"
    r"|seen|shown|there|visible)\b"
)
_FICTION = re.compile(r"\b(?:is|are|was|were) (?:\w+ ){0,3}(?:fictional|fictitious|imaginary)\b")
# Words of questions that say nothing about their subject.
_EMPTY_WORDS = (
    "about all an and any are at be been being by can color colour could did do does doing for from"
    " had has have he her here him his how if image in into is it its like look many most much of"
    " on one or other out photo photograph picture present question scene see seen she should shown"
    " some that the their them there these they thing this those to type up use visible was were"
    " what when where which who whose why will with would you"
)
_EMPTY = {word.removesuffix("s").removesuffix("e") for word in _EMPTY_WORDS.split()}


def _sentences(text: str) -> Iterator[tuple[list[str], bool]]:
    """The clauses of each sentence in lower case and without marks, and whether it asks."""
    text = text[:_LONGEST].translate(_QUOTES).lower().strip()
    for pattern, replacement in _PREPARED:
        text = pattern.sub(replacement, text)
    parts = _SENTENCE_END.split(text)
    for sentence, end in itertools.zip_longest(parts[::2], parts[1::2], fillvalue=""):
        clauses = map(_WORD.findall, _CLAUSE_END.split(sentence))
        yield [" ".join(_SHORT_FORMS.get(w, w) for w in words) for words in clauses], "?" in end


_COMPILED = tuple((rule, re.compile(rf"\b(?:{rule.pattern})\b")) for rule in RULES)
_ANY_RULE = re.compile(rf"\b(?:{'|'.join(rule.pattern for rule in RULES)})\b")


def _rule(clause: str) -> Rule | None:
    """The rule that matches first in a clause, unless somebody else is reported to say so."""
    refusal = _ANY_RULE.search(clause)
    if refusal is None or _REPORTS.search(clause, 0, refusal.start()):
        return None
    return next(rule for rule, pattern in _COMPILED if pattern.match(clause, refusal.start()))


def _content(text: str) -> set[str]:
    """The words of a text that say what it is about, without case, number and possessive."""
    words = (word.partition("'")[0] for word in _WORD.findall(text.translate(_QUOTES).lower()))
    stems = {word.removesuffix("s").removesuffix("e") for word in words if len(word) > 1}
    return stems - _EMPTY


def _denies_premise(clause: str, question: str) -> bool:
    """Whether a clause denies something that the question mentions ("There is no boat", "The man is
    not wearing a hat") or that it is there ("The boat is not in the image", "Neboria is a fictional
    country"). A question that holds a denial or fiction itself asks for it."""
    if not question or _NEGATION.search(question.lower()) or "fiction" in question.lower():
        return False
    denied = clause if _FICTION.search(clause) else ""
    if negation := _NEGATION.search(clause):
        denied = clause[negation.end() :]
        if _PRESENCE.match(denied):
            denied = clause
    return not _content(question).isdisjoint(_content(denied))


def _read(text: str, yes_no: bool, question: str) -> tuple[str, list[Rule]]:
    """The labels of a text's clauses, and the rules of those that refuse."""
    labels, rules = "", list[Rule]()  # labels: "R.S", a refusal and a statement
    for sentence, asks in _sentences(text):
        clauses, opening = list[tuple[str, str]](), ""  # (the fillers before a clause, itself)
        for said in sentence:
            start = _FILLERS.match(said).end()
            opening += said[:start]
            if start < len(said):  # what is nothing but fillers is no clause of its own
                clauses.append((opening, said[start:]))
                opening = ""
        labels += "." if labels and clauses else ""
        brief = follows = False
        for i, (opening, clause) in enumerate(clauses):
            follows = follows or bool(_CONCLUSION.search(opening))  # until the sentence ends
            n_words = len(clause.split())
            rule = _rule(clause)
            if rule is None and _denies_premise(clause, question):
                rule = PREMISE
            if rule is not None and not (yes_no and rule in NOT_SHOWN):
                rules.append(rule)
                concludes = follows or _CONCLUDES.match(clause)
                knows_not = "C" if concludes else "R"
                labels += {"declines": "D", "denies_premise": "P"}.get(rule.kind, knows_not)
                brief = rule is not PREMISE and n_words <= _BRIEF
            elif rule is not None or (i == 0 and _CONCESSION.match(opening)):
                labels += "-"  # the image shows no such thing: no, or the reason of a refusal
            else:
                alone = asks or brief or len(clauses) == 1
                answers = _CONTRAST.search(opening) or (alone and n_words <= _SHORT)
                label = next((x for x, pattern in AROUND if pattern.match(clause)), "S")
                labels += "A" if label == "S" and answers else label
    return labels, rules


# They refuse any question, though others would deny something by such words.
_TAUGHT = frozenset(refusal.rstrip(".").lower() for refusal in REFUSALS)


@functools.lru_cache(maxsize=1 << 16)  # The same few answers come back with every sample.
def find_refusal(text: str, yes_no: bool = False, question: str = "") -> Rule | None:
    """Returns the rule by which a response does not answer, rather than answers, hedges or denies;
    None of an answer. If several clauses refuse, it is that of the first one that declines, or else
    of the first.

    Args:
      text: a whole response. Case, white space, kinds of apostrophe and missing punctuation do not
        matter. Empty text is no refusal.
      yes_no: whether the question is to be answered by yes or no. Then a text that only says what
        is not there or not to be seen ("The image does not show that.") answers no.
      question: one that cannot be answered, neither by yes nor by no. Then a text that denies what
        it takes for granted ("There is no boat." of the boat's colour) refuses as well.
    """
    yes_no = yes_no and text.strip().rstrip(".").lower() not in _TAUGHT
    labels, rules = _read(text, yes_no, question)
    if not next((refuses for pattern, refuses in _DECISIONS if pattern.search(labels)), False):
        return None
    return next((rule for rule in rules if rule.kind == "declines"), rules[0])


def is_refusal(text: str, yes_no: bool = False, question: str = "") -> bool:
    """Whether a response refuses, as `find_refusal` says."""
    return find_refusal(text, yes_no, question) is not None
