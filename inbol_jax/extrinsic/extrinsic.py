"""`inbol extrinsic`: Type 3 questions about the images of a dataset, as a dataset of their own."""

import contextlib
import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import Any

import inbol_jax.extrinsic.evidence
import inbol_jax.extrinsic.written  # noqa: F401 - both register their generator
from inbol_jax.artifacts import (
    atomically,
    file_fingerprint,
    fingerprint,
    json_line,
    meta_path,
    read_meta,
    write_json,
)
from inbol_jax.data.config import Data, as_data_config
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.vqa import data_file, load_dataset_folder, summarise_rejections
from inbol_jax.defaults import Dtype
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.answers import AnswerStore, EndpointAnswers, ModelAnswers
from inbol_jax.extrinsic.facts import ImageFacts
from inbol_jax.extrinsic.filters import NEED_MODEL, Leaks, Sources, check_filters, get_filters
from inbol_jax.extrinsic.funnel import NOTHING, Counts, propose
from inbol_jax.extrinsic.generators import Context, get_generators
from inbol_jax.extrinsic.language import FUNCTION_WORDS
from inbol_jax.models.loading import load_pretrained
from inbol_jax.progress import progress, say
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.responses.endpoint import Endpoint
from inbol_jax.sharding import make_mesh

# Where each image's objects are listed, "missing" is a fact, and what the other filters would take away are good questions.
GENERATORS_WITH_OBJECTS = ("unseeable", "mismatched")
FILTERS_WITH_OBJECTS = ("ill_formed", "present", "duplicate")
GENERATORS_WITHOUT = (*GENERATORS_WITH_OBJECTS, "false_premise", "beyond_frame")
FILTERS_WITHOUT = (
    "ill_formed",
    "language",
    "present",
    "answer_present",
    "duplicate",
    "near_duplicate",
)


@dataclasses.dataclass(frozen=True)
class ExtrinsicConfig:
    """Generate and filter questions that the images of a dataset cannot answer (Type 3).

    Attributes:
      data: questions and images that are drawn on.
      out: the questions go to OUT/extrinsic.jsonl, a dataset that `inbol confidence --data` reads; those that a filter rejected, with
        the reason, to OUT/extrinsic.trail.jsonl.
      share: how many to make, as a share of the dataset's questions.
      generators: names, among unseeable, mismatched, false_premise, beyond_frame, evidence_removed and model_written; by default the first
        two where the data lists each image's objects, else the first four.
      filters: names, among ill_formed, language, present, answer_present, duplicate, near_duplicate, leaked, text_only and answered; by
        default ill_formed, present and duplicate where the data lists objects, else the first six; leaked comes with --against, the
        last two with --model.
      no_filters: names to leave out of these.
      against: evaluation sets; a question that is in one of them, about the same picture, is dropped.
      language: of the questions: en, de, fr, es, it, pt, nl, or auto for that of most of the dataset's questions.
      near_duplicate: least similarity, in (0, 1], of two questions about one image of which one is dropped.
      model: checkpoint folder of a vision-language model that filters, writes questions and finds evidence; none by default.
      model_samples: answers of the model to a question, for the filters.
      agreement: share of them, above a half, that must be the same for a question to count as answered.
      batch_size: questions that the model answers at a time; a CPU takes as many as suit it.
      dtype: of the model; auto is float32 for a float32 checkpoint and bfloat16 for any other.
      mesh: number of devices along data, fsdp and tensor; -1 takes what the others leave.
      endpoint: an OpenAI-compatible endpoint whose model writes questions, in place of --model.
      max_rejected: share of unusable records above which the stage stops.
      seed: of the choice, and of the model's answers.
    """

    data: Data
    out: Path
    share: float = 0.25
    generators: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    no_filters: tuple[str, ...] = ()
    against: tuple[Path, ...] = ()
    language: str = "auto"
    near_duplicate: float = 0.8
    model: Path | None = None
    model_samples: int = 5
    agreement: float = 0.8
    batch_size: int = 128
    dtype: Dtype = "auto"
    mesh: tuple[int, int, int] = (-1, 1, 1)
    endpoint: EndpointConfig = dataclasses.field(default_factory=EndpointConfig)
    max_rejected: float = 0.1
    seed: int = 0


def extrinsic(config: ExtrinsicConfig) -> Path:
    """Writes the questions. Returns their file.

    Raises:
      InbolError: for what is wrong with options, data or model, or when the dataset gives no such question.
    """
    _check(config)
    endpoint = Endpoint(config.endpoint, temperature=1.0) if config.endpoint.endpoint else None
    loaded = (
        None
        if config.model is None
        else load_pretrained(config.model, dtype=config.dtype, mesh=make_mesh(*config.mesh))
    )
    dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
    if dataset.rejected:
        say(summarise_rejections(dataset.rejected, len(dataset.examples) + len(dataset.rejected)))
    source = _source(config)
    file = config.out / "extrinsic.jsonl"
    settings = {"command": "extrinsic", "dataset": file_fingerprint(source)} | _settings(config)
    if loaded is not None:
        settings |= {"model": loaded.fingerprint, "dtype": loaded.model.dtype.name}
    identity = fingerprint(settings)
    if read_meta(file).get("config") != identity or not file.exists():
        with contextlib.ExitStack() as stack:
            pool = dataset.examples.take(
                [i for i, e in enumerate(dataset.examples) if e.answerable is not False]
            )
            if not pool:
                raise InbolError(
                    f"{source}: holds no question that the images answer; Type 3 questions are made beside those"
                )
            places = {"images": dataset.root, "data": source}
            header = (
                settings
                | {"config": identity}
                | {k: os.path.relpath(p.resolve(), config.out.resolve()) for k, p in places.items()}
            )
            context = Context(pool, ImageFacts([]), dataset.root)
            if loaded is not None or endpoint is not None:
                store = stack.enter_context(AnswerStore(config.out / "extrinsic.answers.jsonl"))
            if loaded is not None:
                context.model = context.writer = ModelAnswers(
                    loaded, store, seed=config.seed, batch_size=config.batch_size, shown=False
                )
            if endpoint is not None:
                context.writer = EndpointAnswers(endpoint, store)
            _write(config, context, file, header)
    meta = read_meta(file)
    if meta.get("set_aside"):
        say(f"not tried: {', '.join(f'{k} {v}' for k, v in meta['set_aside'].items())}")
    say(
        f"{meta['rows']} Type 3 questions ({', '.join(f'{k} {v}' for k, v in meta['counts'].items())}) -> {file}"
    )
    return file


def _source(config: ExtrinsicConfig) -> Path:
    """The file of the records, which is ours where they were imported."""
    data = as_data_config(config.data)
    return data_file(data.dir if data.dir is not None else config.out / "data" / data.called())


def trail_file(file: Path) -> Path:
    """Where the rejected questions of `extrinsic.jsonl` are."""
    return file.with_suffix(".trail.jsonl")


def _check(config: ExtrinsicConfig) -> None:
    """What can be told without the data."""
    if not 0 < config.share <= 1:
        raise InbolError(f"--share {config.share}: a share between 0 and 1 is needed")
    if config.generators:
        get_generators(config.generators)
    check_filters((*config.filters, *config.no_filters))
    if config.language not in ("auto", *FUNCTION_WORDS):
        raise InbolError(
            f"--language {config.language}: choose auto or one of {', '.join(FUNCTION_WORDS)}"
        )
    if not 0 < config.near_duplicate <= 1:
        raise InbolError(
            f"--near-duplicate {config.near_duplicate}: a similarity above 0 and up to 1 is needed"
        )
    if not 0.5 < config.agreement <= 1:
        raise InbolError(f"--agreement {config.agreement}: a share above 0.5 and up to 1 is needed")
    for name in ("model_samples", "batch_size"):
        if getattr(config, name) < 1:
            raise InbolError(
                f"--{name.replace('_', '-')} {getattr(config, name)}: at least 1 is needed"
            )
    if config.endpoint.endpoint and "model_written" not in config.generators:
        raise InbolError(
            "--endpoint: only the generator model_written asks it; add --generators model_written"
        )
    if config.model is None and (needy := [name for name in NEED_MODEL if name in config.filters]):
        raise InbolError(f"--filters {needy[0]}: needs --model")
    if "leaked" in config.filters and not config.against:
        raise InbolError("--filters leaked: needs --against")


def _settings(config: ExtrinsicConfig) -> dict[str, Any]:
    """What the questions depend on beside the data. Options at their defaults are left out: a new one makes no finished run stale."""
    settings: dict[str, Any] = {"share": config.share, "seed": config.seed}
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for name in (
        "generators",
        "filters",
        "no_filters",
        "language",
        "near_duplicate",
        "model_samples",
        "agreement",
    ):
        if (value := getattr(config, name)) != defaults[name]:
            settings[name] = list(value) if isinstance(value, tuple) else value
    if config.against:
        settings["against"] = [file_fingerprint(data_file(_there(path))) for path in config.against]
    if config.endpoint.endpoint:
        settings |= {
            "endpoint": config.endpoint.endpoint,
            "endpoint_model": config.endpoint.endpoint_model,
        }
    return settings


def _there(path: Path) -> Path:
    if not data_file(path).is_file():
        raise InbolError(
            f"--against {path}: no dataset there; give a folder that holds data.jsonl, or a .jsonl file"
        )
    return path


def _write(config: ExtrinsicConfig, context: Context, file: Path, header: dict[str, Any]) -> None:
    for generator in get_generators(config.generators) if config.generators else ():
        if generator.check:
            generator.check(context)
    context.facts = ImageFacts(context.pool)
    listed = context.facts.annotated
    generators = get_generators(
        config.generators or (GENERATORS_WITH_OBJECTS if listed else GENERATORS_WITHOUT)
    )
    filters = get_filters(_filters(config, listed), _sources(config, context))
    n = max(1, round(config.share * len(context.pool)))
    counts: Counts = Counter()
    meta_path(file).unlink(missing_ok=True)  # what lies there without a header is not finished
    with (
        atomically(file) as temporary,
        atomically(trail_file(file)) as trail,
        temporary.open("w", encoding="utf-8") as rows,
        trail.open("w", encoding="utf-8") as lines,
        progress("generating", len(context.pool), "images") as advance,
    ):
        made = 0
        for row in propose(
            context,
            generators,
            filters,
            n,
            config.seed,
            counts,
            lambda d: lines.write(json_line(d.to_json())),
            advance,
        ):
            rows.write(json_line(row))
            made += 1
        if not made:
            raise InbolError(_nothing(config, counts, context))
    said, aside = (
        {f"{generator}: {v}": k for (generator, v), k in sorted(c.items())}
        for c in (counts, context.set_aside)
    )
    names = {"generators": [g.name for g in generators], "filters": [f.name for f in filters]}
    write_json(meta_path(file), header | names | {"counts": said, "set_aside": aside, "rows": made})


def _nothing(config: ExtrinsicConfig, counts: Counts, context: Context) -> str:
    source = _source(config)
    if not counts and {cause for _, cause in context.set_aside} <= {NOTHING}:
        return f"{source}: no question names a subject ('the ...') that could be asked about; give the images an `objects` column"
    why = ", ".join(
        f"{generator}: {cause} {n}"
        for (generator, cause), n in (counts + context.set_aside).most_common(5)
    )
    return f"{source}: no question is left ({why}); choose other --generators, or leave a filter out with --no-filters"


def _filters(config: ExtrinsicConfig, listed: bool) -> list[str]:
    usual = [
        *(FILTERS_WITH_OBJECTS if listed else FILTERS_WITHOUT),
        *(("leaked",) if config.against else ()),
    ]
    usual += NEED_MODEL if config.model is not None else ()
    return [name for name in (config.filters or usual) if name not in config.no_filters]


def _sources(config: ExtrinsicConfig, context: Context) -> Sources:
    leaks = None
    if config.against:
        leaks = Leaks()
        for path in config.against:
            split = load_dataset_folder(path, max_rejected=config.max_rejected)
            with progress(f"hashing {split.name}", len(split.examples), "questions") as advance:
                leaks.add(split.examples, split.root, advance)
        if leaks.unreadable:
            say(
                f"{leaks.unreadable} images of the sets of --against cannot be read; questions about them are compared with nothing"
            )
    options = {name: getattr(config, name) for name in ("language", "near_duplicate", "agreement")}
    return Sources(
        context.pool,
        context.facts,
        context.root,
        leaks=leaks,
        model=context.model,
        samples=config.model_samples,
        **options,
    )
