"""What each way of refusing is worth, read from the `predictions.jsonl` of `inbol evaluate`.

A policy says of each question whether it is refused, and what is said otherwise. The value of a
response: correct +1, refusal 0, wrong -1; on Type 3 a refusal +1, any answer -1. Thresholds are
chosen on the validation questions, the linear probe is fitted on the training questions.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Rows = Sequence[Mapping[str, Any]]
DOMAINS = {"in_domain": "in domain", "out_of_domain": "out of domain"}
PENALTIES = (0.001, 0.01, 0.1)  # C of the probe's logistic regression
RESAMPLES = 2000


class Policy(NamedTuple):
    """What a way of refusing does to the questions of each domain.

    Attributes:
      value: {domain: i64[n]}, of each response.
      refused: {domain: bool[n]}.
      free: whether it needs no training at all.
    """

    name: str
    value: dict[str, np.ndarray]
    refused: dict[str, np.ndarray]
    free: bool


class Questions(NamedTuple):
    """All models' predictions, each model's in the same order."""

    models: dict[str, list[dict[str, Any]]]

    def of(self, model: str, domain: str) -> list[dict[str, Any]]:
        return [row for row in self.models[model] if row["domain"] == domain]


def read(file: Path) -> Questions:
    """The predictions of a file, the base's first."""
    models: dict[str, list[dict[str, Any]]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        models.setdefault(row["model"], []).append(row)
    return Questions(models)


def value(rows: Rows, refused: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """What the responses are worth."""
    type3 = np.array([row["type"] == 3 for row in rows])
    answered = np.where(type3, -1, np.where(correct, 1, -1))
    return np.where(refused, np.where(type3, 1, 0), answered)


def best_threshold(score: np.ndarray, rows: Rows, correct: np.ndarray) -> float:
    """Questions with a greater score are refused; of equally good thresholds the greatest."""
    never = np.zeros(len(rows), bool)
    gain = value(rows, ~never, correct) - value(rows, never, correct)
    levels = [np.inf, *sorted(set(score), reverse=True)]
    # Above a level lie the scores that are greater: the first one refuses nothing.
    totals = [gain[score > level].sum() for level in levels] + [gain.sum()]
    return [*levels, -np.inf][int(np.argmax(totals))]


def policies(
    questions: Questions, probes: Mapping[str, Mapping[tuple[str, str], float]] | None = None
) -> list[Policy]:
    """All of them.

    Args:
      probes: {name: {(dataset, id): score}} of linear probes on the base, from `probe_scores`.
    """
    base, *trained = questions.models
    found = [
        _fixed("always refuse", questions, base, lambda row: "refused"),
        _fixed("base as it is", questions, base, lambda row: row["outcome"]),
        _threshold("base, likelihood", questions, base, _likelihood),
        _threshold("base, log-odds", questions, base, lambda row: row["forced"]["logodds"]),
        _threshold("base, consistency", questions, base, lambda row: -row["consistency"]),
        _threshold("base, bias", questions, base, _margin),
        _threshold("base, P(True)", questions, base, lambda row: -row["p_true"]),
    ]
    for name, probe in (probes or {}).items():
        score = lambda row, probe=probe: probe[row["dataset"], row["id"]]  # noqa: E731
        found.append(_threshold(name, questions, base, score)._replace(free=False))
    for model in trained:
        as_it_is = _fixed(model, questions, model, lambda row: row["outcome"])
        bias = _threshold(f"{model}, bias", questions, model, _margin)
        own = _threshold(f"{model}, likelihood", questions, model, _likelihood)
        found += [policy._replace(free=False) for policy in (as_it_is, bias, own)]
    return [*found, _fixed("oracle", questions, base, _oracle)._replace(free=False)]


def _likelihood(row: Mapping[str, Any]) -> float:
    return -row["forced"]["logprob"]


def _margin(row: Mapping[str, Any]) -> float:
    """A bias on the tokens that refusals begin with is a threshold on this."""
    return row["forced"]["margin"]


def _oracle(row: Mapping[str, Any]) -> str:
    """Answers what the base knows more often than not."""
    return "refused" if row["confidence"] < 0.5 else row["forced"]["outcome"]


def _fixed(
    name: str, questions: Questions, model: str, outcome: Callable[[Mapping[str, Any]], str]
) -> Policy:
    values, refusals = {}, {}
    for domain in DOMAINS:
        rows = questions.of(model, domain)
        outcomes = np.array([outcome(row) for row in rows])
        refusals[domain] = outcomes == "refused"
        values[domain] = value(rows, refusals[domain], outcomes == "correct")
    return Policy(name, values, refusals, free=True)


def _threshold(
    name: str, questions: Questions, model: str, score: Callable[[Mapping[str, Any]], float]
) -> Policy:
    """Refuses above a threshold, and else gives the answer that may not be a refusal."""

    def scores(rows: Rows) -> np.ndarray:
        return np.array([score(row) for row in rows])

    def correct(rows: Rows) -> np.ndarray:
        return np.array([row["forced"]["outcome"] == "correct" for row in rows])

    rows = questions.of(model, "validation")
    threshold = best_threshold(scores(rows), rows, correct(rows))
    values, refusals = {}, {}
    for domain in DOMAINS:
        rows = questions.of(model, domain)
        refusals[domain] = scores(rows) > threshold
        values[domain] = value(rows, refusals[domain], correct(rows))
    return Policy(name, values, refusals, free=True)


def interval(changes: np.ndarray) -> tuple[float, float]:
    """95% percentile bootstrap interval of a mean over questions."""
    drawn = np.random.default_rng(0).integers(len(changes), size=(RESAMPLES, len(changes)))
    low, high = np.percentile(changes[drawn].mean(1), (2.5, 97.5))
    return float(low), float(high)


def table(questions: Questions, found: Sequence[Policy]) -> list[list[str]]:
    """Rows of a table, its header first: T with its interval, what it gains over the best policy
    that needs no training, and what happens to what the base knows and to Type 3."""
    base = next(iter(questions.models))
    header = ["", *(f"T {name}" for name in DOMAINS.values())]
    header += [f"over the best baseline, {name}" for name in DOMAINS.values()]
    header += ["Type 1 correct", *(f"Type 3 refused {name}" for name in DOMAINS.values())]
    header += [f"refused {name}" for name in DOMAINS.values()]
    best = {d: max((p for p in found if p.free), key=lambda p: p.value[d].mean()) for d in DOMAINS}
    lines = [header]
    for policy in found:
        cells = [policy.name, *(_with_interval(policy.value[d]) for d in DOMAINS)]
        for d in DOMAINS:
            change = policy.value[d] - best[d].value[d]
            cells.append("best" if policy is best[d] else _with_interval(change))
        types = {d: np.array([row["type"] or 0 for row in questions.of(base, d)]) for d in DOMAINS}
        known = types["in_domain"] == 1
        cells.append(f"{(policy.value['in_domain'][known] == 1).mean():.2f}")
        cells += [f"{policy.refused[d][types[d] == 3].mean():.2f}" for d in DOMAINS]
        cells += [f"{policy.refused[d].mean():.2f}" for d in DOMAINS]
        lines.append(cells)
    return lines


def _with_interval(changes: np.ndarray) -> str:
    low, high = interval(changes)
    return f"{changes.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def sayings(questions: Questions, number: int, seed: int = 0) -> list[list[str]]:
    """Rows of a table, its header first: what every model says to questions in domain that are
    drawn at random."""
    by_model = {name: questions.of(name, "in_domain") for name in questions.models}
    rows = next(iter(by_model.values()))
    drawn = np.random.default_rng(seed).choice(len(rows), number, replace=False)
    lines = [["question", "type", "gold", *by_model]]
    for i in sorted(drawn):
        kind = str(rows[i]["type"] or "Mixed")
        gold = "none" if kind == "3" else rows[i]["answers"][0]
        said = [some[i]["prediction"].replace("\n", " ").strip() for some in by_model.values()]
        lines.append([rows[i]["question"], kind, gold, *said])
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


class Probe(NamedTuple):
    """How much a linear probe speaks for a refusal, and which layer and penalty were chosen."""

    scores: dict[tuple[str, str], float]
    chosen: str


def probe_scores(
    checkpoint: Path,
    train: Rows,
    asked: Rows,
    validation: Sequence[int],
    sizes: Sequence[int] = (),
    batch: int = 64,
) -> dict[str, Probe]:
    """Linear probes on the base's hidden states, by name.

    The state is that of the last token of the prompt, of every fourth layer. The label is whether a
    refusal is worth more than the base's answer: Type 3, or a confidence below 0.5. Layer and
    penalty are those of the highest value on validation.

    Args:
      train: rows with `type`, `confidence`, `question` and `files` (paths of images).
      asked: the base's predictions, with `files`.
      validation: places among `asked` of the questions of validation.
      sizes: one more probe each, fitted on so many of the first training questions.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    states = hidden_states(checkpoint, [*train, *asked], batch)
    label = np.array([row["type"] == 3 or row["confidence"] < 0.5 for row in train])
    rows = [asked[i] for i in validation]
    correct = np.array([row["forced"]["outcome"] == "correct" for row in rows])
    keys = [(row["dataset"], row["id"]) for row in asked]
    probes = {}
    for size in (len(train), *(size for size in sizes if size < len(train))):
        best = None
        for layer, c in itertools.product(range(states.shape[1]), PENALTIES):
            classifier = LogisticRegression(C=c, max_iter=2000)
            fitted = make_pipeline(StandardScaler(), classifier)
            fitted.fit(states[:size, layer], label[:size])
            score = fitted.decision_function(states[len(train) :, layer])
            mine = score[list(validation)]
            refused = mine > best_threshold(mine, rows, correct)
            worth = value(rows, refused, correct).mean()
            if best is None or worth > best[0]:
                chosen = f"layer {LAYER_STEP * layer}, C = {c}, T on validation {worth:+.3f}"
                best = (worth, score, chosen)
        name = "linear probe" + (f" of {size}" if size < len(train) else "")
        probes[name] = Probe(dict(zip(keys, best[1].tolist(), strict=True)), best[2])
    return probes


LAYER_STEP = 5


def hidden_states(checkpoint: Path, rows: Rows, batch: int) -> np.ndarray:
    """Of the last prompt token, f32[rows, layers, width], of every `LAYER_STEP`th layer, with
    transformers."""
    import torch
    import transformers
    from PIL import Image

    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    processor.tokenizer.padding_side = "left"
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        checkpoint, dtype=torch.float32
    ).eval()
    states = []
    for start in range(0, len(rows), batch):
        some = rows[start : start + batch]
        prompts, images = [], []
        for row in some:
            pictures = [Image.open(file).convert("RGB") for file in row["files"]]
            content = [{"type": "image"}] * len(pictures)
            content = [*content, {"type": "text", "text": row["question"]}]
            message = [{"role": "user", "content": content}]
            prompts.append(processor.apply_chat_template(message, add_generation_prompt=True))
            images += pictures
        inputs = processor(images=images or None, text=prompts, return_tensors="pt", padding=True)
        with torch.no_grad():
            layers = model(**inputs, output_hidden_states=True, logits_to_keep=1).hidden_states
        states.append(np.stack([x[:, -1].numpy() for x in layers[::LAYER_STEP]], 1))
    return np.concatenate(states)
