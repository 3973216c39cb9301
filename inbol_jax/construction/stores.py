"""The confidence stores that `inbol build` reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from inbol_jax.artifacts import HINT, changes
from inbol_jax.confidence.samples import Samples, inputs_fingerprint, store_settings, stores_in
from inbol_jax.construction.config import BuildConfig
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt
from inbol_jax.records import SampledQuestion


class Stores(NamedTuple):
    """The stores of a build.

    Attributes:
      samples: what was said to the questions.
      prompt: how all were asked.
      images: the images' folder.
      fingerprint: of everything that is read.
    """

    samples: list[Samples]
    prompt: Prompt
    images: Path
    fingerprint: str

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


def find_stores(config: BuildConfig) -> Stores:
    """The stores that the options name; an InbolError if they cannot be built from, or differ in
    how questions were asked, which instructions and pairs would mix, or if questions were not asked
    yet, unless --partial takes what is there."""
    folder = config.out / "confidence"
    if not (files := stores_in(folder)):
        raise InbolError(
            f"{folder} holds no store of confidences; run `inbol confidence --out {config.out}` "
            "first"
        )
    first, may_differ = store_settings(files[0]), {"data": "", "seed": 0}
    for file in files[1:]:
        if different := changes(first | may_differ, store_settings(file) | may_differ):
            made = "; ".join(different.values())
            raise InbolError(f"{files[0]} was made with {made} in {file}: {HINT}")
    opened = [Samples.open(file) for file in files]
    for samples in opened:
        if not (n := samples.n_missing):
            continue
        about = f"{samples.store.file}: {n} of {len(samples.keys)} questions have no answer yet"
        if not config.partial:
            raise InbolError(
                f"{about}; give `inbol confidence` again, which asks them alone, or take what is "
                "there with --partial"
            )
        say(f"{about}, and are left out")
    images, fingerprint = folder / first["images"], inputs_fingerprint(files)
    return Stores(opened, opened[0].prompt, images, fingerprint)
