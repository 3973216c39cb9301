"""P(True): after it has answered, the model is asked whether its answer is true.

Source: Kadavath et al. 2022 (arXiv 2207.05221), "Language Models (Mostly) Know What They Know". Theirs is a text model and a prompt with
choices (A) and (B); the words, and the image before them, are ours.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from inbol_jax.errors import InbolError
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.processor import TextEncoder, make_text_encoder
from inbol_jax.records import VQAExample
from inbol_jax.sampling.generate import Prompt, run_batches

PROMPT = "{question}\nProposed answer: {answer}\nIs the proposed answer true or false? Answer with True or False."
WORDS = ("True", "False")


def verdict(text: TextEncoder, question: str) -> tuple[Prompt, tuple[int, int]]:
    """How the two words go on behind a prompt: the tokens that both begin with, mostly none, and the one of each that follows these.

    Raises:
      InbolError: when the question cannot be asked.
    """
    true, false = (text.response(question, word) for word in WORDS)
    parted = next(i for i, (a, b) in enumerate(zip(true, false, strict=False)) if a != b)
    return true[:parted], (true[parted], false[parted])


@functools.partial(jax.jit, static_argnums=0)
def judge(
    model: Llava,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    words: tuple[jax.Array, jax.Array],
) -> Float[Array, " b"]:
    """Probability of the first word against the second as what follows each prompt: one prefill, and two rows of the head.

    Args:
      batch: input_ids, attention_mask i32[b, s] padded on the right, pixel_values.
      words: i32[], i32[], their tokens.
    """
    hidden = model.apply(variables, batch, method=Llava.hidden)
    last = jnp.take_along_axis(hidden, (batch["attention_mask"].sum(1) - 1)[:, None, None], axis=1)[
        :, 0
    ]  # b d
    head = model.apply(variables, method=Llava.head)[:, jnp.stack(words)]  # d 2
    logits = jnp.einsum(
        "bd,dw->bw", last, head.astype(last.dtype), preferred_element_type=jnp.float32
    )
    return jax.nn.sigmoid(logits[:, 0] - logits[:, 1])


def self_evaluate(
    loaded: Checkpoint,
    asked: Iterable[tuple[VQAExample, str]],
    images: Path,
    *,
    total: int,
    batch_size: int,
    label: str,
    set_aside: Callable[[VQAExample, str], None],
) -> Iterator[list[tuple[VQAExample, float]]]:
    """Yields finished batches: examples with the probability that their proposed answer is true.

    Args: those of `generate`.
      asked: examples with their proposed answers.
      total: how many they are.
    """
    text, words, shared = make_text_encoder(loaded), None, ()

    def prompts() -> Iterator[tuple[VQAExample, Prompt]]:
        nonlocal words, shared
        for example, answer in asked:
            question = PROMPT.format(question=example.question, answer=answer)
            try:
                prompt = text.prompt(question)
                if words is None:
                    shared, words = verdict(
                        text, question
                    )  # the template ends every prompt alike, so they are the same for all
                yield example, prompt + shared
            except InbolError as error:
                set_aside(example, str(error))

    batches = run_batches(
        loaded,
        prompts(),
        images,
        lambda variables, batch: judge(loaded.model, variables, batch, words),
        total=total,
        n=1,
        batch_size=batch_size,
        label=label,
        work="1 proposed answer",
        set_aside=set_aside,
    )
    for members, values in batches:
        yield [(example, float(value)) for example, value in zip(members, values, strict=False)]
