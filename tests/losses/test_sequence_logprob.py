"""Sums and averages over the tokens of sequences."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import few, masked

from inbol_jax.losses import sequence_logprob, sft_loss


@pytest.mark.parametrize("average", [False, True])
@given(masked)
@few
def test_sums_and_means_are_over_what_the_mask_shows(average, case):
    logprobs, mask = case
    rows = [row[m == 1].astype(np.float64) for row, m in zip(logprobs, mask, strict=True)]
    expected = [row.sum() / (max(row.size, 1) if average else 1) for row in rows]
    found = sequence_logprob(logprobs, mask, average=average)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    as_bool = sequence_logprob(logprobs, mask == 1, average=average)
    np.testing.assert_array_equal(found, as_bool)


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
    for average in (False, True):
        found = sequence_logprob(nothing, none, average=average)
        np.testing.assert_array_equal(found, [0.0, 0.0])
