"""The method on a published model and real questions, with text alone: SmolLM2-135M-Instruct.

    python benchmarks/real_text.py --small --out runs/real_text    # hours on two CPU cores
    python benchmarks/real_text.py --out runs/real_text            # a night, per seed
    python benchmarks/real_text.py --sizes 500 1000 2000           # how T grows with training

Nothing is downloaded but packages. The questions are of `real_facts.py`: about capitals, languages,
cities, elements and sums, and the same questions about things that do not exist (Type 3). Test
questions are about other things than training questions; out of domain are kinds that no training
question is of.

The model is asked the bare question and answers in a sentence, so the metric is `inclusion`. An
answer ends with its first sentence or line: generation_config.json of the checkpoint says so.
Samples are drawn at temperature 0.5. At 1 much of what a model of this size says is made up of
pieces of sentences, and hardly a question would be Known.
"""

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import refusal_policies
import tyro
from real_facts import datasets
from real_model import smollm2
from real_stages import Stages, Stop

from inbol_jax.artifacts import read_jsonl, write_atomically

ENDS = (".", "Ċ", "ĊĊ")  # tokens that end an answer; Ċ is how the tokenizer writes a line break
PROBES = (125, 250, 500, 1000, 2000)  # also fitted on so many of the training questions
SHOWN = 16  # questions in domain, drawn at random, whose answers are in the table
ASKED = ("--max-new-tokens", 24, "--temperature", 0.5)


@dataclasses.dataclass(frozen=True)
class Config:
    """Run the method on real questions of fact, and write a table."""

    out: Path = Path("runs/real_text")
    """Folder of everything that is made."""
    packages: Path = Path("runs/packages")
    """Folder that packages are fetched into."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of questions, samples and training."""
    small: bool = False
    """A quarter of the questions."""
    tiny: bool = False
    """A few of each, in minutes: whether everything runs, not what comes out."""
    sizes: tuple[int, ...] = ()
    """Also train with only so many of the questions."""
    epochs: int = 3
    """Of IDK-IT; CA-DPO has one."""
    until: str = ""
    """Name of the stage to stop behind, such as confidence."""

    @property
    def questions(self) -> dict[str, int]:
        """Answerable questions per set; a quarter as many are of Type 3."""
        if self.tiny:
            return {"train": 30, "validation": 10, "test": 20, "ood": 8}
        if self.small:
            return {"train": 800, "validation": 160, "test": 320, "ood": 200}
        return {"train": 3200, "validation": 400, "test": 800, "ood": 600}


def write_base(folder: Path, packages: Path) -> Path:
    """The checkpoint, whose answers end with their first sentence."""
    smollm2(folder, packages)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = vocabulary["model"]["vocab"]
    file = folder / "generation_config.json"
    options = json.loads(file.read_text(encoding="utf-8"))
    options["eos_token_id"] = [2, *(vocabulary[token] for token in ENDS)]
    write_atomically(file, json.dumps(options, indent=1) + "\n")
    return folder


def write_questions(config: Config, folder: Path, seed: int) -> None:
    sets = datasets(config.packages, config.questions, type3_share=0.25, seed=seed)
    for name, rows in sets.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_atomically(folder / name / "data.jsonl", lines)


def train(folder: Path, data: Path, base: Path, config: Config, stages: Stages, seed: int) -> None:
    """IDK-IT and CA-DPO on the instructions and pairs of `data`, into `folder`."""
    name, training = folder.name, ("--batch-size", 8, "--seed", seed)
    stages.command(
        f"IDK-IT {name}",
        "sft", "--data", data / "instructions.jsonl", "--out", folder / "idk_it", "--model", base,
        "--lora-rank", 16, "--learning-rate", 3e-4, "--epochs", config.epochs, *training,
    )  # fmt: skip
    stages.command(
        f"CA-DPO {name}",
        "dpo", "--data", data / "preferences.jsonl", "--out", folder / "ca_dpo",
        "--model", folder / "idk_it/model", "--learning-rate", 1e-4, "--epochs", 1, *training,
    )  # fmt: skip


def run_method(config: Config, base: Path, seed: int) -> Path:
    """The method with one seed. Returns its folder."""
    folder = config.out / f"seed-{seed}"
    data = folder / "data"
    stages = Stages(folder, config.until)
    stages.run("questions", lambda: write_questions(config, data, seed))
    asked = (*ASKED, "--prompt", "bare", "--seed", seed)
    stages.command(
        "confidence",
        "confidence",
        "--data",
        data / "train",
        "--out",
        folder,
        "--model",
        base,
        *asked,
    )
    stages.command("build", "build", "--out", folder, "--seed", seed)
    train(folder / "all", folder, base, config, stages, seed)
    models = {name: folder / "all" / name / "model" for name in ("idk_it", "ca_dpo")}
    for size in config.sizes:
        part = folder / str(size)
        stages.run(f"part {size}", lambda part=part, size=size: take_part(folder, part, size))
        train(part, part, base, config, stages, seed)
        models |= {f"{name}_{size}": part / name / "model" for name in ("idk_it", "ca_dpo")}
    named = [word for model in models.items() for word in model]
    stages.command(
        "evaluate",
        "evaluate", "--in-domain", data / "test", "--validation", data / "validation",
        "--out-of-domain", data / "ood", "--models", "base", base, *named,
        "--out", folder / "evaluation", *asked,
    )  # fmt: skip
    return folder


def take_part(folder: Path, part: Path, size: int) -> None:
    """Instructions and pairs of the first questions of training, as files of their own."""
    rows = read_jsonl(folder / "data/train/data.jsonl")
    ids = {row["id"] for row, _ in zip(rows, range(size), strict=False)}
    for name in ("records", "instructions", "preferences"):
        file = part / f"{name}.jsonl"
        kept = [row for row in read_jsonl(folder / file.name) if row["id"] in ids]
        write_atomically(file, "".join(json.dumps(row) + "\n" for row in kept))
        header = json.loads((folder / f"{name}.jsonl.meta.json").read_text(encoding="utf-8"))
        header |= {"rows": len(kept), "images": f"../{header['images']}"}
        write_atomically(part / f"{name}.jsonl.meta.json", json.dumps(header))


def describe(folder: Path) -> list[str]:
    """Lines about the training questions, by kind."""
    kinds = {r["id"]: r["kind"] for r in read_jsonl(folder / "data/train/data.jsonl")}
    records = [r for r in read_jsonl(folder / "records.jsonl") if r["type"] != 3]
    lines = []
    for kind in ["all", *dict.fromkeys(kinds.values())]:
        some = [r for r in records if kind in ("all", kinds[r["id"]])]
        classes = Counter(r["boundary"] for r in some)
        shares = ", ".join(f"{name} {n / len(some):.0%}" for name, n in sorted(classes.items()))
        mean = sum(r["confidence"] for r in some) / len(some)
        lines.append(f"- {kind}: {len(some)} questions, mean confidence {mean:.3f}, {shares}")
    return lines


def report(config: Config, base: Path, folder: Path) -> str:
    """The table of a seed, as Markdown."""
    questions = refusal_policies.read(folder / "evaluation/predictions.jsonl")
    asked = questions.models["base"]
    # Records stand in the order of their samples, which is one of lengths; that of the questions
    # is random.
    order = {row["id"]: i for i, row in enumerate(read_jsonl(folder / "data/train/data.jsonl"))}
    train = sorted(read_jsonl(folder / "records.jsonl"), key=lambda row: order[row["id"]])
    for row in [*train, *asked]:
        row["files"] = []
    validation = [i for i, row in enumerate(asked) if row["domain"] == "validation"]
    probes = refusal_policies.probe_scores(base, train, asked, validation, PROBES)
    found = refusal_policies.policies(questions, {n: p.scores for n, p in probes.items()})
    chosen = [f"- {name}: {probe.chosen}" for name, probe in probes.items()]
    text = "\n".join([*describe(folder), *chosen, "", ""])
    text += refusal_policies.markdown(refusal_policies.table(questions, found))
    text += "\n" + refusal_policies.markdown(refusal_policies.sayings(questions, SHOWN))
    write_atomically(folder / "table.md", text)
    return text


def main(config: Config) -> None:
    if shutil.which("npm") is None:
        raise SystemExit("npm is needed: it fetches the package world-countries")
    base = write_base(config.out / "smollm2", config.packages)
    try:
        for seed in config.seeds:
            print(
                f"Seed {seed}\n", report(config, base, run_method(config, base, seed)), flush=True
            )
    except Stop:
        print(f"{config.until}: done")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
