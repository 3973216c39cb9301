"""Draws from a checkpoint, what they are drawn from, and whether the two agree."""

import dataclasses
import functools

import jax
import numpy as np
from scipy import stats

from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.tiles import UNTILED
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.sampler import compiled_sample

DRAWN = SamplingOptions()
GREEDY = SamplingOptions(temperature=0)
WIDTH = 40  # of the prompts, padded
LONGEST = WIDTH + DRAWN.max_new_tokens


@functools.partial(jax.jit, static_argnums=0)
def logprobs_of(model, variables, batch):
    return jax.nn.log_softmax(model.apply(variables, batch), axis=-1)


def make_batch(checkpoint, examples, images, width=WIDTH):
    text = make_text_encoder(checkpoint)
    rows = []
    for i, example in enumerate(examples):
        prompt = text.prompt(example.question)
        ids = np.pad(np.array(prompt, np.int32), (0, width - len(prompt)), constant_values=9)
        mask = (np.arange(width) < len(prompt)).astype(np.int32)
        row = {"input_ids": ids, "attention_mask": mask, "question": np.uint32(i)}
        rows.append(row | load_image_inputs(checkpoint, [images / example.image], [UNTILED]))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def draw_from(checkpoint, batch, n=1, options=DRAWN, seed=0, model=None):
    """Samples on the host; `model` may differ from the checkpoint's in its configuration."""
    own = {"key": jax.random.key(seed), "options": dataclasses.replace(options, n=n)}
    model = model or checkpoint.model
    return jax.device_get(compiled_sample(model, checkpoint.variables, batch, **own))


def teacher_forced(checkpoint, batch, row, responses):
    """f[n, t + 1, V]: log-probabilities of the next token after the prompt and each beginning of
    the responses i32[n, t]."""
    responses = np.asarray(responses, np.int32)
    n, length = len(responses), int(batch["attention_mask"][row].sum())
    end = length + responses.shape[1]
    prompt = np.repeat(batch["input_ids"][row, None, :length], n, 0)
    ids = np.pad(np.concatenate([prompt, responses], axis=1), ((0, 0), (0, LONGEST - end)))
    mask = np.broadcast_to(np.arange(LONGEST) < end, ids.shape).astype(np.int32)
    pixels = [name for name in batch if name.startswith("pixel_")]
    images = {name: np.repeat(batch[name][row, None], n, 0) for name in pixels}
    whole = {"input_ids": ids, "attention_mask": mask, **images}
    logprobs = np.asarray(logprobs_of(checkpoint.model, checkpoint.variables, whole))
    return logprobs[:, length - 1 : end]


def next_token(checkpoint, batch, row, options, first=None):
    """Probabilities f[V] of a row's first token, or of its second one behind `first`."""
    logprobs = teacher_forced(checkpoint, batch, row, [[0 if first is None else first]])[0]
    return truncated(logprobs[0 if first is None else 1], options)


def under_many_keys(batch, size):
    """The batch of one question as so many rows, each with keys of its own."""
    rows = {name: np.repeat(value, size, 0) for name, value in batch.items()}
    return rows | {"question": np.arange(size, dtype=np.uint32)}


def truncated(logprobs, options):
    """Probabilities in float64, by the definitions: the k most probable tokens; of these the
    smallest set, most probable first, of at least top-p."""
    p = np.exp(np.asarray(logprobs, np.float64) / options.temperature)
    order = np.argsort(-p)[: options.top_k or len(p)]
    q = p[order] / p[order].sum()
    kept = order[: np.searchsorted(np.cumsum(q), options.top_p) + 1]
    q = np.zeros_like(p)
    q[kept] = p[kept]
    return q / q.sum()


def assert_drawn_from(tokens, p):
    """Chi-square of counts against probabilities; tokens expected fewer than five times share a
    bin."""
    counts = np.bincount(tokens, minlength=len(p))
    assert not counts[p == 0].any(), "a token without probability was drawn"
    expected = p * len(tokens)
    common = expected >= 5
    observed, expected = ([*x[common], x[~common].sum()] for x in (counts, expected))
    if expected[-1] < 1:  # too rare to be a bin of its own
        last = expected.pop()
        assert observed.pop() <= 10 + last
        expected = np.array(expected) * sum(observed) / sum(expected)
    assert len(expected) > 1
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-4


def assert_drawn_jointly(pairs, p):
    """Chi-square of pairs i[k, 2] against two independent draws from p."""
    assert_drawn_from(pairs[:, 0] * len(p) + pairs[:, 1], np.outer(p, p).reshape(-1))
