"""Gemma 3: what the parity tests of all families do not show. The processor's own batches, where
images see themselves, adapters, and what is refused.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_gemma3 import SIDE
from torch_reference import (
    CLOSE,
    SPELLINGS,
    assert_peft_reads_ours,
    assert_reads_what_peft_trained,
    edit_config,
    load,
    make_batch,
    random_torch,
    refusal,
    torch_base,
)

from inbol_jax.errors import InbolError
from inbol_jax.models import layers
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.models.tiles import UNTILED
from inbol_jax.models.vlm import image_mask

# PEFT asks transformers for it
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a random model."""
    folder = tmp_path_factory.mktemp("base")
    random_torch("gemma3 tied, window, linear rope").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_processors_own_batch(gemma3, side):
    """Two, no and one image per row, of different sizes; prompts as we make them."""
    processor, encoder = gemma3.processor, make_text_encoder(gemma3)
    noise, questions = np.random.default_rng(0), (" What color is it?\n", "Why?", "How many?")
    pictures = [
        [Image.fromarray(noise.integers(0, 255, (h, w, 3), np.uint8)) for w, h in row]
        for row in (((48, 48), (90, 30)), (), ((20, 48),))
    ]
    texts, prompts = [], []
    for question, row in zip(questions, pictures, strict=True):
        content = [*[{"type": "image"}] * len(row), {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        texts.append(processor.apply_chat_template(turn, add_generation_prompt=True))
        prompts.append(encoder.prompt(question, (UNTILED,) * len(row)))
    # The template writes the first token, and the tokenizer of Gemma does so, too.
    batch = processor(
        text=texts, images=pictures, padding=True, padding_side=side, return_tensors="np"
    )
    assert batch["pixel_values"].shape == (3, 3, SIDE, SIDE)
    for ids, mask, prompt in zip(batch["input_ids"], batch["attention_mask"], prompts, strict=True):
        assert tuple(ids[mask == 1]) == prompt
    with torch.inference_mode():
        inputs = {name: torch.tensor(x) for name, x in batch.items()}
        expected = torch_base(gemma3.path)(**inputs).logits.numpy()
    assert "token_type_ids" in inputs
    ours = np.asarray(gemma3.apply(gemma3.variables, batch))
    counts = batch["attention_mask"] == 1
    np.testing.assert_allclose(ours[counts], expected[counts], **CLOSE)
    with pytest.raises(InbolError, match="12 image tokens in the batch, but its images have 8"):
        gemma3.apply(gemma3.variables, dict(batch) | {"pixel_values": batch["pixel_values"][1:]})
    small = dict(batch) | {"pixel_values": batch["pixel_values"][..., :18]}
    with pytest.raises(InbolError, match=r"images of 24 x 18 pixels: config\.json says 24 each"):
        gemma3.apply(gemma3.variables, small)


def test_responses_follow_their_prompt(gemma3):
    encoder, decode = make_text_encoder(gemma3), gemma3.processor.tokenizer.decode
    prompt, response = encoder.prompt("Why?"), encoder.response("Why?", "I do not know.")
    assert decode(prompt).endswith("<end_of_turn>\n<start_of_turn> model\n")
    assert decode(response).strip() == "I do not know.<end_of_turn>"
    for token in ("<start_of_image>", "<image_soft_token>"):
        with pytest.raises(InbolError, match="contains the model's"):
            encoder.prompt(f"Is {token} red?")


def test_images_see_themselves_and_what_is_before_them():
    image, segments = jnp.array([[0, 1, 1, 0, 1, 1, 1, 0, 1]]) == 1, jnp.array([[0] * 8 + [-1]])
    (mask,) = np.asarray(image_mask(image, segments))
    expected = np.zeros((9, 9), bool)
    expected[1:3, 1:3] = expected[4:7, 4:7] = True
    np.testing.assert_array_equal(mask, expected)


def test_attention_in_chunks(base, monkeypatch):
    """Of queries, whose keys may then lie behind them."""
    checkpoint = load(base)
    batch = make_batch(checkpoint.config, [20, 26], images=(2, 3))
    whole = np.asarray(checkpoint.apply(checkpoint.variables, batch))
    monkeypatch.setattr(layers, "QUERY_CHUNK_SIZE", 6)
    chunked = np.asarray(checkpoint.apply(checkpoint.variables, batch))
    np.testing.assert_allclose(chunked, whole, **CLOSE)


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"mm_tokens_per_image": 9}, "mm_tokens_per_image = 9 does not divide 4 x 4 patches"),
        ({"mm_tokens_per_image": 5}, "mm_tokens_per_image = 5 is no square"),
        ({"mm_tokens_per_image": 0}, "mm_tokens_per_image = 0"),
        ({"text_config": {"model_type": "llama"}}, "text_config.model_type = 'llama'"),
        ({"text_config": {"model_type": "gemma3n_text"}}, "model_type = 'gemma3n_text'"),
        ({"text_config": {"hidden_activation": "xielu"}}, "text_config.hidden_act = 'xielu'"),
        ({"text_config": {"final_logit_softcapping": 30.0}}, "final_logit_softcapping = 30.0"),
        ({"text_config": {"attn_logit_softcapping": 50.0}}, "attn_logit_softcapping = 50.0"),
        (
            {"text_config": {"use_bidirectional_attention": True}},
            "use_bidirectional_attention = True",
        ),
        (
            {
                "text_config": {
                    "rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}
                }
            },
            "rope_type of sliding_attention = 'linear'",
        ),
        (
            {"text_config": {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}},
            "text_config.rope_type = 'yarn'",
        ),
        ({"vision_config": {"model_type": "clip_vision_model"}}, "'clip_vision_model'"),
        ({"image_token_index": 51}, "51: the vocabulary has 50 tokens"),
        ({"model_type": "gemma3n"}, "model_type = 'gemma3n'"),
    ],
    ids=str,
)
def test_what_is_not_supported_is_named_before_a_weight_is_read(base, change, culprit, tmp_path):
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    edit_config(tmp_path, change)
    message = refusal(tmp_path)  # which has no weights
    assert culprit in message
    assert str(tmp_path / "config.json") in message


def test_keys_as_transformers_modules_have_them(base, tmp_path):
    tensors = load_file(base / "model.safetensors")
    renamed = {SPELLINGS["modules"](key): x for key, x in tensors.items()}
    assert not renamed.keys() & tensors.keys()
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    save_file(renamed, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).variables, load(base).variables)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "v_proj", "out_proj"]},
        {"target_modules": ["gate_proj"], "modules_to_save": ["multi_modal_projector"]},
    ],
    ids=["names", "projector whole"],
)
def test_adapters_that_peft_trained(base, options, tmp_path):
    assert_reads_what_peft_trained(base, options, tmp_path)


def test_adapters_of_ours_in_peft(base, tmp_path):
    assert_peft_reads_ours(base, "language_model", tmp_path)
