import tracemalloc

import numpy as np
import pytest
from extrinsic_cases import candidate, example, make_filter
from PIL import Image

from inbol_jax.extrinsic.asked import AskedQuestions, EvaluationQuestions

WORDS = ["what", "which", "color", "dog", "cat", "small", "house", "behind", "left", "right", "car",
         "street", "holding", "woman"]  # fmt: skip


def jaccard(a, b):
    """By its definition, over runs of three characters of the words with a space around each."""
    first, second = ({f" {x} "[i : i + 3] for i in range(len(x))} for x in (a, b))
    return len(first & second) / len(first | second)


def test_similarity_is_the_largest_jaccard_similarity_of_the_image():
    rng = np.random.default_rng(0)
    for _ in range(300):
        first = list(rng.choice(WORDS, 9))
        second = first.copy()
        for i in rng.choice(9, rng.integers(0, 5), replace=False):
            second[i] = rng.choice(WORDS)
        asked = AskedQuestions()
        asked.add("g", "something else entirely")
        asked.add("g", " ".join(first))
        truth = jaccard(" ".join(first), " ".join(second))
        assert asked.similarity("g", " ".join(second)) == pytest.approx(truth)
        assert asked.similarity("h", " ".join(second)) == 0.0


@pytest.mark.parametrize("text", ["", "?", "a", "Red,  dog?", "no\nline"])
def test_case_punctuation_and_spaces_do_not_count(text):
    asked = AskedQuestions()
    asked.add("g", text)
    assert asked.similarity("g", f" {text.upper()}! ") == 1.0


def test_many_questions_take_little_memory():
    asked = AskedQuestions()
    tracemalloc.start()
    for i in range(3000):
        asked.add(f"image {i // 3}", f"What is number {i} of the row?")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size <= 1.5 * 3000 * 128
    for i in range(0, 3000, 97):
        assert asked.similarity(f"image {i // 3}", f"what is number {i} of the row") == 1.0


def test_leaks_are_told_by_text_and_picture(tmp_path):
    for name, color in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (9, 9), color).save(tmp_path / f"{name}.png")
    (tmp_path / "eval").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "eval/another.bmp")
    (tmp_path / "eval/none.png").write_bytes(b"no picture")
    evaluation, steps = EvaluationQuestions(), []
    cow = example(1, "What color is the cow?", image="none.png")
    split = [example(0, image="another.bmp"), cow]
    evaluation.add(split, tmp_path / "eval", lambda: steps.append(1))
    assert evaluation.unreadable == 1
    assert len(steps) == 2
    leaked = make_filter("leaked", [], tmp_path, evaluation=evaluation)
    dog = "What color is the dog?"
    for image, question, changed, reason in (
        ("a.png", "what color is  the dog", None, "in an evaluation split"),
        ("b.png", dog, None, None),
        ("a.png", "What color is the cat?", None, None),
        ("b.png", dog, "a.png", "in an evaluation split"),
        ("missing.png", dog, None, None),
    ):
        asked = candidate(example(0, image=image), question, image=changed)
        assert leaked.reject(asked) == reason
