"""`inbol demo`: the whole method on the embedded world, from nothing to the report."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import fingerprint, read_jsonl, write_json
from inbol_jax.confidence.estimate import ConfidenceConfig, estimate
from inbol_jax.construction.build import BuildConfig, build
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.evaluate import EvaluateConfig, predictions, report
from inbol_jax.extrinsic.extrinsic import ExtrinsicConfig, extrinsic
from inbol_jax.pages.table import Table
from inbol_jax.progress import say
from inbol_jax.training.ca_dpo import ca_dpo
from inbol_jax.training.config import FROZEN, DpoConfig, SftConfig
from inbol_jax.training.sft import sft
from inbol_jax.world.export import ExportConfig, export
from inbol_jax.world.splits import Split

# What benchmarks/demo_seeds.py and benchmarks/ablation.py measured with the code as it is: one seed alone says little.
MEASURED = tuple(
    Path(__file__).parent / "world/assets/measured" / name
    for name in ("seeds.json", "ablation.json")
)


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """The whole method on the embedded world: data, confidence, Type 3 questions, IDK-IT, CA-DPO, evaluation, report.

    Attributes:
      out: everything goes here; the same command goes on where a run was stopped.
      seed: of world, samples and training.
      n_train: training questions that can be answered; a quarter as many of Type 3 are generated.
      n_test: test questions that can be answered; half as many of Type 3, and half of all that out of domain.
    """

    out: Path = Path("runs/demo")
    seed: int = 0
    n_train: int = 6000
    n_test: int = 2000


class Stages:
    """Runs each stage once: what `<out>/demo.json` says is done, with the same settings, is not done again."""

    def __init__(self, out: Path, settings: Any):
        self._file = out / "demo.json"
        identity = fingerprint(settings)
        try:
            state = json.loads(self._file.read_text()) if self._file.exists() else {}
            if not isinstance(state, dict) or (state and "seconds" not in state):
                raise ValueError("not a demo's state")
        except ValueError as error:
            raise InbolError(f"{self._file}: not readable ({error}); delete it") from error
        if state and state.get("config") != identity:
            raise InbolError(
                f"{out} holds a demo with other settings; choose another --out or delete it"
            )
        self._state = state or {"config": identity, "seconds": {}}
        write_json(self._file, self._state)

    @property
    def seconds(self) -> dict[str, float]:
        return dict(self._state["seconds"])

    def run(self, name: str, product: Path, action: Callable[[], Any]) -> None:
        """Runs `action` unless it is done and its product still there."""
        if name in self.seconds and product.exists():
            say(f"{name}: done before")
            return
        start = time.monotonic()
        action()
        self._state["seconds"][name] = round(time.monotonic() - start, 2)
        write_json(self._file, self._state)


def train_idk_it(run: Path, seed: int) -> None:
    """The demo's IDK-IT, into `<run>/idk_it`."""
    sft(SftConfig(data=run / "instructions.jsonl", out=run / "idk_it", seed=seed))


def train_ca_dpo(run: Path, seed: int, **options: Any) -> None:
    """The demo's CA-DPO, into `<run>/ca_dpo`; `options` replace its own (benchmarks/ablation.py compares them)."""
    own = {"data": run / "preferences.jsonl", "out": run / "ca_dpo", "model": run / "idk_it/model"}
    # Against the drift of answers: only attention is trained, and the model keeps a tenth of the base.
    own |= {"frozen": (*FROZEN, "/mlp/"), "wise_ft_alpha": 0.9, "wise_ft_base": TINY}
    ca_dpo(DpoConfig.from_options(**(own | options), seed=seed))


def demo(config: DemoConfig) -> dict[str, Any]:
    """Runs or resumes the demo. Returns the metrics.

    Raises:
      InbolError: when the folder holds a demo with other settings, or a stage raises it.
    """
    out, seed = config.out, config.seed
    for name, least in (("n_train", 1), ("n_test", 4)):
        if getattr(config, name) < least:
            raise InbolError(
                f"--{name.replace('_', '-')} {getattr(config, name)}: at least {least} are needed"
            )
    stages = Stages(out, {k: v for k, v in dataclasses.asdict(config).items() if k != "out"})
    data = out / "data"
    sizes = {
        Split.TRAIN: config.n_train,
        Split.TEST: config.n_test,
        Split.OOD_KINDS: config.n_test // 4,
        Split.OOD_STYLE: config.n_test // 2,
    }

    def worlds() -> None:
        for split, n in sizes.items():
            export(ExportConfig(data / split, split, n, seed=seed))

    def confidences() -> None:
        for source in (data / "train", out / "extrinsic.jsonl"):
            estimate(ConfidenceConfig(source, out, seed=seed))

    idk, dpo = out / "idk_it", out / "ca_dpo"
    stages.run("world", data / Split.OOD_STYLE / "data.jsonl", worlds)
    stages.run(
        "extrinsic",
        out / "extrinsic.jsonl",
        lambda: extrinsic(ExtrinsicConfig(data / "train", out, seed=seed)),
    )
    stages.run("confidence", out / "confidence" / "extrinsic.jsonl", confidences)
    stages.run("build", out / "preferences.jsonl", lambda: build(BuildConfig(out, seed=seed)))
    stages.run("IDK-IT", idk / "model", lambda: train_idk_it(out, seed))
    stages.run("CA-DPO", dpo / "model", lambda: train_ca_dpo(out, seed))
    evaluation = EvaluateConfig(
        in_domain=(data / Split.TEST,),
        out_of_domain=(data / Split.OOD_KINDS, data / Split.OOD_STYLE),
        out=out / "evaluation",
        models=(("base", TINY), ("idk_it", idk / "model"), ("ca_dpo", dpo / "model")),
        curves=(("IDK-IT", idk), ("CA-DPO", dpo)),
        train=out,
        seed=seed,
    )
    stages.run("evaluation", evaluation.out / "predictions.jsonl", lambda: predictions(evaluation))
    tables = [Table.read(file) for file in MEASURED]
    return report(
        evaluation,
        list(read_jsonl(evaluation.out / "predictions.jsonl")),
        out,
        stages.seconds,
        tables,
    )
