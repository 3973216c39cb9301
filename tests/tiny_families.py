"""Checkpoints in the shapes of the families beside LLaVA: files and chat templates as the hub has
them, the world's words, and random weights. Pictures of the world, of 48 x 48 pixels, become four
tiles and the whole; for Gemma 3 one tile; for Qwen's at native resolution 16 tokens.

Each function writes one into a folder, which it returns; `options` replace those of config.json.
"""

import json

import jax
import transformers
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from inbol_jax.defaults import TINY
from inbol_jax.models.families import load_config
from inbol_jax.models.loading import init_params, without_videos
from inbol_jax.models.writing import save_params

TILE = 24  # pixels per side
PATCH = 6  # likewise
HALF = [0.5] * 3
SIDES = {"height": TILE, "width": TILE}
WIDTHS = {"hidden_size": 32, "intermediate_size": 48}
SIZES = WIDTHS | {"num_hidden_layers": 1, "num_attention_heads": 2}
START, END = "<|im_start|>", "<|im_end|>"


def make_tokenizer(*special, words=(), **options):
    """The world's words, further special tokens, and words as byte-level tokenizers have them."""
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", **options)


def decoder(tokenizer, **options):
    """Options of a small decoder with these words."""
    words = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    words |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    limits = {"num_key_value_heads": 1, "max_position_embeddings": 256}
    return SIZES | words | limits | options


def write_random(folder, config):
    """Writes config.json and random weights that fit it."""
    config = {"dtype": "float32", "tie_word_embeddings": False} | config
    (folder / "config.json").write_text(json.dumps(config))
    init = jax.jit(init_params, static_argnums=0)
    save_params(folder, init(load_config(folder), jax.random.key(0)))
    return folder


# --- SmolVLM2

SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def write_smolvlm(folder, *, model_type="smolvlm", **options):
    end, around = "<end_of_utterance>", ("<fake_token_around_image>", "<global-img>")
    grid = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer = make_tokenizer(START, end, *around, *grid, bos_token=START, eos_token=end)
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * TILE},
        max_image_size={"longest_edge": TILE},
        image_mean=HALF,
        image_std=HALF,
    )
    kind = transformers.Idefics3Processor
    kind(images, tokenizer, image_seq_len=4, chat_template=SMOLVLM_TEMPLATE).save_pretrained(folder)
    tower = {"model_type": f"{model_type}_vision", "image_size": TILE, "patch_size": PATCH}
    config = {
        "model_type": model_type,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
        "vision_config": SIZES | tower,
        "text_config": decoder(tokenizer, model_type="llama"),
    }
    return write_random(folder, config | options)


# --- InternVL3.5

INTERNVL_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)


def write_internvl(folder, **options):
    own = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    special = START, END, *own.values()
    tokenizer = make_tokenizer(*special, words=["\n"], eos_token=END, extra_special_tokens=own)
    images = transformers.GotOcr2ImageProcessorPil(size=SIDES, max_patches=4)
    kind, own = without_videos(transformers.InternVLProcessor), {"image_seq_length": 4}
    kind(images, tokenizer, **own, chat_template=INTERNVL_TEMPLATE).save_pretrained(folder)
    tower = {"image_size": [TILE, TILE], "patch_size": [PATCH, PATCH], "attention_bias": True}
    config = {
        "model_type": "internvl",
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "vision_config": SIZES | tower | {"model_type": "internvl_vision"},
        "text_config": decoder(tokenizer, model_type="qwen3", head_dim=16),
    }
    return write_random(folder, config | options)


# --- Gemma 3

GEMMA3_TEMPLATE = (
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


def write_gemma3(folder, **options):
    own = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    special = "<bos>", "<end_of_turn>", "<start_of_turn>", *own.values()
    tokenizer = make_tokenizer(
        *special,
        words=["\n\n\n", "\n\n", "\n"],
        bos_token="<bos>",
        eos_token="<end_of_turn>",
        extra_special_tokens=own,
    )
    images = transformers.Gemma3ImageProcessorPil(size=SIDES, image_mean=HALF, image_std=HALF)
    kind = transformers.Gemma3Processor
    kind(images, tokenizer, GEMMA3_TEMPLATE, image_seq_length=4).save_pretrained(folder)
    number = tokenizer.convert_tokens_to_ids
    tower = {"model_type": "siglip_vision_model", "vision_use_head": False}
    config = {
        "model_type": "gemma3",
        "boi_token_index": number("<start_of_image>"),
        "eoi_token_index": number("<end_of_image>"),
        "image_token_index": number("<image_soft_token>"),
        "mm_tokens_per_image": 4,
        "eos_token_id": [tokenizer.eos_token_id],
        "vision_config": SIZES | {"image_size": TILE, "patch_size": PATCH} | tower,
        "text_config": decoder(
            tokenizer,
            model_type="gemma3_text",
            num_hidden_layers=2,
            head_dim=16,
            query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention"],
            sliding_window=16,
        ),
    }
    return write_random(folder, config | options)


# --- LLaVA-NeXT and LLaVA-OneVision: images first, then texts

_MESSAGE = (
    "{# Render all images first #}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + SPACE }}{% endfor %}{% else %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + SPACE }}{% endgeneration %}{% endfor %}{% endif %}"
)
LLAVA_NEXT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': '}}{% endif %}"
    + _MESSAGE.replace("SPACE", "' '")
    + "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
LLAVA_ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    + _MESSAGE.replace(" + SPACE", "")
    + "{{'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
RESOLUTIONS = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE], [TILE, 3 * TILE]]


def _anyres(tokenizer, tower, text):
    return {
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "image_grid_pinpoints": RESOLUTIONS,
        "vision_config": SIZES | {"image_size": TILE, "patch_size": TILE // 2} | tower,
        "text_config": decoder(tokenizer, **text),
    }


def write_llava_next(folder, **options):
    tokenizer = make_tokenizer(words=["\n"], eos_token="</s>")
    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE}, crop_size=SIDES, image_grid_pinpoints=RESOLUTIONS
    )
    transformers.LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=TILE // 2,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_NEXT_TEMPLATE,
    ).save_pretrained(folder)
    tower = {"model_type": "clip_vision_model", "num_hidden_layers": 2, "projection_dim": 16}
    config = _anyres(tokenizer, tower, {"model_type": "mistral", "sliding_window": None})
    return write_random(folder, config | {"model_type": "llava_next"} | options)


def write_llava_onevision(folder, **options):
    tokenizer = make_tokenizer(START, END, "<video>", words=["\n"], eos_token=END)
    images = transformers.LlavaOnevisionImageProcessorPil(
        size=SIDES, image_grid_pinpoints=RESOLUTIONS, image_mean=HALF, image_std=HALF
    )
    own = {"vision_aspect_ratio": "anyres_max_2"}
    without_videos(transformers.LlavaOnevisionProcessor)(
        images,
        tokenizer,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=LLAVA_ONEVISION_TEMPLATE,
        **own,
    ).save_pretrained(folder)
    tower = {"model_type": "siglip_vision_model", "vision_use_head": False}
    config = _anyres(tokenizer, tower, {"model_type": "qwen2"})
    return write_random(folder, config | {"model_type": "llava_onevision"} | own | options)


# --- Qwen2.5-VL and Qwen3-VL: a square of 12 x 12 pixels becomes a token

# For questions about images, and but for the names of roles: the world's tokenizer has them as
# tokens, and takes a space in front of a word into the word.
QWEN_TEMPLATE = (
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


def _write_qwen(folder, family):
    """All but config.json and weights. Returns the tokenizer, and options of the whole."""
    image, video, sides = "<|image_pad|>", "<|video_pad|>", ("<|vision_start|>", "<|vision_end|>")
    tokenizer = make_tokenizer(START, END, *sides, image, video, eos_token=END)
    tokenizer.save_pretrained(folder)
    sizes = {"shortest_edge": (2 * PATCH) ** 2, "longest_edge": 16 * (2 * PATCH) ** 2}
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=PATCH, size=sizes, image_mean=HALF, image_std=HALF
    ).to_dict()
    # As the hub has it: the class that needs torchvision, and a processor of videos.
    images["image_processor_type"] = "Qwen2VLImageProcessorFast"
    images["processor_class"] = f"{family}Processor"
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    videos = {"video_processor_type": f"{family}VideoProcessor", "size": sizes}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))
    (folder / "chat_template.jinja").write_text(QWEN_TEMPLATE)
    number = tokenizer.convert_tokens_to_ids
    return tokenizer, {"image_token_id": number(image), "video_token_id": number(video)}


NATIVE = WIDTHS | {"num_heads": 2, "patch_size": PATCH, "out_hidden_size": 32}


def write_qwen2_5_vl(folder, **options):
    tokenizer, config = _write_qwen(folder, "Qwen2_5_VL")
    # As the hub has it: the options of the decoder stand beside those of the whole.
    config |= decoder(tokenizer, num_hidden_layers=2, rope_theta=500.0)
    tower = {"depth": 2, "window_size": 4 * PATCH, "fullatt_block_indexes": [1]}
    config |= {
        "model_type": "qwen2_5_vl",
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": NATIVE | tower | {"model_type": "qwen2_5_vl"},
    }
    return write_random(folder, config | options)


def write_qwen3_vl(folder, **options):
    tokenizer, config = _write_qwen(folder, "Qwen3VL")
    tower = {"depth": 1, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    rope = {"rope_type": "default", "mrope_section": [4, 2, 2]}
    config |= {
        "model_type": "qwen3_vl",
        "vision_config": NATIVE | tower | {"model_type": "qwen3_vl"},
        "text_config": decoder(
            tokenizer,
            model_type="qwen3_vl_text",
            head_dim=16,
            rope_theta=500.0,
            rope_scaling=rope,
        ),
    }
    return write_random(folder, config | options)
