"""Memory of a CA-DPO step of LLaVA-1.5-7B with LoRA, as the compiler plans it: nothing is allocated
and no accelerator is needed.

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python benchmarks/memory.py            # one TPU v5p
    chip; needs `pip install libtpu` python benchmarks/memory.py --topology none
    # the device at hand

bfloat16 base, float32 adapters of rank 128 on every dense layer of the decoder, AdamW; pairs of 640
prompt tokens (576 of them the image's) and two answers of 32. A line a variant: GiB of arguments
(weights, adapters, optimizer, batch) and of everything else at its peak. `tpu/plan.py` plans the
stages as they are, over slices; this script is for what we did not build, beside what we did.
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies

from inbol_jax.losses import preference_margin, sequence_logprob, token_logprobs
from inbol_jax.models.config import load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.lora import LoraConfig
from inbol_jax.sharding import make_mesh
from inbol_jax.training.plan import abstract_pairs, abstract_variables, lower_step
from inbol_jax.training.state import make_optimizer
from inbol_jax.training.step import Objective, ca_dpo_objective, target_logprobs

SHAPES = Path(__file__).parents[1] / "tpu/shapes/llava-1.5-7b/config.json"
PROMPT, ANSWER = 640, 32


@dataclasses.dataclass(frozen=True)
class Config:
    """Compile the variants.

    Attributes:
      pairs: a step.
      topology: TPU topology to compile for, its first chip; "none" for the device at hand.
      layers: of the decoder; fewer compile faster.
      only: words of the variants to compile; by default all.
    """

    pairs: int = 8
    topology: str = "v5p:2x2x1"
    layers: int = 32
    only: tuple[str, ...] = ()


def ours(model: Llava) -> Objective:
    return ca_dpo_objective(model, beta=0.1, scheme="value", anchor=1.0)


def online(model: Llava) -> Objective:
    return ca_dpo_objective(model, beta=0.1, scheme="value", anchor=1.0, online_reference=True)


def every_position(chunk: int | None):
    """Log-probabilities at every position instead of the answers' alone, as most trainers compute
    them.
    """

    def objective(model: Llava) -> Objective:
        def run(variables, batch, key=None):
            hidden = model.apply(variables, batch, method=Llava.hidden)
            logprobs = token_logprobs(
                hidden, model.apply(variables, method=Llava.head), batch["input_ids"], chunk=chunk
            )
            return _dpo(
                *(sequence_logprob(logprobs, batch["segments"] == branch) for branch in (1, 2)),
                batch,
            )

        return run

    return objective


def two_rows(model: Llava) -> Objective:
    """Chosen and rejected in rows of their own, each with image and prompt: the first half of the
    rows is chosen.
    """

    def run(variables, batch, key=None):
        total = sequence_logprob(
            target_logprobs(model, variables, batch), batch["target_segment"] > 0
        )
        half = len(total) // 2
        return _dpo(total[:half], total[half:], {k: x[:half] for k, x in batch.items()})

    return run


def _dpo(chosen, rejected, batch):
    margin = preference_margin(chosen, rejected, batch["ref_chosen"], batch["ref_rejected"])
    return {"loss": (-jax.nn.log_sigmoid(0.1 * margin).sum(), batch["valid"].sum())}


# name: (rematerialisation, objective, whether the answers of a pair share image and prompt)
VARIANTS = {
    "as built, remat full": ("full", ours, True),
    "as built, remat dots": ("dots", ours, True),
    "as built, no remat": ("none", ours, True),
    "reference online, remat full": ("full", online, True),
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
        batch = abstract_pairs(llava, mesh, rows=rows, tokens=PROMPT + answers, targets=answers)
        model = Llava(llava, jnp.bfloat16, lora, remat)
        start = time.monotonic()
        lowered = lower_step(
            objective(model),
            make_optimizer(1e-4, 100),
            variables,
            batch,
            mesh,
            lora=lora,
            online=objective is online,
        )
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
