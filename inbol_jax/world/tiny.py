"""The tiny LLaVA before it has learnt anything: configuration, tokenizer, processor, chat template.

They are written as files in Hugging Face layout.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from inbol_jax.artifacts import write_atomically, write_json
from inbol_jax.construction.templates import SHORT_REFUSALS
from inbol_jax.world.questions import world_texts
from inbol_jax.world.scenes import IMAGE_SIZE

SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<|user|>", "<|assistant|>")
PAD, BOS, EOS, IMAGE, USER, ASSISTANT = range(len(SPECIAL))
PATCH_SIZE = 12
NUM_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2

# The image goes first, whatever the order in the message, so that all questions about an image
# share its prefix.
CHAT_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}{% if message.role == 'user' %}{{ '<|user|>' }}"
    "{% for part in message.content if part.type == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% else %}{{ '<|assistant|>' }}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{{ '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer() -> Tokenizer:
    """Each word of the world is one token, and any other text falls back to its bytes.

    Decoding gives the text back, with runs of white space as one space.
    """
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    words = set()
    for text in (*world_texts(), *SHORT_REFUSALS):
        words.update(word for word, _ in splitter.pre_tokenize_str(text))
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = (*SPECIAL, *symbols, *sorted(words - set(symbols)))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    # The splitter puts a space in front of the first word; Strip removes it again.
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    return tokenizer


def model_config(vocab_size: int) -> dict[str, Any]:
    """config.json of the tiny model, which has 2.3 M parameters."""
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": "float32",
        "image_token_index": IMAGE,
        "image_seq_length": NUM_IMAGE_TOKENS,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "multimodal_projector_bias": True,
        "tie_word_embeddings": True,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "projection_dim": 128,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": vocab_size,
            "hidden_size": 160,
            "intermediate_size": 448,
            "num_hidden_layers": 4,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 32,
            "hidden_act": "silu",
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
        },
    }


def write_skeleton(folder: Path) -> None:
    """Writes all files of the checkpoint but its weights."""
    tokenizer = build_tokenizer()
    write_json(folder / "config.json", model_config(tokenizer.get_vocab_size()))
    ends = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    write_json(folder / "generation_config.json", ends | {"max_new_tokens": 12})
    write_atomically(folder / "tokenizer.json", tokenizer.to_str())
    write_json(folder / "tokenizer_config.json", _TOKENIZER)
    # Both files: transformers 5 reads the processor's first, older versions the image processor's.
    write_json(folder / "preprocessor_config.json", _IMAGE_PROCESSOR)
    write_json(folder / "processor_config.json", _PROCESSOR)
    write_atomically(folder / "chat_template.jinja", CHAT_TEMPLATE + "\n")
    # For versions of transformers that do not know the file above.
    template = json.dumps({"chat_template": CHAT_TEMPLATE})
    write_atomically(folder / "chat_template.json", template + "\n")


_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "clean_up_tokenization_spaces": False,
    "model_max_length": 256,
    "padding_side": "left",
    "extra_special_tokens": {"image_token": "<image>"},
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "image_token": "<image>",
}
_IMAGE_PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": IMAGE_SIZE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_PROCESSOR = {
    "processor_class": "LlavaProcessor",
    "image_token": "<image>",
    "patch_size": PATCH_SIZE,
    "num_additional_image_tokens": 1,
    "vision_feature_select_strategy": "default",
}
