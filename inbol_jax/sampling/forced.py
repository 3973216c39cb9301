"""What a model says, what it says if it may not refuse, and how close the two are.

Refusing and answering are one decision, which the first token makes: those that the predefined
refusals begin with are the refusal tokens. A bias on their logits moves a model along its curve of
answers against refusals.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from inbol_jax.answers import Generation
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint
from inbol_jax.models.processor import TextEncoder, make_text_encoder
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.records import VQAExample
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import (
    BatchRunner,
    Prompt,
    SetAside,
    encode_prompts,
    refuse_unlikely,
    to_text,
)
from inbol_jax.sampling.sampler import Samples, decode, prefill
from inbol_jax.sharding import COMPILER_OPTIONS


class FirstToken(NamedTuple):
    """f32[b] each: how much more probable a refusal is than the best other first token, in nats."""

    logodds: Float[Array, " b"]
    """log P(all refusal tokens together) - log P(best other token)."""
    margin: Float[Array, " b"]
    """log P(best refusal token) - log P(best other token): greedy decoding refuses above 0, and
    with a bias b on the refusal tokens above -b."""


class ForcedAnswer(NamedTuple):
    """The greedy responses to one question, and the decision between them."""

    said: Generation
    """As the checkpoint generates."""
    forced: Generation
    """If no refusal token may come first."""
    logodds: float
    margin: float
    """Both as in `FirstToken`."""


def refusal_tokens(encoder: TextEncoder, refusals: Sequence[str]) -> tuple[Prompt, Prompt]:
    """The tokens that all responses begin with (mostly none), and those that then refuse: the same
    for all questions, as all prompts end alike.

    Raises:
      InbolError: if a refusal begins as an answer of one word does, so that its first token decides
        nothing.
    """
    # A tokenizer may begin all texts with "_": [_ Yes] [_ red] [_ I do ...] [_ Sorry , ...]. Then
    # column 0 is shared, and column 1 is (Yes, red, I, Sorry): the refusal tokens are I and Sorry.
    texts = [encoder.response("Is it red?", text) for text in ("Yes", "red", *refusals)]
    columns = zip(*texts, strict=False)  # the i-th token of every text
    # The first column in which the texts differ, or (0, 0, 0), which the next check refuses.
    start, column = next((c for c in enumerate(columns) if len({*c[1]}) > 1), (0, (0, 0, 0)))
    firsts = {*column[2:]}
    if firsts & {*column[:2]}:
        raise InbolError(
            "the model's tokenizer begins a refusal and an answer with the same token; "
            "choose other refusals"
        )
    return texts[0][:start], tuple(sorted(firsts))


def first_token(logits: Float[Array, "b V"], tokens: Prompt) -> FirstToken:
    """The decision between the refusal tokens and all others, at temperature 1."""
    logprobs = jax.nn.log_softmax(logits, axis=-1)  # b V
    # Two refusal tokens of 0.1 and 0.2, others of 0.3 and 0.4: logodds = log(0.3 / 0.4), as the
    # refusals count together; margin = log(0.2 / 0.4), as greedy decoding compares the best ones.
    refusal = logprobs[:, jnp.array(tokens)]  # b r
    other = (logprobs + _forbid(tokens, logits.shape[-1])).max(-1)  # b
    return FirstToken(jax.nn.logsumexp(refusal, axis=-1) - other, refusal.max(-1) - other)


def _forbid(tokens: Prompt, size: int) -> Float[Array, " V"]:
    # Added to logits: 0 changes nothing, -inf leaves no probability.
    return jnp.zeros(size).at[jnp.array(tokens)].set(-jnp.inf)


@functools.partial(
    jax.jit, static_argnames=("model", "tokens", "options"), compiler_options=COMPILER_OPTIONS
)
def answer_both_ways(
    model: VisionLanguageModel,
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    *,
    tokens: Prompt,
    options: SamplingOptions,
) -> tuple[Samples, FirstToken]:
    """One prefill, and two greedy responses to each: as the model is, and if it may not refuse.

    Args:
      batch: as in `sample`.
      tokens: the refusal tokens.
      options: n is 2 and the temperature 0.
    """
    prompted = prefill(model, variables, batch)
    forbidden = _forbid(tokens, prompted.logits.shape[-1])
    samples = decode(
        model,
        variables,
        batch,
        prompted,
        key=jax.random.key(0),  # greedy decoding draws nothing
        options=options,
        # [n = 2, V]: response 0 is free, response 1 may not begin with a refusal token
        first_bias=jnp.stack([jnp.zeros_like(forbidden), forbidden]),
    )
    return samples, first_token(prompted.logits[:, 0], tokens)


def answer_and_force(
    checkpoint: Checkpoint,
    examples: Sequence[VQAExample],
    images: Path,
    *,
    refusals: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    label: str | None,
    set_aside: SetAside,
) -> Iterator[list[tuple[VQAExample, ForcedAnswer]]]:
    """Yields finished batches: examples with both greedy answers and the decision between them.

    Args:
      refusals: texts whose first tokens are the refusal tokens.
      images, batch_size, label, set_aside: as in `generate`.
    """
    options = SamplingOptions(n=2, temperature=0.0, max_new_tokens=max_new_tokens)
    encoder = make_text_encoder(checkpoint)
    shared, tokens = refusal_tokens(encoder, refusals)
    runner = BatchRunner(checkpoint, images, batch_size, 2, set_aside, label)
    texts = ((example, encoder.text(example)) for example in examples)
    step = functools.partial(answer_both_ways, checkpoint.model, tokens=tokens, options=options)
    text = functools.partial(to_text, checkpoint)
    questions = encode_prompts(encoder, texts, images, set_aside, suffix=shared)
    for members, (samples, first) in runner.run(questions, step, len(examples)):
        answers = []
        # A last batch has fewer questions than rows: `zip` leaves the others out.
        for example, *responses, logodds, margin in zip(members, *samples, *first, strict=False):
            said, forced = map(text, *responses)
            said = refuse_unlikely(checkpoint, said)
            answers.append((example, ForcedAnswer(said, forced, float(logodds), float(margin))))
        yield answers
