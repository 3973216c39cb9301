"""Small files as `inbol build` would write them, packed batches of random tokens, and what runs
leave behind.
"""

import functools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

from inbol_jax.artifacts import read_jsonl
from inbol_jax.models.packing import Branch, RowShape, pack_row
from inbol_jax.records import PairKind
from inbol_jax.taught_refusals import SHORT_REFUSALS
from inbol_jax.training.ca_dpo import ca_dpo, ca_dpo_objective
from inbol_jax.training.config import DpoConfig, PairLossConfig, SftConfig
from inbol_jax.training.sft import sft, sft_objective


def questions(world):
    return list(read_jsonl(world / "train" / "data.jsonl"))


def write_jsonl(path, rows, images):
    """Lines, and the header that says where the images are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.with_name(path.name + ".meta.json").write_text(
        json.dumps({"images": os.path.relpath(images, path.parent)})
    )
    return path


def instructions(world, n=16):
    rows = []
    for i, q in enumerate(questions(world)[:n]):
        response = SHORT_REFUSALS[i % 4] if i % 2 else q["answers"][0]
        rows.append(
            {k: q[k] for k in ("id", "image", "question")}
            | {"response": response, "boundary": "known", "type": 1}
        )
    return rows


def preferences(world, n=16):
    rows = []
    for i, q in enumerate(questions(world)[:n]):
        kind = PairKind(i % 4)
        answer, refusal, wrong = q["answers"][0], SHORT_REFUSALS[i % 3], "seventeen purple"
        chosen, rejected = {
            0: (answer, refusal),
            1: (answer, wrong),
            2: (refusal, wrong),
            3: (refusal, answer),
        }[int(kind)]
        confidence = 0.0 if kind is PairKind.REFUSAL_OVER_ANSWER else 0.4 + 0.02 * i
        row = {k: q[k] for k in ("id", "image", "question")} | {
            "chosen": chosen,
            "rejected": rejected,
            "kind": kind.name.lower(),
        }
        rows.append(
            row
            | {
                "confidence": confidence,
                "type": 3 if kind is PairKind.REFUSAL_OVER_ANSWER else None,
            }
        )
    return rows


LORA = {"lora_rank": 4, "learning_rate": 1e-2, "epochs": 4, "batch_size": 8}
RATES = ("tokens_per_second", "mfu")


def flat(variables):
    return flatten_dict(jax.device_get(dict(variables)), sep="/")


def metrics_of(folder, *, rates=False):
    """The log of a run; without what depends on the clock, unless asked for."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in row.items() if rates or name not in RATES} for row in rows
    ]


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def random_batch(config, rows=4, seed=0):
    """Packed rows with two branches each, as the objectives take them, for pairs too."""
    random, text = np.random.default_rng(seed), config.text
    shape, packed = RowShape(40, 12), []
    for _ in range(rows):
        prefix = [
            1,
            *[config.image_token_id] * config.num_image_tokens,
            *random.integers(6, text.vocab_size, random.integers(2, 6)),
        ]
        branches = [
            Branch(random.integers(6, text.vocab_size, random.integers(1, 6)).tolist())
            for _ in range(2)
        ]
        row = pack_row(prefix, branches, shape)
        row["pixel_values"] = random.normal(
            size=(3, config.vision.image_size, config.vision.image_size)
        ).astype(np.float32)
        row |= {name: np.float32(-20 * random.random()) for name in ("ref_chosen", "ref_rejected")}
        packed.append(
            row | {"confidence": np.float32(random.random()), "kind": np.int32(random.integers(4))}
        )
    return packed


def objectives(model):
    return {
        "IDK-IT": sft_objective(model),
        "CA-DPO": ca_dpo_objective(
            model, PairLossConfig(beta=0.3, pair_weighting="linear", nll_coef=0.5)
        ),
    }


def run_sft(data, model, out, **options):
    return sft(
        SftConfig.from_options(data=data / "instructions.jsonl", out=out, model=model, **options)
    )


def dpo(data, model, out, **options):
    return ca_dpo(
        DpoConfig.from_options(data=data / "preferences.jsonl", out=out, model=model, **options)
    )


def mean_loss(objective, variables, batch):
    """(loss, metrics): what the training step minimises."""
    metrics = objective(variables, None, batch)
    total, weight = metrics["loss"]
    return total / jnp.maximum(weight, 1.0), metrics


STAGES = {
    "IDK-IT": (sft, SftConfig, "instructions.jsonl"),
    "CA-DPO": (ca_dpo, DpoConfig, "preferences.jsonl"),
}


def stage_config(stage, data, micro, out, /, **options):
    _, config, file = STAGES[stage]
    own = {"epochs": 3, "batch_size": 8, "save_steps": 2, "learning_rate": 1e-3}
    own |= {"data": data / file, "out": out, "model": micro.path}
    return config.from_options(**own | options)


@functools.partial(jax.jit, static_argnums=0)
def all_logprobs(model, variables, batch):
    return jax.nn.log_softmax(model.apply(variables, batch))


def own_logprobs(checkpoint, row):
    """Log-probabilities of each branch of a packed row's tokens, by the plain forward of a row of
    its own.
    """
    found = []
    for segment in (1, 2):
        here = row["segments"] == segment
        ids = np.concatenate([row["input_ids"][row["segments"] == 0], row["input_ids"][here]])
        padded, mask = (
            np.pad(ids, (0, 40 - len(ids)))[None],
            (np.arange(40) < len(ids)).astype(np.int32)[None],
        )
        whole = {
            "input_ids": padded,
            "attention_mask": mask,
            **{name: x[None] for name, x in row.items() if name.startswith("pixel_")},
        }
        n, logprobs = (
            int(here.sum()),
            np.asarray(all_logprobs(checkpoint.model, checkpoint.variables, whole))[0, : len(ids)],
        )
        found.append(np.take_along_axis(logprobs[-n - 1 : -1], ids[-n:, None], 1)[:, 0])
    return found
