"""The loss of on-policy refusal: group-relative advantages and a clipped policy gradient.

A group is the n responses that the policy gives to one question. A response's advantage is how much
better its reward is than the group's mean, so no value network is needed.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

# In nats. Beyond it a ratio of probabilities would overflow, and 0 * inf is no gradient.
MAX_LOG_RATIO = 20.0
EPSILON = 1e-4  # is added to the standard deviation of a group's rewards


def group_advantages(rewards: Float[Array, "b n"], *, scale: bool = True) -> Float[Array, "b n"]:
    """How much better each response of a group is than the group's mean:

        A_i = (r_i - mean(r)) / (std(r) + 1e-4)

    Args:
      rewards: f32[b, n], of the n responses to each of b questions.
      scale: divide by the (biased) standard deviation. Without it, groups whose responses differ
        little count little, as Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) argues for.
    Returns:
      f32[b, n]. It is exactly 0 in groups whose rewards are all the same.

    Source: GRPO, Shao et al. 2024 (arXiv 2402.03300), section 4.1.2.

    Examples:
      >>> print(group_advantages(jnp.array([[1.0, -1.0], [1.0, 1.0]]), scale=False))
      [[ 1. -1.]
       [ 0.  0.]]
    """
    # Rewards (1, -1, 1, 1): mean 0.5, std 0.87, so A = (0.58, -1.73, 0.58, 0.58). The mean of the
    # whole group also counts r_i itself; leaving it out would only multiply A by n / (n - 1).
    advantages = rewards - jnp.mean(rewards, axis=1, keepdims=True)
    if scale:
        advantages = advantages / (jnp.std(rewards, axis=1, keepdims=True) + EPSILON)
    # A mean of equal numbers may differ from them by rounding.
    differ = jnp.any(rewards != rewards[:, :1], axis=1, keepdims=True)
    return jnp.where(differ, advantages, 0.0)


def abstention_bonus(
    correct: Bool[Array, "b n"], refused: Bool[Array, "b n"]
) -> Float[Array, "b n"]:
    """What refusals of a group are worth beside their reward: 1 - 2 p, and 0 for answers.

    p = correct / (correct + wrong) is how often the group's answers are right: refusing gains where
    the policy would mostly be wrong, and costs where it would mostly be right. A group without
    answers has p = 1/2.

    Args:
      correct, refused: bool[b, n], what each response is; any other response is wrong.
    Returns:
      f32[b, n], in [-1, 1].

    Source: TIAR (arXiv 2605.25850), whose weight lambda stands before it.

    Examples:
      >>> correct, refused = jnp.array([[True, False, False]]), jnp.array([[False, False, True]])
      >>> print(abstention_bonus(correct, refused))  # p = 1/2
      [[0. 0. 0.]]
    """
    # One correct, two wrong, one refusal: p = 1/3, and the refusal gains 1 - 2/3 = 1/3, as it
    # would have been wrong two times of three.
    right = jnp.sum(correct, axis=1, keepdims=True, dtype=jnp.float32)
    answers = jnp.sum(~refused, axis=1, keepdims=True, dtype=jnp.float32)
    p = jnp.where(answers > 0, right / jnp.maximum(answers, 1.0), 0.5)
    return jnp.where(refused, 1.0 - 2.0 * p, 0.0)


def kl_estimate(
    logprobs: Float[Array, "*b"], ref_logprobs: Float[Array, "*b"]
) -> Float[Array, "*b"]:
    """An estimate of KL(policy || reference) from tokens that the policy drew, in nats, at least 0:

        k3 = r - log r - 1,   r = p_reference / p_policy

    Its mean over the policy's tokens is the KL divergence. A token that the policy holds for e^20
    times less probable than the reference does counts as if it were e^20 times, without a gradient.

    Args:
      logprobs, ref_logprobs: f32[...], log-probabilities of the tokens.
    Returns:
      f32[...].

    Source: Schulman 2020, "Approximating KL divergence", which calls it k3.

    Examples:
      >>> print(kl_estimate(jnp.array([-1.0]), jnp.array([-1.0])))
      [0.]
    """
    # The convex r - 1 - log r touches 0 at r = 1: unlike -log r, no token's share is negative.
    log_ratio = jnp.minimum(ref_logprobs - logprobs, MAX_LOG_RATIO)
    return jnp.exp(log_ratio) - log_ratio - 1.0


def policy_gradient_loss(
    logprobs: Float[Array, "*b t"],
    old_logprobs: Float[Array, "*b t"],
    ref_logprobs: Float[Array, "*b t"] | None,
    advantages: Float[Array, "*b"],
    mask: Shaped[Array, "*b t"],
    *,
    clip_epsilon: float = 0.2,
    kl_coef: float = 0.0,
    average: bool = True,
) -> Float[Array, "*b"]:
    """The loss of each response, over its tokens t (the mean, or the sum):

        -min(ratio_t A, clip(ratio_t, 1 - epsilon, 1 + epsilon) A) + kl_coef k3_t,
        ratio_t = p_policy(t) / p_old(t)

    The gradient is that of the expected reward as long as the ratio is 1, as it is in the first
    update after sampling. The clip ends it as soon as further updates on the same responses have
    moved a token's probability by the factor 1 +- epsilon in the direction of its advantage.

    Args:
      logprobs: f32[..., t], log-probabilities of the response's tokens under the policy, in nats.
        A masked value may be anything, NaN included; so in the next two.
      old_logprobs: the same under the policy that drew the response. They get no gradient, so in
        the first update after sampling they may be `logprobs` themselves.
      ref_logprobs: the same under the frozen reference; it may be None if `kl_coef` is 0.
      advantages: f32[...], one per response, see `group_advantages`.
      mask: [..., t], bool or numbers, not 0 for the tokens of the response.
      clip_epsilon: how far the ratio may move, in (0, 1).
      kl_coef: weight of the KL divergence from the reference, at least 0.
      average: the mean over the response's tokens, as in GRPO. Otherwise the sum, under which long
        responses count more; its gradient is the unbiased one.
    Returns:
      f32[...]; 0 for a response without tokens.

    Source: GRPO, Shao et al. 2024 (arXiv 2402.03300), equation 3; the clipped ratio is that of PPO,
    Schulman et al. 2017 (arXiv 1707.06347), equation 7.

    Examples:
      >>> logprobs, ones = jnp.log(jnp.array([[0.5]])), jnp.ones((1, 1))
      >>> print(policy_gradient_loss(logprobs, logprobs, None, jnp.array([2.0]), ones))  # -A
      [-2.]
    """
    tokens = mask != 0

    # Masks come before differences and exponentials: behind them a NaN would get into the gradient
    # through `where`, as 0 * NaN.
    def unmasked(x: Array) -> Array:
        return jnp.where(tokens, x, 0.0)

    logprobs, advantage = unmasked(logprobs), advantages[..., None]
    old = jax.lax.stop_gradient(unmasked(old_logprobs))
    log_ratio = jnp.clip(logprobs - old, -MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = jnp.exp(log_ratio)
    # With epsilon = 0.2 the gain ends at a ratio of 1.2 if A > 0, and of 0.8 if A < 0. On the other
    # side the minimum is the unclipped product: a token that moved the wrong way is pulled back.
    clipped = jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon)
    losses = -jnp.minimum(ratio * advantage, clipped * advantage)
    if kl_coef:
        losses = losses + kl_coef * kl_estimate(logprobs, unmasked(ref_logprobs))
    total = jnp.sum(unmasked(losses), axis=-1)
    return total / jnp.maximum(jnp.sum(tokens, axis=-1), 1) if average else total
