"""A checkpoint in the shape of Gemma 3: its files and chat template, the world's words, and random
weights.
"""

from tiny_random import write_random
from tokenizers import AddedToken, Tokenizer
from transformers import Gemma3ImageProcessorPil, Gemma3Processor, PreTrainedTokenizerFast

from inbol_jax.world.tiny import build_tokenizer

# As the checkpoints on the hub write a turn.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
START, END, TURN = "<bos>", "<end_of_turn>", "<start_of_turn>"
IMAGE = {
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
SIDE = 24  # pixels


def write_gemma3(folder, **options):
    """Writes the checkpoint. `options` replace those of its config.json."""
    words = Tokenizer.from_str(build_tokenizer().to_str())  # the built one is shared
    words.add_special_tokens(
        [AddedToken(token, special=True) for token in (START, END, TURN, *IMAGE.values())]
    )
    words.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n\n", "\n\n", "\n")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=START,
        eos_token=END,
        pad_token="<pad>",
        extra_special_tokens=IMAGE,
    )
    half = [0.5] * 3
    size = {"height": SIDE, "width": SIDE}
    images = Gemma3ImageProcessorPil(size=size, image_mean=half, image_std=half)
    Gemma3Processor(images, tokenizer, TEMPLATE, image_seq_length=4).save_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    config = {
        "model_type": "gemma3",
        "dtype": "float32",
        "boi_token_index": vocabulary["<start_of_image>"],
        "eoi_token_index": vocabulary["<end_of_image>"],
        "image_token_index": vocabulary["<image_soft_token>"],
        "mm_tokens_per_image": 4,
        "eos_token_id": [vocabulary[END]],
        "tie_word_embeddings": False,
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": 6,
            "vision_use_head": False,
        },
        "text_config": {
            "model_type": "gemma3_text",
            "vocab_size": len(vocabulary),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "max_position_embeddings": 256,
            "sliding_window": 16,
            "pad_token_id": vocabulary["<pad>"],
        },
    } | options
    return write_random(folder, config)
