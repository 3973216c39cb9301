"""The distribution of sampled tokens and responses, by chi-square tests."""

import dataclasses
import itertools

import numpy as np
import pytest
from draws import (
    assert_drawn_from,
    assert_drawn_jointly,
    draw_from,
    logprobs_of,
    make_batch,
    next_token,
    truncated,
    under_many_keys,
)

from inbol_jax.sampling.config import SamplingOptions


@pytest.fixture(scope="module")
def undecided(tiny, questions, images):
    """The batch of that one question whose first token is the least certain, and the
    log-probabilities of that token."""
    batch = make_batch(tiny, questions, images)
    asked = {name: x for name, x in batch.items() if name != "question"}
    everything = np.asarray(logprobs_of(tiny.model, tiny.variables, asked))
    last = everything[np.arange(len(questions)), batch["attention_mask"].sum(1) - 1]
    row = int(np.argmax(-(np.exp(last) * last).sum(-1)))
    return {name: value[row : row + 1] for name, value in batch.items()}, last[row]


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(),
        SamplingOptions(2.0, 0.5),
        SamplingOptions(3.0, 0.9, top_k=40),
    ],
    ids=str,
)
def test_first_tokens_have_the_softmax_distribution(tiny, undecided, options):
    batch, logprobs = undecided
    found = draw_from(tiny, batch, n=4000, options=dataclasses.replace(options, max_new_tokens=1))
    tokens = found.tokens[0, :, 0]
    assert_drawn_from(tokens, truncated(logprobs, options))
    # At temperature 1 whatever was drawn at
    np.testing.assert_allclose(found.logprobs[0, :, 0], logprobs[tokens], atol=1e-3)


def test_second_tokens_are_conditioned_on_the_first(micro, questions, images):
    batch = make_batch(micro, questions[:2], images)
    options = SamplingOptions(0.2, max_new_tokens=2)
    found = draw_from(micro, batch, n=6000, options=options)
    tested = set()
    for row in range(2):
        first, second = found.tokens[row].T
        assert_drawn_from(first, next_token(micro, batch, row, options))
        for token in np.argsort(-np.bincount(first))[:6]:
            if token == 2 or (first == token).sum() <= 150:
                continue
            p = next_token(micro, batch, row, options, token)
            assert_drawn_from(second[first == token], p)
            tested.add((row, int(token)))
    assert len(tested) >= 3


def test_forks_are_independent(micro, questions, images):
    """Two forks of one prefill have the product of their distributions; in their second tokens too,
    where the first ones are the same."""
    options = SamplingOptions(0.2, max_new_tokens=2)
    one = make_batch(micro, questions[:1], images)
    tokens = draw_from(micro, under_many_keys(one, 1500), n=4, options=options).tokens
    p = next_token(micro, one, 0, options)
    assert_drawn_jointly(tokens[:, [0, 1], 0], p)
    assert_drawn_jointly(tokens[:, [1, 3], 0], p)
    pairs = np.concatenate([tokens[:, [i, j]] for i, j in itertools.combinations(range(4), 2)])
    tested = 0
    for first in np.argsort(-p)[:4]:
        alike = pairs[(pairs[:, :, 0] == first).all(1)][:, :, 1]
        q = next_token(micro, one, 0, options, first)
        if len(alike) > 200 and (q > 0.05).sum() > 1:
            assert_drawn_jointly(alike, q)
            tested += 1
    assert tested
