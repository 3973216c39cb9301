"""Memory of a CA-DPO step of LLaVA-1.5-7B with LoRA, as the compiler plans it: nothing is allocated and no accelerator is needed.

    TPU_SKIP_MDS_QUERY=1 JAX_PLATFORMS=cpu python benchmarks/memory.py            # one TPU v5p chip; needs `pip install libtpu`
    python benchmarks/memory.py --topology none                                   # the device at hand

bfloat16 base, float32 adapters of rank 128 on every dense layer of the decoder, AdamW; pairs of 640 prompt tokens (576 of them the image's)
and two answers of 32. A line a variant: GiB of arguments (weights, adapters, optimizer, batch) and of everything else at its peak.
"""

import dataclasses
import json
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax.traverse_util import flatten_dict
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding
from load_7b import CONFIG

from inbol_jax.losses import sequence_logprob, token_logprobs
from inbol_jax.models.config import load_config
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.lora import LoraConfig, init_lora
from inbol_jax.training.state import init_state, make_optimizer, split_variables
from inbol_jax.training.step import Objective, ca_dpo_objective, make_train_step, pair_logprobs, target_logprobs

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


def whole_logits(model: Llava, chunk: int | None) -> Objective:
    """Log-probabilities at every position instead of the answers' alone, as most trainers compute them."""

    def run(variables, batch, key=None):
        hidden = model.apply(variables, batch, method=Llava.hidden)
        logprobs = token_logprobs(hidden, model.apply(variables, method=Llava.head), batch["input_ids"], chunk=chunk)
        chosen, rejected = (sequence_logprob(logprobs, batch["segments"] == branch) for branch in (1, 2))
        margin = (chosen - batch["ref_chosen"]) - (rejected - batch["ref_rejected"])
        return {"loss": (-jax.nn.log_sigmoid(0.1 * margin).sum(), batch["valid"].sum())}

    return run


def reference_inside(model: Llava) -> Objective:
    """The reference by a second forward pass without adapters in the same program."""
    objective = ca_dpo_objective(model, beta=0.1, scheme="value", anchor=1.0)

    def run(variables, batch, key=None):
        base = jax.lax.stop_gradient({"params": variables["params"]})
        chosen, rejected = pair_logprobs(target_logprobs(model, base, batch), batch, average=False)
        return objective(variables, batch | {"ref_chosen": chosen, "ref_rejected": rejected}, key)

    return run


def two_rows(model: Llava) -> Objective:
    """Chosen and rejected in rows of their own, each with image and prompt."""

    def run(variables, batch, key=None):
        both = target_logprobs(model, variables, batch)
        total = sequence_logprob(both, batch["target_segment"] > 0)
        chosen, rejected = total[: len(total) // 2], total[len(total) // 2 :]
        margin = (chosen - batch["ref_chosen"]) - (rejected - batch["ref_rejected"])
        return {"loss": (-jax.nn.log_sigmoid(0.1 * margin).sum(), jnp.float32(len(chosen)))}

    return run


def batch_of(pairs: int, *, shared: bool) -> dict[str, jax.ShapeDtypeStruct]:
    rows, length, targets = (pairs, PROMPT + 2 * ANSWER, 2 * ANSWER) if shared else (2 * pairs, PROMPT + ANSWER, ANSWER)
    shapes = dict.fromkeys(("input_ids", "positions", "segments"), ((rows, length), jnp.int32))
    shapes |= dict.fromkeys(("targets", "target_index", "target_segment"), ((rows, targets), jnp.int32))
    shapes |= {"pixel_values": ((rows, 1, 3, 336, 336), jnp.float32)}
    shapes |= dict.fromkeys(("ref_chosen", "ref_rejected", "confidence", "valid"), ((pairs,), jnp.float32)) | {
        "kind": ((pairs,), jnp.int32)
    }
    return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = CONFIG["text_config"] | {"num_hidden_layers": config.layers}
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG | {"text_config": text}))
        llava = load_config(Path(folder))
    device = jax.devices()[0]
    if config.topology != "none":
        device = topologies.get_topology_desc(platform="tpu", topology_name=config.topology).devices[0]
    place = SingleDeviceSharding(device)
    lora = LoraConfig()
    params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16), param_shapes(llava))
    adapters = jax.eval_shape(lambda: init_lora(params, lora, jax.random.key(0)))
    trainable, frozen = split_variables({"params": params, "lora": adapters}, (), lora)
    optimizer = make_optimizer(1e-4, 100)
    state = jax.eval_shape(lambda: init_state({k: jnp.zeros(x.shape, x.dtype) for k, x in trainable.items()}, optimizer))

    def ours(model: Llava) -> Objective:
        return ca_dpo_objective(model, beta=0.1, scheme="value", anchor=1.0)

    variants = {
        "as built, remat full": ("full", ours, True),
        "as built, remat dots": ("dots", ours, True),
        "as built, no remat": ("none", ours, True),
        "reference in the step, remat full": ("full", reference_inside, True),
        "image and prompt not shared, remat full": ("full", two_rows, False),
        "logits of every position, chunked, remat full": ("full", lambda m: whole_logits(m, 128), True),
        "logits of every position, whole, remat full": ("full", lambda m: whole_logits(m, None), True),
    }
    count = sum(int(np.prod(x.shape)) for x in flatten_dict(adapters).values())
    print(
        json.dumps({"device": device.device_kind, "pairs": config.pairs, "layers": config.layers, "adapter_parameters": count}), flush=True
    )
    for name, (remat, objective, shared) in variants.items():
        if config.only and not any(word in name for word in config.only):
            continue
        step = make_train_step(objective(Llava(llava, jnp.bfloat16, lora, remat)), optimizer)
        arguments = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), (state, frozen, batch_of(config.pairs, shared=shared))
        )
        start = time.monotonic()
        plan = jax.jit(step, donate_argnums=0).lower(*arguments).compile().memory_analysis()
        gib = {"arguments": plan.argument_size_in_bytes, "temporary": plan.temp_size_in_bytes}
        gib["peak"] = gib["arguments"] + gib["temporary"] + plan.output_size_in_bytes - plan.alias_size_in_bytes
        row = {f"{k}_gib": round(v / 2**30, 2) for k, v in gib.items()}
        print(json.dumps({"variant": name} | row | {"compile_seconds": round(time.monotonic() - start, 1)}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config))
