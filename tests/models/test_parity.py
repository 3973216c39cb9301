"""Models against transformers: the shipped checkpoint, and tiny random ones of every family.

Packed rows and decoding steps are compared with full forward passes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file
from torch_reference import (
    CLOSE,
    PARITY,
    RANDOM,
    assert_same_logits,
    by_row,
    for_ours,
    images_of,
    load,
    make_batch,
    our_logits,
    pad,
    random_config,
    random_torch,
    tokens_per_image,
)
from transformers import AutoModelForImageTextToText
from transformers.activations import ACT2FN

from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.models import load_pretrained, save_pretrained
from inbol_jax.models.decoder import take
from inbol_jax.models.families import load_config
from inbol_jax.models.layers import ACTIVATIONS
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.packing import Branch, RowShape, pack_row
from inbol_jax.models.weights import TABLE, module_name, path_pattern, table_row


def test_shipped_checkpoint(tiny):
    model, report = AutoModelForImageTextToText.from_pretrained(
        TINY, output_loading_info=True, local_files_only=True
    )
    assert not any(report.values()), "missing, unexpected or mismatched keys"
    assert_same_logits(tiny, model.eval())
    assert_same_logits(tiny, model, images=(0, 0, 0))


@pytest.mark.parametrize("case", PARITY)
def test_random_checkpoints(case, tmp_path):
    """Logits of rows of two, no and one image; names of modules; and an export, which holds the
    very tensors of transformers, also those that the model does not use."""
    model = random_torch(case)
    model.save_pretrained(tmp_path / "theirs")
    checkpoint = load(tmp_path / "theirs")
    assert_same_logits(checkpoint, model, images=(2, 0, 1))
    paths = list(flatten_dict(dict(checkpoint.variables["params"]), sep="/"))
    assert {module_name(path) for path in paths} <= {name for name, _ in model.named_modules()}
    save_pretrained(checkpoint, tmp_path / "export")
    keys = load_file(tmp_path / "export/model.safetensors").keys()
    assert {table_row(path).key for path in paths} == {k for k in keys if ".head." not in k}
    again, report = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "export", output_loading_info=True
    )
    assert not any(report.values())
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_no_row_of_the_table_is_idle_and_none_matches_what_another_does(tmp_path):
    used = set()
    for case in RANDOM:
        random_config(case).save_pretrained(tmp_path)
        for path in flatten_dict(dict(param_shapes(load_config(tmp_path))), sep="/"):
            assert table_row(path).path == path
            used |= {row for row in TABLE if path_pattern(row).fullmatch(path)}
    assert used == TABLE.keys()
    with pytest.raises(InbolError, match="language_model/adapter/scale matches 0 rows"):
        table_row("language_model/adapter/scale")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = np.linspace(-12, 12, 999, dtype=np.float32)
    np.testing.assert_allclose(
        ACTIVATIONS[name](jnp.asarray(x)),
        ACT2FN[name](torch.from_numpy(x)).numpy(),
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files(tmp_path, dtype):
    """Most checkpoints are stored so. Loaded as float32, they are the very numbers of the file."""
    model = random_torch("clip llama grouped").to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "half")
    model.float().save_pretrained(tmp_path / "whole")
    half, whole = (load(tmp_path / name).variables for name in ("half", "whole"))
    assert {x.dtype for x in jax.tree.leaves(half)} == {np.dtype(np.float32)}
    jax.tree.map(np.testing.assert_array_equal, dict(half), dict(whole))


def test_parameters_and_computation_in_bfloat16(sound, tmp_path):
    """8 bits of mantissa, rounded a dozen times, err by a few per cent of the logits' own size."""
    full, low = load(sound), load_pretrained(sound, dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(low.variables)} == {jnp.dtype(jnp.bfloat16)}
    batch = make_batch(full.config, [15, 15])
    exact, rounded = our_logits(full, batch), our_logits(low, batch)
    assert rounded.dtype == np.float32
    assert 0 < np.sqrt(np.mean((rounded - exact) ** 2)) < 0.05 * np.std(exact)
    save_pretrained(low, tmp_path / "low")
    again = load_pretrained(tmp_path / "low", dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, dict(again.variables), dict(low.variables))


def test_packed_rows_are_separate_rows(model_of_ours):
    """Each branch of a packed row, prefix in front, has the logits of a row of its own."""
    checkpoint, random = model_of_ours, np.random.default_rng(0)
    shortest = tokens_per_image(checkpoint.config) + 3
    prompts = make_batch(checkpoint.config, [shortest, shortest + 4])
    prompts = by_row(prompts, shortest - 3)
    masks = prompts["attention_mask"] == 1
    prefixes = [ids[mask] for ids, mask in zip(prompts["input_ids"], masks, strict=True)]
    branches = [
        [Branch(random.integers(4, 50, n), start) for n, start in row]
        for row in ([(4, 0), (2, 1), (5, 0)], [(1, 0), (6, 4)])
    ]
    shape = RowShape.fitting(list(zip(prefixes, branches, strict=True)))
    rows = [pack_row(p, b, shape) for p, b in zip(prefixes, branches, strict=True)]
    packed = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    logits = our_logits(checkpoint, packed | images_of(prompts))

    separate = pad(
        [np.concatenate([prefixes[i], b.ids]) for i, row in enumerate(branches) for b in row]
    )
    counts = [len(row) for row in branches]
    separate |= {name: np.repeat(x, counts, 0) for name, x in images_of(prompts).items()}
    alone = iter(our_logits(checkpoint, separate))
    for i, (prefix, row) in enumerate(zip(prefixes, branches, strict=True)):
        for segment, branch in enumerate(row, 1):
            expected = next(alone)[: len(prefix) + len(branch.ids)]
            ours = logits[i][packed["segments"][i] == segment]
            np.testing.assert_allclose(ours, expected[len(prefix) :], **CLOSE)
            of_branch = packed["target_segment"][i] == segment
            targets = packed["targets"][i][of_branch].tolist()
            assert targets == list(branch.ids[branch.start :])
            predicting = logits[i][packed["target_index"][i][of_branch]]
            first = len(prefix) + branch.start - 1
            np.testing.assert_allclose(predicting, expected[first:-1], **CLOSE)


@pytest.mark.parametrize("attention", ["xla", "cudnn"])
def test_decoding_steps_are_full_forwards(model_of_ours, attention, kernels_anywhere):
    """Every step of every continuation, after prompts of different lengths."""
    checkpoint, (b, n, steps) = model_of_ours, (2, 3, 4)
    shortest = tokens_per_image(checkpoint.config) + 2
    lengths = np.array([shortest + 4, shortest])
    batch = by_row(make_batch(checkpoint.config, lengths), shortest - 2)
    tokens = np.random.default_rng(1).integers(4, 50, (b, n, steps)).astype(np.int32)
    c = checkpoint.config.text
    mask = batch["attention_mask"] == 1
    apply = checkpoint.model.clone(attention=attention).apply

    @jax.jit
    def decoded(variables):
        _, prefix = apply(variables, batch, method="prefill")
        head = apply(variables, method="head")
        suffix, logits = apply(variables, prefix, n, steps, method="make_suffixes"), []
        if attention == "xla":  # What is not written yet must not be read.
            suffix = jax.tree.map(lambda x: jnp.full_like(x, 7.0), suffix)
        end = apply(variables, batch, method="next_positions")
        for step in range(steps):
            positions = jnp.broadcast_to(end[:, None] + step, (b, n))
            arguments = tokens[:, :, step], positions, prefix, mask, suffix, jnp.int32(step)
            hidden, suffix = apply(variables, *arguments, method="decode_step")
            logits.append(hidden @ head)
        return jnp.stack(logits, axis=2)

    logits = np.asarray(decoded(checkpoint.variables))
    prompts = [batch["input_ids"][i, :length] for i, length in enumerate(lengths)]
    whole = pad([np.concatenate([prompts[i], t]) for i in range(b) for t in tokens[i]])
    whole |= {name: np.repeat(x, n, 0) for name, x in images_of(batch).items()}
    expected = our_logits(checkpoint, whole).reshape(b, n, -1, c.vocab_size)
    for i, length in enumerate(lengths):
        np.testing.assert_allclose(logits[i], expected[i, :, length : length + steps], **CLOSE)


def test_hidden_states_at_some_places_are_those_of_all(model_of_ours):
    """The last layer, which computes nothing else, and the decoder's gradients of that."""
    checkpoint, places = model_of_ours, jnp.array([[3, 0, 3], [1, 2, 5]])
    params = dict(checkpoint.variables["params"])
    key = checkpoint.config.decoder
    decoder = params.pop(key)
    shortest = tokens_per_image(checkpoint.config) + 2
    batch = for_ours(checkpoint.config, make_batch(checkpoint.config, [shortest, shortest + 4]))

    def run(at, decoder, params):
        whole = {"params": params | {key: decoder}}
        hidden = checkpoint.model.apply(whole, batch, at, method="hidden")
        hidden = hidden if at is not None else take(hidden, places)
        return jnp.sum(jnp.sin(hidden)), hidden

    found, expected = (
        jax.jit(jax.value_and_grad(functools.partial(run, at), has_aux=True))(decoder, params)
        for at in (places, None)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), found, expected)
