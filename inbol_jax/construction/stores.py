"""The confidence stores that `inbol build` reads: of its questions, and of `--negatives`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from inbol_jax.artifacts import HINT, read_meta
from inbol_jax.confidence.samples import Samples, inputs_fingerprint, store_settings, stores_in
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.record import distinct_responses
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt
from inbol_jax.records import Response, SampledQuestion, VQAExample
from inbol_jax.stage import changes


class Stores(NamedTuple):
    """The stores of a build.

    Attributes:
      samples: what was said to the questions.
      negatives: what another model said to the same questions; None without `--negatives`.
      prompt: how all were asked.
      images: the images' folder.
      fingerprints: of everything that is read.
    """

    samples: list[Samples]
    negatives: list[Samples] | None
    prompt: Prompt
    images: Path
    fingerprints: dict[str, str]

    def questions(self) -> Iterator[SampledQuestion]:
        """All answered questions, in the order of their lines.

        Raises:
          InbolError: if two of them have one id.
        """
        seen: set[str] = set()
        for samples in self.samples:
            for question in samples:
                if (id := question.example.id) in seen:
                    raise InbolError(
                        f"{samples.store.file}: id {id} is in another store too; ids must be "
                        "unique across datasets"
                    )
                seen.add(id)
                yield question

    def could_not_say(self, question: SampledQuestion) -> bool:
        """Whether the model was asked for the P(True) of its answer, and could not be."""
        return any(samples.has_no_p_true(question) for samples in self.samples)

    def negatives_of(self, example: VQAExample) -> Sequence[Response] | None:
        """The incorrect responses of `--negatives` to a question; None if it was not asked."""
        found = (samples.find(example) for samples in self.negatives or ())
        question = next(filter(None, found), None)
        return None if question is None else distinct_responses(question)["wrong"]


def find_stores(config: BuildConfig) -> Stores:
    """The stores that the options name; an InbolError if they cannot be built from."""
    folder = config.out / "confidence"
    if not (files := stores_in(folder)):
        raise InbolError(
            f"{folder} holds no store of confidences; run `inbol confidence --out {config.out}` "
            "first"
        )
    first, *others = [store_settings(file) for file in files]
    alike = {name: first[name] for name in ("data", "prompt", "system")} | {"seed": 0}
    for file, other in zip(files[1:], others, strict=True):
        if different := changes(first | alike, other | alike):
            made = "; ".join(different.values())
            raise InbolError(f"{files[0]} was made with {made} in {file}: {HINT}")
    others = _negative_stores(config.negatives) if config.negatives else []
    opened = [Samples.open(file) for file in (*files, *others)]
    _check_alike(opened, partial=config.partial)
    fingerprints = {"confidence": inputs_fingerprint(files)}
    if others:
        fingerprints["negatives"] = inputs_fingerprint(others)
    return Stores(
        samples=opened[: len(files)],
        negatives=opened[len(files) :] or None,
        prompt=opened[0].prompt,
        images=folder / first["images"],
        fingerprints=fingerprints,
    )


def _negative_stores(path: Path) -> list[Path]:
    files = stores_in(path) if path.is_dir() else [path] if path.is_file() else []
    if not files or not all(read_meta(file).get("command") == "confidence" for file in files):
        raise InbolError(
            f"--negatives {path}: no store of confidences; give a folder, or a .jsonl file, that "
            "`inbol confidence` has written"
        )
    return files


def _check_alike(stores: Sequence[Samples], *, partial: bool) -> None:
    """Raises InbolError if questions were asked in several ways, which instructions and pairs would
    mix, or were not all asked."""
    first, *others = stores
    for other in others:
        if other.prompt != first.prompt:
            raise InbolError(
                f"{first.store.file} was asked with prompt {first.prompt}, and {other.store.file} "
                f"with {other.prompt}; give `inbol confidence` one --prompt and --system for all"
            )
    for samples in stores:
        if not samples.n_missing:
            continue
        n, total = samples.n_missing, len(samples.keys)
        about = f"{samples.store.file}: {n} of {total} questions have no answer yet"
        if not partial:
            raise InbolError(
                f"{about}; give `inbol confidence` again, which asks them alone, or take what is "
                "there with --partial"
            )
        say(f"{about}, and are left out")
