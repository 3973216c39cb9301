"""Memory of a CA-DPO step of LLaVA-1.5-7B with LoRA, as the compiler plans it.

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python benchmarks/memory.py   # a TPU v5p chip, by libtpu
    python benchmarks/memory.py --topology none                          # your device

Nothing is allocated and no accelerator is needed. The base is bfloat16, with float32 adapters of
rank 128 on every dense layer of the decoder, and AdamW. Pairs have 640 prompt tokens (576 of them
are the image's) and two answers of 32. Each variant has a line: GiB of arguments (weights,
adapters, optimizer, batch) and of everything else at its peak. `inbol plan` plans the stages as
they are; this script compares them with what was not built.
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies

from inbol_jax.losses import PairLogprobs, dpo_loss, sequence_logprob, token_logprobs
from inbol_jax.models.config import LoraConfig
from inbol_jax.models.families import load_config, make_model
from inbol_jax.models.packing import RowShape
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.sharding import make_mesh
from inbol_jax.training.ca_dpo import ca_dpo_objective, pair_logprobs
from inbol_jax.training.config import DpoConfig
from inbol_jax.training.step import Objective, make_program, target_logprobs

sys.path.insert(0, str(Path(__file__).parents[1] / "tpu"))
from lowering import abstract_pairs, abstract_variables, lower_step

SHAPES = Path(__file__).parents[1] / "tpu/shapes/llava-1.5-7b/config.json"
PROMPT, ANSWER = 640, 32


RUN = DpoConfig(data=Path("pairs"), out=Path("out")).with_rate(adapters=False)


@dataclasses.dataclass(frozen=True)
class Config:
    """Compile the variants."""

    pairs: int = 8
    """Pairs per step."""
    topology: str = "v5p:2x2x1"
    """TPU topology, whose first chip the step is compiled for; none for the device at hand."""
    layers: int = 32
    """Layers of the decoder. Fewer compile faster."""
    only: tuple[str, ...] = ()
    """Words of the variants to compile. By default all are compiled."""


def ours(model: VisionLanguageModel) -> Objective:
    return ca_dpo_objective(model, RUN.pair_loss)


def every_position(chunk: int | None):
    """Log-probabilities at every position instead of the answers' alone, as most trainers compute
    them.
    """

    def objective(model: VisionLanguageModel) -> Objective:
        def run(variables, batch):
            hidden = model.apply(variables, batch, method="hidden")
            head = model.apply(variables, method="head")
            logprobs = token_logprobs(hidden, head, batch["input_ids"], chunk=chunk)
            of_targets = {"target_segment": batch["segments"]}
            return _dpo(pair_logprobs(logprobs, of_targets, average=False), batch)

        return run

    return objective


def two_rows(model: VisionLanguageModel) -> Objective:
    """Chosen and rejected in rows of their own, each with image and prompt. The first half is
    chosen.
    """

    def run(variables, batch):
        logprobs = target_logprobs(model, variables, batch)
        total = sequence_logprob(logprobs, batch["target_segment"] > 0)
        half = len(total) // 2
        policy = PairLogprobs(total[:half], total[half:])
        return _dpo(policy, {name: x[:half] for name, x in batch.items()})

    return run


def _dpo(policy, batch):
    reference = PairLogprobs(batch["ref_chosen"], batch["ref_rejected"])
    return {"loss": (dpo_loss(policy, reference, beta=0.1).sum(), batch["valid"].sum())}


# name: (rematerialisation, objective, whether the answers of a pair share image and prompt)
VARIANTS = {
    "as built, remat full": ("full", ours, True),
    "as built, remat selective": ("selective", ours, True),
    "as built, no remat": ("none", ours, True),
    "image and prompt not shared, remat full": ("full", two_rows, False),
    "logits of every position, chunked, remat full": ("full", every_position(128), True),
    "logits of every position, whole, remat full": ("full", every_position(None), True),
}


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = json.loads(SHAPES.read_text())
        whole["text_config"]["num_hidden_layers"] = config.layers
        (Path(folder) / "config.json").write_text(json.dumps(whole))
        llava = load_config(Path(folder))
    device = jax.devices()[0]
    if config.topology != "none":
        device = topologies.get_topology_desc(
            platform="tpu", topology_name=config.topology
        ).devices[0]
    mesh, lora = make_mesh(devices=[device]), LoraConfig()
    variables = abstract_variables(llava, mesh, dtype=jnp.bfloat16, lora=lora)
    count = sum(x.size for x in jax.tree.leaves(variables["lora"]))
    print(
        json.dumps(
            {
                "device": device.device_kind,
                "pairs": config.pairs,
                "layers": config.layers,
                "adapter_parameters": count,
            }
        ),
        flush=True,
    )
    for name, (remat, objective, shared) in VARIANTS.items():
        if config.only and not any(word in name for word in config.only):
            continue
        rows, answers = (config.pairs, 2 * ANSWER) if shared else (2 * config.pairs, ANSWER)
        batch = abstract_pairs(llava, mesh, rows=rows, shape=RowShape(PROMPT + answers, answers))
        model = make_model(llava, jnp.bfloat16, lora, remat)
        start = time.monotonic()
        program = make_program(objective(model), RUN, total_steps=100)
        lowered = lower_step(program, RUN, variables, batch, mesh, lora=lora)
        row: dict[str, object] = {"variant": name}
        try:
            plan = lowered.compile().memory_analysis()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            row["does_not_fit"] = str(error).splitlines()[0]
        else:
            gib = {"arguments": plan.argument_size_in_bytes, "temporary": plan.temp_size_in_bytes}
            gib["peak"] = (
                gib["arguments"]
                + gib["temporary"]
                + plan.output_size_in_bytes
                - plan.alias_size_in_bytes
            )
            row |= {f"{k}_gib": round(v / 2**30, 2) for k, v in gib.items()}
        print(json.dumps(row | {"compile_seconds": round(time.monotonic() - start, 1)}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
