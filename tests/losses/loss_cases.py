"""Pairs to compute losses of, and the closed forms of these."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inbol_jax.losses import PAIR_LOSSES, PairLogprobs
from inbol_jax.records import PairKind

KINDS = np.array([kind.number for kind in PairKind])
nats = st.floats(-60, 0, width=32, allow_subnormal=False)
confidence = st.floats(0, 1, width=32, allow_subnormal=False)
betas = st.sampled_from([0.01, 0.1, 0.5, 1.0, 5.0])
pairs = st.lists(
    st.tuples(nats, nats, nats, nats, confidence, st.sampled_from(KINDS.tolist())),
    min_size=4,  # of one length: each is compiled
    max_size=4,
)
few = settings(max_examples=25, deadline=None)


def columns(rows):
    *floats, kind = zip(*rows, strict=True)
    return [np.array(x, np.float32) for x in floats] + [np.array(kind, np.int32)]


def log_sigmoid(x):
    """By numpy, in float64."""
    return -np.logaddexp(0.0, -np.asarray(x, np.float64))


def random_pairs(n, seed=0, dtype=np.float32):
    """Chosen and rejected of the policy, then of the reference."""
    random = np.random.default_rng(seed)
    return [(-10 * random.random(n)).astype(dtype) for _ in range(4)]


# Further keywords of the losses that have some
OPTIONS = {name: {"label_smoothing": 0.2} for name in ("sigmoid", "robust")}
ALL = pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in PAIR_LOSSES if name != "robust"] + list(OPTIONS.items()),
)


def margins(values):
    """Four arrays whose margin over the reference is `values`, in float32."""
    values = np.asarray(values, np.float32)
    return values - 40.0, *(np.full_like(values, x) for x in (-60.0, -30.0, -50.0))


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


# Log-probabilities f32[b, t] and a mask i32[b, t]; of few shapes, as each is compiled
masked = st.sampled_from([(1, 1), (3, 4)]).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=nats),
        hnp.arrays(np.int32, shape, elements=st.integers(0, 1)),
    )
)


def two(policy_chosen, policy_rejected, ref_chosen, ref_rejected):
    """Policy and reference from four arrays."""
    return PairLogprobs(policy_chosen, policy_rejected), PairLogprobs(ref_chosen, ref_rejected)


def pair_loss(name, arguments, **options):
    """The loss of that name of four arrays."""
    return PAIR_LOSSES[name](*two(*arguments), **options)
