"""What a question in English is about, by its parts of speech.

The tagger is the one of TextBlob (the lexicon and rules of Pattern, De Smedt & Daelemans 2012, that
the package ships), with the tags of the Penn Treebank.
"""

import functools
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from inbol_jax.extrinsic.contents import NOT_THINGS, words_of

# Nouns that questions speak of and that no picture holds as a thing.
_ABSTRACT = """
    ability age allele allusion amount angle answer answers author breed burns capital
    caption case ceremony choice code concert content contents context cost data date dates
    denomination depth description difference dimensions direction directions effect effects
    estimate event evidence example experiment expiration expire expression fact factoid
    facts fallacy figure flavor flavour following game gender gene guess heat height help
    idea idiom information ingredients instructions irony issue kinds kingdom length letter
    letters level line lines meaning metaphor mode money month motion need order paragraph
    part parts pass passage percentage personification phrase piece pieces point points
    population price problem problems process property purpose quality quantity question
    questions rate read reason reference relationship requirements result results role rule
    score scores section seminar sense sentence sentences series set shown simile situation
    source speed sport statement status step story strategy substance supply temperature
    tense term text thing things title topic total tradition trait use uses value values
    variable variables way width work years
"""
_WH = "what which who whom whose where when why how what's who's where's how's"
# Without "can", "may", "might" and "will", which are nouns as well.
_AUXILIARIES = """
    is are was were am do does did has have had could would shall should must isn't aren't
    wasn't weren't don't doesn't didn't hasn't haven't can't couldn't won't
"""
NO_SUBJECTS = NOT_THINGS.union(_ABSTRACT.split())
AUXILIARIES = frozenset(_AUXILIARIES.split())
# Words that hardly any other language has; "was" and "is" others have too.
_ENGLISH = {*_WH.split(), "the", "this", "there"}
_DO = ("do", "does", "did")
_SHOW = ("contain", "depict", "display", "feature", "look", "show", "use")
_NO_MODIFIERS = ("same", "following", "best", "correct", "overall", "more", "most")
_NAME = re.compile(r"\w[\w'-]+")


class Word(NamedTuple):
    """A word in lower case with its tag."""

    text: str
    tag: str

    @property
    def is_noun(self) -> bool:
        """A hyphen makes a noun ("t-shirt") of what the tagger takes for an adjective."""
        return self.tag.startswith("NN") or self.text in NOT_THINGS or "-" in self.text[1:-1]

    @property
    def is_verb(self) -> bool:
        return self.tag.startswith("VB") or self.tag == "MD"


@functools.cache
def _tagger() -> Any:
    from textblob.taggers import PatternTagger

    tagger = PatternTagger()
    with warnings.catch_warnings():
        # The first text makes it read its lexicon, and it leaves the file to be closed by Python.
        warnings.simplefilter("ignore", ResourceWarning)
        tagger.tag("What is this?")
    return tagger


@functools.lru_cache(maxsize=1 << 12)
def tagged(question: str) -> tuple[Word, ...]:
    """The words and marks of a question. A possessive ("man's") is one word, and a noun."""
    words: list[Word] = []
    apostrophe = False
    for text, tag in _tagger().tag(question.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        if words and (text == "'s" or (apostrophe and text == "s")):
            words[-1] = Word(f"{words[-1].text}'s", "POS")
        elif text != "'":
            words.append(Word(text.lower(), tag))
        apostrophe = text == "'"
    return tuple(words)


def phrases(question: str) -> Iterator[list[str]]:
    """The words of the noun phrases that "the" opens. The last one is a noun: of "the red cup left
    of it" the phrase is "red cup"."""
    words = tagged(question)
    for start, word in enumerate(words):
        if word.text != "the":
            continue
        end = last = start + 1
        while end < len(words) and _may_stand_in_phrase(words[end], last > start + 1):
            end += 1
            if words[end - 1].is_noun:
                last = end
        # "What brand is the watch?": the tagger takes some nouns for verbs.
        if last == start + 1 < len(words) and words[last].tag in ("VB", "VBP", "VBZ", "MD"):
            last += words[last].text not in AUXILIARIES
        # "What does the jar contain?": the verb of the question is no part of the phrase.
        if start > 0 and words[start - 1].text in _DO and last > start + 2:
            no_verb_follows = not any(word.is_verb for word in words[last:])
            last -= no_verb_follows or words[last - 1].text in _SHOW
        # "Whose is the cat's?"
        if words[last - 1].tag == "POS":
            continue
        if last > start + 1:
            yield [word.text for word in words[start + 1 : last]]


def _may_stand_in_phrase(word: Word, has_noun: bool) -> bool:
    """Whether a word goes on with a phrase; behind a noun only further nouns do."""
    if word.is_noun or word.tag == "POS":
        return True
    return not has_noun and word.tag in ("JJ", "VBD", "VBN", "VBG", "CD")


def subject(question: str) -> str | None:
    """The noun phrase that a question presumes to be in the image, in lower case; None if it
    presumes none. Of "the color of the car" it is the car."""
    found = list(phrases(question))
    for phrase in found:
        names_thing = phrase[-1] not in NO_SUBJECTS and all(map(_NAME.fullmatch, phrase))
        if names_thing and not set(_NO_MODIFIERS) & set(phrase):
            return " ".join(phrase)
    return next((" ".join(phrase) for phrase in found if NOT_THINGS.issuperset(phrase)), None)


def in_english(questions: Iterable[str]) -> bool:
    """Whether at least one in ten of the first thousand questions has a word that tells English. Of
    English questions nearly all have one, of others hardly any."""
    first = list(itertools.islice(questions, 1000))
    return 10 * sum(not _ENGLISH.isdisjoint(words_of(question)) for question in first) >= len(first)
