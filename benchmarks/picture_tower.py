"""A vision tower for a decoder that has never seen: first it spells, then it is read.

1. Spelling. Tower and projector learn to put "Picture of NAME" at the places of the image's tokens,
   in the decoder's own embeddings: a classifier over the tokens that names use, by the cosine to
   their embeddings. The decoder is not run.
2. Reading (`inbol sft`). The projector, and adapters of the decoder, learn to answer questions
   about the picture by its name. Merged, they are the base. With the decoder frozen, 1,600
   questions taught little (NOTES.md).

Pictures are drawn by their weight, shifted, turned, scaled and lit at random.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from picture_objects import SIZE, Picture, load
from picture_sets import KINDS_OUT, QUESTIONS, right_answers, save, split_of

from inbol_jax.artifacts import write_atomically

TOWER = {  # of a CLIP vision tower: nine tokens per picture
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "projection_dim": 192,
    "image_size": SIZE,
    "patch_size": SIZE // 3,
}
# ChatML as SmolLM2's own, without its system message: that would double the length of a prompt.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content if part.type == 'image' %}<image>{% endfor %}"
    "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BATCH = 64
PEAK_RATE = 1.5e-3
BEGINNING = "Picture of"
END_WEIGHT = 0.2  # of a place behind a name in the loss, where most places are
SHARPNESS = 20.0  # logits are so many times the cosine


def spell(
    base: Path, out: Path, shown: Sequence[tuple[Picture, float]], steps: int, seed: int
) -> Path:
    """Trains tower and projector of the checkpoint `base` to spell names. Returns `out`.

    Args:
      shown: pictures with their weights.
    """
    if (out / "spelling.json").exists():
        return out
    import torch
    import transformers

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    processor = transformers.AutoProcessor.from_pretrained(base)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    embeddings = model.get_input_embeddings().weight.detach()
    targets, used, end = name_tokens([p.name for p, _ in shown], processor.tokenizer)
    emphasis = torch.tensor([END_WEIGHT if i == end else 1.0 for i in used])
    table = torch.nn.functional.normalize(embeddings[used], dim=-1)
    length = embeddings[used].norm(dim=-1).mean()
    mean, std = processor.image_processor.image_mean, processor.image_processor.image_std
    pixels = torch.tensor(np.stack([np.asarray(load(p.file)) for p, _ in shown]))
    weights = np.array([w for _, w in shown])
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    parameters = [*tower.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=0.02)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    log = []
    for step in range(steps):
        rows = rng.choice(len(shown), BATCH, p=weights / weights.sum())
        pictures = augment(pixels[rows].permute(0, 3, 1, 2).float() / 255)
        pictures = (pictures - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        features = projector(tower(pixel_values=pictures).last_hidden_state[:, 1:])
        cosines = torch.nn.functional.normalize(features, dim=-1) @ table.T
        gold, logits = torch.tensor(targets[rows]), SHARPNESS * cosines
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), gold.flatten(), emphasis)
        own = emphasis[gold]
        near = (own * cosines.gather(-1, gold[..., None])[..., 0]).sum() / own.sum()
        size = ((features.norm(dim=-1) / length - 1) ** 2).mean()
        (loss - near + 0.1 * size).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 49 or step + 1 == steps:
            right = (logits.argmax(-1) == gold).all(-1).float().mean()
            numbers = {"loss": loss, "cosine": near, "names right": right}
            log.append({"step": step + 1, **{name: x.item() for name, x in numbers.items()}})
            print(log[-1], flush=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    write_atomically(out / "spelling.json", json.dumps(log) + "\n")
    return out


def name_tokens(names: Sequence[str], tokenizer: Any) -> tuple[np.ndarray, list[int], int]:
    """What each place spells: i64[names, places], as indices into the ids that are used; those ids;
    and the id of a line break, which comes behind a name."""
    places = (TOWER["image_size"] // TOWER["patch_size"]) ** 2
    (end,) = tokenizer("\n")["input_ids"]
    rows = [tokenizer(f"{BEGINNING} {name}")["input_ids"][:places] for name in names]
    rows = np.array([row + [end] * (places - len(row)) for row in rows])
    used, targets = np.unique(rows, return_inverse=True)
    return targets.reshape(rows.shape), used.tolist(), end


def augment(pictures):
    """Random views f32[n, 3, size, size] of pictures in [0, 1]."""
    import torch

    n = len(pictures)
    turn = (torch.rand(n) - 0.5) * 0.3  # radians
    scale = 0.85 + 0.3 * torch.rand(n)
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = turn.cos() / scale
    matrix[:, 0, 1], matrix[:, 1, 0] = turn.sin() / scale, -turn.sin() / scale
    matrix[:, :, 2] = (torch.rand(n, 2) - 0.5) * 0.3
    grid = torch.nn.functional.affine_grid(matrix, list(pictures.shape), align_corners=False)
    # Around 1, so that what lies outside is white.
    views = 1 + torch.nn.functional.grid_sample(pictures - 1, grid, align_corners=False)
    light = 1 + (torch.rand(n, 3, 1, 1) - 0.5) * 0.2 + (torch.rand(n, 1, 1, 1) - 0.5) * 0.3
    return (views * light).clamp(0, 1)


def write_reading(
    folder: Path, shown: Sequence[tuple[Picture, float]], number: int, seed: int
) -> Path:
    """Instructions for the second part: `number` questions with the names as responses. Kinds whose
    own question is out of domain are asked as things. Capitals are asked of the countries of the
    training split, one time in three: those of the others the decoder must know itself."""
    file = folder / "instructions.jsonl"
    if file.exists():
        return file
    rng = random.Random(seed)
    pictures, weights = zip(*shown, strict=True)
    lines = []
    for i in rng.choices(range(len(shown)), weights, k=number):
        picture = pictures[i]
        kind = "thing" if picture.kind in KINDS_OUT else picture.kind
        image = f"images/{i}.png"
        if not (folder / image).exists():
            save(load(picture.file), folder / image)
        if picture.capital and split_of(picture.thing) == "train" and rng.random() < 1 / 3:
            kind = "capital"
        question, (response, *_) = (
            rng.choice(QUESTIONS[kind]),
            right_answers(picture._replace(kind=kind)),
        )
        lines.append({"images": [image], "question": question, "response": response})
    write_atomically(file, "".join(json.dumps(line) + "\n" for line in lines))
    return file
