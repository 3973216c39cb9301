"""How well the rules tell refusals from answers, on what models and annotators really said.

    python benchmarks/refusal_detection.py
    python benchmarks/refusal_detection.py --sources ~/clones

Without --sources it measures on the two lists of the tests, whose texts are our own. The others
are in public repositories, under licences of their own, and are not in this one. Beside this
script, `refusal_labels.tsv` holds our labels of them, by the SHA-256 of a text. --sources names a
folder with a clone of each repository in `SOURCES`, under its name, or of some of them:

    git clone https://github.com/google/haloquest ~/clones/haloquest

A text is read from the commit that is given there. refusal_detection.md has the labelling rule,
and the figures.
"""

import csv
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from inbol_jax.errors import InbolError
from inbol_jax.intervals import wilson_interval
from inbol_jax.records import METRICS
from inbol_jax.responses.outcome import premise_of
from inbol_jax.responses.refusal import PREMISE, find_refusal

HERE = Path(__file__).parent
LISTS = HERE.parent / "tests/responses"
MAX_LENGTH = 600  # characters of a labelled text


class Source(NamedTuple):
    """Where texts come from.

    Attributes:
      split: "development" if rules were written with it, "held out" if nobody looked at what an
        earlier version of them missed in it before that was final.
      repository, commit: of GitHub.
      files: a pattern of the names of its files.
      licence: of the texts, as the repository states it; "none stated" if it does not.
      label: the field with the annotators' own label, if that is used.
    """

    split: str
    repository: str
    commit: str
    files: str
    licence: str
    label: str = ""


DEVELOPMENT, HELD_OUT = "development", "held out"
SOURCES = {
    "haloquest": Source(
        DEVELOPMENT, "google/haloquest", "2f643eb", r"haloquest-\w+\.csv", "CC BY 4.0"
    ),
    "mathvista": Source(
        DEVELOPMENT, "lupantech/MathVista", "53d5258", r"results/.*/output_.*\.json", "CC BY-SA 4.0"
    ),
    "xstest": Source(
        DEVELOPMENT,
        "paul-rottger/exaggerated-safety",
        "d7bb5bd",
        r"completions/.*\.csv",
        "CC BY 4.0",
    ),
    "math_vision": Source(DEVELOPMENT, "mathllm/MATH-V", "a1f5cc3", r"outputs/.*\.jsonl", "MIT"),
    "mmmu": Source(
        DEVELOPMENT, "MMMU-Benchmark/MMMU", "bb0b95a", r"output.*\.jsonl?", "Apache-2.0"
    ),
    "alpaca_eval": Source(
        DEVELOPMENT,
        "tatsu-lab/alpaca_eval",
        "cd543a1",
        r"results/.*/model_outputs\.json",
        "CC BY-NC 4.0",
    ),
    "bingo": Source(DEVELOPMENT, "gzcch/Bingo", "05e4a84", r"example\.jsonl", "none stated"),
    "hallusionbench": Source(
        DEVELOPMENT, "tianyi-lab/HallusionBench", "744007c", r"result_sample\.json", "BSD-3-Clause"
    ),
    "mm_vet": Source(
        DEVELOPMENT, "yuweihao/MM-Vet", "acde843", r"results/.*\.json", "CC BY-NC 4.0"
    ),
    "halueval": Source(DEVELOPMENT, "RUCAIBox/HaluEval", "b7253db", r"general_data\.json", "MIT"),
    "financebench": Source(
        DEVELOPMENT,
        "patronus-ai/financebench",
        "cc39aeb",
        r"results/.*\.jsonl",
        "none stated",
        label="label",
    ),
    "vlm_hallucination": Source(
        DEVELOPMENT,
        "Navyasri12355/vlm-hallucination-benchmark",
        "bae89aa",
        r"llava_raw_responses\.json",
        "MIT",
    ),
    "blink": Source(
        DEVELOPMENT,
        "zeyofu/BLINK_Benchmark",
        "2d6a779",
        r"eval/saved_outputs/.*\.json",
        "Apache-2.0",
    ),
    "disagreement": Source(
        DEVELOPMENT,
        "dhruvmadhwal/disagreement-based-abstention",
        "11297f4",
        r"results/generation/.*(?:open_ended.*\.json|regimes.*\.jsonl)",
        "none stated",
    ),
    "mllm_bench": Source(
        DEVELOPMENT,
        "FreedomIntelligence/MLLM-Bench",
        "403f82c9",
        r"results/results/.*\.json",
        "none stated",
    ),
    "unknownbench": Source(
        DEVELOPMENT,
        "genglinliu/UnknownBench",
        "7283e42",
        r"outputs/\w+-source-LLMs_responses/.*\.json",
        "none stated",
    ),
    "refchecker": Source(
        DEVELOPMENT, "amazon-science/RefChecker", "1df1b25", r"benchmark/.*\.json", "Apache-2.0"
    ),
    "vlguard": Source(DEVELOPMENT, "ys-zong/VLGuard", "a2f85c9", r"data/.*\.json", "none stated"),
    "falseqa": Source(DEVELOPMENT, "thunlp/FalseQA", "9a97299", r"dataset/\w+\.csv", "none stated"),
    "prompt_abstention": Source(
        DEVELOPMENT, "braeden512/prompt-abstention-eval", "29492b8", r"results/.*\.jsonl", "MIT"
    ),
    "coconot": Source(
        DEVELOPMENT, "allenai/noncompliance", "25bf77c", r"data/coconot_pref\.jsonl", "MIT"
    ),
    "self_testing": Source(
        DEVELOPMENT,
        "AlexDongzeyu/llm-hallucination-self-testing",
        "12f14f6",
        r"results/CANONICAL_v2/.*\.json",
        "MIT",
    ),
    "llmdoc": Source(
        DEVELOPMENT, "X-PLUG/mPLUG-DocOwl", "f91a768", r"DocLLM/export_.*\.jsonl", "Apache-2.0"
    ),
    "pandalm": Source(
        DEVELOPMENT, "WeOpenML/PandaLM", "3871806", r"data/testset-v1\.json", "Apache-2.0"
    ),
    "nomiracl": Source(
        DEVELOPMENT,
        "project-miracl/nomiracl",
        "9c787da",
        r"results/baselines/.*/en\..*\.jsonl",
        "Apache-2.0",
    ),
    "biggen_vision": Source(
        DEVELOPMENT,
        "scottsuk0306/llava-eval-and-viz",
        "74c4d4d",
        r"vision_eval/responses_\w+/.*\.json",
        "MIT",
    ),
    "false_premise": Source(
        DEVELOPMENT,
        "MattiaFerraretto/false-premise-fallacy",
        "7fead6f",
        r"results-en-.*\.jsonl",
        "none stated",
    ),
    "grounded_refusal": Source(
        DEVELOPMENT, "stxxllbu/grounded-refusal", "67e0308", r"outputs/inference.*\.jsonl", "MIT"
    ),
    "illusionvqa": Source(
        DEVELOPMENT,
        "csebuetnlp/IllusionVQA",
        "9e1c2b8",
        r"result_jsons/.*\.json",
        "CC BY-NC-SA 4.0",
    ),
    "llava": Source(
        DEVELOPMENT, "haotian-liu/LLaVA", "32cebc3", r"answers?/.*\.jsonl", "Apache-2.0"
    ),
    "owleval": Source(
        DEVELOPMENT, "X-PLUG/mPLUG-Owl", "0f3068f", r"OwlEval/answer/.*\.jsonl", "Apache-2.0"
    ),
    "refomb": Source(
        DEVELOPMENT, "RLHF-V/RLAIF-V", "83d917b", r"gpt4v_RefoMB.*\.jsonl", "CC BY-NC 4.0"
    ),
    "visit_bench": Source(
        DEVELOPMENT, "mlfoundations/VisIT-Bench", "45b9bf8", r"multi_images\.csv", "CC BY 4.0"
    ),
    "cvrr_es": Source(
        DEVELOPMENT,
        "mbzuai-oryx/CVRR-Evaluation-Suite",
        "9d77787",
        r"Prediction-responses/.*\.json",
        "CC BY-NC-SA 4.0",
    ),
    "tempcompass": Source(
        DEVELOPMENT, "llyx97/TempCompass", "e1b4631", r"^predictions/.*\.json", "CC BY-NC 4.0"
    ),
    "visonlyqa": Source(
        DEVELOPMENT,
        "psunlpgroup/VisOnlyQA",
        "33a1355",
        r"results/model_responses/.*\.jsonl",
        "GPL-3.0",
    ),
    "qaqa_freshqa": Source(
        DEVELOPMENT,
        "varunsingh3000/false-premise-project",
        "d6289bd",
        r"Data/QAQA\.csv|Results/.*_responses\.csv",
        "none stated",
    ),
    "factscore": Source(
        DEVELOPMENT,
        "google-deepmind/long-form-factuality",
        "9d27158",
        r"factscore/labeled_data/.*\.jsonl",
        "MIT",
    ),
    "knowledge_conflict": Source(
        DEVELOPMENT,
        "OSU-NLP-Group/LLM-Knowledge-Conflict",
        "595e02b",
        r"conflictQA/.*\.json",
        "Apache-2.0",
    ),
    "infinitebench": Source(
        DEVELOPMENT, "OpenBMB/InfiniteBench", "88b3daa", r"^results/.*\.jsonl", "MIT"
    ),
    "leval": Source(DEVELOPMENT, "OpenLMLab/LEval", "cd34b05", r"pred\.jsonl", "GPL-3.0"),
    "vlm_probes": Source(
        DEVELOPMENT,
        "oladri-renuka/vlm-hallucination",
        "73d7171",
        r"^results_\w+\.json",
        "none stated",
    ),
    "llavar": Source(
        DEVELOPMENT, "SALT-NLP/LLaVAR", "2a1b647", r"^MultimodalOCR/.*\.json", "Apache-2.0"
    ),
    "eventhallusion": Source(
        DEVELOPMENT, "Stevetich/EventHallusion", "7396e04", r"^predictions/.*\.json", "none stated"
    ),
    "halueval_2": Source(
        DEVELOPMENT,
        "RUCAIBox/HaluEval-2.0",
        "faf290c",
        r"annotation/(?:model|human)_\w+/.*\.json",
        "none stated",
    ),
    "multisignal": Source(
        DEVELOPMENT,
        "ramyamanasa/multisignal-abstention-calibration",
        "f9bca14",
        r"raw_outputs\.jsonl",
        "MIT",
    ),
    "babilong": Source(
        DEVELOPMENT, "booydar/babilong", "7a6efee", r"babilong_evals/.*\.csv", "Apache-2.0"
    ),
    "mt_rag": Source(
        DEVELOPMENT,
        "IBM/mt-rag-benchmark",
        "cc5b1d4",
        r"mtragun-human/generation_tasks/.*\.jsonl|evaluations/.*\.json",
        "Apache-2.0",
    ),
    "self_instruct": Source(
        DEVELOPMENT,
        "yizhongw/self-instruct",
        "0b26cca",
        r"human_eval/predictions/.*\.jsonl",
        "Apache-2.0",
    ),
    "alce": Source(DEVELOPMENT, "princeton-nlp/ALCE", "246c476", r"human_eval/.*\.json", "MIT"),
    "msts": Source(
        DEVELOPMENT,
        "paul-rottger/msts-multimodal-safety",
        "e9ae69e",
        r"annotations/english_multimodal\.csv",
        "CC BY 4.0",
    ),
    "truthfulqa_multi": Source(
        DEVELOPMENT,
        "hitz-zentroa/truthfulqa-multi",
        "11fe747",
        r"results/gen/en/.*samples.*\.jsonl",
        "Apache-2.0",
    ),
    "truthfulqa_gpt3": Source(
        DEVELOPMENT,
        "benedictflorance/truthfulqa_experiments",
        "6fdfd38",
        r"^outputs/.*outputs\.csv",
        "none stated",
    ),
    "ragchecker": Source(
        DEVELOPMENT,
        "amazon-science/RAGChecker",
        "6091f08",
        r"human_labeled_data\.json",
        "Apache-2.0",
    ),
    "honesty_llm": Source(
        DEVELOPMENT,
        "Flossiee/HonestyLLM",
        "73b388a",
        r"dataset_fine_tuning/.*\.json",
        "none stated",
    ),
    "multistep_jailbreak": Source(
        DEVELOPMENT,
        "HKUST-KnowComp/LLM-Multistep-Jailbreak",
        "33b4a37",
        r"pred_sender.*\.csv",
        "MIT",
    ),
    "auto_j": Source(
        DEVELOPMENT, "GAIR-NLP/auto-j", "2ae17a3", r"testdata_pairwise\.jsonl", "none stated"
    ),
    "zeroeval": Source(
        DEVELOPMENT,
        "WildEval/ZeroEval",
        "8c1485e",
        r"alpaca_eval/(?:greedy|sampling)/[^/]*Instruct\.json",
        "Apache-2.0",
    ),
    "flask": Source(
        HELD_OUT, "kaistAI/FLASK", "3b4e22b", r"model_output/outputs/.*\.jsonl", "none stated"
    ),
    "alpaca_farm": Source(
        HELD_OUT, "tatsu-lab/alpaca_farm", "30717dd", r"examples/data/.*\.json", "CC BY-NC 4.0"
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Print precision and recall per source, how often each rule fired, and the worst misses."""

    sources: Path | None = None
    """Folder with clones of the repositories, each under its source's name; those that are there
    are measured."""
    misses: int = 30
    """How many texts that the rules get wrong to print: held-out ones and short ones first."""


class Text(NamedTuple):
    """A labelled text: "answer", "does_not_know" or "declines"."""

    source: str
    split: str
    text: str
    label: str

    @property
    def refuses(self) -> bool:
        return self.label != "answer"


def own_lists() -> Iterator[Text]:
    """The texts of the tests' lists."""
    for name, split in (("responses", DEVELOPMENT), ("unseen", HELD_OUT)):
        for line in (LISTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Text(name, split, row["text"], "does_not_know" if row["refusal"] else "answer")


def read_labels(file: Path) -> dict[str, dict[str, str]]:
    """Returns the label of each digest, by source.

    Raises:
      InbolError: naming file and line, for a source or a label that is unknown.
    """
    labels: dict[str, dict[str, str]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()[1:], 2):
        source, digest, label = line.split("\t")
        if source not in SOURCES or label not in ("answer", "does_not_know", "declines", "unclear"):
            raise InbolError(f"{file}:{number}: {source!r} or {label!r} is unknown")
        labels.setdefault(source, {})[digest] = label
    return labels


def git(clone: Path, *arguments: str) -> str:
    """What a git command prints.

    Raises:
      InbolError: with git's own words.
    """
    command = ["git", "-C", str(clone), *arguments]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode:
        raise InbolError(f"{clone}: {result.stderr.decode(errors='replace').strip()}")
    return result.stdout.decode(errors="replace")


def records(clone: Path, source: Source) -> Iterator[Any]:
    """The records of a source's files, as JSON has them."""
    for line in git(clone, "ls-tree", "-r", source.commit).splitlines():
        name = line.split("\t", 1)[1]
        if not re.search(source.files, name):
            continue
        try:
            content = git(clone, "show", f"{source.commit}:{name}")
        except InbolError as error:  # a clone without its large files
            print(f"left out: {error}")
            continue
        if name.endswith(".csv"):
            csv.field_size_limit(1 << 24)
            yield from csv.DictReader(io.StringIO(content))
            continue
        try:
            yield json.loads(content)
        except json.JSONDecodeError:  # lines of JSON, also in files named .json
            for line in filter(str.strip, content.split("\n")):
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    break  # a file that was cut off


def strings(value: Any) -> Iterator[str]:
    """The strings in a record, and the parts of those that list several responses."""
    if isinstance(value, str):
        yield value.strip()
        if ";" in value:
            yield from (part.strip() for part in value.split(";"))
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def public_texts(folder: Path, name: str, labels: dict[str, str]) -> list[Text]:
    """The labelled texts of a source; those that are unclear are left out."""
    source, found = SOURCES[name], {}
    for record in records(folder / name, source):
        if source.label:
            text, label = str(record["model_answer"]).strip(), record[source.label]
            if 0 < len(text) <= MAX_LENGTH:
                found.setdefault(text, "does_not_know" if label == "Refusal" else "answer")
            continue
        for text in strings(record):
            if 0 < len(text) <= MAX_LENGTH and text not in found:
                label = labels.get(hashlib.sha256(text.encode()).hexdigest()[:16])
                if label:
                    found[text] = label
    if not source.label and len(found) < len(labels):
        print(f"{name}: {len(labels) - len(found)} of {len(labels)} labelled texts are not there")
    return [Text(name, source.split, t, label) for t, label in found.items() if label != "unclear"]


def share(hits: int, n: int) -> str:
    if not n:
        return "      -              "
    low, high = wilson_interval(hits, n)
    return f"{hits / n:.3f} [{low:.3f}, {high:.3f}]"


def table(texts: list[Text], rules: list[str | None]) -> None:
    """Prints a line per source and per split, with 95% Wilson intervals."""
    print(f"{'source':<18}{'texts':>6}{'refusals':>9}   precision              recall")
    groups = list(dict.fromkeys((t.split, t.source) for t in texts))
    groups.sort()
    for split in (DEVELOPMENT, HELD_OUT):
        for name in [n for s, n in groups if s == split] + [""]:
            chosen = [
                (t, rule)
                for t, rule in zip(texts, rules, strict=True)
                if t.split == split and (t.source == name if name else t.source not in OWN)
            ]
            if not chosen:
                continue
            refusals = sum(t.refuses for t, _ in chosen)
            fired = sum(rule is not None for _, rule in chosen)
            hits = sum(t.refuses and rule is not None for t, rule in chosen)
            print(
                f"{name or f'all public, {split}':<18.18}{len(chosen):>6}{refusals:>9}   "
                f"{share(hits, fired)}   {share(hits, refusals)}"
            )


OWN = ("responses", "unseen")


def denials(folder: Path) -> None:
    """Prints how many of HaloQuest's reference responses refuse, and how many do beside their
    question: those of false premises deny them, those of visual challenges answer."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for record in records(folder / "haloquest", SOURCES["haloquest"]):
        question = premise_of(record["question"], METRICS[0])
        about = counts.setdefault((record["hallucination type"], record["split"]), Counter())
        for text in record["groundtruth responses"].split(";") if question else ():
            about["references"] += bool(text.strip())
            about["refuse alone"] += find_refusal(text) is not None
            rule = find_refusal(text, question=question)
            about["beside the question"] += rule is not None
            about["deny"] += rule is PREMISE
    print("\nHaloQuest's references, but to yes/no questions")
    for about, found in sorted(counts.items()):
        print(f"  {', '.join(about)}: {', '.join(f'{n} {name}' for name, n in found.items())}")


def main(config: Config) -> None:
    """Prints the figures."""
    texts = list(own_lists())
    if config.sources is not None:
        labels = read_labels(HERE / "refusal_labels.tsv")
        names = [name for name in SOURCES if (config.sources / name).exists()]
        if not names:
            raise InbolError(
                f"{config.sources}: no clone of a source; a folder such as haloquest is expected"
            )
        for name in names:
            texts += public_texts(config.sources, name, labels.get(name, {}))
    started = time.process_time()
    found = [find_refusal(t.text) for t in texts]
    seconds = time.process_time() - started
    rules = [rule and rule.name for rule in found]
    table(texts, rules)
    length = sum(len(t.text) for t in texts) / len(texts)
    print(f"{len(texts) / seconds:.0f} texts per second, of {length:.0f} characters on average\n")

    kinds = Counter(
        (t.label, rule and rule.kind)
        for t, rule in zip(texts, found, strict=True)
        if t.source not in OWN
    )
    if kinds:
        print("label, and what the rules say: texts")
        for (label, kind), n in sorted(kinds.items(), key=lambda item: -item[1]):
            print(f"  {label}, {kind or 'answer'}: {n}")
    if config.sources is not None and "haloquest" in names:
        denials(config.sources)
    print("\nrule: how often it fired, and how often on an answer")
    fired = Counter(rule for rule in rules if rule)
    wrong = Counter(rule for t, rule in zip(texts, rules, strict=True) if rule and not t.refuses)
    for rule, n in fired.most_common():
        print(f"  {rule}: {n}, {wrong[rule]}")
    misses = [
        (t.split != HELD_OUT, len(t.text), t, rule)
        for t, rule in zip(texts, rules, strict=True)
        if t.refuses != (rule is not None) and t.source != "unseen"
    ]
    print(f"\nthe {min(config.misses, len(misses))} worst of {len(misses)} texts that are misread")
    for _, _, t, rule in sorted(misses, key=lambda miss: miss[:2])[: config.misses]:
        print(f"  {t.source}: {t.label}, rules say {rule or 'answer'}: {' '.join(t.text.split())}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except InbolError as error:
        raise SystemExit(str(error)) from error
