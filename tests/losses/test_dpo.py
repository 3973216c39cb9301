"""DPO and its variants: closed forms, gradients, and what does not matter."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from loss_cases import (
    ALL,
    betas,
    closed_form,
    columns,
    few,
    margins,
    pair_loss,
    pairs,
    random_pairs,
    two,
)

from inbol_jax.losses import dpo_loss, preference_margin


def test_dpo_stays_finite_far_out():
    """A sigmoid before its logarithm would give infinity."""
    far, zero = np.array([-3000.0, 0.0], np.float32), np.zeros(2)

    def loss(x):
        return dpo_loss(*two(x, far[::-1], zero, zero), beta=1.0)

    np.testing.assert_allclose(loss(far), [3000.0, 0.0])
    np.testing.assert_allclose(jax.grad(lambda x: loss(x).sum())(far), [-1.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_gradients(beta):
    with jax.enable_x64(True):
        arguments = random_pairs(5, dtype=np.float64)

        def loss(*arguments):
            return dpo_loss(*two(*arguments), beta=beta)

        check_grads(loss, arguments, order=2, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
        gradients = jax.grad(lambda *a: loss(*a).sum(), argnums=(0, 1, 2, 3))(*arguments)
        chosen, rejected, ref_chosen, ref_rejected = arguments
        reward = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        pull = -beta / (1 + np.exp(reward))  # equation 7 of Rafailov et al.: -beta sigmoid(-reward)
        for gradient, sign in zip(gradients, (1, -1, -1, 1), strict=True):
            np.testing.assert_allclose(gradient, sign * pull, rtol=1e-12)


@ALL
@pytest.mark.parametrize("beta", [0.05, 0.5, 2.0])
def test_losses_are_their_closed_forms(name, options, beta):
    m = np.array([-30.0, -2.0, -0.5, 0.0, 0.5, 1.0, 2.0, 10.0, 30.0])
    found = pair_loss(name, margins(m), beta=beta, **options)
    assert (found.shape, found.dtype) == (m.shape, jnp.float32)
    np.testing.assert_allclose(found, closed_form(name, m, beta, **options), rtol=1e-5, atol=1e-5)


def swapped(arguments):
    chosen, rejected, ref_chosen, ref_rejected = arguments
    return rejected, chosen, ref_rejected, ref_chosen


@given(pairs, betas, st.sampled_from([0.1, 0.25, 0.4]))
@few
def test_the_robust_loss_is_unbiased(rows, beta, share):
    """Its mean over the pair as it is and flipped, by their probabilities, is the loss of the clean
    pair; conservative DPO's is not.
    """
    pair = [x.astype(np.float64) for x in columns(rows)[:4]]
    with jax.enable_x64(True):
        options = {"beta": beta, "label_smoothing": share}
        given_pair, flipped = (pair_loss("robust", x, **options) for x in (pair, swapped(pair)))
        mean = (1 - share) * given_pair + share * flipped
        clean = pair_loss("sigmoid", pair, beta=beta)
        np.testing.assert_allclose(mean, clean, rtol=1e-9, atol=1e-9)


def test_conservative_dpo_is_least_where_it_believes_the_labels():
    """At a reward margin of log((1 - e) / e): beyond it, the pair pulls back."""
    share, beta = 0.2, 0.5
    best = math.log((1 - share) / share) / beta
    with jax.enable_x64(True):
        slope = jax.grad(
            lambda m: dpo_loss(*two(m, 0.0, 0.0, 0.0), beta=beta, label_smoothing=share)
        )
        assert slope(best) == pytest.approx(0, abs=1e-12)
        assert slope(best - 0.1) < 0 < slope(best + 0.1)


@pytest.mark.parametrize(
    ("name", "slope"),  # the difference is the slope times the margin
    [
        ("sigmoid", lambda beta: -beta),
        ("ipo", lambda beta: -2 / beta),
        ("hinge", lambda beta: -2 * beta),
    ],
)
def test_swapping_negates_the_margin_in_every_loss(name, slope):
    m, beta = np.linspace(-1.8, 1.8, 9), 0.5  # where both sides of the hinge are on its slope
    pair, other = margins(m), swapped(margins(m))
    np.testing.assert_allclose(preference_margin(*two(*other)), -preference_margin(*two(*pair)))
    forward, backward = (pair_loss(name, x, beta=beta) for x in (pair, other))
    np.testing.assert_allclose(forward - backward, slope(beta) * m, atol=1e-5)


@ALL
def test_only_the_margin_matters(name, options):
    """Adding to policy and reference alike, or to both policies, changes nothing: what a shared
    prompt adds cancels.
    """
    chosen, rejected, *reference = margins([-3.0, 0.0, 2.0])
    plain = pair_loss(name, (chosen, rejected, *reference), beta=0.5, **options)
    for other in (
        (chosen - 8, rejected - 8, *reference),
        (chosen - 8, rejected, reference[0] - 8, reference[1]),
    ):
        np.testing.assert_allclose(pair_loss(name, other, beta=0.5, **options), plain, rtol=1e-5)


@ALL
def test_gradients_of_variants_by_finite_differences(name, options):
    with jax.enable_x64(True):
        arguments = random_pairs(8, dtype=np.float64)
        if name == "hinge":  # its kink has no derivative
            assert np.abs(1 - 0.3 * np.asarray(preference_margin(*two(*arguments)))).min() > 1e-2
        loss = lambda *a: pair_loss(name, a, beta=0.3, **options)  # noqa: E731
        check_grads(loss, arguments, order=1, atol=1e-6, rtol=1e-6)
