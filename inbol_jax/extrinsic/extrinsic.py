"""`inbol extrinsic`: Type 3 questions about the images of a dataset, as a dataset of their own."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import inbol_jax.extrinsic.evidence
import inbol_jax.extrinsic.model_written  # noqa: F401 - both register their generator
from inbol_jax.artifacts import (
    atomically,
    file_fingerprint,
    fingerprint,
    json_line,
    meta_path,
    read_meta,
    write_json,
)
from inbol_jax.data.config import as_data_config
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.vqa import VQADataset, data_file, load_dataset_folder, summarise_rejections
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.answers import AnswerStore, EndpointAnswers, ModelAnswers
from inbol_jax.extrinsic.config import MODEL_FILTERS, ExtrinsicConfig
from inbol_jax.extrinsic.contents import ImageContents
from inbol_jax.extrinsic.files import ExtrinsicHeader, FunnelCounts, questions_file, trail_file
from inbol_jax.extrinsic.filters import FilterContext, check_filters, get_filters
from inbol_jax.extrinsic.funnel import NOTHING, Funnel
from inbol_jax.extrinsic.generators import Answerer, GeneratorContext, get_generators
from inbol_jax.extrinsic.leaks import EvaluationQuestions
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.progress import progress, say
from inbol_jax.responses.endpoint import Endpoint
from inbol_jax.sharding import make_mesh

# If each image's objects are listed, it is a fact that a thing is missing, and what the other
# filters would reject are good questions.
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


def extrinsic(config: ExtrinsicConfig) -> Path:
    """Writes the questions, unless they are there already. Returns their file.

    Raises:
      InbolError: for what is wrong with the options, the data or the model, or if the dataset gives
        no such question.
    """
    if config.generators:
        get_generators(config.generators)
    check_filters((*config.filters, *config.no_filters))
    endpoint = Endpoint(config.endpoint, temperature=1.0) if config.endpoint.endpoint else None
    checkpoint = None
    if config.model is not None:
        mesh = make_mesh(*config.mesh)
        checkpoint = load_pretrained(config.model, dtype=config.dtype, mesh=mesh)
    dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
    if dataset.rejected:
        total = len(dataset.examples) + len(dataset.rejected)
        say(summarise_rejections(dataset.rejected, total))

    file = questions_file(config.out)
    settings = _settings(config, checkpoint)
    if read_meta(file).get("config") != fingerprint(settings) or not file.exists():
        with _answerers(config, checkpoint, endpoint) as (model, writer):
            context = _generator_context(dataset, model, writer)
            _write(config, context, settings)
    header = ExtrinsicHeader.read(file)
    if header.counts.set_aside:
        say(f"not tried: {_list(header.counts.to_json()['set_aside'])}")
    verdicts = _list(header.counts.to_json()["counts"])
    say(f"{header.counts.kept} Type 3 questions ({verdicts}) -> {file}")
    return file


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _source(config: ExtrinsicConfig) -> Path:
    """The file of the dataset's records, which lies below --out if they were imported."""
    data = as_data_config(config.data)
    return data_file(data.dir if data.dir is not None else config.out / "data" / data.called())


def _settings(config: ExtrinsicConfig, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """What the questions depend on. Options at their defaults are left out, so that a new option
    does not make a finished run stale."""
    settings: dict[str, Any] = {
        "command": "extrinsic",
        "dataset": file_fingerprint(_source(config)),
        "share": config.share,
        "seed": config.seed,
    }
    for field in dataclasses.fields(config):
        if field.name in (
            *("generators", "filters", "no_filters", "language"),
            *("near_duplicate", "model_samples", "agreement"),
        ):
            value = getattr(config, field.name)
            if value != field.default:
                settings[field.name] = list(value) if isinstance(value, tuple) else value
    if config.against:
        settings["against"] = [file_fingerprint(_evaluation_file(path)) for path in config.against]
    if config.endpoint.endpoint:
        settings["endpoint"] = config.endpoint.endpoint
        settings["endpoint_model"] = config.endpoint.endpoint_model
    if checkpoint is not None:
        settings["model"] = checkpoint.fingerprint
        settings["dtype"] = checkpoint.model.dtype.name
    return settings


def _evaluation_file(path: Path) -> Path:
    if not data_file(path).is_file():
        raise InbolError(
            f"--against {path}: no dataset there; give a folder that holds data.jsonl, or a .jsonl "
            "file"
        )
    return data_file(path)


@contextlib.contextmanager
def _answerers(
    config: ExtrinsicConfig, checkpoint: Checkpoint | None, endpoint: Endpoint | None
) -> Iterator[tuple[Answerer | None, Answerer | None]]:
    """The model, and what writes questions: the endpoint, or else the model."""
    if checkpoint is None and endpoint is None:
        yield None, None
        return
    with AnswerStore(config.out / "extrinsic.answers.jsonl") as store:
        model = writer = None
        if checkpoint is not None:
            model = writer = ModelAnswers(
                checkpoint, store, seed=config.seed, batch_size=config.batch_size, shown=False
            )
        if endpoint is not None:
            writer = EndpointAnswers(endpoint, store)
        yield model, writer


def _generator_context(
    dataset: VQADataset, model: Answerer | None, writer: Answerer | None
) -> GeneratorContext:
    answerable = [i for i, e in enumerate(dataset.examples) if e.answerable is not False]
    if not answerable:
        raise InbolError(
            f"{dataset.file}: holds no question that the images answer; Type 3 questions are made "
            "from those"
        )
    pool = dataset.examples.take(answerable)
    return GeneratorContext(pool, ImageContents(pool), dataset.root, model, writer)


def _write(config: ExtrinsicConfig, context: GeneratorContext, settings: dict[str, Any]) -> None:
    """Writes questions and trail, and then the header, without which they are not finished."""
    listed = context.contents.lists_objects
    default = GENERATORS_WITH_OBJECTS if listed else GENERATORS_WITHOUT
    generators = get_generators(config.generators or default)
    for generator in generators:
        if generator.check:
            generator.check(context)
    evaluation = _evaluation_questions(config) if config.against else None
    filter_context = FilterContext(context, config, evaluation)
    filters = get_filters(_filter_names(config, listed), filter_context)
    file = questions_file(config.out)
    meta_path(file).unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        questions, trail = (
            stack.enter_context(stack.enter_context(atomically(path)).open("w", encoding="utf-8"))
            for path in (file, trail_file(file))
        )
        advance = stack.enter_context(progress("generating", len(context.pool), "images"))
        funnel = Funnel(
            context,
            generators,
            filters,
            config.seed,
            keep=lambda question: questions.write(json_line(question.to_json())),
            reject=lambda question: trail.write(json_line(question.to_json())),
            advance=advance,
        )
        counts = funnel.run(max(1, round(config.share * len(context.pool))))
        if not counts.kept:
            raise InbolError(f"{_source(config)}: {_why_none(counts)}")
    header = ExtrinsicHeader(
        settings,
        os.path.relpath(context.root.resolve(), config.out.resolve()),
        os.path.relpath(_source(config).resolve(), config.out.resolve()),
        [generator.name for generator in generators],
        [filter.name for filter in filters],
        counts,
    )
    write_json(meta_path(file), header.to_json())


def _why_none(counts: FunnelCounts) -> str:
    """Why there is no question, and what to do."""
    if not counts.verdicts and {cause for _, cause in counts.set_aside} <= {NOTHING}:
        return (
            "no question names a subject ('the ...') that could be asked about; give the images an "
            "`objects` column"
        )
    causes = (counts.verdicts + counts.set_aside).most_common(5)
    why = ", ".join(f"{generator}: {cause} {n}" for (generator, cause), n in causes)
    return (
        f"no question is left ({why}); choose other --generators, or leave a filter out with "
        "--no-filters"
    )


def _filter_names(config: ExtrinsicConfig, listed: bool) -> list[str]:
    names: Sequence[str] = config.filters
    if not names:
        against = ("leaked",) if config.against else ()
        model = MODEL_FILTERS if config.model is not None else ()
        names = (*(FILTERS_WITH_OBJECTS if listed else FILTERS_WITHOUT), *against, *model)
    return [name for name in names if name not in config.no_filters]


def _evaluation_questions(config: ExtrinsicConfig) -> EvaluationQuestions:
    questions = EvaluationQuestions()
    for path in config.against:
        split = load_dataset_folder(path, max_rejected=config.max_rejected)
        with progress(f"hashing {split.name}", len(split.examples), "questions") as advance:
            questions.add(split.examples, split.root, advance)
    if questions.unreadable:
        say(
            f"{questions.unreadable} images of the sets of --against cannot be read; questions "
            "about them are compared with nothing"
        )
    return questions
