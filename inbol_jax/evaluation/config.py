"""The options of `inbol evaluate` and `inbol calibrate`.

Nothing here imports JAX: help must be fast.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from inbol_jax.artifacts import check_name
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.defaults import (
    NEW_TOKENS,
    TINY,
    BatchSize,
    Bounded,
    Bounds,
    Dtype,
    NumNewTokens,
    NumSamples,
    Positive,
    Seed,
    check_out,
)
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.prediction import (
    BASELINES,
    DOMAINS,
    PROMPTED,
    VALIDATION,
    by_likelihood,
    calibrated,
)
from inbol_jax.prompts import AUTO, PromptOptions
from inbol_jax.responses.config import ENDPOINT, EndpointConfig
from inbol_jax.taught_refusals import refusals_of


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Bounded):
    """Ask several models the same questions; write their answers, metrics and a report."""

    in_domain: tuple[Path, ...]
    """Dataset folders whose questions are like those of training."""
    out: Path
    """Folder that gets confidence/, predictions.jsonl, metrics.json and report.html."""
    out_of_domain: tuple[Path, ...] = ()
    """Dataset folders whose questions are unlike those of training."""
    validation: tuple[Path, ...] = ()
    """Dataset folders on which thresholds are chosen. They add simple baselines, each model with
    what `inbol calibrate` can give it, and curves of T against the share of refusals."""
    probe: Path | None = None
    """File of `inbol probe` for the first model: one more baseline (with --validation)."""
    prompted: bool = False
    """Also ask the first model with "If you do not know the answer, say I don't know.": one more
    baseline."""
    limit: Annotated[int | None, Bounds(1)] = None
    """Read only this many records of each dataset, from the first one on."""
    templates: str = "one"
    """Refusals whose first tokens decide between refusing and answering (with --validation): the
    sets of `inbol build`, "one", "short", "long", "reason" or "all"."""
    models: tuple[tuple[str, Path], ...] = (("base", TINY),)
    """Name and checkpoint folder of each model; "endpoint:NAME" in place of a folder is the model
    that is called NAME at --endpoint. The first model is the base: its confidence decides which
    type a question has."""
    prompt: PromptOptions = AUTO
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    n: NumSamples = 10
    """Samples per question for the confidence."""
    temperature: Annotated[float, Bounds(0)] = 1.0
    """Temperature of these samples: that of the training questions' confidence. Answers are
    greedy."""
    max_new_tokens: NumNewTokens = NEW_TOKENS
    """Maximum number of tokens per answer."""
    batch_size: BatchSize = 32
    """Questions per batch; on a CPU the batch may be smaller."""
    dtype: Dtype = "auto"
    """Number format of the models: auto is float32 for a float32 checkpoint, and bfloat16 for any
    other."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Number of this process's devices along data, fsdp and tensor; -1 stands for all others."""
    distributed: bool = False
    """Only ask, each of several processes its share, as in `inbol confidence`. The same command
    without it then asks nothing, and writes the results."""
    seed: Seed = 0
    """Seed of the confidence's samples, of the bootstrap and of the report's gallery."""
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    """Endpoint of the models that --models calls endpoint:NAME; --endpoint-model is not used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_endpoint()
        if not self.in_domain:
            raise InbolError("--in-domain needs at least one dataset folder")
        if not self.models:
            raise InbolError("--models needs at least one name and checkpoint folder")
        for name, _ in self.models:
            check_name(name, "--models")
        if len({name for name, _ in self.models}) < len(self.models):
            raise InbolError("--models: two models have the same name; rename one of them")
        names = {name for name, _ in self.models}
        taken = names & {*BASELINES, PROMPTED, *map(calibrated, names), *map(by_likelihood, names)}
        if taken:
            raise InbolError(f"--models {min(taken)}: a baseline has this name; choose another one")
        if not self.validation and self.templates != EvaluateConfig.templates:
            raise InbolError("--templates says where thresholds lie: give --validation as well")
        if self.probe and not self.validation:
            raise InbolError("--probe: its threshold is chosen on validation: give --validation")
        _ = self.refusals  # raises if there are none of that name

    def _check_endpoint(self) -> None:
        remote = [model for model, place in self.models if self.endpoint_of(place)]
        if self.endpoint.endpoint_model or (self.endpoint.endpoint and not remote):
            raise InbolError(
                f"--endpoint: give {ENDPOINT}NAME in --models in place of a folder, and no "
                "--endpoint-model"
            )
        if remote and self.distributed:
            raise InbolError("--distributed: an endpoint is asked by one process; leave it out")
        if remote and self.validation:
            raise InbolError(
                f"--validation: what {remote[0]} answers if it may not refuse, and how close it is "
                "to refusing, cannot be asked of an endpoint; leave --validation out, or give the "
                f"folder of its checkpoint in place of {ENDPOINT}NAME"
            )

    def endpoint_of(self, place: Path) -> EndpointConfig | None:
        """How a model of `models` is asked, given its place; None if that is a checkpoint."""
        if not (name := str(place)).startswith(ENDPOINT):
            return None
        if not self.endpoint.endpoint:
            raise InbolError(f"--models {name}: give --endpoint, the URL of its server, as well")
        if not (model := name.removeprefix(ENDPOINT)):
            raise InbolError(f"--models {ENDPOINT}: the name of the endpoint's model is needed")
        return dataclasses.replace(self.endpoint, endpoint_model=model)

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders of all datasets."""
        return (*self.in_domain, *self.out_of_domain, *self.validation)

    @property
    def domains(self) -> list[str]:
        """The domain of each of `folders`."""
        return [name for name in (*DOMAINS, VALIDATION) for _ in getattr(self, name)]

    @property
    def refusals(self) -> tuple[str, ...]:
        """The refusals of --templates; none without --validation."""
        refusals = refusals_of(self.templates)
        return refusals if self.validation else ()


@dataclasses.dataclass(frozen=True)
class ProbeConfig(Bounded):
    """Fit a linear probe on a model's hidden states: it tells which questions to refuse.

    It takes a minute and does not touch the model: what training has to beat.
    """

    out: Path
    """Folder with the records.jsonl of `inbol build`; gets probe.safetensors."""
    model: Path = TINY
    """Folder or hub id of the model that the records' confidence is of."""
    batch_size: BatchSize = 32
    """Questions per batch; on a CPU the batch may be smaller."""
    dtype: Dtype = "auto"
    """Number format of the model: auto is float32 for a float32 checkpoint, and bfloat16 for any
    other."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Number of devices along data, fsdp and tensor; -1 stands for all devices that remain."""


RuleName = Literal["bias", "likelihood"]


@dataclasses.dataclass(frozen=True)
class CalibrateConfig(Bounded):
    """Choose the rule of refusing that is best on validation, and keep it with the model.

    Best is the highest T, the highest value at a --price of wrong answers, or the most answers at a
    --risk. The rule is kept in generation_config.json; `inbol` applies any, transformers the bias.
    """

    model: Path
    """Folder of the checkpoint or adapter; with --out also a hub id."""
    data: tuple[Path, ...]
    """Dataset folders of validation: no question of them should be in training or test."""
    out: Path | None = None
    """Folder of a copy that gets the bias. By default --model itself gets it; its fingerprint
    changes, so stores sampled from it and adapters trained on it no longer fit."""
    prompt: PromptOptions = AUTO
    templates: str = "one"
    """Refusals whose first tokens decide between refusing and answering, those that the model was
    taught: a set of `inbol build`, "one", "short", "long", "reason" or "all"."""
    rule: RuleName | None = None
    """What refuses: a bias on the refusal tokens, or a threshold on the likelihood of the model's
    own answer. By default the better one on validation."""
    price: Positive = 1.0
    """What a wrong answer costs, if a correct one is worth 1: the rule has the highest value at
    that price. At 1 the value is T."""
    risk: Annotated[float | None, Bounds(above=0, below=1)] = None
    """In place of a price, the largest share of the answers that may be wrong: the threshold on the
    likelihood answers as many questions as keep it."""
    delta: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Probability, over the questions of --data, with which the risk may be exceeded after all."""
    max_new_tokens: NumNewTokens = NEW_TOKENS
    """Maximum number of tokens per answer."""
    batch_size: BatchSize = 32
    """Questions per batch; on a CPU the batch may be smaller."""
    dtype: Dtype = "auto"
    """Number format of the model: auto is float32 for a float32 checkpoint, and bfloat16 for any
    other."""
    mesh: tuple[int, int, int] = (-1, 1, 1)
    """Number of devices along data, fsdp and tensor; -1 stands for all devices that remain."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise InbolError("--data needs at least one dataset folder")
        refusals_of(self.templates)  # raises if there are none of that name
        if self.risk and self.price != 1:
            raise InbolError("--risk and --price: the rule is chosen for one of them")
        if self.risk and self.rule == "bias":
            raise InbolError("--risk is promised of the likelihood's rule alone; drop --rule bias")
        if self.risk is None and self.delta != 0.1:
            raise InbolError("--delta does nothing without --risk")
        if self.out is not None:
            check_out(self.out, self.model)
        elif not self.model.is_dir():
            raise InbolError(f"--model {self.model} is no folder here: give --out for a copy of it")
        elif self.model.resolve() == TINY.resolve():
            raise InbolError("--model: the package's own model stays as it is: give --out")
