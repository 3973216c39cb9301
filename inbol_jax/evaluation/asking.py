"""One model's greedy answers to one dataset, kept in a file that a stopped run goes on with."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import read_jsonl
from inbol_jax.confidence.doubts import cut_warning
from inbol_jax.confidence.store import ConfidenceStore
from inbol_jax.data.images import ImageHashes
from inbol_jax.data.vqa import VQADataset
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import load_without_weights
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt, PromptOptions, choose_prompt
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engines import Engine
from inbol_jax.sampling.forced import ForcedAnswer, answer_and_force, refusal_tokens

Row = dict[str, Any]
MAX_UNANSWERED = 0.1  # the share of the questions from which on a model counts as not answering


def prompts_for(
    model: Path,
    options: PromptOptions,
    files: Sequence[Path],
    refusals: Sequence[str],
    tell: Callable[[str], object],
) -> list[Prompt]:
    """The prompt with which a checkpoint is asked the questions of each file; reads no weight.

    Args:
      refusals: as in `ask`.
      tell: as in `choose_prompt`.
    Raises:
      InbolError: if the checkpoint cannot be asked, or not with that prompt.
    """
    checkpoint = load_without_weights(model)
    prompts = [
        choose_prompt(options, checkpoint.prompt, [file], model=model, tell=tell) for file in files
    ]
    for prompt in dict.fromkeys(prompts):
        encoder = make_text_encoder(checkpoint.asked_by(prompt))
        if refusals:
            refusal_tokens(encoder, refusals)
    return prompts


def greedy(max_new_tokens: int) -> SamplingOptions:
    """The options of the answers that are compared."""
    return SamplingOptions(n=1, temperature=0.0, max_new_tokens=max_new_tokens)


def ask(
    engine: Engine,
    dataset: VQADataset,
    images: ImageHashes,
    file: Path,
    *,
    prompt: Prompt,
    refusals: Sequence[str],
    label: str,
) -> dict[str, Row]:
    """The answers by id; asks only for those that are not in the file.

    Answers of another model, or that were asked for with other options, are replaced.

    Args:
      engine: with the options of `greedy`.
      refusals: if there are any, the answers without them are asked for in the same pass
        (`sampling.forced`). This takes a `CheckpointEngine`.
      label: as in `Engine.generate`.

    Raises:
      InbolError: if more than `MAX_UNANSWERED` of the questions get no answer.
    """
    max_new_tokens = engine.options.max_new_tokens
    settings = {"command": "evaluate", **engine.settings(), "max_new_tokens": max_new_tokens}
    settings |= prompt.to_json()
    if refusals:
        settings["refusals"] = list(refusals)
    scored = functools.partial(_scored, forced=bool(refusals))
    unanswered: list[tuple[VQAExample, str]] = []
    options = {"label": label, "set_aside": lambda *rejection: unanswered.append(rejection)}

    def answers(pending: Sequence[VQAExample]) -> Iterator[list[Row]]:
        if not refusals:
            for batch in engine.generate(pending, dataset.root, prompt=prompt, **options):
                yield [
                    scored(e, {"prediction": said.text, "cut": said.cut}) for e, (said,) in batch
                ]
            return
        forcing = {"refusals": refusals, "max_new_tokens": max_new_tokens}
        forcing |= {"batch_size": engine.batch_size}
        for batch in answer_and_force(
            engine.checkpoint.asked_by(prompt), pending, dataset.root, **forcing, **options
        ):
            yield [scored(e, _row(answer)) for e, answer in batch]

    with ConfidenceStore(file, settings, images, replace=True) as store:
        store.update(dataset.examples, dataset.file, scored, ask_again=True)
        if pending := store.pending(dataset.examples):
            for rows in answers(pending):
                store.append(rows)
        store.finish(len(dataset.examples) - len(store.done))
    if unanswered:
        _say_unanswered(unanswered, len(dataset.examples), label)
    rows = {row["id"]: row for row in read_jsonl(file)}
    for line in cut_warning(label, sum(r["cut"] for r in rows.values()), len(rows), max_new_tokens):
        say(line)
    return rows


def _say_unanswered(unanswered: Sequence[tuple[VQAExample, str]], total: int, label: str) -> None:
    """Says which questions got no answer. Raises InbolError if more than `MAX_UNANSWERED` did."""
    ids, more = [example.id for example, _ in unanswered[:5]], "..." if unanswered[5:] else ""
    about = f"{label}: {len(unanswered)} of {total} questions got no answer ({', '.join(ids)}{more}"
    about += f"; the first one because: {unanswered[0][1]})"
    if len(unanswered) > MAX_UNANSWERED * total:
        raise InbolError(
            f"{about}, and at most {MAX_UNANSWERED:.0%} may be left out. The same command asks for "
            "them again and keeps the others; if images cannot be read, `inbol data import` makes "
            "a dataset without them, and a busy endpoint needs a higher --endpoint-retries or "
            "--endpoint-timeout, or a lower --endpoint-concurrency"
        )
    say(f"{about}, and are left out for all models")


def _row(answer: ForcedAnswer) -> Row:
    forced = {
        "prediction": answer.forced.text,
        "logprob": round(answer.forced.logprob, 5),
        "logodds": round(answer.logodds, 5),
        "margin": round(answer.margin, 5),
    }
    return {"prediction": answer.said.text, "cut": answer.said.cut, "forced": forced}


def _scored(example: VQAExample, row: Row, *, forced: bool) -> Row:
    """The line of an example, given its answers: their outcomes follow the example's answers."""
    scored = example.to_json() | _with_outcome(example, row, ("prediction", "cut"))
    if forced:  # otherwise a column of that name is the dataset's own
        columns = ("prediction", "logprob", "logodds", "margin")
        scored["forced"] = _with_outcome(example, row["forced"], columns)
    return scored


def _with_outcome(example: VQAExample, row: Row, columns: Sequence[str]) -> Row:
    kept = {name: row[name] for name in columns}
    return kept | {"outcome": outcome(example, kept["prediction"])}
