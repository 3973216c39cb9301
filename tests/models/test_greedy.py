"""Greedy decoding against transformers' `generate`, token for token, for every kind of decoder."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import torch
from torch_reference import (
    CASES,
    by_row,
    load,
    make_batch,
    random_torch,
    tokens_per_image,
    torch_base,
    torch_inputs,
    torch_logits,
    with_adapters,
)
from transformers import GenerationConfig

from inbol_jax.models import LoraConfig, save_pretrained
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.sampler import sample

TOKENS = 10  # beyond the windows of the cases that have one


@functools.partial(jax.jit, static_argnums=0)
def greedy(model, variables, batch):
    options = SamplingOptions(n=2, temperature=0, max_new_tokens=TOKENS)
    return sample(model, variables, batch, key=jax.random.key(0), options=options)


def assert_same_tokens(checkpoint, model):
    """Both decode the same prompts of several lengths, padded on the right here, on the left there.

    The end of a response is a token that some rows generate early and others do not: random models
    have none of their own.
    """
    tokens = tokens_per_image(checkpoint.config)
    shortest = tokens + 2
    lengths = [shortest, shortest + 9, shortest + 4, shortest + 9, shortest + 1, shortest + 6]
    batch = make_batch(checkpoint.config, lengths)
    ids, mask = (np.zeros_like(batch[name]) for name in ("input_ids", "attention_mask"))
    for row, length in enumerate(lengths):
        ids[row, -length:], mask[row, -length:] = batch["input_ids"][row, :length], 1
    inputs = torch_inputs(model, batch | {"input_ids": ids, "attention_mask": mask})

    def theirs(eos):
        options = GenerationConfig(
            do_sample=False, max_new_tokens=TOKENS, eos_token_id=eos, pad_token_id=0
        )
        with torch.inference_mode():
            rows = model.generate(**inputs, generation_config=options)[:, ids.shape[1] :].tolist()
        return [row[: row.index(eos) + 1] if eos in row else row for row in rows]

    whole = theirs(None)
    words = {token for row in whole for token in row} - {0}  # which fills up behind the model's end
    early = {token: sum(token in row[:-1] for row in whole) for token in words}
    # The token that ends closest to half of the rows early.
    eos = min(early, key=lambda token: (not early[token], abs(early[token] - 3), token))
    expected = theirs(eos)
    assert len({len(row) for row in expected}) > 1
    batch = by_row(batch, tokens)
    batch["question"] = np.arange(len(lengths), dtype=np.uint32)
    config = dataclasses.replace(checkpoint.config, eos_token_ids=(eos,))
    ours = jax.device_get(
        greedy(checkpoint.model.clone(config=config), checkpoint.variables, batch)
    )
    for row, tokens in enumerate(expected):
        for i in range(2):
            assert ours.tokens[row, i, : ours.lengths[row, i]].tolist() == tokens


@pytest.mark.parametrize("case", CASES)
def test_every_decoder(case, tmp_path):
    model = random_torch(case)
    model.save_pretrained(tmp_path)
    assert_same_tokens(load(tmp_path), model)


def test_adapters(tmp_path):
    """Decoding with adapters is decoding with the merged weights."""
    base_model = random_torch("clip llama grouped")
    base_model.save_pretrained(tmp_path / "base")
    checkpoint = with_adapters(tmp_path / "base", LoraConfig(rank=4, alpha=8), scale=0.2)
    save_pretrained(checkpoint, tmp_path / "merged", merge_adapters=True)
    merged = torch_base(tmp_path / "merged")
    assert_same_tokens(checkpoint, merged)
    batch = make_batch(checkpoint.config, [checkpoint.config.num_image_tokens + 4])
    with_lora, without = torch_logits(merged, batch), torch_logits(base_model, batch)
    assert not np.allclose(with_lora, without, atol=0.5), "the adapters matter"
