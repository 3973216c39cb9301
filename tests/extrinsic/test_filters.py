from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inbol_jax.data.images import load_image
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.facts import ImageFacts
from inbol_jax.extrinsic.filters import (
    FILTERS,
    Candidate,
    IllFormed,
    Leaks,
    Sources,
    get_filters,
    settled,
)
from inbol_jax.extrinsic.funnel import propose
from inbol_jax.extrinsic.generators import Context, Generator, Proposal, Reply
from inbol_jax.extrinsic.language import FUNCTION_WORDS, language, script, usual_language
from inbol_jax.extrinsic.minhash import NearDuplicates, shingles, signature
from inbol_jax.records import VQAExample


def example(i, question="What color is the dog?", answers=("brown",), image=None, **extra):
    return VQAExample(f"q{i}", image or f"{i}.png", question, tuple(answers), True, extra)


def proposal(question, generator="unseeable", **fields):
    return Proposal(question, generator, **fields)


def made(name, examples, **options):
    (found,) = get_filters([name], Sources(examples, ImageFacts(examples), Path(), **options))
    return found


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("Who is she?", None),
        ("What is 5 > 3, or a < b?", None),
        ("Why?", "fewer than three words"),
        ("Name the cat now", "no question mark at its end"),
        ("What is " + "very " * 80 + "big?", "longer than 300 characters"),
        ("How old is the {noun}?", "holds '{'"),
        ("What is <image> behind it?", "holds '<image>'"),
        ("What is <|im_end|> behind it?", "holds '<|im_end|>'"),
        ("Question: what is behind it?", "holds 'Question:'"),
        ("What is\nbehind the dog?", "holds '\\n'"),
        ("What is \ufffd behind it?", "holds '\ufffd'"),
    ],
)
def test_ill_formed(question, reason):
    assert IllFormed().reject(Candidate(example(0), proposal(question))) == reason


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
        ("Какого цвета машина?", "CYRILLIC"),
        ("車は何色ですか?", "JAPANESE"),
        ("汽车是什么颜色?", "CJK"),
        ("자동차는 무슨 색입니까?", "HANGUL"),
        ("Color?", None),
        ("42?", None),
        ("", None),
    ],
)
def test_language(text, expected):
    assert language(text) == expected


def test_languages_of_a_set_and_of_its_questions():
    german = [
        example(i, f"Welche Farbe hat der {t}?") for i, t in enumerate(("Hund", "Stern", "Ball"))
    ] + [example(9, "What is the dog?")]
    assert usual_language(e.question for e in german) == "de"
    assert usual_language(["?", "1"]) is None
    auto, english = made("language", german), made("language", german, language="en")
    candidate = Candidate(german[0], proposal("How old is the dog?"))
    assert auto.reject(candidate) == "en, not de"
    assert english.reject(candidate) is None
    for text in ("Сколько лет собаке, скажи?", "狗几岁了呢,请问一下?"):
        assert english.reject(Candidate(german[0], proposal(text)))
    assert auto.reject(Candidate(german[0], proposal("Hund Katze Maus?"))) is None  # says nothing


def test_function_words_are_lower_case_and_scripts_are_told():
    assert all(word == word.lower() for words in FUNCTION_WORDS.values() for word in words)
    assert script("Ελληνικά") == "GREEK"
    assert script("é") == "LATIN"
    assert script("ⵣ ⴰ") == "OTHER"


@given(st.text())
def test_language_takes_any_text(text):
    language(text)


def test_present_and_answer_present():
    pool = [
        example(0, "What color is the dog?", ["brown"]),
        example(1, "Who holds the kite?", ["a woman"]),
    ]
    present, answer = made("present", pool), made("answer_present", pool)
    borrowed = Candidate(
        pool[0],
        proposal(
            "Who holds the kite?", "mismatched", subject="kite", absent=True, answer="a woman"
        ),
    )
    assert present.reject(borrowed) is None
    assert answer.reject(borrowed) is None
    back = Candidate(
        pool[0],
        proposal(
            "What color is the cat?", "mismatched", subject="dog", absent=True, answer="brown"
        ),
    )
    assert present.reject(back) == "'dog' may be in the image"
    assert answer.reject(back) == "'brown' is among the image's annotations"
    for spared in (
        {"answer": "yes"},
        {"answer": "7"},
        {"answer": ""},
        {"answer": "brown", "image": "evidence_removed/1.png"},
    ):
        assert (
            answer.reject(Candidate(pool[0], proposal("What color is the cat?", **spared))) is None
        )
    assert present.reject(Candidate(pool[0], proposal("Who owns the dog?", subject="dog"))) is None


def test_duplicates_are_of_one_image_and_of_what_was_kept():
    duplicate = made("duplicate", [example(0)])
    again = Candidate(example(0), proposal(" WHAT color is the dog? "))
    assert duplicate.reject(again) == "asked already"
    elsewhere = Candidate(example(1), proposal("What color is the dog?"))
    assert duplicate.reject(elsewhere) is None
    duplicate.remember(elsewhere)
    assert duplicate.reject(elsewhere) == "asked already"
    changed = Candidate(
        example(0), proposal("What color is the dog?", image="evidence_removed/0.png")
    )
    assert duplicate.reject(changed) is None


def test_near_duplicates():
    near = made(
        "near_duplicate",
        [example(0, "What is the color of the small dog?"), example(1, "How old is the cat?")],
    )
    assert near.reject(Candidate(example(0), proposal("What is the colour of the small dog?")))
    assert (
        near.reject(Candidate(example(1), proposal("What is the colour of the small dog?"))) is None
    )
    assert near.reject(Candidate(example(0), proposal("How heavy is the dog?"))) is None
    near.remember(Candidate(example(0), proposal("How heavy is the dog?")))
    assert near.reject(Candidate(example(0), proposal("how HEAVY is the dog ?")))
    strict = made(
        "near_duplicate", [example(0, "What is the color of the small dog?")], near_duplicate=1.0
    )
    assert (
        strict.reject(Candidate(example(0), proposal("What is the colour of the small dog?")))
        is None
    )


def test_minhash_estimates_the_jaccard_similarity():
    rng = np.random.default_rng(0)
    words = [
        "what",
        "which",
        "color",
        "dog",
        "cat",
        "small",
        "house",
        "behind",
        "left",
        "right",
        "car",
        "street",
        "holding",
        "woman",
    ]
    errors = []
    for _ in range(300):
        a = list(rng.choice(words, 9))
        b = a.copy()
        for i in rng.choice(9, rng.integers(0, 5), replace=False):
            b[i] = rng.choice(words)
        a, b = " ".join(a), " ".join(b)
        index = NearDuplicates()
        index.add("g", "something else entirely")
        index.add("g", a)
        truth = len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))
        errors.append(index.similarity("g", b) - truth)
        assert index.similarity("h", b) == 0.0
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05
    assert (signature("Red, dog?") == signature("red dog")).all()


def test_minhash_grows_and_stays_small():
    index = NearDuplicates()
    for i in range(3000):
        index.add(f"image {i // 3}", f"What is number {i} of the row?")
    for i in range(0, 3000, 97):
        assert index.similarity(f"image {i // 3}", f"what is number {i} of the row") == 1.0
    assert index._signatures.nbytes <= 1.5 * 3000 * 128


def test_leaks_are_told_by_text_and_picture(tmp_path):
    for name, color in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (9, 9), color).save(tmp_path / f"{name}.png")
    (tmp_path / "eval").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "eval/another.bmp")
    (tmp_path / "eval/none.png").write_bytes(b"no picture")
    leaks = Leaks()
    steps = []
    split = [
        example(0, image="another.bmp"),
        example(1, "What color is the cow?", image="none.png"),
    ]
    leaks.add(split, tmp_path / "eval", lambda: steps.append(1))
    assert leaks.unreadable == 1
    assert len(steps) == 2
    (leaked,) = get_filters(["leaked"], Sources([], ImageFacts([]), tmp_path, leaks=leaks))
    assert (
        leaked.reject(Candidate(example(0, image="a.png"), proposal("what color is  the dog")))
        == "in an evaluation split"
    )
    assert (
        leaked.reject(Candidate(example(0, image="b.png"), proposal("What color is the dog?")))
        is None
    )
    assert (
        leaked.reject(Candidate(example(0, image="a.png"), proposal("What color is the cat?")))
        is None
    )
    assert leaked.reject(
        Candidate(example(0, image="b.png"), proposal("What color is the dog?", image="a.png"))
    )
    assert (
        leaked.reject(
            Candidate(example(0, image="missing.png"), proposal("What color is the dog?"))
        )
        is None
    )


@pytest.mark.parametrize(
    ("replies", "answer", "expected"),
    [
        (["red", "Red.", "red", "red", "blue"], "", "red"),
        (["red", "red", "red", "blue", "blue"], "", None),
        (["red", "red", "blue", "blue"], "blue", "blue"),
        (["red", "green", "blue", "blue"], "blue", "blue"),
        (["red", "green", "grey", "blue"], "blue", None),
        (["I don't know."] * 5, "", None),
        (["I don't know."] * 5, "I don't know", None),
        (["I don't know.", "red", "red", "red", "red"], "", "red"),
        ([], "", None),
        ([], "blue", None),
    ],
)
def test_what_replies_agree_on(replies, answer, expected):
    assert settled(replies, answer, 0.8) == expected


def test_model_filters_ask_with_and_without_the_image(tmp_path):
    """A "model" that reads the picture's color, and answers questions about the moon whatever it sees."""
    asked = []

    def model(items, *, n, temperature, max_new_tokens, label):
        asked.extend((item.name, n) for item in items)
        replies = []
        for item in items:
            pixel = np.asarray(
                load_image(item.image) if isinstance(item.image, Path) else item.image()
            )[0, 0]
            if item.name == "2.png":
                replies.append([])
            elif "moon" in item.question:
                replies.append([Reply("cheese")] * n)
            elif tuple(pixel) == (255, 0, 0):
                replies.append([Reply("red")] * n)
            else:
                replies.append([Reply(f"guess {i}") for i in range(n)])
        return replies

    for i, color in enumerate(("red", "blue", "blue", "blue")):
        Image.new("RGB", (4, 4), color).save(tmp_path / f"{i}.png")
    pool = [example(i) for i in range(4)]
    questions = {
        "q0": "What is its color?",
        "q1": "What is its color?",
        "q2": "What is its color?",
        "q3": "What is the moon made of?",
    }
    own = Generator("own", lambda e, context, rng: iter([Proposal(questions[e.id], "own")]))
    sources = Sources(pool, ImageFacts(pool), tmp_path, model=model)
    counts, dropped = Counter(), []
    filters = get_filters(["answered", "text_only"], sources)
    rows = list(
        propose(
            Context(pool, sources.facts, tmp_path, model),
            [own],
            filters,
            10,
            0,
            counts,
            dropped.append,
        )
    )
    assert [(r["id"], r["filters"]) for r in rows] == [("q1-own", ["text_only", "answered"])]
    assert counts == {("own", "kept"): 1, ("own", "answered"): 2, ("own", "text_only"): 1}
    assert {d.candidate.example.id: (d.filter, d.reason, d.passed) for d in dropped} == {
        "q0": ("answered", "answered 'red'", ["text_only"]),
        "q2": ("answered", "could not be asked", ["text_only"]),
        "q3": ("text_only", "answered 'cheese' without the image", []),
    }
    assert {n for _, n in asked} == {5}
    assert Counter(name for name, _ in asked) == {"blank": 4, "0.png": 1, "1.png": 1, "2.png": 1}


def test_filters_without_what_they_need():
    sources = Sources([], ImageFacts([]), Path())
    for name, option in (
        ("leaked", "--against"),
        ("text_only", "--model"),
        ("answered", "--model"),
    ):
        with pytest.raises(InbolError, match=f"--filters {name}: needs {option}"):
            get_filters([name], sources)
    with pytest.raises(
        InbolError,
        match="--filters taste: there is no such filter; choose among ill_formed, language",
    ):
        get_filters(["taste"], sources)
    assert [f.name for f in get_filters(["duplicate", "ill_formed"], sources)] == [
        "ill_formed",
        "duplicate",
    ]  # in their own order
    assert all(
        name == f.name
        for name in ("ill_formed", "language", "present")
        for f in get_filters([name], sources)
    )
    assert list(FILTERS)[-2:] == ["text_only", "answered"]
