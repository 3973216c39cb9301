"""IDK-IT and CA-DPO steps: ours and the PyTorch peer in turn, on the same weights and data.

    python benchmarks/training.py

A tiny LLaVA in float32: CLIP 128 x 4 with 64 patches, Llama 192 x 6. The language model and the
projector are trained by AdamW with clipping, the tower is frozen. The peer is transformers: for
pairs it concatenates chosen and rejected and runs a frozen copy as the reference, which is what
trainers do. Losses and gradients are compared before anything is timed.
"""

import copy
import dataclasses
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from inbol_jax.models.loading import load_pretrained
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.training.ca_dpo import ca_dpo_objective, pair_logprobs
from inbol_jax.training.config import FROZEN, CaDpoLossConfig, OptimizerConfig
from inbol_jax.training.model import split_variables
from inbol_jax.training.sft import sft_objective
from inbol_jax.training.step import init_state, make_optimizer, make_train_step, target_logprobs

VOCABULARY, IMAGE, SIDE, BETA = 2048, 2000, 64, 0.1
NLL = 1.0  # of the mean NLL per answer token of the chosen one


@dataclasses.dataclass(frozen=True)
class Config:
    """Rows per second, side by side."""

    rows: int = 32
    """Rows of an IDK-IT step; a step of pairs has half as many."""
    repeats: int = 7
    """Steps of each, in turn; the median counts."""
    threads: int = os.cpu_count() or 1
    """Threads of the peer; ours takes the cores that it is given (taskset)."""


Rows = list[tuple[list[int], list[list[int]]]]  # prompt, answers


def make_rows(count: int, answers: int) -> Rows:
    """Prompts of 26 to 32 words around an image, answers of 5 to 8 tokens."""
    draw = random.Random(0)
    rows = []
    for _ in range(count):
        words = [draw.randrange(5, IMAGE) for _ in range(draw.randint(26, 32))]
        prompt = words[:4] + [IMAGE] * 64 + words[4:]
        own = [
            [draw.randrange(5, IMAGE) for _ in range(draw.randint(5, 8))] for _ in range(answers)
        ]
        rows.append((prompt, own))
    return rows


def make_peer() -> LlavaForConditionalGeneration:
    """Random weights. The tower is frozen, and so are the embeddings, as by our default."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        patch_size=8, image_size=SIDE, projection_dim=128,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=192, intermediate_size=512, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=512,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=64,
        dtype="float32",
    )
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa").train()
    model.model.vision_tower.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(False)
    return model


class Peer:
    """A step as PyTorch's trainers do it."""

    def __init__(self, model: LlavaForConditionalGeneration, rows: Rows, pixels: np.ndarray):
        self.model = copy.deepcopy(model)
        self.reference = copy.deepcopy(model).requires_grad_(False)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-6, weight_decay=0.0)
        self.pairs = len(rows[0][1]) == 2
        flat = [(prompt, own[i]) for i in range(len(rows[0][1])) for prompt, own in rows]
        length = max(len(p) + len(a) for p, a in flat)
        ids, labels = np.zeros((len(flat), length), np.int64), np.full((len(flat), length), -100)
        for i, (prompt, answer) in enumerate(flat):
            whole = prompt + answer
            ids[i, : len(whole)], labels[i, len(prompt) : len(whole)] = whole, answer
        self.labels = torch.tensor(labels)
        self.inputs = {
            "input_ids": torch.tensor(ids),
            "pixel_values": torch.tensor(np.concatenate([pixels] * (len(flat) // len(rows)))),
            "use_cache": False,
        }

    def logprobs(self, model: Any) -> torch.Tensor:
        """Of each row's answer, summed."""
        logits, targets = model(**self.inputs).logits[:, :-1], self.labels[:, 1:]
        chosen = -F.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        return chosen.sum(1)  # the labels that do not count give 0

    def loss(self) -> torch.Tensor:
        if not self.pairs:
            return self.model(**self.inputs, labels=self.labels).loss
        with torch.no_grad():
            reference = self.logprobs(self.reference)
        ours = self.logprobs(self.model)
        chosen, rejected = (ours - reference).chunk(2)
        tokens = (self.labels != -100).sum(1)[: len(chosen)]
        nll = -ours[: len(chosen)] / tokens
        return (-F.logsigmoid(BETA * (chosen - rejected)) + NLL * nll).mean()

    def step(self) -> tuple[float, float]:
        """Loss, and the gradient's norm before clipping."""
        loss = self.loss()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()), float(norm)


def make_ours(folder: Path, rows: Rows, pixels: np.ndarray) -> Callable[[], tuple[float, float]]:
    """A step of the project on the same weights; it returns what the peer's does."""
    checkpoint = load_pretrained(folder, dtype=jnp.float32)
    packed = [(prompt, [Branch(answer) for answer in own]) for prompt, own in rows]
    shape = RowShape.fitting(packed)
    columns = {"confidence": np.float32(0.5), "kind": np.int32(0)}
    batch = collate(
        [
            pack_row(*row, shape) | columns | {"pixel_values": image[None]}
            for row, image in zip(packed, pixels, strict=True)
        ],
        len(rows),
    )
    objective = sft_objective(checkpoint.model)
    trainable, frozen = split_variables(checkpoint.variables, FROZEN)
    if len(rows[0][1]) == 2:
        options = CaDpoLossConfig(beta=BETA, pair_weighting="uniform", nll_coef=NLL)
        objective = ca_dpo_objective(checkpoint.model, options)
        batch |= reference_columns(checkpoint, batch)  # what a run computes once before it trains
    optimizer = make_optimizer(OptimizerConfig(learning_rate=1e-6), 1000)
    step = jax.jit(make_train_step(objective, optimizer), donate_argnums=0)
    state = init_state(jax.tree.map(jnp.copy, trainable), optimizer)

    def run() -> tuple[float, float]:
        nonlocal state
        state, metrics = step(state, frozen, batch)
        loss, norm = jax.device_get((metrics["loss"], metrics["gradient_norm"]))
        return float(loss[0] / loss[1]), float(norm[0])

    return run


def reference_columns(checkpoint: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `inbol dpo` keeps of its reference."""

    @jax.jit
    def score(variables: Any, batch: Any) -> Any:
        logprobs = target_logprobs(checkpoint.model, variables, batch)
        return pair_logprobs(logprobs, batch, average=False)

    pair = jax.device_get(score(checkpoint.variables, batch))
    return {"ref_chosen": pair.chosen, "ref_rejected": pair.rejected}


def main(config: Config) -> None:
    torch.set_num_threads(config.threads)
    print(
        f"{config}; {jax.devices()[0].device_kind}, jax {jax.__version__}, "
        f"torch {torch.__version__}"
    )
    print("\n| | ours, per s | peer, per s | ratio | losses differ by | gradients by |")
    print("|---|---|---|---|---|---|")
    model = make_peer()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for name, count, answers in (
            ("IDK-IT, rows", config.rows, 1),
            ("CA-DPO, pairs", config.rows // 2, 2),
        ):
            rows = make_rows(count, answers)
            draw = np.random.default_rng(0)
            pixels = draw.standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)
            runs = [make_ours(Path(folder), rows, pixels), Peer(model, rows, pixels).step]
            (ours, own_norm), (theirs, norm) = (run() for run in runs)
            if abs(ours - theirs) > 1e-4 or abs(own_norm - norm) > 1e-3 * norm:
                raise SystemExit(f"{name}: loss {ours}, {theirs}; norm {own_norm}, {norm}")
            seconds: tuple[list[float], list[float]] = ([], [])
            for _ in range(config.repeats):
                for run, found in zip(runs, seconds, strict=True):
                    start = time.perf_counter()
                    run()
                    found.append(time.perf_counter() - start)
            mine, other = map(statistics.median, seconds)
            print(
                f"| {name} | {count / mine:.1f} | {count / other:.1f} | {other / mine:.2f} "
                f"| {abs(ours - theirs):.1g} | {abs(own_norm / norm - 1):.1g} |",
                flush=True,
            )


if __name__ == "__main__":
    main(tyro.cli(Config))
