"""A run that is interrupted ends where an unbroken one does."""

from pathlib import Path

import jax
import numpy as np
import pytest
from toy_run import toy_batches, toy_run

from inbol_jax.errors import InbolError

ROOT = Path(__file__).parents[2]


def same_state(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.mark.parametrize(
    ("save_steps", "logging_steps", "stop_at"),
    [(3, 3, 3), (3, 3, 5), (5, 10, 7), (3, 2, 4), (4, 5, 17), (50, 3, 9)],
)
def test_an_interrupted_run_ends_where_an_unbroken_one_does(
    tmp_path, save_steps, logging_steps, stop_at
):
    steps, options = 20, {"save_steps": save_steps, "logging_steps": logging_steps}
    whole = toy_run(tmp_path / "whole", steps, **options)
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path / "broken", steps, lambda start: toy_batches(start, stop_at), **options)
    asked = []

    def batches(start):
        asked.append(start)
        return toy_batches(start)

    resumed = toy_run(tmp_path / "broken", steps, batches, **options)
    assert asked == [stop_at // save_steps * save_steps]
    same_state(resumed, whole)
    assert (tmp_path / "broken" / "metrics.jsonl").read_text() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_text()


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    first = toy_run(tmp_path, 6)
    log = (tmp_path / "metrics.jsonl").read_bytes()
    same_state(
        toy_run(
            tmp_path,
            6,
            lambda start: pytest.fail("a batch was asked for") if start < 6 else iter(()),
        ),
        first,
    )
    assert (tmp_path / "metrics.jsonl").read_bytes() == log


def test_data_that_end_too_early(tmp_path):
    with pytest.raises(InbolError, match="the data ended after 4 of 6 steps"):
        toy_run(tmp_path, 6, lambda start: toy_batches(start, steps=4))
