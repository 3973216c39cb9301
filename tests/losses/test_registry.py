"""What the tables of losses and weightings hold."""

from inbol_jax.losses import (
    PAIR_LOSSES,
    PAIR_WEIGHTINGS,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    linear_weights,
    margin_weights,
    robust_dpo_loss,
    uniform_weights,
    value_weights,
)


def test_losses_by_name():
    assert list(PAIR_LOSSES.items()) == [
        ("sigmoid", dpo_loss),
        ("robust", robust_dpo_loss),
        ("ipo", ipo_loss),
        ("hinge", hinge_loss),
    ]


def test_weightings_by_name():
    assert list(PAIR_WEIGHTINGS.items()) == [
        ("linear", linear_weights),
        ("margin", margin_weights),
        ("uniform", uniform_weights),
        ("value", value_weights),
    ]
