"""`inbol build`: confidences in; records, IDK instructions and preference pairs out."""

import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import file_fingerprint, fingerprint, read_jsonl, read_meta, write_jsonl
from inbol_jax.boundary import Thresholds, make_record, within_noise
from inbol_jax.confidence.estimators import Estimator, get_estimator, sampled_accuracy
from inbol_jax.confidence.store import check_p_true, missing_shards, p_true_file, with_p_true
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.records import Boundary, BoundaryRecord
from inbol_jax.refusal.instructions import make_instructions
from inbol_jax.refusal.preferences import make_preferences
from inbol_jax.refusal.templates import REFUSALS, SHORT_REFUSALS

TEMPLATES = {"one": REFUSALS[:1], "short": SHORT_REFUSALS, "all": REFUSALS}


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """Turn sampled confidences into boundary records, IDK instructions and preference pairs.

    Attributes:
      out: reads OUT/confidence/*.jsonl; writes records.jsonl, instructions.jsonl and preferences.jsonl there.
      thresholds: where Known, Mixed and Unknown part.
      templates: refusals to teach: "one" (I don't know.), the four "short" ones, or "all".
      estimator: of the confidence: "accuracy" against the gold answers, "consistency" or "likelihood" of the samples, or "p-true".
      seed: of the choice of refusals and of incorrect responses.
    """

    out: Path
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    templates: str = "one"
    estimator: str = "accuracy"
    seed: int = 0


def check_finished(file: Path) -> None:
    """Raises InbolError where a store holds another number of questions than its header says, or lacks shards: it is still being filled."""
    if missing := missing_shards(file):
        raise InbolError(f"{file} is not finished ({missing} of its shards are missing): give `inbol confidence` again in every process")
    found, expected = sum(1 for _ in read_jsonl(file)), read_meta(file).get("rows")
    if found != expected:
        raise InbolError(f"{file} is not finished ({found} questions so far): give `inbol confidence` again, it goes on where it stopped")


def read_records(files: list[Path], thresholds: Thresholds, estimator: Estimator = sampled_accuracy) -> list[BoundaryRecord]:
    """Records of every line of the stores, but for answerable questions that could not be asked for P(True), where that is the estimator.

    Raises:
      InbolError: when two lines have one id, or a line lacks what a store's line has.
    """
    records: dict[str, BoundaryRecord] = {}
    for file in files:
        for number, row in enumerate(with_p_true(file, read_jsonl(file)), 1):
            try:
                if row["answerable"] is not False and estimator(row) is None:
                    continue
                record = make_record(row, thresholds, estimator)
            except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
                raise InbolError(f"{file}:{number}: not a line of a confidence store ({error!r})") from error
            if record.id in records:
                raise InbolError(f"{file}:{number}: id {record.id} is in another store too; ids must be unique across datasets")
            records[record.id] = record
    return list(records.values())


def build(config: BuildConfig) -> None:
    """Writes the three files, each with its header.

    Raises:
      InbolError: when there is no confidence to read, a store is not finished, the stores belong to different images, or a class
        would be empty.
    """
    if config.templates not in TEMPLATES:
        raise InbolError(f"--templates {config.templates!r}: choose one of {', '.join(TEMPLATES)}")
    estimator = get_estimator(config.estimator)
    files = sorted((config.out / "confidence").glob("*.jsonl"))
    if not files:
        raise InbolError(f"{config.out / 'confidence'} holds no .jsonl file; run `inbol confidence --out {config.out}` first")
    for file in files:
        check_finished(file)
    inputs = list(files)
    if config.estimator == "p-true":
        for file in files:
            check_p_true(file)
        inputs += map(p_true_file, files)
    headers = [read_meta(file) for file in files]
    if len({h.get("images") for h in headers}) > 1 or len({h.get("model") for h in headers}) > 1:
        raise InbolError(f"the stores in {files[0].parent} are of different models or image folders; give each an --out of its own")
    records = read_records(files, config.thresholds, estimator)
    if left_out := sum(h["rows"] for h in headers) - len(records):
        say(f"{left_out} questions could not be asked for P(True), and are left out")
    classes = Counter((r.boundary, r.type == 3) for r in records)
    for boundary in (Boundary.KNOWN, Boundary.UNKNOWN):
        if not any(n for (b, _), n in classes.items() if b is boundary):
            raise InbolError(f"no question is {boundary}: nothing to teach; move the thresholds {config.thresholds} or use more data")
    templates = TEMPLATES[config.templates]
    instructions = list(make_instructions(records, templates, config.seed))
    preferences = list(make_preferences(records, templates, config.seed))
    images = os.path.relpath((files[0].parent / headers[0].get("images", ".")).resolve(), config.out.resolve())
    settings = {"command": "build", "inputs": file_fingerprint(*inputs), **dataclasses.asdict(config), "out": ""}
    meta: dict[str, Any] = settings | {"config": fingerprint(settings), "images": images}
    write_jsonl(config.out / "records.jsonl", (r.to_json() for r in records), meta)
    write_jsonl(config.out / "instructions.jsonl", (r.to_json() for r in instructions), meta)
    write_jsonl(config.out / "preferences.jsonl", (r.to_json() for r in preferences), meta)
    answerable = [r for r in records if r.type != 3]
    noisy = sum(within_noise(r, config.thresholds) for r in answerable) / max(1, len(answerable))
    say(
        f"{len(records)} records: "
        + ", ".join(f"{sum(r.boundary is b for r in answerable)} {b}" for b in Boundary)
        + f", {len(records) - len(answerable)} Type 3; {noisy:.0%} of the labels lie within sampling noise of a threshold"
    )
    kinds = Counter(p.kind.name.lower().replace("_", " ") for p in preferences)
    listed = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))
    say(f"{len(instructions)} instructions, {len(preferences)} pairs ({listed}) -> {config.out}")
