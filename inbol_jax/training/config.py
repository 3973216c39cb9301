"""Options of IDK-IT (`inbol sft`), CA-DPO (`inbol dpo`) and on-policy refusal (`inbol rl`). Imports
are light: help must be fast.

A training config is composed of parts, each of which refuses values that cannot be meant. On the
command line all options are flat; `from_options` takes them flat in Python as well.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from inbol_jax.defaults import (
    NEW_TOKENS,
    TINY,
    BatchSize,
    Bounded,
    Bounds,
    Dtype,
    NumNewTokens,
    NumSamples,
    NumSteps,
    Positive,
    Seed,
    check_out,
)
from inbol_jax.errors import InbolError
from inbol_jax.prompts import AUTO, PromptOptions

# The vision tower and the embeddings stay as they are: refusing is a matter of what is said, not of
# what is seen.
FROZEN = ("^vision_(tower|model)/", "embed_tokens")

# Peak learning rates by method, unless --learning-rate says another: of a model that is trained
# whole (they suit the tiny one of the package), and of adapters, whatever they are on.
RATES = {"sft": (3e-4, 2e-4), "dpo": (2e-4, 5e-5), "rl": (3e-4, 1e-4)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Bounded):
    """AdamW and its learning rates."""

    learning_rate: Annotated[float | None, Bounds(above=0)] = None
    """Peak learning rate, behind a warm-up of a tenth of the steps and before a cosine to 0. By
    default: sft 3e-4, dpo 2e-4, rl 3e-4 for a model that is trained whole; 2e-4, 5e-5, 1e-4 for
    adapters."""
    weight_decay: Annotated[float, Bounds(0)] = 0.0
    """Weight decay of matrices. Biases and norms have none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraOptions(Bounded):
    """Adapters (LoRA) that are trained instead of the model's own weights."""

    lora_rank: Annotated[int, Bounds(0)] = 0
    """Rank of new adapters. With 0 no adapters are added; those that the model comes with are
    trained."""
    lora_alpha: Annotated[float | None, Bounds(above=0)] = None
    """LoRA's alpha: adapters are scaled by alpha / rank. The default is twice the rank."""
    lora_targets: tuple[str, ...] = (r"(language|text)_model\..*_proj",)
    """Modules that get an adapter, by name or regular expression. By default every dense layer of
    the decoder gets one."""
    lora_trainable: tuple[str, ...] = ()
    """Modules that are trained whole beside the adapters, such as multi_modal_projector."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank:
            return
        for field in dataclasses.fields(self):
            if getattr(self, field.name) != field.default:
                raise InbolError(
                    f"--{field.name.replace('_', '-')} does nothing without --lora-rank: "
                    "the adapters of --model keep their options"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How a run is computed. Its result changes by no more than rounding, but for dtype."""

    dtype: Dtype = "auto"
    """Number format of the computation and of frozen weights: auto is float32 for a float32
    checkpoint, and bfloat16 for any other. What is trained is kept in float32."""
    remat: Literal["none", "selective", "full"] = "none"
    """Activations that the backward pass computes again to save memory: none, the cheap ones
    (selective), or all of each layer (full)."""
    scan_layers: bool = False
    """Keep the decoder's layers stacked and scan them: one is compiled in place of all, which takes
    minutes in place of half an hour, and less memory on TPUs. The layers must be alike."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Number of devices along data, fsdp and tensor; -1 stands for all devices that remain."""
    parallel: Literal["jit", "pmap"] = "jit"
    """Run one program over the mesh (jit), or a copy of the model on each device (pmap)."""
    distributed: bool = False
    """Set this if the run has several processes, each with devices of its own. JAX finds the others
    on Cloud TPU, Slurm, Kubernetes and Open MPI; elsewhere set JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID. All must see the same files."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(Bounded):
    """What all training commands take."""

    method: ClassVar[str]
    """Name of the command, see `RATES`."""

    data: Path | tuple[Path, ...]
    """What is trained on."""
    out: Path
    """Folder of the run. It gets checkpoints/, metrics.jsonl, and the trained model in Hugging Face
    layout in OUT/model."""
    model: Path = TINY
    """Folder or hub id of the checkpoint to start from; the default is the tiny LLaVA of the
    package."""
    epochs: Annotated[int | None, Bounds(1, 1_000)] = None
    """Passes over the data. By default one, or as many as make 200 optimizer steps of a small set,
    up to ten."""
    max_steps: Annotated[int | None, Bounds(1, 10_000_000)] = None
    """Optimizer steps after which training ends, if its passes have more."""
    batch_size: BatchSize = 32
    """Examples per optimizer step."""
    gradient_accumulation_steps: BatchSize = 1
    """Micro-batches per optimizer step. The examples of a step are divided among them."""
    frozen: tuple[str, ...] = FROZEN
    """Regular expressions. Parameters whose path matches one are not trained. With adapters,
    everything else is frozen anyway."""
    seed: Seed = 0
    """Seed of the order of the data, and of new adapters."""
    save_steps: NumSteps = 100
    """Steps between two checkpoints in OUT/checkpoints, of which the newest two are kept. A run
    that was stopped resumes from the last one."""
    logging_steps: NumSteps = 10
    """Steps between two rows of OUT/metrics.jsonl. Evaluations and checkpoints have a row too."""
    optimization: OptimizerConfig = OptimizerConfig()
    lora: LoraOptions = LoraOptions()
    runtime: RuntimeConfig = RuntimeConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_out(self.out, self.model, "model")

    def with_rate(self, *, adapters: bool) -> Self:
        """The same options with a learning rate: the method's, if none was given."""
        whole, of_adapters = RATES[self.method]
        rate = self.optimization.learning_rate or (of_adapters if adapters else whole)
        optimization = dataclasses.replace(self.optimization, learning_rate=rate)
        return dataclasses.replace(self, optimization=optimization)

    @classmethod
    def from_options(cls, **options: Any) -> Self:
        """The config of flat options, named as on the command line:
        `SftConfig.from_options(data=..., out=..., lora_rank=8)`."""
        for field in dataclasses.fields(cls):
            if not dataclasses.is_dataclass(field.default):
                continue
            parts = {part.name for part in dataclasses.fields(field.default)}
            if names := parts & options.keys():
                own = {name: options.pop(name) for name in names}
                options[field.name] = dataclasses.replace(field.default, **own)
        return cls(**options)

    def flat(self) -> dict[str, Any]:
        """All options by name, as on the command line."""
        options: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            options |= value if isinstance(value, dict) else {name: value}
        return options

    @property
    def distributed(self) -> bool:
        """Whether the run has several processes."""
        return self.runtime.distributed


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """What IDK-IT and CA-DPO take, which train on a file of given responses."""

    data: Path
    """File that `inbol build` writes: instructions.jsonl for sft, preferences.jsonl for dpo."""
    images: Path | None = None
    """Image folder. By default it is the one that the header of --data names."""
    buckets: Annotated[int, Bounds(0, 100)] = 0
    """Number of lengths that rows are padded to; each is compiled separately. With more than one,
    rows of similar length are batched together, so that short rows do not pay for long ones. With 0
    there are as few, up to 8, as waste about 4% of the tokens beside rounding to eights."""
    eval_data: Path | None = None
    """File of the same kind as --data. Its metrics are computed during training."""
    eval_steps: NumSteps = 100
    """Steps between two evaluations on --eval-data. There is one at the end as well."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig(TrainConfig):
    """IDK-IT: fine-tune on IDK instructions."""

    method: ClassVar[str] = "sft"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaDpoLossConfig(Bounded):
    """The CA-DPO loss of a preference pair (`losses.ca_dpo_loss`)."""

    loss: str = "sigmoid"
    """Loss of a pair before its weight: sigmoid (DPO), ipo, hinge (SLiC), robust, or one of your
    own (docs/architecture.md)."""
    beta: Positive = 0.1
    """Inverse temperature of the implicit reward."""
    label_smoothing: Annotated[float, Bounds(0, below=0.5)] = 0.0
    """Assumed share of pairs in which chosen and rejected are swapped, at least 0 and less than
    0.5. With sigmoid it gives conservative DPO."""
    length_normalized: bool = False
    """Take log-probabilities per token instead of summed ones."""
    pair_weighting: str = "value"
    """Pair weights from confidence: value (what the user gains by the chosen response), linear,
    margin, uniform (plain DPO), or one of your own (docs/architecture.md)."""
    nll_coef: Annotated[float, Bounds(0)] = 3.0
    """Coefficient of the negative log-likelihood per token of the chosen response. It is multiplied
    by the pair weight too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DpoConfig(TrainConfig):
    """CA-DPO: preference optimisation weighted by confidence.

    The frozen reference is the model that training starts from.
    """

    method: ClassVar[str] = "dpo"

    pair_loss: CaDpoLossConfig = CaDpoLossConfig()
    reference: Literal["cached", "none"] = "cached"
    """Compute the reference's log-probabilities once and keep them in OUT/reference.npy (cached),
    or put 0 in their place (none)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyGradientConfig(Bounded):
    """What responses are worth, and the loss of a response (`losses.policy_gradient_loss`)."""

    reward: str = "value"
    """Function that scores a response: value (the user value: the mean reward is T), or one of your
    own (docs/on-policy.md)."""
    scale_rewards: bool = True
    """Divide the advantages of a group by the standard deviation of its rewards (GRPO)."""
    length_normalized: bool = False
    """Take the mean over the tokens of a response (GRPO) instead of the sum, whose gradient is the
    unbiased one. With the mean a refusal, which is longer than most answers, is learnt slower."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlConfig(RunConfig):
    """On-policy refusal: a policy gradient on the model's own responses.

    Each question gets a group of responses, drawn from the model as it is. What a response is worth
    beyond the mean of its group is its advantage.
    """

    method: ClassVar[str] = "rl"

    data: tuple[Path, ...]
    """Dataset folders, or .jsonl files: questions with their answers, and questions that cannot be
    answered from the image (Type 3)."""
    batch_size: BatchSize = 32
    """Questions per optimizer step, each with n responses."""
    seed: Seed = 0
    """Seed of the order of the data, of the responses and of new adapters."""
    n: Annotated[NumSamples, Bounds(2)] = 10
    """Responses per question, drawn at temperature 1 and without truncation, that is, from the
    policy itself. They are compared with each other."""
    max_new_tokens: NumNewTokens = NEW_TOKENS
    """A response that has not ended by itself is cut after this number of tokens."""
    prompt: PromptOptions = AUTO
    policy_gradient: PolicyGradientConfig = PolicyGradientConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise InbolError("--data: at least one dataset is needed")
