"""A checkpoint here, and the same checkpoint behind a server: do they say the same?

    python benchmarks/engines.py --model CKPT --data FOLDER --endpoint URL --endpoint-model NAME

Greedy answers must be equal, up to a tie that rounding decides. Sampled answers must come from one
distribution: the p-value is that of a permutation test, which deals the samples of each question
out again to the two engines. Log-probabilities of samples of equal texts and numbers of tokens must
be equal (but for few, whose tokens differ nevertheless): they are only if the server takes them at
temperature 1 and before any truncation.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tyro

from inbol_jax.data.vqa import VQADataset, load_dataset_folder
from inbol_jax.defaults import TINY
from inbol_jax.models.loading import load_pretrained
from inbol_jax.prompts import DEFAULT
from inbol_jax.records import VQAExample
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engine_protocol import Engine
from inbol_jax.sampling.engines import CheckpointEngine, EndpointEngine
from inbol_jax.sampling.generate import Generation

PERMUTATIONS = 2000  # of the test
Answers = dict[str, list[Generation]]


@dataclasses.dataclass(frozen=True)
class Config:
    """A checkpoint against the same checkpoint behind an endpoint."""

    data: Path
    """Dataset folder."""
    endpoint: str
    """Base URL of the server."""
    endpoint_model: str
    """The name that it gives the checkpoint."""
    model: Path = TINY
    """The checkpoint."""
    questions: int = 50
    """The first ones of the dataset."""
    n: int = 40
    """Samples per question."""
    seed: int = 0
    """Of the samples and of the test."""


def answers(engine: Engine, dataset: VQADataset, examples: Sequence[VQAExample]) -> Answers:
    """The answers by the question's id."""

    def refuse(example: VQAExample, reason: str) -> None:
        raise SystemExit(f"{example.id}: {reason}")

    batches = engine.generate(
        examples, dataset.root, prompt=DEFAULT, label="asking", set_aside=refuse
    )
    return {example.id: given for batch in batches for example, given in batch}


def p_value(ours: Answers, theirs: Answers, config: Config) -> float:
    """How probable it is that counts of answers differ so much if both draw from one distribution.

    They differ by their squared distance, summed over the questions.
    """
    rng, found = np.random.default_rng(config.seed), np.zeros(PERMUTATIONS + 1)
    for key, own in ours.items():
        texts = [generation.text for generation in (*own, *theirs[key])]
        kinds, numbers = np.unique(texts, return_inverse=True)
        for i in range(PERMUTATIONS + 1):
            counts = [np.bincount(x, minlength=len(kinds)) for x in np.split(numbers, [len(own)])]
            found[i] += np.square(counts[0] - counts[1]).sum()
            rng.shuffle(numbers)
    return float((found >= found[0]).mean())


def compare(
    examples: Sequence[VQAExample], ours: Answers, theirs: Answers, config: Config
) -> Iterator[Sequence[object]]:
    """Rows of the table about samples."""
    right = [
        np.array([[outcome(e, g.text) == "correct" for g in of[e.id]] for e in examples])
        for of in (ours, theirs)
    ]
    means = [share.mean() for share in right]
    error = np.sqrt(sum((x.var(axis=1, ddof=1) / x.shape[1]).sum() for x in right)) / len(examples)
    by = f"difference {means[1] - means[0]:+.3f}, standard error {error:.3f}"
    yield "mean confidence", f"{means[0]:.3f}", f"{means[1]:.3f}", by
    kinds = [sum(len({g.text for g in given}) for given in of.values()) for of in (ours, theirs)]
    yield "different answers", *kinds, f"p = {p_value(ours, theirs, config):.3f}"
    pairs = [(own, their) for e in examples for own in {*ours[e.id]} for their in theirs[e.id]]
    gaps = [abs(a.logprob - b.logprob) for a, b in pairs if a[::2] == b[::2]]
    about = f"99% differ by at most {np.quantile(gaps, 0.99):.1e}" if gaps else "none given"
    yield "log-probabilities of equal samples", len(gaps), len(gaps), about


def main(config: Config) -> None:
    dataset = load_dataset_folder(config.data)
    examples, checkpoint = dataset.examples[: config.questions], load_pretrained(config.model)
    endpoint = EndpointConfig(config.endpoint, config.endpoint_model)

    def both(options: SamplingOptions) -> list[Answers]:
        engines = [
            CheckpointEngine(lambda: checkpoint, options, config.seed, 32),
            EndpointEngine(endpoint, options, config.seed),
        ]
        return [answers(engine, dataset, examples) for engine in engines]

    ours, theirs = both(SamplingOptions(n=1, temperature=0.0))
    equal = sum(ours[e.id][0].text == theirs[e.id][0].text for e in examples)
    rows = [("greedy answers", len(ours), len(theirs), f"{equal} equal")]
    rows += compare(examples, *both(SamplingOptions(n=config.n)), config)
    print("| | this package | the server | |", "|---|---|---|---|", sep="\n")
    for row in rows:
        print("|", " | ".join(map(str, row)), "|")


if __name__ == "__main__":
    main(tyro.cli(Config))
