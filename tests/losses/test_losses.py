import doctest
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from jaxtyping import TypeCheckError, jaxtyped

from inbol_jax.losses import (
    LOSSES,
    SCHEMES,
    ca_dpo_loss,
    dpo,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    linear,
    logprob,
    margin,
    nll_anchor,
    preference_margin,
    robust_dpo_loss,
    schemes,
    sequence_logprob,
    sft_loss,
    token_logprobs,
    uniform,
    value,
)
from inbol_jax.records import PairKind

ARGUMENTS = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")
KINDS = np.array([int(kind) for kind in PairKind])

nats = st.floats(-60, 0, width=32, allow_subnormal=False)
confidence = st.floats(0, 1, width=32, allow_subnormal=False)
betas = st.sampled_from([0.01, 0.1, 0.5, 1.0, 5.0])
pairs = st.lists(
    st.tuples(nats, nats, nats, nats, confidence, st.sampled_from(KINDS.tolist())),
    min_size=1,
    max_size=8,
)
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
    one = dpo_loss(zero - 1, zero - 3, zero - 2, zero - 3, beta=2.0)[
        0
    ]  # margin 1 over the reference
    assert one == pytest.approx(math.log(1 + math.exp(-2)))


def test_dpo_stays_finite_far_out():
    """A sigmoid before its logarithm would give infinity."""
    far = np.array([-3000.0, 0.0], np.float32)
    loss = dpo_loss(far, far[::-1], np.zeros(2), np.zeros(2), beta=1.0)
    np.testing.assert_allclose(loss, [3000.0, 0.0])
    gradient = jax.grad(lambda x: dpo_loss(x, far[::-1], np.zeros(2), np.zeros(2), beta=1.0).sum())(
        far
    )
    np.testing.assert_allclose(gradient, [-1.0, 0.0], atol=1e-6)


@given(pairs, betas)
@few
def test_swapping_chosen_and_rejected_negates_the_margin(rows, beta):
    chosen, rejected, ref_chosen, ref_rejected, *_ = columns(rows)
    forward = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    backward = dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta=beta)
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
            lambda *a: dpo_loss(*a, beta=beta),
            arguments,
            order=2,
            modes=["fwd", "rev"],
            atol=1e-6,
            rtol=1e-6,
        )
        gradients = jax.grad(lambda *a: dpo_loss(*a, beta=beta).sum(), argnums=(0, 1, 2, 3))(
            *arguments
        )
        chosen, rejected, ref_chosen, ref_rejected = (np.asarray(a) for a in arguments)
        reward = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
        pull = -beta / (1 + np.exp(reward))  # equation 7 of Rafailov et al.: -beta sigmoid(-reward)
        for gradient, sign in zip(gradients, (1, -1, -1, 1), strict=True):
            np.testing.assert_allclose(gradient, sign * pull, rtol=1e-12)


# --- the variants

OPTIONS = {
    "sigmoid": {"label_smoothing": 0.2},
    "robust": {"label_smoothing": 0.2},
}  # further keywords of the losses that have some
ALL = pytest.mark.parametrize(
    ("name", "options"), [(name, {}) for name in LOSSES if name != "robust"] + list(OPTIONS.items())
)


def margins(values):
    """Four arrays whose margin over the reference is `values`, in float32."""
    values = np.asarray(values, np.float32)
    return (
        values - 40.0,
        np.full_like(values, -60.0),
        np.full_like(values, -30.0),
        np.full_like(values, -50.0),
    )


def closed_form(name, m, beta, label_smoothing=0.0):
    """As a function of the margin, by numpy, in float64."""
    plain, flipped = -log_sigmoid(beta * m), -log_sigmoid(-beta * m)
    return {
        "sigmoid": (1 - label_smoothing) * plain + label_smoothing * flipped,
        "robust": ((1 - label_smoothing) * plain - label_smoothing * flipped)
        / (1 - 2 * label_smoothing),
        "ipo": (m - 1 / (2 * beta)) ** 2,
        "hinge": np.maximum(0.0, 1 - beta * m),
    }[name]


def test_losses_by_name():
    assert list(LOSSES.items()) == [
        ("sigmoid", dpo_loss),
        ("robust", robust_dpo_loss),
        ("ipo", ipo_loss),
        ("hinge", hinge_loss),
    ]


@ALL
@pytest.mark.parametrize("beta", [0.05, 0.5, 2.0])
def test_variants_are_their_closed_forms(name, options, beta):
    m = np.array([-30.0, -2.0, -0.5, 0.0, 0.5, 1.0, 2.0, 10.0, 30.0])
    found = LOSSES[name](*margins(m), beta=beta, **options)
    assert (found.shape, found.dtype) == (m.shape, jnp.float32)
    np.testing.assert_allclose(found, closed_form(name, m, beta, **options), rtol=1e-5, atol=1e-5)


def test_variants_by_hand():
    one = margins([3.0])
    assert ipo_loss(*one, beta=0.25)[0] == pytest.approx(1)  # (3 - 2)^2
    assert ipo_loss(*margins([2.0]), beta=0.25)[0] == 0
    assert hinge_loss(*one, beta=0.25)[0] == pytest.approx(0.25)
    assert hinge_loss(*one, beta=0.5)[0] == 0
    assert dpo_loss(*margins([0.0]), beta=0.5, label_smoothing=0.3)[0] == pytest.approx(math.log(2))
    assert robust_dpo_loss(*margins([0.0]), beta=0.5, label_smoothing=0.3)[0] == pytest.approx(
        math.log(2)
    )


@given(pairs, betas)
@few
def test_without_smoothing_all_is_dpo(rows, beta):
    *arguments, _, _ = columns(rows)
    plain = dpo_loss(*arguments, beta=beta)
    np.testing.assert_array_equal(dpo_loss(*arguments, beta=beta, label_smoothing=0.0), plain)
    np.testing.assert_allclose(
        robust_dpo_loss(*arguments, beta=beta, label_smoothing=0.0), plain, rtol=1e-6
    )


@given(pairs, betas, st.sampled_from([0.1, 0.25, 0.4]))
@few
def test_the_robust_loss_is_unbiased(rows, beta, share):
    """Its mean over the pair as it is and flipped, by their probabilities, is the loss of the clean pair; conservative DPO's is not."""
    chosen, rejected, ref_chosen, ref_rejected, *_ = (x.astype(np.float64) for x in columns(rows))
    with jax.enable_x64(True):
        options = {"beta": beta, "label_smoothing": share}
        given_pair = robust_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, **options)
        flipped = robust_dpo_loss(rejected, chosen, ref_rejected, ref_chosen, **options)
        clean = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
        np.testing.assert_allclose(
            (1 - share) * given_pair + share * flipped, clean, rtol=1e-9, atol=1e-9
        )


def test_conservative_dpo_is_least_where_it_believes_the_labels():
    """At a reward margin of log((1 - e) / e): beyond it, the pair pulls back."""
    share, beta = 0.2, 0.5
    best = math.log((1 - share) / share) / beta
    with jax.enable_x64(True):
        slope = jax.grad(lambda m: dpo_loss(m, 0.0, 0.0, 0.0, beta=beta, label_smoothing=share))
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
        preference_margin(rejected, chosen, ref_rejected, ref_chosen),
        -preference_margin(chosen, rejected, ref_chosen, ref_rejected),
    )
    forward = LOSSES[name](chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    backward = LOSSES[name](rejected, chosen, ref_rejected, ref_chosen, beta=beta)
    np.testing.assert_allclose(forward - backward, slope(beta) * m, atol=1e-5)


@ALL
def test_only_the_margin_matters(name, options):
    """Adding to policy and reference alike, or to both policies, changes nothing: what a shared prompt adds cancels."""
    chosen, rejected, ref_chosen, ref_rejected = margins([-3.0, 0.0, 2.0])
    plain = LOSSES[name](chosen, rejected, ref_chosen, ref_rejected, beta=0.5, **options)
    np.testing.assert_allclose(
        LOSSES[name](chosen - 8, rejected - 8, ref_chosen, ref_rejected, beta=0.5, **options),
        plain,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        LOSSES[name](chosen - 8, rejected, ref_chosen - 8, ref_rejected, beta=0.5, **options),
        plain,
        rtol=1e-5,
    )


@ALL
def test_reference_free(name, options):
    """With zeros for the reference the margin is the policy's own."""
    chosen, rejected, *_ = (x.astype(np.float32) for x in random_pairs(6))
    zero = np.zeros(6, np.float32)
    found = LOSSES[name](chosen, rejected, zero, zero, beta=0.3, **options)
    np.testing.assert_allclose(
        found,
        closed_form(name, (chosen - rejected).astype(np.float64), 0.3, **options),
        rtol=1e-5,
        atol=1e-5,
    )


@ALL
def test_order_of_pairs_does_not_matter(name, options):
    arguments, order = [x.astype(np.float32) for x in random_pairs(6)], np.array([3, 0, 5, 1, 4, 2])
    whole = np.asarray(LOSSES[name](*arguments, beta=0.3, **options))
    np.testing.assert_array_equal(
        LOSSES[name](*(x[order] for x in arguments), beta=0.3, **options), whole[order]
    )
    np.testing.assert_array_equal(
        LOSSES[name](*(x[:2] for x in arguments), beta=0.3, **options), whole[:2]
    )


@ALL
def test_gradients_of_variants_by_finite_differences(name, options):
    with jax.enable_x64(True):
        arguments = [jnp.asarray(x) for x in random_pairs(8)]
        if name == "hinge":  # its kink has no derivative
            assert np.abs(1 - 0.3 * np.asarray(preference_margin(*arguments))).min() > 1e-2
        check_grads(
            lambda *a: LOSSES[name](*a, beta=0.3, **options),
            arguments,
            order=1,
            atol=1e-6,
            rtol=1e-6,
        )


@ALL
@pytest.mark.parametrize("scheme", SCHEMES)
def test_extreme_log_probabilities(name, options, scheme):
    """A response that a model all but excludes, thousands of nats: losses and gradients stay finite."""
    far = np.array([-5000.0, 0.0, -5000.0, 0.0], np.float32)
    arguments = far, far[::-1], far[[1, 1, 0, 0]], far[[0, 0, 1, 1]]
    c = np.array([0.0, 1.0, 0.5, 0.0], np.float32)

    def total(*a):
        return ca_dpo_loss(*a, c, KINDS, beta=1.0, scheme=scheme, loss=name, **options).sum()

    found, gradients = jax.value_and_grad(total, argnums=(0, 1, 2, 3))(*arguments)
    assert np.isfinite(found)
    assert all(np.isfinite(g).all() for g in gradients)


# --- the weights of CA-DPO


def test_kinds_are_those_of_the_records():
    names = [kind.name for kind in PairKind]
    assert [getattr(schemes, name) for name in names] == [int(kind) for kind in PairKind]
    assert sorted(name for name in vars(schemes) if "_OVER_" in name) == sorted(names)


def test_schemes_by_name():
    assert list(SCHEMES.items()) == [
        ("linear", linear),
        ("margin", margin),
        ("uniform", uniform),
        ("value", value),
    ]


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
    np.testing.assert_array_equal(
        ca_dpo_loss(*arguments, c, kind, beta=0.2, scheme="uniform"), dpo_loss(*arguments, beta=0.2)
    )


def test_value_is_the_default():
    arguments, c = [x.astype(np.float32) for x in random_pairs(4)], np.full(4, 0.8, np.float32)
    np.testing.assert_array_equal(
        ca_dpo_loss(*arguments, c, KINDS, beta=0.1),
        ca_dpo_loss(*arguments, c, KINDS, beta=0.1, scheme="value"),
    )


@ALL
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_combine_with_every_loss(name, options, scheme):
    arguments, c = (
        [x.astype(np.float32) for x in random_pairs(4, seed=2)],
        np.array([0.1, 0.4, 0.7, 0.0], np.float32),
    )
    found = ca_dpo_loss(*arguments, c, KINDS, beta=0.3, scheme=scheme, loss=name, **options)
    weight = np.asarray(SCHEMES[scheme](c, KINDS), np.float64)
    m = np.asarray(preference_margin(*(x.astype(np.float64) for x in arguments)))
    np.testing.assert_allclose(
        found, weight * closed_form(name, m, 0.3, **options), rtol=1e-4, atol=1e-5
    )


def test_certain_correct_answers_over_refusals_are_plain_dpo():
    """`linear` at c = 1: such pairs weigh 1, and so does everything under `uniform`."""
    arguments = [x.astype(np.float32) for x in random_pairs(5)]
    ones, kind = np.ones(5, np.float32), np.full(5, PairKind.CORRECT_OVER_REFUSAL)
    plain = dpo_loss(*arguments, beta=0.2)
    np.testing.assert_array_equal(
        ca_dpo_loss(*arguments, ones, kind, beta=0.2, scheme="linear"), plain
    )
    np.testing.assert_array_equal(
        ca_dpo_loss(*arguments, 0.3 * ones, kind, beta=0.2, scheme="uniform"), plain
    )
    assert (
        np.asarray(ca_dpo_loss(*arguments, 0.3 * ones, kind, beta=0.2, scheme="linear")) < plain
    ).all()


@pytest.mark.parametrize(
    ("scheme", "c", "gone"),
    [("linear", 0.0, [0, 1]), ("linear", 1.0, [2, 3]), ("margin", 0.5, [0, 1, 2, 3])],
)
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
            answer = ca_dpo_loss(
                zero,
                refusal,
                zero,
                zero,
                zero + c,
                jnp.array([PairKind.CORRECT_OVER_REFUSAL]),
                beta=1.0,
            )
            refuse = ca_dpo_loss(
                refusal,
                zero,
                zero,
                zero,
                zero + c,
                jnp.array([PairKind.REFUSAL_OVER_INCORRECT]),
                beta=1.0,
            )
            return (answer + refuse).sum()

        pull = -float(jax.grad(total)(jnp.zeros(1))[0])
        assert np.sign(pull) == sign


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ca_dpo_gradients(scheme):
    with jax.enable_x64(True):
        arguments, c = (
            [jnp.asarray(x) for x in random_pairs(4, seed=1)],
            jnp.array([0.1, 0.4, 0.7, 0.0]),
        )
        check_grads(
            lambda *a: ca_dpo_loss(*a, c, KINDS, beta=0.3, scheme=scheme),
            arguments,
            order=1,
            atol=1e-6,
            rtol=1e-6,
        )


def test_ca_dpo_compiles_without_its_python_values():
    arguments, c = (
        [x.astype(np.float32) for x in random_pairs(4)],
        np.linspace(0, 1, 4, dtype=np.float32),
    )
    compiled = jax.jit(lambda *a: ca_dpo_loss(*a, beta=0.1))
    np.testing.assert_allclose(
        compiled(*arguments, c, KINDS), ca_dpo_loss(*arguments, c, KINDS, beta=0.1), rtol=1e-6
    )


# --- SFT and sums over sequences

masked = st.integers(1, 3).flatmap(
    lambda b: st.integers(1, 4).flatmap(
        lambda t: st.tuples(
            hnp.arrays(np.float32, (b, t), elements=nats),
            hnp.arrays(np.int32, (b, t), elements=st.integers(0, 1)),
        )
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
    parts = [
        sft_loss(x, m)
        for x, m in zip(
            np.array_split(logprobs, devices), np.array_split(mask, devices), strict=True
        )
    ]
    np.testing.assert_allclose(
        np.sum(parts, axis=0), sft_loss(logprobs, mask), rtol=1e-5, atol=1e-5
    )


def test_sft_weighs_tokens():
    total, weight = sft_loss(np.array([[-1.0, -2.0, -4.0]]), np.array([[0.5, 0.0, 2.0]]))
    assert (float(total), float(weight)) == (8.5, 2.5)


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
def test_averages_and_the_anchor_are_means_over_the_mask(case):
    logprobs, mask = case
    expected = [
        row[m == 1].mean(dtype=np.float64) if m.any() else 0.0
        for row, m in zip(logprobs, mask, strict=True)
    ]
    np.testing.assert_allclose(
        sequence_logprob(logprobs, mask, average=True), expected, rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        nll_anchor(logprobs, mask), np.negative(expected), rtol=1e-5, atol=1e-5
    )


@given(masked, st.integers(1, 3))
@few
def test_padding_does_not_matter(case, more):
    """Masked columns, whatever they hold, on either side."""
    logprobs, mask = case
    for side in ((more, 0), (0, more)):
        wide, shown = (
            np.pad(logprobs, ((0, 0), side), constant_values=np.nan),
            np.pad(mask, ((0, 0), side)),
        )
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
    "anchor": lambda x, m: (nll_anchor(x, m) * m.sum(-1)).sum(),
}


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SUMS)
def test_nothing_leaks_from_under_the_mask(name, poison):
    logprobs, mask = (
        np.array([[-1.0, poison], [-0.5, -2.0], [poison, poison]], np.float32),
        np.array([[1, 0], [1, 1], [0, 0]]),
    )
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
        nll_anchor(nothing, none),
    ):
        np.testing.assert_array_equal(found, [0.0, 0.0])


def test_length_normalised_losses_do_not_see_length():
    """The same tokens twice over have the same average, and so the same loss; the loss of sums differs."""
    tokens = np.log(np.random.default_rng(0).random((4, 2, 3))).astype(
        np.float32
    )  # policy and reference, of chosen and rejected
    once, twice = tokens, np.concatenate([tokens, tokens], axis=-1)

    def loss(tokens, average):
        return ipo_loss(
            *(sequence_logprob(x, np.ones_like(x), average=average) for x in tokens), beta=0.3
        )

    np.testing.assert_allclose(loss(twice, True), loss(once, True), rtol=1e-5)
    assert (np.abs(loss(twice, False) - loss(once, False)) > 1e-2).all()


# --- what the functions say of themselves


def f32(*shape):
    return jnp.zeros(shape, jnp.float32)


FOUR, TOKENS = [f32(3)] * 4, [f32(3, 5), jnp.ones((3, 5), bool)]
CALLS = [(loss, FOUR, {"beta": 0.1} | OPTIONS.get(name, {})) for name, loss in LOSSES.items()]
CALLS += [(scheme, [f32(3), jnp.zeros(3, jnp.int32)], {}) for scheme in SCHEMES.values()]
CALLS += [
    (ca_dpo_loss, [*FOUR, f32(3), jnp.zeros(3, jnp.int32)], {"beta": 0.1}),
    (preference_margin, FOUR, {}),
    (sequence_logprob, TOKENS, {"average": True}),
    (nll_anchor, TOKENS, {}),
    (sft_loss, TOKENS, {}),
    (token_logprobs, [f32(3, 5, 4), f32(4, 7), jnp.zeros((3, 5), jnp.int32)], {"chunk": 2}),
]


@pytest.mark.parametrize(
    ("function", "arguments", "options"), CALLS, ids=[call[0].__name__ for call in CALLS]
)
def test_shapes_and_dtypes_are_what_the_annotations_say(function, arguments, options):
    """Of arguments and results; and an argument with one row or number more than the others is refused."""
    typed = jaxtyped(typechecker=beartype)(function)
    typed(*arguments, **options)
    for i, x in enumerate(arguments):
        with pytest.raises(TypeCheckError):
            typed(
                *arguments[:i],
                jnp.zeros((x.shape[0] + 1, *x.shape[1:]), x.dtype),
                *arguments[i + 1 :],
                **options,
            )


@pytest.mark.parametrize("module", [dpo, logprob])
def test_examples_in_the_documentation(module):
    result = doctest.testmod(module, extraglobs={"jnp": jnp})
    assert result.attempted >= 1
    assert result.failed == 0
