import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from inbol_jax.extrinsic.shortcut import (
    Interval,
    auc,
    auc_difference,
    cross_validated,
    ngrams,
    telling_ngrams,
)

RNG = np.random.default_rng(0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2).filter(
        lambda rows: len({y for _, y in rows}) == 2
    )
)
def test_auc_is_that_of_scikit_learn(rows):
    scores, labels = np.array([s for s, _ in rows], float), np.array([y for _, y in rows])
    found = auc(scores, labels)
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.n == (labels.sum(), (~labels).sum())
    assert auc(-scores, labels).value == pytest.approx(1 - found.value)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # Of two normal distributions one standard deviation apart: Phi(1 / sqrt 2).
    truth, held = 0.7602, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        labels = np.arange(160) < 60
        found = auc(rng.normal(size=160) + labels, labels)
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 300 <= 0.98


def test_paired_differences():
    labels = np.arange(400) < 200
    signal = labels + RNG.normal(size=400)
    assert auc_difference(signal, signal, labels) == Interval(0, 0, 0)
    noise = RNG.normal(size=400)
    gain = auc_difference(signal, noise, labels)
    assert 0 < gain.low < gain.value < gain.high
    assert gain.value == pytest.approx(auc(signal, labels).value - auc(noise, labels).value)
    opposite = auc_difference(-signal, signal, labels)
    assert opposite.value == pytest.approx(1 - 2 * auc(signal, labels).value)


def test_words_and_pairs():
    assert ngrams("What is it?") == ["what", "is", "it", "?", "^ what", "what is", "is it", "it ?"]


def make(n, tell):
    """Questions of two classes; a share `tell` of each class holds a word that says which."""
    nouns = ["dog", "cat", "house", "car", "tree", "boy", "girl", "ball"]
    labels = RNG.random(n) < 0.3
    texts = []
    for label in labels:
        word = "is"
        if RNG.random() < tell:
            word = "costs" if label else "colors"
        texts.append(f"What {word} the {' '.join(RNG.choice(nouns, 3))}?")
    return texts, labels, [f"{i // 2}.png" for i in range(n)]


def test_a_word_that_tells_is_found_and_noise_is_not():
    texts, labels, groups = make(800, 1.0)
    assert auc(cross_validated(texts, labels, groups, 0), labels).value > 0.99
    true, false = telling_ngrams(texts, labels, 3)
    assert "costs" in " ".join(true)
    assert "colors" in " ".join(false)
    texts, labels, groups = make(800, 0.5)
    # Half can be told: about 0.75 + a quarter of 0.5.
    assert 0.65 < auc(cross_validated(texts, labels, groups, 0), labels).value < 0.9
    texts, labels, groups = make(800, 0.0)
    found = auc(cross_validated(texts, labels, groups, 0), labels)
    assert found.low < 0.5 < found.high + 0.03


def test_no_text_is_scored_by_what_saw_its_image():
    """Each image's words are its own and tell its class: who saw them would know."""
    labels = np.arange(400) // 4 % 2 == 0
    texts = [f"w{i // 4}a w{i // 4}b w{i // 4}c" for i in range(400)]
    found = auc(cross_validated(texts, labels, [f"{i // 4}" for i in range(400)], 0), labels)
    assert abs(found.value - 0.5) < 0.1
    assert auc(cross_validated(texts, labels, [f"{i}" for i in range(400)], 0), labels).value > 0.95


def test_too_few():
    with pytest.raises(ValueError, match="too few"):
        cross_validated(["a b", "c d"], np.array([True, False]), ["1", "1"], 0)
