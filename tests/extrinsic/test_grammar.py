import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbol_jax.extrinsic.grammar import in_english, subject


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What color is the star?", "star"),
        ("What pattern does the circle have?", "circle"),
        ("What does the Ring smell like?", "ring"),
        ("What shape is the red object?", "red object"),
        ("What is at the top left?", "top left"),
        ("What is the symbol?", "symbol"),
        ("Where is the man's hat?", "man's hat"),
        ("What is behind the t-shirt, if anything?", "t-shirt"),
        ("What is the dog in the car doing?", "dog"),
        ("What color is the ball", "ball"),
        ("What is the color of the car?", "car"),
        ("What is pinned to the right of the tie?", "tie"),
        ("What is in the background?", "background"),
        ("How many objects are there?", None),
        ("Is there a star?", None),
        ("What does the jar contain?", "jar"),
        ("Does the image show a dragon?", "image"),
        ("What color is the t-shirt that is long sleeved?", "t-shirt"),
        ("What brand is the watch?", "watch"),
        ("Who is the woman releasing the birds?", "woman"),
        ("What is the source of the allusion?", None),
        ("What are the little girl's shoes next to?", "little girl's shoes"),
        ("What are these?", None),
        ("What is theirs?", None),
        ("", None),
    ],
)
def test_subject(question, expected):
    assert subject(question) == expected


@given(st.text())
@settings(max_examples=40, deadline=None)
def test_a_subject_is_a_part_of_its_text(text):
    found = subject(text)
    assert found is None or found in text.lower()


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        (["What is this?"], True),
        (["Is it raining?"] * 8 + ["Is there a dog?"], True),
        (["Welche Farbe hat der Hund?", "Was ist das?", "Ist es rot?"], False),
        (["¿De qué color es el coche?"], False),
        (["De quelle couleur est la voiture?", "Qui est là?"], False),
        (["Di che colore è la macchina?", "Wat is dit?"], False),
        (["車は何色ですか?", "Какого цвета машина?"], False),
    ],
)
def test_whether_a_set_is_in_english(questions, expected):
    assert in_english(questions) is expected
