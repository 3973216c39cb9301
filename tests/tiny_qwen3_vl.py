"""Checkpoints in the shapes of Qwen3-VL and Qwen2.5-VL: their files and chat template, the world's
words, and random weights. Pictures of the world keep their size: a square of 12 x 12 pixels becomes
a token.
"""

import json

from tiny_random import write_random
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil

from inbol_jax.world.tiny import build_tokenizer

# As the checkpoints on the hub have it, for questions about images, but for the names of roles: the
# world's tokenizer has them as tokens, and takes a space in front of a word into the word.
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|><|' + message.role + '|>' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for content in message.content %}"
    "{%- if content.type == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif content.type == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{%- elif 'text' in content %}{{- content.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|><|assistant|>' }}{%- endif %}"
)
START, END, IMAGE, VIDEO = "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>"
PATCH = 6  # pixels per side


def _write_files(folder, family):
    """All but config.json and weights. Returns the tokenizer."""
    words = Tokenizer.from_str(build_tokenizer().to_str())  # the built one is shared
    words.add_special_tokens(
        [
            AddedToken(token, special=True)
            for token in (START, END, "<|vision_start|>", "<|vision_end|>", IMAGE, VIDEO)
        ]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END, pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    half = [0.5] * 3
    sizes = {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": 16 * (2 * PATCH) ** 2}
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH, size=sizes, image_mean=half, image_std=half
    ).to_dict()
    # As the hub has it: the class that needs torchvision, and a processor of videos.
    images |= {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": f"{family}Processor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    video = {"video_processor_type": f"{family}VideoProcessor", "size": sizes}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return tokenizer.get_vocab()


def _whole(vocabulary):
    return {
        "dtype": "float32",
        "image_token_id": vocabulary[IMAGE],
        "video_token_id": vocabulary[VIDEO],
        "tie_word_embeddings": False,
    }


def _decoder(vocabulary):
    return {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_theta": 500.0,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": vocabulary[END],
        "pad_token_id": vocabulary["<pad>"],
    }


def write_qwen2_5_vl(folder, **options):
    """Writes a Qwen2.5-VL. `options` replace those of its config.json."""
    vocabulary = _write_files(folder, "Qwen2_5_VL")
    # As the hub has it: the options of the decoder stand beside those of the whole.
    config = _whole(vocabulary) | _decoder(vocabulary)
    config |= {
        "model_type": "qwen2_5_vl",
        "num_hidden_layers": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "hidden_size": 32,
            "intermediate_size": 48,
            "depth": 2,
            "num_heads": 2,
            "patch_size": PATCH,
            "out_hidden_size": 32,
            "window_size": 4 * PATCH,
            "fullatt_block_indexes": [1],
        },
    }
    return write_random(folder, config | options)


def write_qwen3_vl(folder, **options):
    """Writes a Qwen3-VL. `options` replace those of its config.json."""
    vocabulary = _write_files(folder, "Qwen3VL")
    config = _whole(vocabulary) | {
        "model_type": "qwen3_vl",
        "vision_config": {
            "model_type": "qwen3_vl",
            "hidden_size": 32,
            "intermediate_size": 48,
            "depth": 1,
            "num_heads": 2,
            "patch_size": PATCH,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        "text_config": _decoder(vocabulary)
        | {
            "model_type": "qwen3_vl_text",
            "head_dim": 16,
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2]},
        },
    }
    return write_random(folder, config | options)
