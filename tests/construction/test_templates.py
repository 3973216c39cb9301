import pytest

from inbol_jax.construction.templates import REFUSALS, SHORT_REFUSALS, pick_refusal


def test_short_refusals_fit_the_embedded_vocabulary():
    assert len(SHORT_REFUSALS) == 4
    assert all(len(template.split()) <= 6 for template in SHORT_REFUSALS)
    assert REFUSALS[:4] == SHORT_REFUSALS
    assert len(set(REFUSALS)) == len(REFUSALS)


def test_pick_refusal_depends_on_the_key_alone():
    keys = [f"q{i}" for i in range(2000)]
    picked = {key: pick_refusal(key) for key in keys}
    assert picked == {key: pick_refusal(key) for key in reversed(keys)}
    counts = [list(picked.values()).count(template) for template in REFUSALS]
    assert min(counts) > 0.5 * len(keys) / len(REFUSALS)
    # Fixed for good: a change would rewrite every dataset that was built.
    assert [
        SHORT_REFUSALS.index(pick_refusal(key, SHORT_REFUSALS)) for key in ("q0", "q1", "q2")
    ] == [3, 2, 3]
    with pytest.raises(ValueError, match="no refusal templates"):
        pick_refusal("q0", ())
