"""P(True): how probable a model holds it that "True" answers a question, and not "False".

Source: Kadavath et al. 2022 (arXiv 2207.05221), "Language Models (Mostly) Know What They Know".
`confidence.samples` writes the questions, each after the truth of an answer of the model.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.processor import TextEncoder, make_text_encoder
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.records import VQAExample
from inbol_jax.sampling.engine_protocol import SetAside
from inbol_jax.sampling.generate import BatchRunner, Prompt, encode_prompts
from inbol_jax.sampling.sampler import logits_of
from inbol_jax.sharding import COMPILER_OPTIONS

VERDICTS = ("True", "False")


def verdict_tokens(encoder: TextEncoder) -> tuple[Prompt, tuple[int, int]]:
    """The tokens that both words begin with, mostly none, and the first that differs in each: the
    same for all questions, as all prompts end alike."""
    true, false = (encoder.response("True or False?", word) for word in VERDICTS)
    first = next(i for i, (a, b) in enumerate(zip(true, false, strict=False)) if a != b)
    return true[:first], (true[first], false[first])


@functools.partial(jax.jit, static_argnums=0, compiler_options=COMPILER_OPTIONS)
def probability_of_true(
    model: VisionLanguageModel,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    words: Int[Array, " 2"],
) -> Float[Array, " b"]:
    """The softmax of the first word against the second as the next token.

    Args:
      batch: input_ids and attention_mask, i32[b, s] padded on the right; the images.
      words: the two words' tokens.
    """
    end = batch["attention_mask"].sum(1, keepdims=True) - 1  # b 1
    last = model.apply(variables, batch, end, method="hidden")  # b 1 d
    logits = logits_of(last, model.apply(variables, method="head")[:, words])  # b 1 2
    return jax.nn.sigmoid(logits[:, 0, 0] - logits[:, 0, 1])


def self_evaluate(
    checkpoint: Checkpoint,
    questions: Iterable[tuple[VQAExample, str]],
    images: Path,
    *,
    total: int,
    batch_size: int,
    label: str,
    set_aside: SetAside,
) -> Iterator[list[tuple[VQAExample, float]]]:
    """Yields finished batches: examples with the probability of True.

    Args:
      questions: examples, each with the text that is asked about it.
      images, batch_size, label, set_aside: as in `generate`.
      total: the number of questions.
    """
    encoder = make_text_encoder(checkpoint)
    shared, words = verdict_tokens(encoder)
    runner = BatchRunner(checkpoint, images, batch_size, 1, set_aside, label)
    batches = runner.run(
        encode_prompts(encoder, questions, images, set_aside, suffix=shared),
        functools.partial(probability_of_true, checkpoint.model, words=jnp.array(words)),
        total,
    )
    for members, values in batches:
        yield list(zip(members, values.tolist(), strict=False))
