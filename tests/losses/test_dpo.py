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
    log_sigmoid,
    margins,
    pairs,
    random_pairs,
    two,
)

from inbol_jax.losses import (
    PAIR_LOSSES,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    preference_margin,
    robust_dpo_loss,
    sequence_logprob,
)


@given(pairs, betas)
@few
def test_dpo_is_the_closed_form(rows, beta):
    chosen, rejected, ref_chosen, ref_rejected, *_ = columns(rows)
    reward = beta * ((chosen.astype(float) - ref_chosen) - (rejected.astype(float) - ref_rejected))
    loss = dpo_loss(*two(chosen, rejected, ref_chosen, ref_rejected), beta=beta)
    assert (loss.shape, loss.dtype) == (chosen.shape, jnp.float32)
    # Three roundings of the margin at float32, scaled by beta: what the argument of the sigmoid can
    # be off by.
    np.testing.assert_allclose(loss, -log_sigmoid(reward), rtol=1e-5, atol=beta * 60 * 5e-7)


def test_dpo_values_by_hand():
    zero = np.zeros(1, np.float32)
    assert dpo_loss(*two(zero, zero, zero, zero), beta=0.3)[0] == pytest.approx(math.log(2))
    one = dpo_loss(*two(zero - 1, zero - 3, zero - 2, zero - 3), beta=2.0)[
        0
    ]  # margin 1 over the reference
    assert one == pytest.approx(math.log(1 + math.exp(-2)))


def test_dpo_stays_finite_far_out():
    """A sigmoid before its logarithm would give infinity."""
    far = np.array([-3000.0, 0.0], np.float32)
    loss = dpo_loss(*two(far, far[::-1], np.zeros(2), np.zeros(2)), beta=1.0)
    np.testing.assert_allclose(loss, [3000.0, 0.0])
    gradient = jax.grad(
        lambda x: dpo_loss(*two(x, far[::-1], np.zeros(2), np.zeros(2)), beta=1.0).sum()
    )(far)
    np.testing.assert_allclose(gradient, [-1.0, 0.0], atol=1e-6)


@given(pairs, betas)
@few
def test_swapping_chosen_and_rejected_negates_the_margin(rows, beta):
    chosen, rejected, ref_chosen, ref_rejected, *_ = columns(rows)
    forward = dpo_loss(*two(chosen, rejected, ref_chosen, ref_rejected), beta=beta)
    backward = dpo_loss(*two(rejected, chosen, ref_rejected, ref_chosen), beta=beta)
    reward = beta * ((chosen.astype(float) - ref_chosen) - (rejected.astype(float) - ref_rejected))
    np.testing.assert_allclose(
        forward - backward, -reward, rtol=1e-5, atol=1e-4
    )  # log sigmoid(-x) - log sigmoid(x) = -x


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_gradients(beta):
    with jax.enable_x64(True):
        arguments = [jnp.asarray(x) for x in random_pairs(5)]
        assert arguments[0].dtype == jnp.float64
        check_grads(
            lambda *a: dpo_loss(*two(*a), beta=beta),
            arguments,
            order=2,
            modes=["fwd", "rev"],
            atol=1e-6,
            rtol=1e-6,
        )
        gradients = jax.grad(lambda *a: dpo_loss(*two(*a), beta=beta).sum(), argnums=(0, 1, 2, 3))(
            *arguments
        )
        chosen, rejected, ref_chosen, ref_rejected = (np.asarray(a) for a in arguments)
        reward = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        pull = -beta / (1 + np.exp(reward))  # equation 7 of Rafailov et al.: -beta sigmoid(-reward)
        for gradient, sign in zip(gradients, (1, -1, -1, 1), strict=True):
            np.testing.assert_allclose(gradient, sign * pull, rtol=1e-12)


@ALL
@pytest.mark.parametrize("beta", [0.05, 0.5, 2.0])
def test_variants_are_their_closed_forms(name, options, beta):
    m = np.array([-30.0, -2.0, -0.5, 0.0, 0.5, 1.0, 2.0, 10.0, 30.0])
    found = PAIR_LOSSES[name](*two(*margins(m)), beta=beta, **options)
    assert (found.shape, found.dtype) == (m.shape, jnp.float32)
    np.testing.assert_allclose(found, closed_form(name, m, beta, **options), rtol=1e-5, atol=1e-5)


def test_variants_by_hand():
    one = margins([3.0])
    assert ipo_loss(*two(*one), beta=0.25)[0] == pytest.approx(1)  # (3 - 2)^2
    assert ipo_loss(*two(*margins([2.0])), beta=0.25)[0] == 0
    assert hinge_loss(*two(*one), beta=0.25)[0] == pytest.approx(0.25)
    assert hinge_loss(*two(*one), beta=0.5)[0] == 0
    assert dpo_loss(*two(*margins([0.0])), beta=0.5, label_smoothing=0.3)[0] == pytest.approx(
        math.log(2)
    )
    assert robust_dpo_loss(*two(*margins([0.0])), beta=0.5, label_smoothing=0.3)[
        0
    ] == pytest.approx(math.log(2))


@given(pairs, betas)
@few
def test_without_smoothing_all_is_dpo(rows, beta):
    *arguments, _, _ = columns(rows)
    plain = dpo_loss(*two(*arguments), beta=beta)
    np.testing.assert_array_equal(dpo_loss(*two(*arguments), beta=beta, label_smoothing=0.0), plain)
    np.testing.assert_allclose(
        robust_dpo_loss(*two(*arguments), beta=beta, label_smoothing=0.0), plain, rtol=1e-6
    )


@given(pairs, betas, st.sampled_from([0.1, 0.25, 0.4]))
@few
def test_the_robust_loss_is_unbiased(rows, beta, share):
    """Its mean over the pair as it is and flipped, by their probabilities, is the loss of the clean
    pair; conservative DPO's is not.
    """
    chosen, rejected, ref_chosen, ref_rejected, *_ = (x.astype(np.float64) for x in columns(rows))
    with jax.enable_x64(True):
        options = {"beta": beta, "label_smoothing": share}
        given_pair = robust_dpo_loss(*two(chosen, rejected, ref_chosen, ref_rejected), **options)
        flipped = robust_dpo_loss(*two(rejected, chosen, ref_rejected, ref_chosen), **options)
        clean = dpo_loss(*two(chosen, rejected, ref_chosen, ref_rejected), beta=beta)
        np.testing.assert_allclose(
            (1 - share) * given_pair + share * flipped, clean, rtol=1e-9, atol=1e-9
        )


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
    chosen, rejected, ref_chosen, ref_rejected = margins(m)
    np.testing.assert_allclose(
        preference_margin(*two(rejected, chosen, ref_rejected, ref_chosen)),
        -preference_margin(*two(chosen, rejected, ref_chosen, ref_rejected)),
    )
    forward = PAIR_LOSSES[name](*two(chosen, rejected, ref_chosen, ref_rejected), beta=beta)
    backward = PAIR_LOSSES[name](*two(rejected, chosen, ref_rejected, ref_chosen), beta=beta)
    np.testing.assert_allclose(forward - backward, slope(beta) * m, atol=1e-5)


@ALL
def test_only_the_margin_matters(name, options):
    """Adding to policy and reference alike, or to both policies, changes nothing: what a shared
    prompt adds cancels.
    """
    chosen, rejected, ref_chosen, ref_rejected = margins([-3.0, 0.0, 2.0])
    plain = PAIR_LOSSES[name](*two(chosen, rejected, ref_chosen, ref_rejected), beta=0.5, **options)
    np.testing.assert_allclose(
        PAIR_LOSSES[name](
            *two(chosen - 8, rejected - 8, ref_chosen, ref_rejected), beta=0.5, **options
        ),
        plain,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        PAIR_LOSSES[name](
            *two(chosen - 8, rejected, ref_chosen - 8, ref_rejected), beta=0.5, **options
        ),
        plain,
        rtol=1e-5,
    )


@ALL
def test_reference_free(name, options):
    """With zeros for the reference the margin is the policy's own."""
    chosen, rejected, *_ = (x.astype(np.float32) for x in random_pairs(6))
    zero = np.zeros(6, np.float32)
    found = PAIR_LOSSES[name](*two(chosen, rejected, zero, zero), beta=0.3, **options)
    np.testing.assert_allclose(
        found,
        closed_form(name, (chosen - rejected).astype(np.float64), 0.3, **options),
        rtol=1e-5,
        atol=1e-5,
    )


@ALL
def test_order_of_pairs_does_not_matter(name, options):
    arguments, order = [x.astype(np.float32) for x in random_pairs(6)], np.array([3, 0, 5, 1, 4, 2])
    whole = np.asarray(PAIR_LOSSES[name](*two(*arguments), beta=0.3, **options))
    np.testing.assert_array_equal(
        PAIR_LOSSES[name](*two(*(x[order] for x in arguments)), beta=0.3, **options), whole[order]
    )
    np.testing.assert_array_equal(
        PAIR_LOSSES[name](*two(*(x[:2] for x in arguments)), beta=0.3, **options), whole[:2]
    )


@ALL
def test_gradients_of_variants_by_finite_differences(name, options):
    with jax.enable_x64(True):
        arguments = [jnp.asarray(x) for x in random_pairs(8)]
        if name == "hinge":  # its kink has no derivative
            assert np.abs(1 - 0.3 * np.asarray(preference_margin(*two(*arguments)))).min() > 1e-2
        check_grads(
            lambda *a: PAIR_LOSSES[name](*two(*a), beta=0.3, **options),
            arguments,
            order=1,
            atol=1e-6,
            rtol=1e-6,
        )


def test_length_normalised_losses_do_not_see_length():
    """The same tokens twice over have the same average, and so the same loss; the loss of sums
    differs.
    """
    tokens = np.log(np.random.default_rng(0).random((4, 2, 3))).astype(
        np.float32
    )  # policy and reference, of chosen and rejected
    once, twice = tokens, np.concatenate([tokens, tokens], axis=-1)

    def loss(tokens, average):
        return ipo_loss(
            *two(*(sequence_logprob(x, np.ones_like(x), average=average) for x in tokens)), beta=0.3
        )

    np.testing.assert_allclose(loss(twice, True), loss(once, True), rtol=1e-5)
    assert (np.abs(loss(twice, False) - loss(once, False)) > 1e-2).all()
