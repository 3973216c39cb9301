"""In which language is a question: by its script, and for Latin script by its function words. A rule of thumb without a model.

It tells the languages of `FUNCTION_WORDS` from one another, and scripts from one another; of other languages in Latin script it says
nothing. A short question without a function word has no language, and passes any test.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import islice

# Frequent in questions, and each in one of these languages alone, as far as that goes.
FUNCTION_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(listed.split())
    for language, listed in {
        "en": "what which who whose where when why how is are was were does did the this that there of and with have has can it its many",
        "de": "was welche welcher welches wer wessen wo wann warum wie ist sind der die das den dem ein eine hat und mit auf im viele",
        "fr": "que quel quelle quels quelles qui où quand pourquoi comment est sont le la les une des du dans sur il elle avec combien",
        "es": "qué cuál cuáles quién dónde cuándo cómo es está están el los las una del con hay tiene cuántos cuántas hombre",
        "it": "cosa quale quali chi dove quando perché come è sono il lo gli della del con ha quanti quante nella uomo",
        "pt": "qual quais quem onde quando porque como é são está estão o os uma da do com há tem quantos quantas homem",
        "nl": "wat welke wie waar wanneer waarom hoe zijn het een van op met heeft hoeveel staat deze man",
    }.items()
}
_LETTERS = re.compile(r"[^\W\d_]+")
_SCRIPTS = (
    "LATIN",
    "CYRILLIC",
    "GREEK",
    "ARABIC",
    "HEBREW",
    "DEVANAGARI",
    "BENGALI",
    "THAI",
    "HANGUL",
    "HIRAGANA",
    "KATAKANA",
    "CJK",
)
_JAPANESE = {"HIRAGANA": "JAPANESE", "KATAKANA": "JAPANESE"}


def script(text: str) -> str | None:
    """The script of most of its letters ("LATIN", "CYRILLIC", "CJK", ...); None without letters."""
    letters = "".join(_LETTERS.findall(text))
    if letters.isascii():
        return "LATIN" if letters else None
    found: Counter[str] = Counter()
    for letter in letters:
        name = unicodedata.name(letter, "")
        kind = next((s for s in _SCRIPTS if name.startswith(s)), "OTHER")
        found[_JAPANESE.get(kind, kind)] += 1
    if found["JAPANESE"]:  # kana stand among Chinese characters, never the other way round
        return "JAPANESE"
    return found.most_common(1)[0][0]


def language(text: str) -> str | None:
    """A key of `FUNCTION_WORDS` where one has more of its words in the text than any other; else the script unless it is Latin, or None."""
    kind = script(text)
    if kind != "LATIN":
        return kind
    said = [word.lower() for word in _LETTERS.findall(text)]
    scores = sorted(
        ((sum(word in listed for word in said), name) for name, listed in FUNCTION_WORDS.items()),
        reverse=True,
    )
    (most, name), (second, _) = scores[:2]
    return name if most > second else None


def usual_language(texts: Iterable[str]) -> str | None:
    """The language of most of the first thousand texts; None where none of them has one."""
    found = Counter(language(text) for text in islice(texts, 1000))
    del found[None]
    return found.most_common(1)[0][0] if found else None
