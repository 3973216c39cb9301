"""CA-DPO: the weight times the loss of the pair and its NLL term."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from loss_cases import ALL, KINDS, closed_form, columns, few, pairs, random_pairs, two

from inbol_jax.losses import PAIR_LOSSES, PAIR_WEIGHTINGS, ca_dpo_loss, dpo_loss, preference_margin
from inbol_jax.records import PairKind


def weighted(
    arguments, c, kind, nll=0.0, *, beta, nll_coef=0.0, weighting="value", loss="sigmoid", **options
):
    """`ca_dpo_loss` by the names of the weighting and of the loss of a pair."""
    functions = {"weighting": PAIR_WEIGHTINGS[weighting]}
    functions["pair_loss"] = functools.partial(PAIR_LOSSES[loss], **options)
    nll = jnp.zeros_like(c) + nll
    return ca_dpo_loss(*two(*arguments), c, kind, nll, beta=beta, nll_coef=nll_coef, **functions)


@ALL
def test_extreme_log_probabilities(name, options):
    """A response that a model all but excludes, thousands of nats: losses and gradients stay
    finite.
    """
    far = np.array([-5000.0, 0.0, -5000.0, 0.0], np.float32)
    arguments = far, far[::-1], far[[1, 1, 0, 0]], far[[0, 0, 1, 1]]
    c = np.array([0.0, 1.0, 0.5, 0.0], np.float32)

    def total(*a):
        return weighted(a, c, KINDS, beta=1.0, loss=name, **options).sum()

    found, gradients = jax.value_and_grad(total, argnums=(0, 1, 2, 3))(*arguments)
    assert np.isfinite(found)
    assert all(np.isfinite(g).all() for g in gradients)


@given(pairs, st.sampled_from(sorted(PAIR_WEIGHTINGS)))
@few
def test_ca_dpo_is_weight_times_dpo_and_nll(rows, weighting):
    """The equation of the docstring, the NLL term under the weight as well."""
    *arguments, c, kind = columns(rows)
    nll = np.linspace(0.1, 3.0, len(c), dtype=np.float32)
    weight = PAIR_WEIGHTINGS[weighting](c, kind)
    assert ((weight >= 0) & (weight <= 2)).all()
    dpo = dpo_loss(*two(*arguments), beta=0.1)
    loss = weighted(arguments, c, kind, beta=0.1, weighting=weighting)
    np.testing.assert_allclose(loss, weight * dpo, rtol=1e-6)
    loss = weighted(arguments, c, kind, nll, beta=0.1, nll_coef=3.0, weighting=weighting)
    np.testing.assert_allclose(loss, weight * (dpo + 3.0 * nll), rtol=1e-6)


@ALL
@pytest.mark.parametrize("weighting", PAIR_WEIGHTINGS)
def test_weights_combine_with_every_loss(name, options, weighting):
    arguments, c = random_pairs(4, seed=2), np.array([0.1, 0.4, 0.7, 0.0], np.float32)
    found = weighted(arguments, c, KINDS, beta=0.3, weighting=weighting, loss=name, **options)
    weight = np.asarray(PAIR_WEIGHTINGS[weighting](c, KINDS), np.float64)
    m = np.asarray(preference_margin(*two(*(x.astype(np.float64) for x in arguments))))
    expected = weight * closed_form(name, m, 0.3, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("weighting", "c", "gone"),
    [("linear", 0.0, [0, 1]), ("linear", 1.0, [2, 3]), ("margin", 0.5, [0, 1, 2, 3])],
)
def test_weight_zero_removes_a_pair(weighting, c, gone):
    arguments, c = random_pairs(4), np.full(4, c, np.float32)

    def loss(*a):
        return weighted(a, c, KINDS, beta=0.5, weighting=weighting)

    assert np.flatnonzero(np.asarray(loss(*arguments)) == 0).tolist() == gone
    for gradient in jax.grad(lambda *a: loss(*a).sum(), argnums=(0, 1, 2, 3))(*arguments):
        assert np.flatnonzero(np.asarray(gradient) == 0).tolist() == gone


def test_pulls_balance_at_one_half():
    """`linear`: at c = 1/2, correct over refusal and refusal over incorrect of one question pull
    the refusal equally, up and down.
    """
    for c, sign in ((0.5, 0), (0.9, -1), (0.1, 1)):

        def total(refusal, c=c):
            zero = jnp.zeros(1)
            kinds = PairKind.CORRECT_OVER_REFUSAL, PairKind.REFUSAL_OVER_INCORRECT
            pairs = (zero, refusal, zero, zero), (refusal, zero, zero, zero)
            both = zip(pairs, kinds, strict=True)
            return sum(
                weighted(a, zero + c, jnp.array([k.number]), beta=1.0).sum() for a, k in both
            )

        pull = -float(jax.grad(total)(jnp.zeros(1))[0])
        assert np.sign(pull) == sign


@pytest.mark.parametrize("weighting", PAIR_WEIGHTINGS)
def test_ca_dpo_gradients(weighting):
    with jax.enable_x64(True):
        arguments, c = random_pairs(4, seed=1, dtype=np.float64), jnp.array([0.1, 0.4, 0.7, 0.0])
        loss = lambda *a: weighted(a, c, KINDS, beta=0.3, weighting=weighting)  # noqa: E731
        check_grads(loss, arguments, order=1, atol=1e-6, rtol=1e-6)
