"""The loss of supervised fine-tuning as (sum, weight)."""

import numpy as np
import pytest
from hypothesis import given
from loss_cases import few, masked

from inbol_jax.losses import sft_loss


@given(masked)
@few
def test_masked_sft_is_that_of_the_filtered_array(case):
    logprobs, mask = case
    total, weight = sft_loss(logprobs, mask)
    kept = logprobs[mask == 1]
    alone, count = sft_loss(kept, np.ones_like(kept))
    np.testing.assert_allclose([total, weight], [alone, count], rtol=1e-5, atol=1e-5)
    assert weight == mask.sum()
    assert total == pytest.approx(-kept.sum(dtype=np.float64), rel=1e-5, abs=1e-5)


@given(masked)
@few
def test_sft_sums_add_up_over_devices(case):
    """(sum, weight) of parts add up to that of the whole, however the rows are divided."""
    logprobs, mask = case
    parts = [sft_loss(logprobs[part], mask[part]) for part in (np.s_[:1], np.s_[1:])]
    whole = sft_loss(logprobs, mask)
    np.testing.assert_allclose(np.sum(parts, axis=0), whole, rtol=1e-5, atol=1e-5)


def test_sft_weighs_tokens():
    total, weight = sft_loss(np.array([[-1.0, -2.0, -4.0]]), np.array([[0.5, 0.0, 2.0]]))
    assert (float(total), float(weight)) == (8.5, 2.5)
