"""Gemma 3: prompts, where images see themselves, and batches that do not fit."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_families import TILE
from torch_reference import CLOSE, asked, load, make_batch, noise, random_torch

from inbol_jax.errors import InbolError
from inbol_jax.models import layers
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.models.vlm import image_mask


def test_batches_whose_tokens_are_not_their_images(gemma3):
    rows = ("Which?", [noise(48, 48), noise(90, 30)]), ("Why?", [])
    batch = asked(gemma3.processor, *rows)
    assert batch["pixel_values"].shape == (2, 3, TILE, TILE)
    with pytest.raises(InbolError, match="8 image tokens in the batch, but its images have 4"):
        gemma3.apply(gemma3.variables, batch | {"pixel_values": batch["pixel_values"][1:]})
    small = batch | {"pixel_values": batch["pixel_values"][..., :18]}
    with pytest.raises(InbolError, match=r"images of 24 x 18 pixels: config\.json says 24 each"):
        gemma3.apply(gemma3.variables, small)


def test_responses_follow_their_prompt(gemma3):
    encoder, decode = make_text_encoder(gemma3), gemma3.processor.tokenizer.decode
    prompt, response = encoder.prompt("Why?"), encoder.response("Why?", "I do not know.")
    assert decode(prompt).endswith("<end_of_turn>\n<start_of_turn> model\n")
    assert decode(response).strip() == "I do not know.<end_of_turn>"
    # The template strips, and writes the first token, as the tokenizer of Gemma does, too.
    (ids,) = asked(gemma3.processor, (" Why?\n", []))["input_ids"]
    assert encoder.prompt(" Why?\n", ()) == tuple(ids)
    for token in ("<start_of_image>", "<image_soft_token>"):
        with pytest.raises(InbolError, match="contains the model's"):
            encoder.prompt(f"Is {token} red?")


def test_images_see_themselves_and_what_is_before_them():
    image, segments = jnp.array([[0, 1, 1, 0, 1, 1, 1, 0, 1]]) == 1, jnp.array([[0] * 8 + [-1]])
    (mask,) = np.asarray(image_mask(image, segments))
    expected = np.zeros((9, 9), bool)
    expected[1:3, 1:3] = expected[4:7, 4:7] = True
    np.testing.assert_array_equal(mask, expected)


def test_attention_in_chunks(tmp_path, monkeypatch):
    """Of queries, whose keys may then lie behind them."""
    random_torch("gemma3 tied, window, linear rope").save_pretrained(tmp_path)
    checkpoint = load(tmp_path)
    batch = make_batch(checkpoint.config, [20, 26], images=(2, 3))
    whole = np.asarray(checkpoint.apply(checkpoint.variables, batch))
    monkeypatch.setattr(layers, "QUERY_CHUNK_SIZE", 6)
    chunked = np.asarray(checkpoint.apply(checkpoint.variables, batch))
    np.testing.assert_allclose(chunked, whole, **CLOSE)
