"""Packed rows, element by element; the parity test has the model read them."""

import pytest

from inbol_jax.models.packing import Branch, RowShape, pack_row

PREFIX, BRANCHES = [11, 12, 13], [Branch([21, 22]), Branch([31, 32, 33], start=2)]


def test_a_row_holds_prefix_branches_and_padding():
    row = {name: x.tolist() for name, x in pack_row(PREFIX, BRANCHES, RowShape(10, 4)).items()}
    assert row == {
        "input_ids": [11, 12, 13, 21, 22, 31, 32, 33, 0, 0],
        "positions": [0, 1, 2, 3, 4, 3, 4, 5, 0, 0],
        "segments": [0, 0, 0, 1, 1, 2, 2, 2, -1, -1],
        "target_index": [2, 3, 6, 0],
        "targets": [21, 22, 33, 0],
        "target_segment": [1, 1, 2, 0],
    }


def test_shapes_are_rounded_up():
    assert RowShape.of(PREFIX, BRANCHES) == RowShape(8, 3)
    assert RowShape.fitting([(PREFIX, BRANCHES)]) == RowShape(8, 4)
    assert RowShape.fitting([(PREFIX, BRANCHES), ([1] * 9, [])]) == RowShape(16, 4)


@pytest.mark.parametrize("shape", [RowShape(7, 3), RowShape(8, 2)])
def test_a_row_that_does_not_fit_is_refused(shape):
    assert not shape.holds(RowShape.of(PREFIX, BRANCHES))
    with pytest.raises(ValueError, match="8 tokens and 3 targets does not fit"):
        pack_row(PREFIX, BRANCHES, shape)
