import doctest
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads

from inbol_jax.losses import SCHEMES, ca_dpo_loss, dpo, dpo_loss, linear, margin, sequence_logprob, sft_loss, token_logprobs, uniform, value
from inbol_jax.records import PairKind

ARGUMENTS = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")
KINDS = np.array([int(kind) for kind in PairKind])

logprob = st.floats(-60, 0, width=32, allow_subnormal=False)
confidence = st.floats(0, 1, width=32, allow_subnormal=False)
betas = st.sampled_from([0.01, 0.1, 0.5, 1.0, 5.0])
pairs = st.lists(st.tuples(logprob, logprob, logprob, logprob, confidence, st.sampled_from(KINDS.tolist())), min_size=1, max_size=8)
few = settings(max_examples=25, deadline=None)


def columns(rows):
    *floats, kind = zip(*rows, strict=True)
    return [np.array(x, np.float32) for x in floats] + [np.array(kind, np.int32)]


def log_sigmoid(x):
    """By numpy, in float64."""
    return -np.logaddexp(0.0, -np.asarray(x, np.float64))


def random_pairs(n, seed=0):
    random = np.random.default_rng(seed)
    return [-10 * random.random(n) for _ in ARGUMENTS]


# --- DPO


@given(pairs, betas)
@few
def test_dpo_is_the_closed_form(rows, beta):
    chosen, rejected, ref_chosen, ref_rejected, *_ = columns(rows)
    reward = beta * ((chosen.astype(float) - ref_chosen) - (rejected.astype(float) - ref_rejected))
    loss = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    assert (loss.shape, loss.dtype) == (chosen.shape, jnp.float32)
    # Three roundings of the margin at float32, scaled by beta: what the argument of the sigmoid can be off by.
    np.testing.assert_allclose(loss, -log_sigmoid(reward), rtol=1e-5, atol=beta * 60 * 5e-7)


def test_dpo_values_by_hand():
    zero = np.zeros(1, np.float32)
    assert dpo_loss(zero, zero, zero, zero, beta=0.3)[0] == pytest.approx(math.log(2))
    one = dpo_loss(zero - 1, zero - 3, zero - 2, zero - 3, beta=2.0)[0]  # margin 1 over the reference
    assert one == pytest.approx(math.log(1 + math.exp(-2)))


def test_dpo_stays_finite_far_out():
    """A sigmoid before its logarithm would give infinity."""
    far = np.array([-3000.0, 0.0], np.float32)
    loss = dpo_loss(far, far[::-1], np.zeros(2), np.zeros(2), beta=1.0)
    np.testing.assert_allclose(loss, [3000.0, 0.0])
    gradient = jax.grad(lambda x: dpo_loss(x, far[::-1], np.zeros(2), np.zeros(2), beta=1.0).sum())(far)
    np.testing.assert_allclose(gradient, [-1.0, 0.0], atol=1e-6)


@given(pairs, betas)
@few
def test_swapping_chosen_and_rejected_negates_the_margin(rows, beta):
    chosen, rejected, ref_chosen, ref_rejected, *_ = columns(rows)
    forward = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    backward = dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta=beta)
    reward = beta * ((chosen.astype(float) - ref_chosen) - (rejected.astype(float) - ref_rejected))
    np.testing.assert_allclose(forward - backward, -reward, rtol=1e-5, atol=1e-4)  # log sigmoid(-x) - log sigmoid(x) = -x


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_gradients(beta):
    with jax.enable_x64(True):
        arguments = [jnp.asarray(x) for x in random_pairs(5)]
        assert arguments[0].dtype == jnp.float64
        check_grads(lambda *a: dpo_loss(*a, beta=beta), arguments, order=2, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
        gradients = jax.grad(lambda *a: dpo_loss(*a, beta=beta).sum(), argnums=(0, 1, 2, 3))(*arguments)
        chosen, rejected, ref_chosen, ref_rejected = (np.asarray(a) for a in arguments)
        reward = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        pull = -beta / (1 + np.exp(reward))  # equation 7 of Rafailov et al.: -beta sigmoid(-reward)
        for gradient, sign in zip(gradients, (1, -1, -1, 1), strict=True):
            np.testing.assert_allclose(gradient, sign * pull, rtol=1e-12)


# --- the weights of CA-DPO


def test_kinds_are_those_of_the_records():
    names = [kind.name for kind in PairKind]
    assert [getattr(dpo, name) for name in names] == [int(kind) for kind in PairKind]
    assert sorted(name for name in vars(dpo) if "_OVER_" in name) == sorted(names)


def test_schemes_by_name():
    assert list(SCHEMES.items()) == [("linear", linear), ("margin", margin), ("uniform", uniform), ("value", value)]


@pytest.mark.parametrize(
    ("scheme", "c", "expected"),  # in the order of PairKind
    [
        ("linear", 1.0, [1, 1, 0, 0]),
        ("linear", 0.0, [0, 0, 1, 1]),
        ("linear", 0.25, [0.25, 0.25, 0.75, 0.75]),
        ("margin", 1.0, [1] * 4),
        ("margin", 0.5, [0] * 4),
        ("margin", 0.25, [0.5] * 4),
        ("margin", 0.0, [1] * 4),
        ("uniform", 0.0, [1] * 4),
        ("uniform", 0.7, [1] * 4),
        ("value", 1.0, [1, 0, 0, 2]),
        ("value", 0.0, [0, 0, 1, 2]),
        ("value", 0.5, [0.5, 0.5, 0.5, 2]),
        ("value", 0.25, [0.25, 0.375, 0.75, 2]),
    ],
)
def test_weights(scheme, c, expected):
    weights = SCHEMES[scheme](jnp.full(4, c), jnp.asarray(KINDS))
    np.testing.assert_array_equal(weights, np.array(expected, np.float32))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(pairs)
@few
def test_ca_dpo_is_weight_times_dpo(scheme, rows):
    *arguments, c, kind = columns(rows)
    weight = SCHEMES[scheme](c, kind)
    assert ((weight >= 0) & (weight <= 2)).all()
    loss = ca_dpo_loss(*arguments, c, kind, beta=0.1, scheme=scheme)
    np.testing.assert_allclose(loss, weight * dpo_loss(*arguments, beta=0.1), rtol=1e-6)


@given(pairs)
@few
def test_uniform_is_plain_dpo(rows):
    *arguments, c, kind = columns(rows)
    np.testing.assert_array_equal(ca_dpo_loss(*arguments, c, kind, beta=0.2, scheme="uniform"), dpo_loss(*arguments, beta=0.2))


def test_linear_is_the_default():
    arguments, c = [x.astype(np.float32) for x in random_pairs(4)], np.full(4, 0.8, np.float32)
    np.testing.assert_array_equal(ca_dpo_loss(*arguments, c, KINDS, beta=0.1), ca_dpo_loss(*arguments, c, KINDS, beta=0.1, scheme="value"))


@pytest.mark.parametrize(("scheme", "c", "gone"), [("linear", 0.0, [0, 1]), ("linear", 1.0, [2, 3]), ("margin", 0.5, [0, 1, 2, 3])])
def test_weight_zero_removes_a_pair(scheme, c, gone):
    arguments, c = [x.astype(np.float32) for x in random_pairs(4)], np.full(4, c, np.float32)

    def total(*a):
        return ca_dpo_loss(*a, c, KINDS, beta=0.5, scheme=scheme).sum()

    loss = np.asarray(ca_dpo_loss(*arguments, c, KINDS, beta=0.5, scheme=scheme))
    assert np.flatnonzero(loss == 0).tolist() == gone
    for gradient in jax.grad(total, argnums=(0, 1, 2, 3))(*arguments):
        assert np.flatnonzero(np.asarray(gradient) == 0).tolist() == gone


def test_pulls_balance_at_one_half():
    """`linear`: at c = 1/2, correct over refusal and refusal over incorrect of one question pull the refusal equally, up and down."""
    for c, sign in ((0.5, 0), (0.9, -1), (0.1, 1)):

        def total(refusal, c=c):
            zero = jnp.zeros(1)
            answer = ca_dpo_loss(zero, refusal, zero, zero, zero + c, jnp.array([PairKind.CORRECT_OVER_REFUSAL]), beta=1.0)
            refuse = ca_dpo_loss(refusal, zero, zero, zero, zero + c, jnp.array([PairKind.REFUSAL_OVER_INCORRECT]), beta=1.0)
            return (answer + refuse).sum()

        pull = -float(jax.grad(total)(jnp.zeros(1))[0])
        assert np.sign(pull) == sign


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ca_dpo_gradients(scheme):
    with jax.enable_x64(True):
        arguments, c = [jnp.asarray(x) for x in random_pairs(4, seed=1)], jnp.array([0.1, 0.4, 0.7, 0.0])
        check_grads(lambda *a: ca_dpo_loss(*a, c, KINDS, beta=0.3, scheme=scheme), arguments, order=1, atol=1e-6, rtol=1e-6)


def test_ca_dpo_compiles_without_its_python_values():
    arguments, c = [x.astype(np.float32) for x in random_pairs(4)], np.linspace(0, 1, 4, dtype=np.float32)
    compiled = jax.jit(lambda *a: ca_dpo_loss(*a, beta=0.1))
    np.testing.assert_allclose(compiled(*arguments, c, KINDS), ca_dpo_loss(*arguments, c, KINDS, beta=0.1), rtol=1e-6)


# --- SFT and sums over sequences

masked = st.integers(1, 3).flatmap(
    lambda b: st.integers(1, 4).flatmap(
        lambda t: st.tuples(hnp.arrays(np.float32, (b, t), elements=logprob), hnp.arrays(np.int32, (b, t), elements=st.integers(0, 1)))
    )
)


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


@given(masked, st.integers(1, 4))
@few
def test_sft_sums_add_up_over_devices(case, devices):
    """(sum, weight) of parts add up to that of the whole, however the rows are divided."""
    logprobs, mask = case
    parts = [sft_loss(x, m) for x, m in zip(np.array_split(logprobs, devices), np.array_split(mask, devices), strict=True)]
    np.testing.assert_allclose(np.sum(parts, axis=0), sft_loss(logprobs, mask), rtol=1e-5, atol=1e-5)


def test_sft_weighs_tokens():
    total, weight = sft_loss(np.array([[-1.0, -2.0, -4.0]]), np.array([[0.5, 0.0, 2.0]]))
    assert (float(total), float(weight)) == (8.5, 2.5)


@given(masked)
@few
def test_sequence_logprob_sums_what_the_mask_shows(case):
    logprobs, mask = case
    expected = [row[m == 1].sum(dtype=np.float64) for row, m in zip(logprobs, mask, strict=True)]
    np.testing.assert_allclose(sequence_logprob(logprobs, mask), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sequence_logprob(logprobs, mask), sequence_logprob(logprobs, mask == 1))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("loss", [lambda x, m: sft_loss(x, m)[0], lambda x, m: sequence_logprob(x, m).sum()], ids=["sft", "sequence"])
def test_nothing_leaks_from_under_the_mask(loss, poison):
    logprobs, mask = np.array([[-1.0, poison], [-0.5, -2.0]], np.float32), np.array([[1, 0], [1, 1]])
    value, gradient = jax.value_and_grad(loss)(logprobs, mask)
    assert abs(value) == 3.5
    np.testing.assert_array_equal(np.abs(gradient), mask)


def test_an_empty_mask_weighs_nothing():
    total, weight = sft_loss(np.full((2, 3), np.nan, np.float32), np.zeros((2, 3)))
    assert (float(total), float(weight)) == (0.0, 0.0)
    np.testing.assert_array_equal(sequence_logprob(np.full((2, 3), np.nan, np.float32), np.zeros((2, 3))), [0.0, 0.0])


# --- log-probabilities of tokens


def states(shape=(3, 5), d=8, vocabulary=13, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    hidden = random.normal(0, scale, (*shape, d)).astype(np.float32)
    return hidden, random.normal(0, 1, (d, vocabulary)).astype(np.float32), random.integers(0, vocabulary, shape).astype(np.int32)


def expected_logprobs(hidden, head, targets):
    logits = hidden.astype(np.float64) @ head.astype(np.float64)
    return np.take_along_axis(logits - np.logaddexp.reduce(logits, -1, keepdims=True), targets[..., None], -1)[..., 0]


@pytest.mark.parametrize("shape", [(), (4,), (3, 5), (2, 3, 4)])
def test_token_logprobs(shape):
    hidden, head, targets = states(shape)
    found = token_logprobs(hidden, head, targets)
    assert (found.shape, found.dtype) == (shape, jnp.float32)
    np.testing.assert_allclose(found, expected_logprobs(hidden, head, targets), rtol=1e-5, atol=1e-5)


def test_probabilities_of_all_tokens_sum_to_one():
    hidden, head, _ = states((1,))
    every = np.arange(head.shape[1])
    assert np.exp(token_logprobs(np.repeat(hidden, len(every), 0), head, every)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 4, 7, 14, 15, 16, 1000])
def test_chunks_change_nothing(chunk):
    hidden, head, targets = states((3, 5))
    weights = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)

    def total(hidden, head, chunk):
        return (weights * token_logprobs(hidden, head, targets, chunk=chunk)).sum()

    np.testing.assert_allclose(token_logprobs(hidden, head, targets, chunk=chunk), token_logprobs(hidden, head, targets), atol=2e-6)
    whole = jax.grad(total, argnums=(0, 1))(hidden, head, None)
    for chunked, expected in zip(jax.grad(total, argnums=(0, 1))(hidden, head, chunk), whole, strict=True):
        np.testing.assert_allclose(chunked, expected, rtol=1e-5, atol=1e-5)


def test_chunks_bound_what_is_in_memory():
    """No array of the chunked program, forward and backward, holds the logits of more than one chunk."""
    positions, vocabulary, chunk = 64, 512, 8
    hidden, head, targets = states((positions,), vocabulary=vocabulary)

    def largest(chunk):
        program = jax.jit(jax.grad(lambda h: token_logprobs(h, head, targets, chunk=chunk).sum())).lower(hidden).as_text()
        return f"tensor<{positions}x{vocabulary}xf32>" in program or f"tensor<{positions // chunk}x{chunk}x{vocabulary}xf32>" in program

    assert largest(positions)  # all at once, so that the search does find what it looks for
    assert not largest(chunk)


def test_token_logprobs_gradients():
    with jax.enable_x64(True):
        hidden, head, targets = states((4,))
        hidden, head = jnp.asarray(hidden, jnp.float64), jnp.asarray(head, jnp.float64)
        hot = jax.nn.one_hot(targets, head.shape[1])
        gradient = jax.grad(lambda h: token_logprobs(h, head, targets, chunk=3).sum())(hidden)
        # The logits are float32 by contract, so that the exact gradient stands in for differences in float64.
        np.testing.assert_allclose(gradient, (hot - jax.nn.softmax(hidden @ head)) @ head.T, rtol=1e-5, atol=1e-5)


def test_token_logprobs_by_finite_differences():
    hidden, head, targets = states((2, 3))
    gradient = np.asarray(jax.grad(lambda h: token_logprobs(h, head, targets).sum())(hidden))
    numeric, step = np.zeros_like(gradient), 1e-6
    for index in np.ndindex(hidden.shape):
        shift = np.zeros(hidden.shape)
        shift[index] = step
        difference = expected_logprobs(hidden + shift, head, targets) - expected_logprobs(hidden - shift, head, targets)
        numeric[index] = difference.sum() / (2 * step)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5)


def test_large_logits_do_not_overflow():
    hidden, head, targets = states((6,), scale=300.0)
    np.testing.assert_allclose(token_logprobs(hidden, head, targets), expected_logprobs(hidden, head, targets), rtol=1e-5, atol=1e-3)


def test_bfloat16_states():
    """Products of bfloat16 numbers are exact in float32, where they are added up: only the rounding of the inputs is seen."""
    hidden, head, targets = states((3, 5), d=64, vocabulary=50)
    low = [jnp.asarray(x, jnp.bfloat16) for x in (hidden, head)]
    found = token_logprobs(*low, targets)
    assert found.dtype == jnp.float32
    rounded = [np.asarray(x, np.float32) for x in low]
    np.testing.assert_allclose(found, expected_logprobs(*rounded, targets), rtol=1e-5, atol=1e-4)
    # Against float32 inputs: 8 bits round by 2^-9 at most, relative, each of the 64 products by 2^-8 of about 1: 64^0.5 * 2^-8 = 0.03 is
    # one standard deviation of the worst case; five of them for the largest of 15.
    np.testing.assert_allclose(found, expected_logprobs(hidden, head, targets), atol=0.16)
    np.testing.assert_array_equal(token_logprobs(low[0], head, targets), found)  # the head follows the states


def test_examples_in_the_documentation():
    result = doctest.testmod(dpo, extraglobs={"jnp": jnp})
    assert result.attempted >= 2
    assert result.failed == 0
