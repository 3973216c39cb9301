"""A real decoder that sees real pictures: SmolLM2-135M-Instruct behind a small vision tower that is
trained here, taught to say what it does not know.

    python benchmarks/real_pictures.py --small

From nothing to a table: packages are fetched (`picture_objects.py`), questions made of them
(`picture_sets.py`), the tower is trained (`picture_tower.py`), and the method runs by its ordinary
commands. Every stage is skipped if its product is there, so the same command resumes. The table
(`refusal_policies.py`) compares what is trained with what costs nothing and with a linear probe.
"""

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path

import picture_tower
import refusal_policies
import tyro
from picture_objects import gather, pictures
from picture_sets import Sizes, sets, shown_to_tower, text_auc, write
from picture_tower import CHAT_TEMPLATE
from real_model import smollm2
from real_stages import Stages, Stop

from inbol_jax.artifacts import read_jsonl, write_atomically

# At temperature 1 a model as small as this seldom says what its greedy answer is.
ASKED = ("--max-new-tokens", 8, "--temperature", 0.5)
OUT_OF_DOMAIN = ("ood_style", "ood_kinds", "ood_regions")
LABELS = {"base": "before", "idk_it": "IDK-IT", "ca_dpo": "CA-DPO"}
COLOURS = {"correct": "#cfe8cf", "refused": "#e3e3e3", "wrong": "#f3cfcb"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of everything."""

    spelling_steps: int
    """Steps of the tower's first training, of 64 pictures each."""
    reading: int
    """Questions of its second training, through the decoder."""
    sizes: Sizes
    epochs: int
    """Of IDK-IT; CA-DPO has half as many."""


FULL = Plan(12_000, 12_000, Sizes(train=2000, validation=400, test=1000, ood=400), epochs=4)
SMALL = Plan(2700, 2000, Sizes(train=280, validation=50, test=90, ood=24), epochs=3)


@dataclasses.dataclass(frozen=True)
class Config:
    """Train a tower, run the method, write a table."""

    out: Path = Path("runs/real_pictures")
    """Folder of everything that is made."""
    packages: Path = Path("runs/packages")
    """Folder that packages are fetched into."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of questions, samples and training. The tower is that of the first one."""
    small: bool = False
    """An hour or two on two CPU cores, instead of a night."""
    until: str = ""
    """Name of the stage to stop behind, such as read."""
    picture: Path = Path("docs/real_pictures.png")
    """What the first seed's models say to questions chosen at random."""

    @property
    def plan(self) -> Plan:
        return SMALL if self.small else FULL


def train_tower(config: Config, stages: Stages) -> Path:
    """The base: a checkpoint that sees. Returns its folder."""
    out, plan, seed = config.out, config.plan, config.seeds[0]
    blind, tower = out / "blind", out / "tower"
    spelling = tower / "spelling"
    stages.run("gather", lambda: gather(config.packages))
    shown = shown_to_tower(pictures(config.packages))
    stages.run(
        "decoder",
        lambda: smollm2(
            blind, config.packages / "pypi", picture_tower.TOWER, template=CHAT_TEMPLATE
        ),
    )
    stages.run(
        "spell", lambda: picture_tower.spell(blind, spelling, shown, plan.spelling_steps, seed)
    )
    instructions = picture_tower.write_reading(tower, shown, plan.reading, seed)
    stages.command(
        "read",
        "sft", "--data", instructions, "--images", tower, "--model", spelling,
        "--out", tower / "reading", "--lora-rank", 16,
        "--lora-trainable", "multi_modal_projector", "--batch-size", 8,
        "--learning-rate", 5e-4, "--seed", seed,
    )  # fmt: skip
    stages.command("merge", "convert", tower / "reading/model", out / "base", "--merge-lora")
    return out / "base"


def run_method(config: Config, base: Path, seed: int) -> Path:
    """The method with one seed. Returns its folder."""
    folder = config.out / f"seed-{seed}"
    data, idk_it, ca_dpo = (folder / name for name in ("data", "idk_it", "ca_dpo"))
    stages = Stages(folder, config.until)
    found = pictures(config.packages)
    stages.run("questions", lambda: write(data, found, config.plan.sizes, seed))
    asked = (*ASKED, "--prompt", "bare", "--seed", seed)
    stages.command(
        "confidence",
        "confidence", "--data", data / "train", "--out", folder, "--model", base, *asked,
    )  # fmt: skip
    stages.command("build", "build", "--out", folder, "--seed", seed)
    training = ("--batch-size", 8, "--seed", seed)
    epochs = config.plan.epochs
    stages.command(
        "IDK-IT",
        "sft", "--data", folder / "instructions.jsonl", "--out", idk_it, "--model", base,
        "--lora-rank", 16, "--learning-rate", 5e-4, "--epochs", epochs, *training,
    )  # fmt: skip
    stages.command(
        "CA-DPO",
        "dpo", "--data", folder / "preferences.jsonl", "--out", ca_dpo,
        "--model", idk_it / "model", "--epochs", epochs // 2, *training,
    )  # fmt: skip
    stages.command(
        "evaluate",
        "evaluate", "--in-domain", data / "test", "--validation", data / "validation",
        "--out-of-domain", *(data / name for name in OUT_OF_DOMAIN),
        "--models", "base", base, "idk_it", idk_it / "model", "ca_dpo", ca_dpo / "model",
        "--out", folder / "evaluation", *asked,
    )  # fmt: skip
    return folder


def probe(folder: Path, base: Path, questions: refusal_policies.Questions) -> dict:
    """Scores of the linear probe, kept in `probe.json`."""
    file = folder / "probe.json"
    if not file.exists():
        data = folder / "data"
        train = list(read_jsonl(folder / "records.jsonl"))
        for row in train:
            row["files"] = [data / "train" / image for image in images_of(row)]
        asked = next(iter(questions.models.values()))
        for row in asked:
            row["files"] = [data / row["dataset"] / image for image in images_of(row)]
        validation = [i for i, row in enumerate(asked) if row["domain"] == "validation"]
        (probe,) = refusal_policies.probe_scores(base, train, asked, validation).values()
        scores, chosen = probe
        lines = [[*key, score] for key, score in scores.items()]
        write_atomically(file, json.dumps({"chosen": chosen, "scores": lines}) + "\n")
    found = json.loads(file.read_text(encoding="utf-8"))
    print("probe:", found["chosen"])
    return {(dataset, id): score for dataset, id, score in found["scores"]}


def images_of(row: dict) -> list[str]:
    return row["images"]


def describe(folder: Path) -> list[str]:
    """Lines about the questions: how many, of which class, and what the text gives away."""
    data = {name: list(read_jsonl(folder / "data" / name / "data.jsonl")) for name in sets([])}
    lines = []
    for name, rows in data.items():
        auc = text_auc(data["train"], rows)
        answerable = sum(row["answerable"] for row in rows)
        lines.append(
            f"{name}: {answerable} answerable, {len(rows) - answerable} Type 3, "
            f"AUC of Type 3 by the text alone {auc:.2f}"
        )
    records = list(read_jsonl(folder / "records.jsonl"))
    kinds = {row["id"]: row["kind"] for row in data["train"]}
    classes = Counter((kinds[r["id"]], r["boundary"]) for r in records if r["type"] != 3)
    total = Counter(boundary for _, boundary in classes.elements())
    mean = sum(r["confidence"] for r in records if r["type"] != 3) / total.total()
    shares = ", ".join(f"{name} {n / total.total():.2f}" for name, n in sorted(total.items()))
    lines.append(f"training questions: mean confidence {mean:.3f}, {shares}")
    for kind in dict.fromkeys(kinds.values()):
        own = {b: n for (k, b), n in classes.items() if k == kind}
        lines.append(f"- {kind}: " + ", ".join(f"{b} {n}" for b, n in sorted(own.items())))
    return lines


def draw(questions: refusal_policies.Questions, shown: dict, file: Path, seed: int) -> None:
    """What the models say to questions of the test split chosen at random, as a table without the
    pictures, whose licences are their owners'."""
    from matplotlib.figure import Figure

    names = list(questions.models)
    rows = list(zip(*(questions.of(name, "in_domain") for name in names), strict=True))
    rows = random.Random(seed).sample(rows, min(12, len(rows)))
    cells, colours = [], []
    for answers in rows:
        first = answers[0]
        gold = first["answers"][0] if first["type"] != 3 else "(not in the picture)"
        said = [a["prediction"].strip()[:32] for a in answers]
        cells.append([shown[first["dataset"], first["id"]], first["question"], gold, *said])
        kinds = [a["outcome"] for a in answers]
        # On Type 3 a refusal is right.
        kinds = ["correct" if first["type"] == 3 and k == "refused" else k for k in kinds]
        colours.append(["white"] * 3 + [COLOURS[k] for k in kinds])
    figure = Figure(figsize=(13, 0.36 * len(cells) + 0.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    columns = ["the picture shows", "question", "right", *(LABELS[n] for n in names)]
    drawn = axes.table(cells, colours, colLabels=columns, cellLoc="left", loc="center",
                       colWidths=[0.17, 0.27, 0.14, 0.14, 0.14, 0.14])  # fmt: skip
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(9)
    drawn.scale(1, 1.45)
    for cell in drawn.get_celld().values():
        cell.set_linewidth(0.4)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def report(config: Config, base: Path, folder: Path, seed: int) -> str:
    """The table of a seed, as Markdown."""
    questions = refusal_policies.read(folder / "evaluation/predictions.jsonl")
    scores = probe(folder, base, questions)
    found = refusal_policies.policies(questions, {"linear probe": scores})
    text = "\n".join([f"Seed {seed}", "", *describe(folder), "", ""])
    text += refusal_policies.markdown(refusal_policies.table(questions, found))
    write_atomically(folder / "table.md", text)
    if seed == config.seeds[0]:
        draw(questions, what_is_shown(folder / "data/test"), config.picture, seed)
    return text


def what_is_shown(folder: Path) -> dict[tuple[str, str], str]:
    """{(dataset, id): what the picture shows}."""
    shown = {}
    for row in read_jsonl(folder / "data.jsonl"):
        flag = "flag of " if row["shows_kind"] in ("flag", "capital") else ""
        blurred = ", blurred" if "blurred" in row["images"][0] else ""
        shown[folder.name, row["id"]] = f"{flag}{row['shows']}{blurred}"
    return shown


def main(config: Config) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    stages = Stages(config.out, config.until)
    try:
        base = train_tower(config, stages)
        for seed in config.seeds:
            print(report(config, base, run_method(config, base, seed), seed), flush=True)
    except Stop:
        print(f"{config.until}: done")


if __name__ == "__main__":
    main(tyro.cli(Config))
