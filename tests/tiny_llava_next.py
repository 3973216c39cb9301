"""Checkpoints in the shapes of LLaVA-NeXT and LLaVA-OneVision: their files and chat templates, the
world's words, and random weights. Pictures of the world become four tiles and the whole.
"""

import transformers
from tiny_random import write_random
from tokenizers import AddedToken, Tokenizer
from transformers import (
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionImageProcessorPil,
    PreTrainedTokenizerFast,
)

from inbol_jax.models.loading import without_videos
from inbol_jax.world.tiny import build_tokenizer

# As the checkpoints on the hub have them: images first, then texts.
_MESSAGE = (
    "{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + SPACE }}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + SPACE }}{% endgeneration %}{% endfor %}{% endif %}"
)
NEXT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}"
    + _MESSAGE.replace("SPACE", "' '")
    + "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    + _MESSAGE.replace(" + SPACE", "")
    + "{{'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
START, END, VIDEO = "<|im_start|>", "<|im_end|>", "<video>"
TILE = 24  # pixels per side; the world's pictures have 48
RESOLUTIONS = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE], [TILE, 3 * TILE]]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def _tokenizer(*tokens, end):
    words = Tokenizer.from_str(build_tokenizer().to_str())  # the built one is shared
    words.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    words.add_tokens([AddedToken("\n", normalized=False)])  # as byte-level tokenizers have it
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=end, pad_token="<pad>")


def _config(tokenizer, tower, decoder):
    vocabulary = tokenizer.get_vocab()
    return {
        "dtype": "float32",
        "image_token_index": vocabulary["<image>"],
        "image_grid_pinpoints": RESOLUTIONS,
        "tie_word_embeddings": False,
        "vision_config": SIZES | {"image_size": TILE, "patch_size": TILE // 2} | tower,
        "text_config": SIZES
        | {
            "vocab_size": len(vocabulary),
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
            "eos_token_id": vocabulary[tokenizer.eos_token],
            "pad_token_id": vocabulary["<pad>"],
        }
        | decoder,
    }


def write_llava_next(folder, **options):
    """Writes a LLaVA-NeXT. `options` replace those of its config.json."""
    tokenizer = _tokenizer(end="</s>")
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE},
        crop_size={"height": TILE, "width": TILE},
        image_grid_pinpoints=RESOLUTIONS,
    )
    LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=TILE // 2,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=NEXT_TEMPLATE,
    ).save_pretrained(folder)
    tower = {"model_type": "clip_vision_model", "num_hidden_layers": 2, "projection_dim": 16}
    config = _config(tokenizer, tower, {"model_type": "mistral", "sliding_window": None})
    return write_random(folder, config | {"model_type": "llava_next"} | options)


def write_llava_onevision(folder, **options):
    """Writes a LLaVA-OneVision. `options` replace those of its config.json."""
    tokenizer = _tokenizer(START, END, VIDEO, end=END)
    half = [0.5] * 3
    images = LlavaOnevisionImageProcessorPil(
        size={"height": TILE, "width": TILE},
        image_grid_pinpoints=RESOLUTIONS,
        image_mean=half,
        image_std=half,
    )
    kind = without_videos(transformers.LlavaOnevisionProcessor)
    kind(
        images,
        tokenizer,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
        chat_template=ONEVISION_TEMPLATE,
    ).save_pretrained(folder)
    tower = {"model_type": "siglip_vision_model", "vision_use_head": False}
    config = _config(tokenizer, tower, {"model_type": "qwen2"})
    own = {"model_type": "llava_onevision", "vision_aspect_ratio": "anyres_max_2"}
    return write_random(folder, config | own | options)
