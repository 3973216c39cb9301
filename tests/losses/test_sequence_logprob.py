"""Sums and averages over the tokens of sequences."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import few, masked

from inbol_jax.losses import sequence_logprob, sft_loss


@given(masked)
@few
def test_sequence_logprob_sums_what_the_mask_shows(case):
    logprobs, mask = case
    expected = [row[m == 1].sum(dtype=np.float64) for row, m in zip(logprobs, mask, strict=True)]
    np.testing.assert_allclose(sequence_logprob(logprobs, mask), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        sequence_logprob(logprobs, mask), sequence_logprob(logprobs, mask == 1)
    )


@given(masked)
@few
def test_averages_are_means_over_the_mask(case):
    logprobs, mask = case
    expected = [
        row[m == 1].mean(dtype=np.float64) if m.any() else 0.0
        for row, m in zip(logprobs, mask, strict=True)
    ]
    np.testing.assert_allclose(
        sequence_logprob(logprobs, mask, average=True), expected, rtol=1e-5, atol=1e-5
    )


@given(masked, st.integers(1, 3))
@few
def test_padding_does_not_matter(case, more):
    """Masked columns, whatever they hold, on either side."""
    logprobs, mask = case
    for side in ((more, 0), (0, more)):
        wide = np.pad(logprobs, ((0, 0), side), constant_values=np.nan)
        shown = np.pad(mask, ((0, 0), side))
        for average in (False, True):
            found = sequence_logprob(wide, shown, average=average)
            np.testing.assert_allclose(
                found, sequence_logprob(logprobs, mask, average=average), rtol=1e-6
            )
        np.testing.assert_allclose(sft_loss(wide, shown), sft_loss(logprobs, mask), rtol=1e-6)


SUMS = {
    "sft": lambda x, m: sft_loss(x, m)[0],
    "sequence": lambda x, m: sequence_logprob(x, m).sum(),
    "average": lambda x, m: (sequence_logprob(x, m, average=True) * m.sum(-1)).sum(),
}


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SUMS)
def test_nothing_leaks_from_under_the_mask(name, poison):
    logprobs = np.array([[-1.0, poison], [-0.5, -2.0], [poison, poison]], np.float32)
    mask = np.array([[1, 0], [1, 1], [0, 0]])
    value, gradient = jax.value_and_grad(SUMS[name])(logprobs, mask)
    assert abs(value) == 3.5
    np.testing.assert_array_equal(np.abs(gradient), mask)


def test_an_empty_mask_weighs_nothing():
    nothing, none = np.full((2, 3), np.nan, np.float32), np.zeros((2, 3))
    total, weight = sft_loss(nothing, none)
    assert (float(total), float(weight)) == (0.0, 0.0)
    for found in (
        sequence_logprob(nothing, none),
        sequence_logprob(nothing, none, average=True),
    ):
        np.testing.assert_array_equal(found, [0.0, 0.0])
