"""Both greedy answers and the decision between them, on the shipped model and a random one."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from draws import GREEDY, draw_from, make_batch, teacher_forced

from inbol_jax.errors import InbolError
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.forced import (
    answer_and_force,
    answer_both_ways,
    first_token,
    refusal_tokens,
)
from inbol_jax.sampling.generate import generate
from inbol_jax.taught_refusals import LONG_REFUSALS, SHORT_REFUSALS

pytestmark = pytest.mark.usefixtures("one_length")
TWICE = dataclasses.replace(GREEDY, n=2)


@pytest.fixture(scope="module")
def tokens(tiny):
    return refusal_tokens(make_text_encoder(tiny), SHORT_REFUSALS)[1]


def both_ways(checkpoint, batch, tokens):
    return jax.device_get(
        answer_both_ways(
            checkpoint.model, checkpoint.variables, batch, tokens=tokens, options=TWICE
        )
    )


def test_refusal_tokens_are_what_refusals_begin_with(tiny, tokens):
    words = tiny.processor.tokenizer.convert_ids_to_tokens(list(tokens))
    assert sorted(word.strip("▁Ġ") for word in words) == ["I", "Sorry", "The"]


class Words:
    """An encoder whose tokens are words behind a space that is a token of its own."""

    def response(self, question, response):
        return (0, *(1 + sum(map(ord, word)) for word in response.split()), 2)


def test_what_every_response_begins_with_is_no_refusal_token():
    number = {w: 1 + sum(map(ord, w)) for w in ("I", "Sorry,")}
    found = refusal_tokens(Words(), ["I don't know.", "I am not sure.", "Sorry, no."])
    assert found == ((0,), tuple(sorted(number.values())))


def test_the_decision_in_closed_form():
    """Probabilities 0.1 and 0.2 refuse, 0.3 and 0.4 do not."""
    logits = np.log(np.array([[0.1, 0.3, 0.2, 0.4]])) + 7
    found = first_token(logits, (0, 2))
    np.testing.assert_allclose(found.logodds, np.log(0.3 / 0.4), atol=1e-5)
    np.testing.assert_allclose(found.margin, np.log(0.2 / 0.4), atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("tiny", marks=pytest.mark.slow), "micro"])
def test_both_answers_are_greedy_and_the_second_begins_with_no_refusal(
    request, questions, images, tokens, name
):
    checkpoint, chosen = request.getfixturevalue(name), questions[::6]
    batch = make_batch(checkpoint, chosen, images)
    samples, first = both_ways(checkpoint, batch, tokens)
    plain = draw_from(checkpoint, batch, options=GREEDY)
    np.testing.assert_array_equal(samples.tokens[:, 0], plain.tokens[:, 0])
    for row in range(len(chosen)):
        length = samples.lengths[row, 1]
        forced = samples.tokens[row, 1, :length]
        logprobs = teacher_forced(checkpoint, batch, row, forced[None])[0, :length]  # t V
        chances = logprobs.copy()
        chances[0, list(tokens)] = -np.inf
        np.testing.assert_array_equal(forced, chances.argmax(-1))
        expected = logprobs[np.arange(length), forced]  # not of the tokens that are left
        np.testing.assert_allclose(samples.logprobs[row, 1, :length], expected, atol=2e-4)
        refusal = logprobs[0, list(tokens)]
        other = chances[0].max()
        np.testing.assert_allclose(first.margin[row], refusal.max() - other, atol=2e-4)
        logodds = np.logaddexp.reduce(refusal) - other
        np.testing.assert_allclose(first.logodds[row], logodds, atol=2e-4)


def test_a_bias_beyond_the_margin_turns_the_answer_into_a_refusal(tiny, questions, images, tokens):
    """As a checkpoint's own bias does it; the forced answer and the decision stay as they are."""
    batch = make_batch(tiny, questions[::6], images)
    samples, first = both_ways(tiny, batch, tokens)
    middle = float(np.sort(first.margin)[[2, 3]].mean())
    for bias in (-middle, -first.margin.min() + 0.01):  # some are refused, or all
        config = dataclasses.replace(
            tiny.config, sequence_bias=tuple(((token,), float(bias)) for token in tokens)
        )
        biased = dataclasses.replace(tiny, model=tiny.model.clone(config=config), config=config)
        moved, decision = both_ways(biased, batch, tokens)
        begins = np.isin(moved.tokens[:, 0, 0], tokens)
        np.testing.assert_array_equal(begins, first.margin + bias > 0)
        np.testing.assert_allclose(decision, first, atol=1e-5)
        answers = (~begins).nonzero()[0]
        np.testing.assert_array_equal(moved.tokens[answers, 0], samples.tokens[answers, 1])
        np.testing.assert_allclose(  # the model's own, without the bias
            moved.logprobs[answers, 0], samples.logprobs[answers, 1], atol=1e-4
        )


def test_a_dataset_is_answered_with_the_texts_of_generate(tiny, questions, images):
    options = {"batch_size": 16, "label": None, "set_aside": pytest.fail}
    found = {
        example.id: answer
        for batch in answer_and_force(
            tiny, questions, images, refusals=SHORT_REFUSALS, max_new_tokens=12, **options
        )
        for example, answer in batch
    }
    assert found.keys() == {example.id for example in questions}
    greedy = SamplingOptions(n=1, temperature=0.0)
    for batch in generate(tiny, questions, images, options=greedy, seed=0, **options):
        for example, (said,) in batch:
            answer = found[example.id]
            assert answer.said.text == said.text
            assert answer.said.logprob == pytest.approx(said.logprob, abs=1e-4)
            if answer.margin < 0:
                assert answer.forced == answer.said
            else:
                assert answer.forced.text not in SHORT_REFUSALS


def test_refusals_that_the_tokenizer_does_not_tell_from_answers_are_refused(tiny):
    with pytest.raises(InbolError, match="with the same token; choose other refusals"):
        refusal_tokens(make_text_encoder(tiny), LONG_REFUSALS)  # words that it does not know
    echo = types.SimpleNamespace(response=lambda question, text: (7, 8))
    with pytest.raises(InbolError, match="with the same token; choose other refusals"):
        refusal_tokens(echo, SHORT_REFUSALS)
