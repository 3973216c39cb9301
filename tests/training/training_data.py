"""Small files as `inbol build` would write them, packed batches of random tokens, and what runs
leave behind.
"""

import functools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file

from inbol_jax.artifacts import meta_path, read_jsonl, write_json
from inbol_jax.models.loading import load_pretrained
from inbol_jax.models.packing import Branch, RowShape, pack_row
from inbol_jax.records import PairKind
from inbol_jax.taught_refusals import SHORT_REFUSALS
from inbol_jax.training.ca_dpo import ca_dpo, ca_dpo_objective
from inbol_jax.training.config import CaDpoLossConfig, DpoConfig, SftConfig
from inbol_jax.training.sft import sft, sft_objective


def questions(world):
    return list(read_jsonl(world / "train" / "data.jsonl"))


def write_jsonl(path, rows, images):
    """Lines, and the header that says where the images are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_json(meta_path(path), {"images": os.path.relpath(images, path.parent)})
    return path


def instructions(world, n=16):
    rows = []
    for i, q in enumerate(questions(world)[:n]):
        response = SHORT_REFUSALS[i % 4] if i % 2 else q["answers"][0]
        row = {k: q[k] for k in ("id", "images", "question")}
        rows.append(row | {"response": response, "boundary": "known", "type": 1})
    return rows


def preferences(world, n=16):
    rows = []
    for i, q in enumerate(questions(world)[:n]):
        kind = list(PairKind)[i % 4]
        texts = {"correct": q["answers"][0], "answer": q["answers"][0]}
        texts |= {"refusal": SHORT_REFUSALS[i % 3], "incorrect": "seventeen purple"}
        chosen, rejected = str(kind).split("_over_")
        type3 = kind is PairKind.REFUSAL_OVER_ANSWER
        row = {k: q[k] for k in ("id", "images", "question")} | {"kind": str(kind)}
        row |= {"chosen": texts[chosen], "rejected": texts[rejected]}
        confidence = 0.0 if type3 else 0.4 + 0.02 * i
        rows.append(row | {"confidence": confidence, "type": 3 if type3 else None})
    return rows


LORA = {"lora_rank": 4, "learning_rate": 1e-2, "epochs": 4, "batch_size": 8}


def flat(variables):
    return flatten_dict(jax.device_get(dict(variables)), sep="/")


def metrics_of(folder, *, rates=False):
    """The log of a run; without what depends on the clock, unless asked for."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows if not rates else ():
        row.pop("tokens_per_second", None)
    return rows


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def assert_same_runs(one, two, *, without=(), atol=3e-5):
    """Logs and saved models of two runs are the same, to float tolerance.

    Args:
      without: metrics that may differ. The accuracy of rewards does: at the first step they are
        zero but for rounding, whose sign it counts.
    """
    for row, other in zip(metrics_of(one), metrics_of(two), strict=True):
        names = [name for name in row if not name.startswith(("reward_accuracy", *without))]
        expected, found = ({name: x[name] for name in names} for x in (row, other))
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4), two
    ours, theirs = (load_pretrained(run / "model", dtype="float32").variables for run in (one, two))
    ours, theirs = flat(ours), flat(theirs)
    assert ours.keys() == theirs.keys()
    for path, x in ours.items():
        np.testing.assert_allclose(theirs[path], x, rtol=0, atol=atol, err_msg=f"{two} {path}")


def command_line(command, **options):
    """The words of a command."""
    words = [command]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words


def random_batch(config, rows=4, seed=0):
    """Packed rows with two branches each, as the objectives take them, for pairs too."""
    random, side = np.random.default_rng(seed), config.vision.image_size
    shape, packed = RowShape(40, 12), []

    def words(least, below):
        return random.integers(6, config.text.vocab_size, random.integers(least, below)).tolist()

    for _ in range(rows):
        prefix = [1, *[config.image_token_id] * config.num_image_tokens, *words(2, 6)]
        row = pack_row(prefix, [Branch(words(1, 6)) for _ in range(2)], shape)
        row["pixel_values"] = random.normal(size=(3, side, side)).astype(np.float32)
        row |= {name: np.float32(-20 * random.random()) for name in ("ref_chosen", "ref_rejected")}
        row |= {"confidence": np.float32(random.random()), "kind": np.int32(random.integers(4))}
        packed.append(row)
    return packed


def objectives(model):
    pair_loss = CaDpoLossConfig(beta=0.3, pair_weighting="linear", nll_coef=0.5)
    return {"IDK-IT": sft_objective(model), "CA-DPO": ca_dpo_objective(model, pair_loss)}


def run_sft(data, model, out, **options):
    own = {"data": data / "instructions.jsonl", "out": out, "model": model, "epochs": 1}
    return sft(SftConfig.from_options(**own | options))


def dpo(data, model, out, **options):
    own = {"data": data / "preferences.jsonl", "out": out, "model": model, "epochs": 1}
    return ca_dpo(DpoConfig.from_options(**own | options))


def mean_loss(objective, variables, batch):
    """(loss, metrics): what the training step minimises."""
    metrics = objective(variables, batch)
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
        whole = {name: x[None] for name, x in row.items() if name.startswith("pixel_")}
        whole["input_ids"] = np.pad(ids, (0, 40 - len(ids)))[None]
        whole["attention_mask"] = (np.arange(40) < len(ids)).astype(np.int32)[None]
        logprobs = np.asarray(all_logprobs(checkpoint.model, checkpoint.variables, whole))
        n, logprobs = int(here.sum()), logprobs[0, : len(ids)]
        found.append(np.take_along_axis(logprobs[-n - 1 : -1], ids[-n:, None], 1)[:, 0])
    return found
