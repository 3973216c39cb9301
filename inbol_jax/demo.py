"""`inbol demo`: the whole method on the embedded world, from nothing to the report."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from inbol_jax.artifacts import HINT, changes, meta_path, one_writer, read_meta, write_json
from inbol_jax.commands import load, run
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.construction.config import BuildConfig
from inbol_jax.defaults import TINY, Bounded, Bounds, NumRows, Seed
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.extrinsic.config import ExtrinsicConfig
from inbol_jax.pages.table import Table
from inbol_jax.progress import say
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.training.config import DpoConfig, RlConfig, SftConfig
from inbol_jax.world.config import ExportConfig, Split

SAMPLING = SamplingOptions(max_new_tokens=12)  # no answer of this world has as many tokens
# Options of plain DPO on the same pairs. The learning rate is the best of three on validation, a
# tenth of CA-DPO's: without the NLL term, more forgets answers.
PLAIN_DPO = {"pair_weighting": "uniform", "nll_coef": 0.0, "learning_rate": 2e-5}
# Type 3 questions of other words than the answerable ones, as in the splits that are tested.
TYPE3 = {"generators": ("unseeable", "mismatched"), "allow_tell": True}
# What benchmarks/demo_seeds.py and benchmarks/ablation.py measured: one seed alone says little.
_FOLDER = Path(__file__).parent / "world/assets/measured"
MEASURED = (_FOLDER / "seeds.json", _FOLDER / "ablation.json")


@dataclasses.dataclass(frozen=True)
class DemoConfig(Bounded):
    """Run the whole method on the embedded world, from data to report."""

    out: Path = Path("runs/demo")
    """Folder of everything that is made. The same command resumes an interrupted run."""
    seed: Seed = 0
    """Seed of the world, the samples and the training."""
    n_train: NumRows = 6000
    """Answerable training questions. A quarter as many Type 3 questions are generated for them."""
    n_test: Annotated[NumRows, Bounds(6)] = 3000
    """Test questions, a third of them of Type 3. Validation is half as large, and so is a set in
    another style; one of other kinds of Type 3 questions and one of other knowledge are a sixth of
    it each."""
    rl: bool = False
    """Also train by on-policy refusal, from the IDK-IT model; it takes some minutes more."""


def train_idk_it(folder: Path, seed: int, **options: Any) -> None:
    """The demo's IDK-IT, into `<folder>/idk_it`.

    Args:
      options: flat options of `inbol sft` that replace the demo's own.
    """
    own = {"data": folder / "instructions.jsonl", "out": folder / "idk_it", "epochs": 1}
    run("sft", SftConfig.from_options(**own | {"seed": seed} | options))


def train_ca_dpo(folder: Path, seed: int, **options: Any) -> None:
    """The demo's CA-DPO, into `<folder>/ca_dpo`.

    Pairs are padded to one length: with several, batches hold pairs of similar length, which is
    another order than that of the measured tables.

    Args:
      options: flat options of `inbol dpo` that replace the demo's own; benchmarks/ablation.py
        compares several.
    """
    own = {
        "data": folder / "preferences.jsonl",
        "out": folder / "ca_dpo",
        "model": folder / "idk_it/model",
        "buckets": 1,
        "epochs": 1,
        "seed": seed,
    }
    run("dpo", DpoConfig.from_options(**own | options))


@one_writer
def demo(config: DemoConfig) -> Any:
    """Runs or resumes the demo. Returns the metrics (`evaluation.metrics.Metrics`).

    Raises:
      InbolError: if the folder holds a demo with other settings, or a stage raises it.
    """
    out, seed = config.out, config.seed
    data, idk_it, dpo, ca_dpo = (out / name for name in ("data", "idk_it", "dpo", "ca_dpo"))
    settings = dataclasses.asdict(config)
    del settings["out"]
    state = read_meta(out / "demo")  # what earlier runs of the same command have done
    if different := changes(state.get("settings", settings), settings):
        raise InbolError(f"{out} holds a demo of {'; '.join(different.values())}: {HINT}")
    seconds: dict[str, float] = state.get("seconds", {})  # of the stages that are done

    def stage(name: str, product: Path, action: Callable[[], Any]) -> None:
        """Runs a stage, unless it is done and its product is still there."""
        if name in seconds and product.exists():
            say(f"{name}: done before")
            return
        start = time.monotonic()
        action()
        seconds[name] = round(time.monotonic() - start, 2)
        write_json(meta_path(out / "demo"), {"settings": settings, "seconds": seconds})

    sizes = {
        Split.TRAIN: config.n_train,
        Split.VALIDATION: config.n_test // 2,
        Split.TEST: config.n_test,
        Split.OOD_STYLE: config.n_test // 2,
        Split.OOD_KINDS: config.n_test // 6,
        Split.OOD_KNOWLEDGE: config.n_test // 6,
    }
    rl = (("rl", out / "rl"),) if config.rl else ()
    evaluation = EvaluateConfig(
        in_domain=(data / Split.TEST,),
        out_of_domain=(data / Split.OOD_STYLE, data / Split.OOD_KINDS, data / Split.OOD_KNOWLEDGE),
        validation=(data / Split.VALIDATION,),
        out=out / "evaluation",
        models=(
            ("base", TINY),
            ("idk_it", idk_it / "model"),
            ("dpo", dpo / "model"),
            ("ca_dpo", ca_dpo / "model"),
            *((name, folder / "model") for name, folder in rl),
        ),
        templates="short",  # that the embedded model refuses with
        max_new_tokens=SAMPLING.max_new_tokens,
        seed=seed,
    )

    def export_splits() -> None:
        for split, n in sizes.items():
            run("world export", ExportConfig(data / split, split, n, seed=seed))

    def estimate_confidence() -> None:
        for source in (data / Split.TRAIN, out / "extrinsic.jsonl"):
            run("confidence", ConfidenceConfig(source, out, sampling=SAMPLING, seed=seed))

    stage("world", data / Split.OOD_KNOWLEDGE / "data.jsonl", export_splits)
    questions = ExtrinsicConfig(data / Split.TRAIN, out, seed=seed, **TYPE3)
    stage("extrinsic", out / "extrinsic.jsonl", lambda: run("extrinsic", questions))
    stage("confidence", out / "confidence" / "extrinsic.jsonl", estimate_confidence)
    construction = BuildConfig(out, seed=seed)
    stage("build", out / "preferences.jsonl", lambda: run("build", construction))
    stage("IDK-IT", idk_it / "model", lambda: train_idk_it(out, seed))
    stage("DPO", dpo / "model", lambda: train_ca_dpo(out, seed, out=dpo, **PLAIN_DPO))
    stage("CA-DPO", ca_dpo / "model", lambda: train_ca_dpo(out, seed))
    if config.rl:
        on_policy = RlConfig.from_options(
            data=(data / Split.TRAIN, out / "extrinsic.jsonl"),
            out=out / "rl",
            model=idk_it / "model",
            max_new_tokens=SAMPLING.max_new_tokens,
            epochs=1,
            seed=seed,
        )
        stage("on-policy", out / "rl/model", lambda: run("rl", on_policy))
    predictions = evaluation.out / "predictions.jsonl"
    predict = load("evaluation.evaluate:predictions")
    stage("evaluation", predictions, lambda: predict(evaluation))
    return load("evaluation.evaluate:report")(
        evaluation,
        load("evaluation.prediction:read_predictions")(predictions),
        out,
        seconds,
        [Table.read(file) for file in MEASURED],
    )
