"""`inbol build`: confidences in; records, IDK instructions and preference pairs out.

What a question gives depends on the seed and on the question alone: the order of the stores decides
that of the lines, nothing else.
"""

import dataclasses
import os

from inbol_jax.artifacts import atomic_lines, json_line, one_writer, write_jsonl
from inbol_jax.confidence.confidence import Estimator, get_estimator, sampled_accuracy
from inbol_jax.construction.config import BuildConfig
from inbol_jax.construction.instructions import make_instruction
from inbol_jax.construction.preferences import make_preferences
from inbol_jax.construction.record import make_record
from inbol_jax.construction.stores import Stores, find_stores
from inbol_jax.construction.tally import Built, table, warnings, without_surplus
from inbol_jax.progress import progress, say
from inbol_jax.stage import Stage

FILES = ("records.jsonl", "instructions.jsonl", "preferences.jsonl")


@one_writer
def build(config: BuildConfig) -> None:
    """Writes the three files, each with its header, and prints what is in them.

    Raises:
      InbolError: if there is no confidence to read, a store is not finished, the stores belong to
        different images, two questions have one id, a class would be empty, or the files were made
        with other settings or of other answers.
    """
    estimator, stores = get_estimator(config.estimator), find_stores(config)
    settings = dataclasses.asdict(config) | {"out": ""}
    settings |= settings.pop("thresholds")
    inputs = {"confidence": stores.fingerprint}
    file, *others = (config.out / name for name in FILES)
    with Stage(file, "build", settings, inputs=inputs, others=others) as stage:
        if stage.finished:
            return
        built = _make_all(config, stores, estimator)
        kept = without_surplus(built, config)
        images = os.path.relpath(stores.images.resolve(), config.out.resolve())
        about = stores.prompt.to_json() | {"images": images}
        for name, rows in zip(FILES[1:], kept[1:], strict=True):
            lines, shown = (row.to_json() for row in rows), (i for row in rows for i in row.images)
            pictures = {"pictures": stores.samples[0].images.fingerprint(shown)}
            write_jsonl(config.out / name, lines, stage.header | about | pictures)
        with atomic_lines(stage.file) as file:
            file.writelines(json_line(record.to_json()) for record in kept.records)
        stage.finish(len(kept.records), **about)
    for line in (*table(kept), *warnings(built, kept, config.thresholds)):
        say(line)
    counts = "{} records, {} instructions, {} pairs".format(*map(len, kept))
    say(f"{counts} -> {config.out}")


def _make_all(config: BuildConfig, stores: Stores, estimator: Estimator) -> Built:
    """What all questions give."""
    built, unjudged = Built([], [], []), 0
    about = stores.prompt, config.templates, config.seed
    total = sum(len(samples.keys) for samples in stores.samples)
    with progress("construction", total, "questions") as advance:
        for question in stores.questions():
            advance()
            if estimator is sampled_accuracy and not question.example.judgeable:
                unjudged += 1  # its confidence of 0 would teach a refusal
                continue
            record = make_record(question, config.thresholds, estimator)
            instruction = make_instruction(record, *about)
            built.records.append(record)
            built.instructions.extend([instruction] if instruction else [])
            built.pairs.extend(make_preferences(record, *about))
    if unjudged:
        say(f"{unjudged} of {total} left out: no gold answers, which --estimator accuracy needs")
    return built
