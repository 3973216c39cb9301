"""The confidence stores that `inbol build` reads: of its questions, and of `--negatives`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from inbol_jax.artifacts import read_meta
from inbol_jax.confidence.samples import Samples, inputs_fingerprint, stores_in
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.record import distinct_responses
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt
from inbol_jax.records import Response, SampledQuestion, VQAExample


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
    negatives = [] if config.negatives is None else _negative_stores(config.negatives)
    headers = {file: read_meta(file)["settings"] for file in files}
    if len({(h["images"], h["model"]) for h in headers.values()}) > 1:
        raise InbolError(
            f"the stores in {folder} are of different models or image folders; give each an --out "
            "of its own"
        )
    samples = [Samples.open(file) for file in files]
    others = [Samples.open(file) for file in negatives]
    _check_prompts([*samples, *others])
    for each in (*samples, *others):
        _check_finished(each, config)
    fingerprints = {"confidence": inputs_fingerprint(files)}
    if negatives:
        fingerprints["negatives"] = inputs_fingerprint(negatives)
    return Stores(
        samples=samples,
        negatives=others if negatives else None,
        prompt=samples[0].prompt,
        images=folder / headers[files[0]]["images"],
        fingerprints=fingerprints,
    )


def _check_finished(samples: Samples, config: BuildConfig) -> None:
    if not samples.n_missing:
        return
    file = samples.store.file
    about = f"{file}: {samples.n_missing} of {len(samples.keys)} questions have no answer yet"
    if not config.partial:
        raise InbolError(
            f"{about}; give `inbol confidence` again, which asks them alone, or take what is there "
            "with --partial"
        )
    say(f"{about}, and are left out")


def _negative_stores(path: Path) -> list[Path]:
    files = stores_in(path) if path.is_dir() else [path] if path.is_file() else []
    if not files or not all(read_meta(file).get("command") == "confidence" for file in files):
        raise InbolError(
            f"--negatives {path}: no store of confidences; give a folder, or a .jsonl file, that "
            "`inbol confidence` has written"
        )
    return files


def _check_prompts(stores: Sequence[Samples]) -> None:
    """All questions were asked alike: instructions and pairs hold them so."""
    prompts = {samples.prompt: samples.store.file for samples in stores}
    if len(prompts) > 1:
        (one, file), (other, other_file) = list(prompts.items())[:2]
        raise InbolError(
            f"{file} was asked with prompt {one}, and {other_file} with {other}; give "
            "`inbol confidence` one --prompt and --system for all"
        )
