from pathlib import Path

import pytest
from store_lines import built, negatives

from inbol_jax.cli import main
from inbol_jax.construction.config import BuildConfig
from inbol_jax.errors import InbolError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs_per_kind": 0}, "--pairs-per-kind 0: at least 1"),
        ({"pairs_per_kind": 100_000_000}, "--pairs-per-kind 100000000: at least 1 and at most 1"),
        ({"max_refusals": 0}, "--max-refusals 0: more than 0 and at most 1"),
        (
            {"max_refusals": 0.5, "type_shares": ((3, 0.2),)},
            "--type-shares and --max-refusals: give one of them",
        ),
        ({"type_shares": ((4, 0.5),)}, "--type-shares 4: choose among 1, 2, 3"),
        ({"type_shares": ((1, 1.5),)}, r"--type-shares 1 1\.5: a share between 0 and 1"),
        ({"type_shares": ((1, float("nan")),)}, "--type-shares 1 nan: a share"),
        ({"type_shares": ((1, 0.5), (1, 0.5))}, "--type-shares: one of 1, 2, 3 is there twice"),
        ({"type_shares": ((1, 0.6), (2, 0.6))}, r"--type-shares: the shares add up to 1\.2"),
        (
            {"type_shares": ((1, 0.2), (2, 0.2), (3, 0.2))},
            r"--type-shares: the shares add up to 0\.6",
        ),
        (
            {"pair_shares": (("correct_over_wrong", 1.0),)},
            "--pair-shares correct_over_wrong: choose among correct_over_refusal",
        ),
        (
            {"pair_shares": (("refusal_over_answer", 0.5), ("correct_over_refusal", 0.6))},
            "--pair-shares: the shares add up",
        ),
        (
            {"templates": "terse"},
            "--templates or --refusal-mix 'terse': choose one of one, short, long, reason, all",
        ),
        (
            {"refusal_mix": (("terse", 1.0),)},
            "--templates or --refusal-mix 'terse': choose one of one, short",
        ),
        ({"refusal_mix": (("one", 0.5),)}, "--refusal-mix: .* must add up to 1"),
        ({"refusal_mix": (("one", 0.5), ("one", 0.5))}, "--refusal-mix: each set once"),
        ({"refusal_mix": (("one", 1.5), ("short", -0.5))}, "--refusal-mix: .* a share above 0"),
        (
            {"refusal_mix": (("one", 1.0),), "templates": "short"},
            "--refusal-mix and --templates: give one of them",
        ),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InbolError, match=message) as caught:
        BuildConfig(Path("run"), **options)
    assert "\n" not in str(caught.value)


def test_the_command_line_takes_all_options(out, capsys):
    words = "--templates reason --pairs-per-kind 2 --type-shares 3 0.2 --seed 4 --partial"
    words += " --pair-shares refusal_over_answer 0.1 --delta-k 0.8"
    run = ["build", "--out", str(out)]
    assert main([*run, "--negatives", str(negatives(out)), *words.split()]) == 0
    words = "--refusal-mix one 0.5 long 0.5 --type-shares 3 0.25"
    assert main([*run, *words.split()]) == 0
    assert "instructions" in capsys.readouterr().out
    assert built(out)[0]
