import pytest
from extrinsic_cases import candidate, example, make_filter
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.extrinsic.language import language, usual_language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What color is the star?", "en"),
        ("Welche Farbe hat der Stern?", "de"),
        ("Quelle est la couleur de la voiture?", "fr"),
        ("¿De qué color es el coche?", "es"),
        ("Dove sono gli uomini della foto?", "it"),
        ("Onde está o carro?", "pt"),
        ("Welke kleur heeft de auto?", "nl"),
        ("Какого цвета машина?", "ru"),
        ("χρώμα είναι;", "el"),
        ("車は何色ですか?", "ja"),
        ("汽车是什么颜色?", "zh"),
        ("자동차는 무슨 색입니까?", "ko"),
        ("Color?", None),
        ("42?", None),
        ("é", None),
        ("", None),
    ],
)
def test_language(text, expected):
    assert language(text) == expected


def test_languages_of_a_set_and_of_its_questions():
    nouns = ("Hund", "Stern", "Ball")
    german = [example(i, f"Welche Farbe hat der {noun}?") for i, noun in enumerate(nouns)]
    german.append(example(9, "What is the dog?"))
    assert usual_language(e.question for e in german) == "de"
    assert usual_language(["?", "1"]) is None
    auto, english = make_filter("language", german), make_filter("language", german, language="en")
    asked = candidate(german[0], "How old is the dog?")
    assert auto.reject(asked) == "en, not de"
    assert english.reject(asked) is None
    for text in ("Сколько лет собаке, скажи?", "狗几岁了呢,请问一下?"):
        assert english.reject(candidate(german[0], text))
    # No language is told of texts like these, so they pass.
    for text in ("Hund Katze Maus?", "Color?"):
        assert auto.reject(candidate(german[0], text)) is None


@given(st.text())
def test_language_takes_any_text(text):
    language(text)
