"""CA-DPO in other settings against the IDK-IT model that it starts from: on the validation split of
the world, over several seeds.

    python benchmarks/ablation.py --seeds 0 1 2 --out runs/ablation --table
    inbol_jax/world/assets/measured/ablation.json

The test split is not touched: settings are chosen here. A run that was stopped goes on where it
was.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from inbol_jax.artifacts import file_fingerprint, read_jsonl, read_meta, write_json, write_jsonl
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.estimate import estimate
from inbol_jax.construction.build import BuildConfig, build
from inbol_jax.defaults import TINY
from inbol_jax.demo import Stages, train_ca_dpo, train_idk_it
from inbol_jax.evaluation.evaluate import EvaluateConfig, predictions
from inbol_jax.evaluation.metrics import differences, summarise
from inbol_jax.evaluation.prediction import Prediction
from inbol_jax.extrinsic.config import ExtrinsicConfig
from inbol_jax.extrinsic.extrinsic import extrinsic
from inbol_jax.records import PairKind
from inbol_jax.world.export import ExportConfig, export
from inbol_jax.world.splits import Split


@dataclasses.dataclass(frozen=True)
class Config:
    """Train CA-DPO in every setting of VARIANTS and write a table."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of data, samples and training."""
    out: Path = Path("runs/ablation")
    """Folder of the runs."""
    table: Path = Path("runs/ablation/ablation.json")
    """JSON file of the table, for the demo's report."""
    n_train: int = 6000
    """Training questions that can be answered."""
    n_validation: int = 2000
    """Validation questions that can be answered. There are half as many of Type 3."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """A setting: how it differs from the demo's CA-DPO."""

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options of `inbol dpo`."""
    on_policy: bool = False
    """Take incorrect responses of the IDK-IT model, if it gives any, instead of the base's."""
    share: float = 1.0
    """Share of the pairs that is trained on."""


VARIANTS = (
    Variant("the demo's setting (pair weighting value, beta 0.1, WiSE-FT alpha 0.9)"),
    Variant("WiSE-FT alpha 1: nothing of the base", {"wise_ft_alpha": 1.0, "wise_ft_base": None}),
    Variant("pair weighting linear", {"pair_weighting": "linear"}),
    Variant("pair weighting uniform (plain DPO)", {"pair_weighting": "uniform"}),
    Variant("beta 0.5", {"beta": 0.5}),
    Variant("incorrect responses of the IDK-IT model", on_policy=True),
    Variant("half of the pairs", share=0.5),
    Variant("starts from the base", {"model": TINY}),
)


def prepare(config: Config, seed: int, folder: Path, stages: Stages) -> None:
    """Data, confidences, pairs and the IDK-IT model of one seed."""
    train, validation = folder / "data/train", folder / "data/validation"

    def data() -> None:
        export(ExportConfig(train, Split.TRAIN, config.n_train, seed=seed))
        export(ExportConfig(validation, Split.VALIDATION, config.n_validation, seed=seed))
        extrinsic(ExtrinsicConfig(train, folder, seed=seed))

    def pairs() -> None:
        for source in (train, folder / "extrinsic.jsonl"):
            estimate(ConfidenceConfig(source, folder, seed=seed))
        build(BuildConfig(folder, seed=seed))

    stages.run("data", folder / "extrinsic.jsonl", data)
    stages.run("pairs", folder / "preferences.jsonl", pairs)
    stages.run("IDK-IT", folder / "idk_it/model", lambda: train_idk_it(folder, seed))


def pairs_of(variant: Variant, folder: Path, seed: int) -> Path:
    """The file of the variant's pairs."""
    if variant.on_policy:
        return on_policy(folder, seed)
    if variant.share == 1:
        return folder / "preferences.jsonl"
    rows = list(read_jsonl(folder / "preferences.jsonl"))
    random = np.random.default_rng(seed)
    chosen = sorted(random.choice(len(rows), round(variant.share * len(rows)), replace=False))
    return with_header(
        folder, folder / f"share_{variant.share}/preferences.jsonl", [rows[i] for i in chosen]
    )


def with_header(folder: Path, file: Path, rows: list[dict[str, Any]]) -> Path:
    images = read_meta(folder / "preferences.jsonl")["images"]
    write_jsonl(file, rows, {"command": "ablation", "images": str(Path("..") / images)})
    return file


def on_policy(folder: Path, seed: int) -> Path:
    """preferences.jsonl with incorrect responses of the IDK-IT model instead of the base's, where
    it gave any in ten samples.
    """
    out = folder / "on_policy"
    given: dict[str, list[str]] = {}
    for source in (folder / "data/train", folder / "extrinsic.jsonl"):
        for row in read_jsonl(
            estimate(ConfidenceConfig(source, out, folder / "idk_it/model", seed=seed))
        ):
            given[row["id"]] = [
                s
                for s, o in zip(row["samples"], row["outcomes"], strict=True)
                if o == "wrong" and s
            ]
    random = np.random.default_rng(seed)
    rows = list(read_jsonl(folder / "preferences.jsonl"))
    for row in rows:
        if wrong := [
            text for text in given[row["id"]] if text not in (row["chosen"], row["rejected"])
        ]:
            # A rejected refusal stays: only what the model says instead of an answer is drawn anew.
            row["rejected"] = (
                row["rejected"]
                if row["kind"] == PairKind.CORRECT_OVER_REFUSAL.name.lower()
                else str(random.choice(wrong))
            )
    return with_header(folder, out / "preferences.jsonl", rows)


def run(config: Config, seed: int) -> list[Prediction]:
    """Predictions of base, IDK-IT and every variant on the validation split."""
    folder = config.out / str(seed)
    stages = Stages(
        folder,
        {
            "model": file_fingerprint(TINY / "model.safetensors"),
            "train": config.n_train,
            "val": config.n_validation,
        },
    )
    prepare(config, seed, folder, stages)
    models = [("base", TINY), ("idk_it", folder / "idk_it/model")]
    for variant in VARIANTS:
        name = "".join(c if c.isalnum() else "_" for c in variant.name)
        out = folder / "variants" / name

        def train(variant: Variant = variant, out: Path = out) -> None:
            train_ca_dpo(
                folder,
                seed,
                **({"data": pairs_of(variant, folder, seed), "out": out} | variant.options),
            )

        stages.run(variant.name, out / "model", train)
        models.append((name, out / "model"))
    return predictions(
        EvaluateConfig(
            in_domain=(folder / "data/validation",),
            out=folder / "evaluation",
            models=tuple(models),
            seed=seed,
        )
    )


def main(config: Config) -> None:
    # Ids hold the seed, so questions of several seeds can stand together.
    rows = [row for seed in config.seeds for row in run(config, seed)]
    metrics = summarise(rows)
    names = [
        "base",
        "idk_it",
        *dict.fromkeys(r.model for r in rows if r.model not in ("base", "idk_it")),
    ]
    labels = ["base", "IDK-IT", *(f"CA-DPO: {v.name}" for v in VARIANTS)]
    table = []
    for name, label in zip(names, labels, strict=True):
        cell = metrics[name]["in_domain"]
        line = [label, *(f"{cell[group].t:+.3f}" for group in ("all", "type12"))]
        line += [
            f"{cell['type1'].acc:.3f}",
            f"{cell['type2'].refr:.3f}",
            f"{cell['type3'].refr:.3f}",
        ]
        if name in ("base", "idk_it"):
            line.append("")
        else:
            pair = [row for model in ("idk_it", name) for row in rows if row.model == model]
            d = next(d for d in differences(pair) if d.group == "all")
            line.append(f"{d.diff:+.3f} ({d.low:+.3f} to {d.high:+.3f})")
        table.append(line)
    n = metrics["base"]["in_domain"]["all"].n
    seeds = " ".join(map(str, config.seeds))
    command = f"python benchmarks/ablation.py --seeds {seeds} --table {config.table}"
    caption = (
        f"What was tried for CA-DPO: validation split, {len(config.seeds)} seeds together, {n} "
        f"questions. Made by {command}"
    )
    columns = [
        "",
        "T, all",
        "T, Types 1+2",
        "Type 1 accuracy",
        "Type 2 refused",
        "Type 3 refused",
        "T, all: against IDK-IT (95% interval)",
    ]
    checkpoint = file_fingerprint(TINY / "model.safetensors")
    write_json(
        config.table,
        {"caption": caption, "checkpoint": checkpoint, "columns": columns, "rows": table},
    )
    print(
        caption,
        *("| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *table)),
        sep="\n",
    )


if __name__ == "__main__":
    main(tyro.cli(Config))
