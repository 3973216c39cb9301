"""A short form of `tests/fuzz.py`."""

from fuzz import fuzz


def test_hostile_inputs_end_with_one_line_and_lose_no_record(capsys):
    assert fuzz(40, seed=0) == 0, capsys.readouterr().out
