"""A checkpoint in the shape of SmolVLM2: its files and chat template, the world's words, and random
weights. Pictures of the world become four tiles and the whole.
"""

from tiny_random import write_random
from tokenizers import AddedToken, Tokenizer
from transformers import Idefics3ImageProcessorPil, Idefics3Processor, PreTrainedTokenizerFast

from inbol_jax.world.tiny import build_tokenizer

# As the checkpoints on the hub have it.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
START, END, AROUND = "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>"
GRID = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
TILE = 24  # pixels per side; the world's pictures have 48


def write_smolvlm(folder, *, model_type="smolvlm", splitting=True, **options):
    """Writes the checkpoint. `options` replace those of its config.json."""
    words = Tokenizer.from_str(build_tokenizer().to_str())  # the built one is shared
    words.add_special_tokens(
        [AddedToken(token, special=True) for token in (START, END, AROUND, "<global-img>", *GRID)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=START, eos_token=END, pad_token="<pad>"
    )
    half = [0.5] * 3
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * TILE},
        max_image_size={"longest_edge": TILE},
        image_mean=half,
        image_std=half,
        do_image_splitting=splitting,
    )
    Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=TEMPLATE).save_pretrained(
        folder
    )
    vocabulary = tokenizer.get_vocab()
    config = {
        "model_type": model_type,
        "dtype": "float32",
        "image_token_id": vocabulary["<image>"],
        "scale_factor": 2,
        "tie_word_embeddings": False,
        "vision_config": {
            "model_type": f"{model_type}_vision",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": 6,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": len(vocabulary),
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 256,
            "bos_token_id": vocabulary[START],
            "eos_token_id": vocabulary[END],
            "pad_token_id": vocabulary["<pad>"],
        },
    } | options
    return write_random(folder, config)
