"""CA-DPO in other settings against the IDK-IT model that it starts from: on the validation split of
the world, over several seeds.

    python benchmarks/ablation.py --seeds 0 1 2 --out runs/ablation --table
    inbol_jax/world/assets/measured/ablation.json

The test split is not touched: settings are chosen here. Thresholds are chosen on other questions
of the validation split. A run that was stopped goes on where it was.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from msgspec.structs import replace
from real_stages import Stages
from safetensors.numpy import load_file, save_file

from inbol_jax import commands
from inbol_jax.artifacts import file_fingerprint, read_jsonl, read_meta, write_json, write_jsonl
from inbol_jax.confidence.boundary import Thresholds
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.construction.build import BuildConfig, build
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.defaults import TINY
from inbol_jax.demo import PLAIN_DPO, SAMPLING, TYPE3, train_ca_dpo, train_idk_it
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.evaluate import predictions
from inbol_jax.evaluation.metrics import Metrics, differences
from inbol_jax.evaluation.policies import measure
from inbol_jax.evaluation.prediction import VALIDATION, Prediction, calibrated
from inbol_jax.evaluation.tables import signed, with_interval
from inbol_jax.extrinsic.config import ExtrinsicConfig
from inbol_jax.extrinsic.extrinsic import extrinsic
from inbol_jax.prompts import header_prompt
from inbol_jax.records import Boundary, BoundaryRecord, Preference
from inbol_jax.training.config import FROZEN
from inbol_jax.world.config import Split
from inbol_jax.world.export import ExportConfig, export


@dataclasses.dataclass(frozen=True)
class Config:
    """Train in every setting of VARIANTS and write a table."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of data, samples and training."""
    out: Path = Path("runs/ablation")
    """Folder of the runs."""
    table: Path = Path("runs/ablation/ablation.json")
    """JSON file of the table, for the demo's report."""
    n_train: int = 6000
    """Training questions that can be answered."""
    n_validation: int = 3000
    """Validation questions, a third of them of Type 3."""
    only: tuple[str, ...] = ()
    """Train only the settings whose names hold one of these words."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A setting: how it differs from the demo's."""

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of the stage."""
    idk_it: dict[str, Any] | None = None
    """Options of an IDK-IT of its own, on its own data; None starts from the demo's IDK-IT."""
    negatives: bool = False
    """Take incorrect responses of the IDK-IT model, if it gives any, instead of the base's."""
    type3_share: float | None = None
    """Type 3 questions per answerable question, in place of the demo's quarter."""
    thresholds: Thresholds | None = None
    """Thresholds of Known and Unknown, in place of 0.7 and 0.3."""
    mixed: float | None = None
    """Share of the fine-tuned weights in the model; the rest is the base's."""


# The last of the decoder's four layers, and what follows it.
LAST_LAYER = {"frozen": (*FROZEN, "multi_modal", "layers_0/", "layers_1/", "layers_2/")}
VARIANTS = (
    Variant("the demo's setting"),
    Variant("pair weighting linear", {"pair_weighting": "linear"}),
    Variant("pair weighting uniform", {"pair_weighting": "uniform"}),
    Variant("without the anchor (NLL coefficient 0)", {"nll_coef": 0.0}),
    Variant("plain DPO at learning rate 2e-5", PLAIN_DPO),
    Variant("beta 0.5", {"beta": 0.5}),
    Variant("attention alone is trained", {"frozen": (*FROZEN, "/mlp/")}),
    Variant("WiSE-FT alpha 0.9: a tenth of the base", mixed=0.9),
    Variant("three epochs", {"epochs": 3}),
    Variant("incorrect responses of the IDK-IT model", negatives=True),
    Variant("starts from the base", {"model": TINY}),
    Variant("the last decoder layer alone is trained", LAST_LAYER),
    Variant("the last layer alone, in IDK-IT too", LAST_LAYER, idk_it=LAST_LAYER),
    Variant("twice the Type 3 questions", type3_share=0.5),
    Variant("twice the Type 3 questions, in IDK-IT too", idk_it={}, type3_share=0.5),
    Variant("last layer and Type 3, in both", LAST_LAYER, idk_it=LAST_LAYER, type3_share=0.5),
    Variant("three epochs, incorrect responses of the IDK-IT model", {"epochs": 3}, negatives=True),
    Variant("Unknown up to 0.1", idk_it={}, thresholds=Thresholds(0.7, 0.1)),
    Variant("Unknown up to 0.5", idk_it={}, thresholds=Thresholds(0.7, 0.5)),
    Variant("Known from 0.9 on", idk_it={}, thresholds=Thresholds(0.9, 0.3)),
    Variant("nothing Mixed: Known from 0.5 on", idk_it={}, thresholds=Thresholds(0.5, 0.4)),
)


def prepare(config: Config, seed: int, folder: Path, stages: Stages) -> None:
    """Data, confidences, pairs and the IDK-IT model of one seed."""
    train, validation, thresholds = (
        folder / "data" / name for name in ("train", "validation", "thresholds")
    )

    def data() -> None:
        export(ExportConfig(train, Split.TRAIN, config.n_train, seed=seed))
        n = config.n_validation
        export(ExportConfig(validation, Split.VALIDATION, n, seed=seed))
        # Another seed gives other questions of the same split.
        export(ExportConfig(thresholds, Split.VALIDATION, n // 2, seed=1000 + seed))
        extrinsic(ExtrinsicConfig(train, folder, seed=seed, **TYPE3))

    def pairs() -> None:
        for source in (train, folder / "extrinsic.jsonl"):
            sample(source, folder, seed)
        build(BuildConfig(folder, seed=seed))

    stages.run("data", data)
    stages.run("pairs", pairs)
    stages.run("IDK-IT", lambda: train_idk_it(folder, seed))


def sample(data: Path, out: Path, seed: int, model: Path = TINY) -> None:
    """Asks a model for its confidence in the questions of a dataset."""
    options = {"model": model, "sampling": SAMPLING, "seed": seed}
    commands.run("confidence", ConfidenceConfig(data, out, **options))


def data_of(variant: Variant, folder: Path, seed: int) -> Path:
    """The folder of the variant's instructions and pairs."""
    if variant.negatives:
        return with_negatives(folder, seed)
    if variant.type3_share is not None:
        return with_type3(folder, seed, variant.type3_share)
    if variant.thresholds is not None:
        return with_thresholds(folder, seed, variant.thresholds)
    return folder


def with_type3(folder: Path, seed: int, share: float) -> Path:
    """Instructions and pairs of which another share are Type 3."""
    out = folder / f"type3_{share}"
    extrinsic(ExtrinsicConfig(folder / "data/train", out, share=share, seed=seed, **TYPE3))
    for source in (folder / "data/train", out / "extrinsic.jsonl"):
        sample(source, out, seed)
    build(BuildConfig(out, max_refusals=1, seed=seed))
    return out


def with_negatives(folder: Path, seed: int) -> Path:
    """Pairs whose incorrect responses are those of the IDK-IT model, if it gives any."""
    negatives = folder / "of_idk_it"
    for source in (folder / "data/train", folder / "extrinsic.jsonl"):
        sample(source, negatives, seed, folder / "idk_it/model")
    out = _same_confidences(folder, "negatives")
    for place in (out, negatives):
        build(BuildConfig(place, seed=seed))
    parse = BoundaryRecord.from_json
    said = {r.id: r.incorrect for r in read_jsonl(negatives / "records.jsonl", parse)}
    taught = {row["id"] for row in read_jsonl(out / "instructions.jsonl")}
    file, pairs = out / "preferences.jsonl", list[Preference]()
    header = read_meta(file)
    for record in read_jsonl(out / "records.jsonl", parse):
        if record.boundary is not Boundary.UNKNOWN or record.id in taught:  # no surplus refusal
            record = replace(record, incorrect=said.get(record.id, ()))
            pairs += make_preferences(record, header_prompt(file), "one", seed)
    write_jsonl(file, (pair.to_json() for pair in pairs), header)
    return out


def with_thresholds(folder: Path, seed: int, thresholds: Thresholds) -> Path:
    """Instructions and pairs of the same confidences, sorted by other thresholds."""
    out = _same_confidences(folder, f"thresholds_{thresholds.delta_k}_{thresholds.delta_uk}")
    build(BuildConfig(out, thresholds, max_refusals=1, seed=seed))
    return out


def _same_confidences(folder: Path, name: str) -> Path:
    """A folder below `folder` with its confidence stores."""
    out = folder / name
    out.mkdir(exist_ok=True)
    if not (out / "confidence").exists():
        (out / "confidence").symlink_to((folder / "confidence").resolve())
    return out


def mix_with_base(file: Path, alpha: float) -> None:
    """WiSE-FT: alpha times the fine-tuned weights plus 1 - alpha times the base's. A weight that
    both share is kept exactly. Source: Wortsman et al. 2021 (arXiv 2109.01903)."""
    tuned, base = load_file(file), load_file(TINY / "model.safetensors")
    mixed = {
        name: np.where(x == base[name], x, alpha * x + (1 - alpha) * base[name])
        for name, x in tuned.items()
    }
    save_file(mixed, file, metadata={"format": "pt"})


def chosen(config: Config) -> list[Variant]:
    """The settings that are trained."""
    return [v for v in VARIANTS if not config.only or any(word in v.name for word in config.only)]


def run(config: Config, seed: int) -> list[Prediction]:
    """Predictions of base, IDK-IT and every chosen variant on the validation split."""
    folder = config.out / str(seed)
    stages = Stages(folder)
    prepare(config, seed, folder, stages)
    models = [("base", TINY), ("idk_it", folder / "idk_it/model")]
    for variant in chosen(config):
        name = "".join(c if c.isalnum() else "_" for c in variant.name)
        out = folder / "variants" / name

        def train(variant: Variant = variant, out: Path = out) -> None:
            data = data_of(variant, folder, seed)
            own = {"data": data / "preferences.jsonl", "out": out}
            if variant.idk_it is not None:
                idk_it = out.with_name(f"{out.name}_idk_it")
                instructions = {"data": data / "instructions.jsonl", "out": idk_it}
                train_idk_it(folder, seed, **(instructions | variant.idk_it))
                own["model"] = idk_it / "model"
            train_ca_dpo(folder, seed, **(own | variant.options))
            if variant.mixed is not None:
                mix_with_base(out / "model/model.safetensors", variant.mixed)

        stages.run(name, train)
        models.append((name, out / "model"))
    return predictions(
        EvaluateConfig(
            in_domain=(folder / "data/validation",),
            validation=(folder / "data/thresholds",),
            out=folder / "evaluation",
            models=tuple(models),
            templates="short",  # that the embedded model refuses with
            max_new_tokens=SAMPLING.max_new_tokens,
            seed=seed,
        )
    )


def line(
    label: str, name: str, rows: Sequence[Prediction], metrics: Metrics, against: str | None
) -> list[str]:
    """A row of the table."""
    cell = metrics.models[name]["in_domain"]
    curve = metrics.curves[name]["in_domain"]
    calibrated_t = metrics.models[calibrated(name)]["in_domain"]["all"].t
    numbers = (cell["type1"].acc, cell["type2"].refr, cell["type3"].refr)
    numbers += (curve.auroc_type3, curve.auroc_wrong, curve.aurc.value)
    change = ""
    if against:
        pair = [p for p in rows if p.model in (against, name) and p.domain == "in_domain"]
        d = next(d for d in differences(pair, pairs=[(against, name)]) if d.group == "all")
        change = with_interval(d.diff, d.low, d.high)
    t = (cell["all"].t, calibrated_t, cell["type12"].t)
    return [label, *map(signed, t), *(f"{x:.3f}" for x in numbers), change]


def main(config: Config) -> None:
    # Ids hold the seed, so questions of several seeds can stand together.
    rows = [row for seed in config.seeds for row in run(config, seed)]
    tested = [p for p in rows if p.domain != VALIDATION]
    metrics = measure(rows, tested, 0, {})
    base, idk_it, *others = metrics.asked
    table = [line("base", base, rows, metrics, None), line("IDK-IT", idk_it, rows, metrics, None)]
    table += [
        line(variant.name, name, rows, metrics, idk_it)
        for variant, name in zip(chosen(config), others, strict=True)
    ]
    n = metrics.models["base"]["in_domain"]["all"].n
    seeds = " ".join(map(str, config.seeds))
    command = f"python benchmarks/ablation.py --seeds {seeds} --table {config.table}"
    command += f" --only {' '.join(config.only)}" if config.only else ""
    caption = (
        f"What was tried: validation split, {len(config.seeds)} seeds together, {n} "
        f"questions. Made by {command}"
    )
    columns = ["", "T", "T, calibrated", "T, Types 1+2", "Type 1 accuracy", "Type 2 refused"]
    columns += ["Type 3 refused", "AUROC Type 3", "AUROC wrong", "AURC"]
    columns += ["T against IDK-IT (95% interval)"]
    checkpoint = file_fingerprint(TINY / "model.safetensors")
    result = {"caption": caption, "checkpoint": checkpoint, "columns": columns, "rows": table}
    write_json(config.table, result)
    print(caption)
    for cells in (columns, ["---"] * len(columns), *table):
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(tyro.cli(Config))
