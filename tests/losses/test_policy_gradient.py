"""Group-relative advantages, the abstention bonus, and the clipped policy gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from loss_cases import few

from inbol_jax.losses import abstention_bonus, group_advantages, kl_estimate, policy_gradient_loss
from inbol_jax.losses.policy_gradient import EPSILON

values = st.sampled_from([-1.0, 0.0, 1.0, 0.1, 0.7])
groups = hnp.arrays(np.float32, (3, 7), elements=values)  # of one shape: each is compiled


@given(groups)
@few
def test_advantages_are_deviations_from_the_mean_of_the_group(rewards):
    plain, scaled = group_advantages(rewards, scale=False), group_advantages(rewards)
    np.testing.assert_allclose(plain, rewards - rewards.mean(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(np.sum(plain, 1), 0, atol=1e-5)
    expected = plain / (rewards.astype(np.float64).std(1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(scaled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("reward", [-1.0, 0.1, 1 / 3, 1e6])
def test_a_group_without_variance_has_no_advantage_at_all(reward, scale):
    """Not even by the rounding of a mean, which a small deviation would blow up."""
    rewards = np.full((2, 7), reward, np.float32)
    rewards[1, 3] += 1
    found = np.asarray(group_advantages(rewards, scale=scale))
    assert (found[0] == 0).all()
    assert (found[1] != 0).all()
    assert group_advantages(rewards[:, :0], scale=scale).shape == (2, 0)


@given(groups, st.floats(-3, 3, width=32), st.floats(0.5, 4, width=32))
@few
def test_scaled_advantages_do_not_depend_on_unit_and_zero_of_the_reward(rewards, zero, unit):
    def without_epsilon(rewards):
        spread = rewards.astype(np.float64).std(1, keepdims=True)
        return np.asarray(group_advantages(rewards)) * (spread + EPSILON) / np.maximum(spread, 1e-9)

    moved = unit * rewards + np.float32(zero)
    np.testing.assert_allclose(without_epsilon(moved), without_epsilon(rewards), atol=2e-3)


def test_the_bonus_of_abstaining():
    """1 - 2 p by the share p of right answers among the group's answers."""
    right, wrong, refused = [1, 0], [0, 0], [0, 1]
    cases = [
        ([right, right, right, refused], -1.0),
        ([right, right, wrong, wrong], None),
        ([right, refused, refused, wrong], 0.0),
        ([wrong, wrong, right, refused], 1 / 3),
        ([wrong, refused, wrong, refused], 1.0),
        ([refused, refused, refused, refused], 0.0),
    ]
    for responses, bonus in cases:
        correct, refusals = np.array(responses, bool).T[:, None]
        expected = np.where(refusals, bonus, 0.0) if bonus is not None else np.zeros((1, 4))
        np.testing.assert_allclose(abstention_bonus(correct, refusals), expected, atol=1e-7)


@given(hnp.arrays(np.float64, 6, elements=st.floats(-10, 0)))
@few
def test_the_kl_estimate_is_unbiased_and_positive(logits):
    """Over all tokens, weighted by the policy, it is the KL divergence."""
    with jax.enable_x64(True):
        policy = jax.nn.log_softmax(jnp.asarray(logits))
        reference = jax.nn.log_softmax(jnp.linspace(-2.0, 1.0, 6, dtype=jnp.float64))
        estimate = kl_estimate(policy, reference)
        assert (np.asarray(estimate) >= 0).all()
        divergence = jnp.sum(jnp.exp(policy) * (policy - reference))
        np.testing.assert_allclose(jnp.sum(jnp.exp(policy) * estimate), divergence, atol=1e-9)


def case(seed=0, b=5, t=4, spread=0.3):
    """Log-probabilities under policy, old policy and reference, advantages, a mask with a response
    of one token and one of none."""
    random = np.random.default_rng(seed)
    logprobs = -3 * random.random((b, t))
    old, ref = (logprobs + spread * random.normal(size=(b, t)) for _ in range(2))
    mask = np.arange(t) < np.array([t, 1, 2, 0, t])[:b, None]
    return logprobs, old, ref, random.normal(size=b), mask


def by_hand(logprobs, old, ref, advantages, mask, epsilon, kl_coef, average):
    """The docstring's equation, token by token."""
    losses = []
    for i, advantage in enumerate(advantages):
        tokens = []
        for t in np.flatnonzero(mask[i]):
            ratio, r = np.exp(logprobs[i, t] - old[i, t]), np.exp(ref[i, t] - logprobs[i, t])
            clipped = min(max(ratio, 1 - epsilon), 1 + epsilon)
            tokens.append(
                -min(ratio * advantage, clipped * advantage) + kl_coef * (r - np.log(r) - 1)
            )
        losses.append(sum(tokens) / (max(len(tokens), 1) if average else 1))
    return np.array(losses)


@pytest.mark.parametrize(
    ("epsilon", "kl_coef", "average"), [(0.2, 0.0, True), (0.1, 0.04, False), (0.9, 1.0, True)]
)
def test_the_closed_form(epsilon, kl_coef, average):
    arguments = case()
    found = policy_gradient_loss(
        *(np.asarray(x, np.float32) for x in arguments),
        clip_epsilon=epsilon,
        kl_coef=kl_coef,
        average=average,
    )
    expected = by_hand(*arguments, epsilon, kl_coef, average)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert found[3] == 0, "a response without tokens"


@pytest.mark.parametrize(("kl_coef", "average"), [(0.0, True), (0.3, True), (0.3, False)])
def test_gradients_are_those_of_finite_differences(kl_coef, average):
    with jax.enable_x64(True):
        logprobs, *rest = (jnp.asarray(x) for x in case(seed=1))
        ratio = np.exp(logprobs - rest[0])
        assert (np.abs(np.abs(ratio - 1) - 0.2) > 1e-3).all(), "none is at the kink of the clip"
        loss = functools.partial(policy_gradient_loss, kl_coef=kl_coef, average=average)
        check_grads(lambda x: loss(x, *rest), (logprobs,), order=1, atol=1e-6, rtol=1e-6)


def gradient(logprobs, *rest, **options):
    return np.asarray(
        jax.grad(lambda x: policy_gradient_loss(x, *rest, **options).sum())(jnp.asarray(logprobs))
    )


def test_with_the_old_policy_the_ratio_is_1_and_the_gradient_reinforce():
    """-A / tokens for each token of a response: the gradient of -A log p."""
    logprobs, _, _, advantages, mask = case()
    loss = policy_gradient_loss(logprobs, logprobs, None, advantages, mask)
    np.testing.assert_allclose(loss, np.where(mask.any(1), -advantages, 0), rtol=1e-6)
    expected = -np.where(mask, advantages[:, None] / np.maximum(mask.sum(1), 1)[:, None], 0)
    np.testing.assert_allclose(
        gradient(logprobs, logprobs, None, advantages, mask), expected, rtol=1e-5
    )
    summed = gradient(logprobs, logprobs, None, advantages, mask, average=False)
    np.testing.assert_allclose(summed, np.where(mask, -advantages[:, None], 0), rtol=1e-5)


def test_the_old_policy_gets_no_gradient_even_if_it_is_the_policy():
    logprobs, _, _, advantages, mask = case()

    def loss(x):
        return policy_gradient_loss(x, x, None, advantages, mask).sum()

    found = jax.grad(loss)(jnp.asarray(logprobs))
    np.testing.assert_array_equal(found, gradient(logprobs, logprobs, None, advantages, mask))


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.3, 1.0, False), (1.3, -1.0, True), (0.7, 1.0, True), (0.7, -1.0, False), (1.1, 1.0, True)],
)
def test_the_clip_ends_the_gradient_only_in_the_direction_of_the_advantage(ratio, advantage, moves):
    old, ones = np.full((1, 1), -2.0), np.ones((1, 1))
    found = gradient(old + np.log(ratio), old, None, np.array([advantage]), ones)[0, 0]
    assert found == pytest.approx(-ratio * advantage if moves else 0.0, rel=1e-5)


def test_the_kl_term_draws_the_policy_to_the_reference():
    logprobs, _, _, advantages, mask = case()
    for shift in (-1.0, 1.0):
        found = gradient(logprobs, logprobs, logprobs + shift, 0 * advantages, mask, kl_coef=0.5)
        assert (np.sign(found[mask]) == -shift).all()
        assert (found[~mask] == 0).all()
    # Without an advantage, and at the reference, nothing moves.
    at_reference = gradient(logprobs, logprobs, logprobs, 0 * advantages, mask, kl_coef=0.5)
    assert (at_reference == 0).all()


def test_masked_values_may_be_anything():
    logprobs, old, ref, advantages, mask = case()
    expected = policy_gradient_loss(logprobs, old, ref, advantages, mask, kl_coef=0.1)
    wild = [np.where(mask, x, np.nan) for x in (logprobs, old, ref)]
    found = policy_gradient_loss(*wild, advantages, mask, kl_coef=0.1)
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(gradient(*wild, advantages, mask, kl_coef=0.1)).all()


@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
def test_extreme_log_probabilities(advantage):
    """A token whose probability moved by thousands of nats: loss and gradient stay finite."""
    logprobs, old = np.array([[-5000.0, -1e-3, -5000.0]]), np.array([[-1e-3, -5000.0, -5000.0]])
    arguments = (old, np.zeros((1, 3)), np.full(1, advantage), np.ones((1, 3)))
    assert np.isfinite(policy_gradient_loss(logprobs, *arguments, kl_coef=0.1)).all()
    assert np.isfinite(gradient(logprobs, *arguments, kl_coef=0.1)).all()
