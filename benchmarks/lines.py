"""How many lines parts of this package have, beside the same parts of other projects.

    python benchmarks/lines.py

Prints the table of docs/architecture.md. A line is a line of a Python file: comments, docstrings
and blank lines count. The peers' figures are constants, counted once, on 1 December 2026.
"""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "inbol_jax"
LOSSES = ("losses/dpo.py", "losses/ca_dpo.py", "losses/pair_weighting.py", "losses/registry.py")
SHARED = ("models/vlm.py", "models/decoder.py", "models/layers.py")
# What is counted -> (our files, what peers have for it).
PARTS = {
    "DPO and CA-DPO, without the trainer": (
        (*LOSSES, "losses/logprob.py", "training/ca_dpo.py"),
        "Tunix 798, TRL 1,785, EasyDeL 1,793",
    ),
    "Qwen3-VL, with the tower that Qwen2.5-VL has as well": (
        ("models/qwen3_vl.py", "models/native_vit.py"),
        "",
    ),
    "Qwen3-VL, with the layers that it shares with other families": (
        ("models/qwen3_vl.py", "models/native_vit.py", *SHARED),
        "bonsai 1,113",
    ),
    "on-policy training": (
        ("losses/policy_gradient.py", "training/rl.py"),
        "nanochat 326",
    ),
    "the whole package": (("**/*.py",), "nanochat 6,587, gemma's gm 16,963"),
}


def lines_of(patterns: tuple[str, ...]) -> int:
    """Lines of all files that the patterns name. Raises SystemExit if one names none."""
    files = set()
    for pattern in patterns:
        found = set(PACKAGE.glob(pattern))
        if not found:
            raise SystemExit(f"{PACKAGE} has no {pattern}: correct PARTS")
        files |= found
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


if __name__ == "__main__":
    print("| part | lines here | elsewhere |\n|---|---|---|")
    for part, (patterns, peers) in PARTS.items():
        print(f"| {part} | {lines_of(patterns):,} | {peers} |")
