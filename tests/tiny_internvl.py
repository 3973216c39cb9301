"""A checkpoint in the shape of InternVL3.5: its files and chat template, the world's words, and
random weights. Pictures of the world become four tiles and the whole.
"""

import transformers
from tiny_random import write_random
from tokenizers import AddedToken, Tokenizer
from transformers import GotOcr2ImageProcessorPil, PreTrainedTokenizerFast

from inbol_jax.models.loading import without_videos
from inbol_jax.world.tiny import build_tokenizer

# As the checkpoints on the hub have it.
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
START, END = "<|im_start|>", "<|im_end|>"
IMAGE = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TILE = 24  # pixels per side; the world's pictures have 48


def write_internvl(folder, *, max_patches=4, **options):
    """Writes the checkpoint. `options` replace those of its config.json."""
    words = Tokenizer.from_str(build_tokenizer().to_str())  # the built one is shared
    words.add_special_tokens(
        [AddedToken(token, special=True) for token in (START, END, *IMAGE.values())]
    )
    words.add_tokens([AddedToken("\n", normalized=False)])  # as byte-level tokenizers have it
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token=END, pad_token="<pad>", extra_special_tokens=IMAGE
    )
    size = {"height": TILE, "width": TILE}
    images = GotOcr2ImageProcessorPil(size=size, max_patches=max_patches)
    kind = without_videos(transformers.InternVLProcessor)
    kind(images, tokenizer, image_seq_length=4, chat_template=TEMPLATE).save_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    config = {
        "model_type": "internvl",
        "dtype": "float32",
        "image_token_id": vocabulary["<IMG_CONTEXT>"],
        "tie_word_embeddings": False,
        "vision_config": {
            "model_type": "internvl_vision",
            "attention_bias": True,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": [TILE, TILE],
            "patch_size": [6, 6],
        },
        "text_config": {
            "model_type": "qwen3",
            "vocab_size": len(vocabulary),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "max_position_embeddings": 256,
            "eos_token_id": vocabulary[END],
            "pad_token_id": vocabulary["<pad>"],
        },
    } | options
    return write_random(folder, config)
