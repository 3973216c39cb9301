"""Altered images: which alteration blinds a model, and where altered images are kept."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import structs
from PIL import Image

from inbol_jax.answers import Generation
from inbol_jax.artifacts import atomically, fingerprint, writing
from inbol_jax.data.images import ImageError, load_image
from inbol_jax.extrinsic.generators import CannotPropose, Context, Proposal
from inbol_jax.records import VQAExample
from inbol_jax.responses.matching import CORRECT_AT, score
from inbol_jax.responses.vqa_accuracy import answer_key

MAX_SIDE = 672  # pixels of the images that a model is shown
AT_ONCE = 32  # questions whose altered images are on the disk together

# From an example and its RGB image to altered images, of the same number for every example. In the
# last one there is nothing to see.
Alter = Callable[[VQAExample, Image.Image], Sequence[Image.Image]]


def find_blinding(
    examples: Sequence[VQAExample], context: Context, alter: Alter, label: str
) -> dict[str, int]:
    """By id the first altered image about which the model says what it says about the last one.

    Of a question that it answers wrongly, or correctly without seeing anything, it cannot tell
    that. Without a model there are none. The model answers once per image.
    """
    if context.model is None:
        return {}
    said = zip(examples, context.model(examples, label), strict=True)
    known = [example for example, answer in said if _is_right(answer, example)]
    found: dict[str, int] = {}
    for start in range(0, len(known), AT_ONCE):
        chunk = known[start : start + AT_ONCE]
        with tempfile.TemporaryDirectory() as folder:
            asked = [q for e in chunk for q in _altered(e, context, alter, Path(folder))]
            answers = context.model(asked, label)
        # The answers about one example's images stand together, in the order of the images.
        n = len(asked) // len(chunk)
        for i, example in enumerate(chunk):
            texts = [answer and answer_key(answer.text) for answer in answers[i * n : (i + 1) * n]]
            if texts[-1] and not _is_right(answers[(i + 1) * n - 1], example):
                found[example.id] = texts.index(texts[-1])
    return found


def _is_right(answer: Generation | None, example: VQAExample) -> bool:
    gold = example.answers, example.metric, example.options, example.question
    return answer is not None and score(answer.text, *gold) >= CORRECT_AT


def _altered(example: VQAExample, context: Context, alter: Alter, folder: Path) -> list[VQAExample]:
    """The question about each altered image."""
    image = load_image(context.root / example.image)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    asked = []
    for j, altered in enumerate(alter(example, image)):
        file = folder / f"{fingerprint(example.id)}-{j}.png"
        altered.save(file, compress_level=1)
        asked.append(structs.replace(example, id=f"{example.id} {j}", images=(str(file),)))
    return asked


def propose_altered(
    example: VQAExample,
    context: Context,
    generator: str,
    change: Callable[[Image.Image], Image.Image],
    how: Mapping[str, Any],
) -> Proposal:
    """The example's own question about its image as a generator changes it.

    The changed image goes into a folder of the generator below the image folder, so that one folder
    holds the images of records and of their questions.

    Args:
      how: what is done, as JSON. The same of the same image has the same name.

    Raises:
      CannotPropose: if the image cannot be read.
      InbolError: if the changed one cannot be written.
    """
    try:
        image = change(load_image(context.root / example.image))
    except ImageError as error:
        raise CannotPropose(error.cause) from error
    # The format of the original, because it must not tell that the image was changed.
    if example.image.lower().endswith((".jpg", ".jpeg")):
        suffix, options = ".jpg", {"format": "JPEG", "quality": 95, "subsampling": 0}
    else:
        suffix, options = ".png", {"format": "PNG"}
    name = f"{generator}/{fingerprint([example.image, how])}{suffix}"
    with writing(context.root / generator, "altered images go there"):
        (context.root / generator).mkdir(exist_ok=True)
        with atomically(context.root / name, sync=False) as temporary:
            image.save(temporary, **options)
    removed = {"image": example.image, **how}
    return Proposal(
        example.question, generator, image=name, options=example.options, extra={"removed": removed}
    )
