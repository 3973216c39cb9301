"""`inbol audit`: what `inbol extrinsic` made, on one page: counts, samples, and whether the text alone gives the questions away."""

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inbol_jax.artifacts import read_jsonl, read_meta, write_json
from inbol_jax.data.vqa import VQADataset, load_dataset_folder
from inbol_jax.defaults import Dtype
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.answers import AnswerStore, ModelAnswers
from inbol_jax.extrinsic.extrinsic import trail_file
from inbol_jax.extrinsic.filters import blank_image
from inbol_jax.extrinsic.generators import Asked, Reply
from inbol_jax.extrinsic.shortcut import auc, auc_difference, cross_validated, telling
from inbol_jax.intervals import wilson_interval
from inbol_jax.models.loading import load_pretrained
from inbol_jax.pages.page import embed, write_page
from inbol_jax.pages.table import Table
from inbol_jax.progress import say
from inbol_jax.responses.refusal import is_refusal
from inbol_jax.sharding import make_mesh

MAX_TEXTS = 10_000  # of each class, for the classifier
LEAST_TEXTS = 20  # of each class: with fewer there is nothing to measure
TELLING = 12  # words shown of each class
MAX_TEXT = 300  # characters of a question or a reason on a card

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class AuditConfig:
    """Write a page on generated questions: counts by generator and filter, random samples, and whether text alone gives them away.

    Attributes:
      out: folder of `inbol extrinsic`; gets audit.html and audit.json.
      data: dataset whose answerable questions the generated ones are compared with; by default the one that they were made from.
      images: its image folder, where it is not the dataset's own.
      model: checkpoint folder of a vision-language model that is asked with the image and with a grey one in its place; none by default.
      model_questions: answerable questions, and as many generated ones, that it is asked.
      samples: cards shown of each generator, and of each filter.
      max_new_tokens: longest answer.
      batch_size: questions that the model answers at a time; a CPU takes as many as suit it.
      dtype: of the model; auto is float32 for a float32 checkpoint and bfloat16 for any other.
      mesh: number of devices along data, fsdp and tensor; -1 takes what the others leave.
      seed: of the random choices and the folds.
    """

    out: Path
    data: Path | None = None
    images: Path | None = None
    model: Path | None = None
    model_questions: int = 400
    samples: int = 6
    max_new_tokens: int = 12
    batch_size: int = 128
    dtype: Dtype = "auto"
    mesh: tuple[int, int, int] = (-1, 1, 1)
    seed: int = 0


class Reservoirs:
    """Uniform random samples of streams, one for each key, at most `size` rows each (Vitter 1985, algorithm R)."""

    def __init__(self, size: int, seed: int):
        self.rows: dict[Hashable, list[Any]] = {}
        self._seen: dict[Hashable, int] = {}
        self._size, self._rng = size, np.random.default_rng(seed)

    def add(self, key: Hashable, row: Any) -> None:
        seen = self._seen[key] = self._seen.get(key, 0) + 1
        kept = self.rows.setdefault(key, [])
        if len(kept) < self._size:
            kept.append(row)
        elif (place := int(self._rng.integers(seen))) < self._size:
            kept[place] = row


def audit(config: AuditConfig) -> dict[str, Any]:
    """Writes audit.html and audit.json. Returns what the latter holds.

    Raises:
      InbolError: where there are no generated questions, no answerable ones, or a model that cannot be loaded.
    """
    for name, least in (
        ("model_questions", LEAST_TEXTS),
        ("samples", 0),
        ("max_new_tokens", 1),
        ("batch_size", 1),
    ):
        if getattr(config, name) < least:
            raise InbolError(
                f"--{name.replace('_', '-')} {getattr(config, name)}: at least {least} is needed"
            )
    file = config.out / "extrinsic.jsonl"
    meta = read_meta(file)
    if not {"counts", "filters", "generators"} <= set(meta) or not file.is_file():
        raise InbolError(
            f"{config.out} holds no finished extrinsic.jsonl of this version; run `inbol extrinsic --out {config.out}` first"
        )
    if config.data is None and "data" not in meta:
        raise InbolError(f"{file} does not say from which dataset it was made; name it by --data")
    folder = config.out / meta["images"]
    if config.data is None:
        dataset = load_dataset_folder(config.out / meta["data"], images=config.images or folder)
    else:
        dataset = load_dataset_folder(config.data, images=config.images)
    texts, cards = Reservoirs(MAX_TEXTS, config.seed), Reservoirs(config.samples, config.seed)
    for row in read_jsonl(file):
        texts.add(True, row)
        cards.add(("kept", row["generator"]), row)
    for example in dataset.examples:
        if example.answerable is not False:
            texts.add(False, example.to_json())
    if trail_file(file).is_file():
        for row in read_jsonl(trail_file(file)):
            cards.add(("dropped", row["filter"]), row)
    generated, answerable = texts.rows.get(True, []), texts.rows.get(False, [])
    result: dict[str, Any] = {
        "rows": meta["rows"],
        "counts": meta["counts"],
        "set_aside": meta.get("set_aside", {}),
    }
    result["text"] = text_shortcut(generated, answerable, config.seed)
    if config.model is not None:
        result["model"] = model_shortcut(config, generated, answerable, folder, dataset)
    result["findings"] = list(findings(result))
    write_json(config.out / "audit.json", result)
    write_page(
        config.out / "audit.html",
        Path(__file__).parent,
        _context(config, meta, result, cards, folder),
    )
    for line in result["findings"]:
        say(line)
    say(f"audit -> {config.out / 'audit.html'}")
    return result


def text_shortcut(
    generated: Sequence[Row], answerable: Sequence[Row], seed: int
) -> dict[str, Any] | None:
    """AUC of the classifier over all generators and for each, and the words that tell; None where there are too few questions."""
    if min(len(generated), len(answerable)) < LEAST_TEXTS:
        return None
    rows = [*generated, *answerable]
    labels = np.arange(len(rows)) < len(generated)
    try:
        # An image without its evidence belongs to the one that it was made from.
        images = [r.get("removed", r)["image"] for r in rows]
        scores = cross_validated([r["question"] for r in rows], labels, images, seed)
    except ValueError:  # all of a class about one or two images
        return None
    found = {"all": dataclasses.asdict(auc(scores, labels))}
    makers = np.array([*(r["generator"] for r in generated), *("" for _ in answerable)])
    for generator in sorted({r["generator"] for r in generated}):
        chosen = ~labels | (makers == generator)
        found[generator] = dataclasses.asdict(auc(scores[chosen], labels[chosen]))
    words = telling([r["question"] for r in rows], labels, TELLING)
    return {"auc": found, "telling": dict(zip(("unanswerable", "answerable"), words, strict=True))}


def model_shortcut(
    config: AuditConfig,
    generated: Sequence[Row],
    answerable: Sequence[Row],
    folder: Path,
    dataset: VQADataset,
) -> dict[str, Any] | None:
    """The model's greedy answers with the image and with a grey one: refusals, and how well its doubt tells the two classes apart.

    Doubt is 1 - p of an answer, and 1 + p of a refusal, p being its probability.
    """
    assert config.model is not None
    rng = np.random.default_rng(config.seed)
    chosen = [
        [rows[i] for i in rng.permutation(len(rows))[: config.model_questions]]
        for rows in (generated, answerable)
    ]
    if min(map(len, chosen)) < LEAST_TEXTS:
        return None
    roots = [folder] * len(chosen[0]) + [dataset.root] * len(chosen[1])
    rows = [*chosen[0], *chosen[1]]
    loaded = load_pretrained(config.model, dtype=config.dtype, mesh=make_mesh(*config.mesh))
    with AnswerStore(config.out / "audit.answers.jsonl") as store:
        ask = ModelAnswers(loaded, store, seed=config.seed, batch_size=config.batch_size)
        options: dict[str, Any] = {
            "n": 1,
            "temperature": 0.0,
            "max_new_tokens": config.max_new_tokens,
        }
        with_image = [
            Asked(row["question"], root / row["image"], str(root / row["image"]))
            for row, root in zip(rows, roots, strict=True)
        ]
        seen = ask(with_image, **options, label="asking with image")
        blank = ask(
            [Asked(row["question"], blank_image, "blank") for row in rows],
            **options,
            label="asking without image",
        )
    both = np.array([bool(a) and bool(b) for a, b in zip(seen, blank, strict=True)])
    labels = np.arange(len(rows)) < len(chosen[0])
    found: dict[str, Any] = {"not_asked": int((~both).sum())}
    if min(both[labels].sum(), both[~labels].sum()) < LEAST_TEXTS:
        return None
    doubts = {}
    for name, replies in (("image", seen), ("blank", blank)):
        firsts = [r[0] for r, asked in zip(replies, both, strict=True) if asked]
        doubts[name] = np.array([_doubt(r) for r in firsts])
        refused = np.array([is_refusal(r.text) for r in firsts])
        found[name] = {"auc": dataclasses.asdict(auc(doubts[name], labels[both]))}
        for label, which in (("unanswerable", labels[both]), ("answerable", ~labels[both])):
            found[name][f"refused_{label}"] = _share(int(refused[which].sum()), int(which.sum()))
    found["difference"] = dict(
        zip(
            ("value", "low", "high"),
            auc_difference(doubts["image"], doubts["blank"], labels[both]),
            strict=True,
        )
    )
    return found


def _doubt(reply: Reply) -> float:
    p = float(np.exp(min(0.0, reply.logprob)))
    return 1 + p if is_refusal(reply.text) else 1 - p


def _share(k: int, n: int) -> dict[str, float]:
    low, high = wilson_interval(k, n)
    return {"value": k / n, "low": low, "high": high, "n": n}


def findings(result: Row) -> Iterator[str]:
    """What the numbers say, a sentence each."""
    kept, proposed = result["rows"], sum(result["counts"].values())
    yield f"{kept} of {proposed} proposed questions passed the filters ({kept / max(1, proposed):.0%})."
    if result["text"] is None:
        yield f"Too few questions for the shortcut test: {LEAST_TEXTS} of each class, about several images, are needed."
        return
    text = result["text"]["auc"]["all"]
    if text["low"] >= 0.9:
        says = "the text alone gives the questions away, and a model can learn to refuse without looking"
    elif text["low"] >= 0.6:
        says = "the text alone gives part of them away, and a model can learn some refusals without looking"
    elif text["high"] < 0.65:
        says = "the text alone gives little away"
    elif text["low"] > 0.5:
        says = "the text alone gives something away, though not much"
    else:
        says = "there are too few questions to say how much the text gives away"
    yield f"A classifier that sees the text alone tells unanswerable from answerable at AUC {_interval(text)}: {says}."
    if not (model := result.get("model")):
        return
    image, blank, difference = model["image"]["auc"], model["blank"]["auc"], model["difference"]
    if difference["low"] > 0:
        says = "the image helps it to tell them apart"
    elif difference["high"] < 0:
        says = "it tells them apart worse with the image than without"
    else:
        says = "this does not show that it looks"
    yield (
        f"The model's doubt tells them at AUC {_interval(image)} with the image and {_interval(blank)} with a grey one in its place, "
        f"a paired difference of {_interval(difference, '+.3f')}: {says}."
    )
    gap = text["value"] - image["value"]
    more, less = ("text", "model with the image") if gap > 0 else ("model with the image", "text")
    yield (
        f"The {more} tells them better than the {less}, by {abs(gap):.3f}"
        + (
            ": to refuse by the text is what training on these questions would teach first."
            if gap > 0
            else "."
        )
    )


def funnel_table(meta: Row) -> Table:
    """Proposed, dropped by each filter, and kept, a row for each generator and one for all."""
    counts = {tuple(name.split(": ", 1)): n for name, n in meta["counts"].items()}
    filters, generators = meta["filters"], meta["generators"]
    rows = []
    for name, members in [
        *((g, [g]) for g in generators),
        *([("all", generators)] if len(generators) > 1 else []),
    ]:
        dropped = [sum(counts.get((g, f), 0) for g in members) for f in filters]
        kept = sum(counts.get((g, "kept"), 0) for g in members)
        total = kept + sum(dropped)
        rows.append(
            [
                name,
                str(total),
                *map(str, dropped),
                str(kept),
                f"{kept / total:.0%}" if total else "\N{EN DASH}",
            ]
        )
    columns = ("Generator", "proposed", *filters, "kept", "share")
    return Table(
        "Proposed, dropped by each filter in turn, and kept",
        columns,
        rows,
        (("", 2), ("dropped by", len(filters)), ("", 2)),
    )


def _context(
    config: AuditConfig, meta: Row, result: Row, cards: Reservoirs, folder: Path
) -> dict[str, Any]:
    tables = []
    if result["text"]:
        rows = [
            (g, str(a["n"][0]), str(a["n"][1]), _interval(a))
            for g, a in result["text"]["auc"].items()
        ]
        tables.append(
            Table(
                "Text alone: a classifier on words, cross-validated over images",
                ("Generator", "unanswerable", "answerable", "AUC"),
                rows,
            )
        )
        words = result["text"]["telling"]
        tables.append(
            Table(
                "Words that tell, the strongest first",
                ("Speaks for", "words"),
                [(k, " · ".join(v)) for k, v in words.items()],
            )
        )
    if model := result.get("model"):
        names = {"image": "with the image", "blank": "with a grey image"}
        cells = [
            (
                names[k],
                _interval(model[k]["auc"]),
                *(
                    _interval(model[k][f"refused_{c}"], ".1%")
                    for c in ("unanswerable", "answerable")
                ),
            )
            for k in names
        ]
        tables.append(
            Table(
                f"The model {config.model}",
                ("Asked", "AUC of its doubt", "refuses unanswerable", "refuses answerable"),
                cells,
            )
        )
    aside = [(*name.split(": ", 1), str(n)) for name, n in result["set_aside"].items()]
    settings = [(k, str(v)) for k, v in meta.items() if k not in ("counts", "set_aside", "rows")]
    return {
        "findings": result["findings"],
        "funnel": funnel_table(meta),
        "set_aside": Table("Could not be tried", ("Generator", "cause", "n"), aside)
        if aside
        else None,
        "tables": tables,
        "kept": [
            (name, _cards(rows, folder)) for (kind, name), rows in _sorted(cards) if kind == "kept"
        ],
        "dropped": [
            (name, _cards(rows, folder))
            for (kind, name), rows in _sorted(cards)
            if kind == "dropped"
        ],
        "settings": Table("Settings", ("Setting", "Value"), settings),
    }


def _sorted(cards: Reservoirs) -> Iterable[tuple[Any, list[Row]]]:
    return sorted(cards.rows.items(), key=lambda item: str(item[0]))


def _cards(rows: Sequence[Row], folder: Path) -> list[dict[str, Any]]:
    cut = [
        {
            k: v if len(v := str(row.get(k, ""))) <= MAX_TEXT else v[:MAX_TEXT] + "…"
            for k in ("id", "question", "generator", "reason")
        }
        for row in rows
    ]
    return [
        card | {"image": embed(folder, row["image"]), "filters": row.get("filters", ())}
        for card, row in zip(cut, rows, strict=True)
    ]


def _interval(found: Row, form: str = ".3f") -> str:
    value, low, high = (found[k] for k in ("value", "low", "high"))
    return f"{value:{form}} ({low:{form}} to {high:{form}})".replace("-", "\N{MINUS SIGN}")
