"""One model's greedy answers to one dataset, kept in a file that a stopped run goes on with."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from inbol_jax.answers import AnswerStore, Asker, ImageHashes, Row, from_row, to_row
from inbol_jax.confidence.estimate import REMEDY
from inbol_jax.confidence.sample_warnings import cut_warning
from inbol_jax.data.vqa import VQADataset
from inbol_jax.models.loading import load_without_weights
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt, PromptOptions, choose_prompt
from inbol_jax.records import VQAExample
from inbol_jax.responses.outcome import outcome
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engine_protocol import Engine
from inbol_jax.sampling.forced import answer_and_force, refusal_tokens
from inbol_jax.stage import SetAside

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
    """The judged answers by id; asks only for those that are not in the file, and of several
    processes each for its share.

    Args:
      engine: with the options of `greedy`.
      refusals: if there are any, the answers without them are asked for in the same pass
        (`sampling.forced`). This takes a `CheckpointEngine`.
      label: as in `Engine.generate`.

    Raises:
      InbolError: if more than `MAX_UNANSWERED` of the questions get no answer.
    """
    max_new_tokens = engine.options.max_new_tokens
    settings = {**engine.settings(), "max_new_tokens": max_new_tokens, "refusals": [*refusals]}
    keys = Asker(settings, prompt, images).keys(dataset.examples)
    unanswered, total = SetAside(MAX_UNANSWERED, option=""), len(dataset.examples)
    options = {"label": label, "set_aside": unanswered}

    def answers(pending: Sequence[VQAExample]) -> Iterator[dict[str, Row]]:
        if not refusals:
            for batch in engine.generate(pending, dataset.root, prompt=prompt, **options):
                yield {keys[e.id]: {"id": e.id, **to_row(said)} for e, said in batch}
            return
        forcing = {"refusals": refusals, "max_new_tokens": max_new_tokens}
        forcing |= {"batch_size": engine.batch_size}
        for batch in answer_and_force(
            engine.checkpoint.asked_by(prompt), pending, dataset.root, **forcing, **options
        ):
            yield {
                keys[e.id]: {
                    "id": e.id,
                    **to_row([answer.said]),
                    "forced": to_row([answer.forced]),
                    "logodds": round(answer.logodds, 5),
                    "margin": round(answer.margin, 5),
                }
                for e, answer in batch
            }

    index, count = engine.share()
    with AnswerStore(file, index) as store:
        share = dataset.examples[index::count]
        pending = [example for example in share if keys[example.id] not in store]
        for rows in answers(pending) if pending else ():
            store.add(rows)
        unanswered.report(label, total, REMEDY)
        rows = {
            example.id: store.read(keys[example.id], lambda row, e=example: judged_row(e, row))
            for example in dataset.examples
            if keys[example.id] in store
        }
    for line in cut_warning(label, sum(r["cut"] for r in rows.values()), len(rows), max_new_tokens):
        say(line)
    return rows


def judged_row(example: VQAExample, row: Row) -> Row:
    """The columns of a prediction, and whether it was cut."""
    said = from_row(row, 1)[0][0]
    judged = example.to_json() | {"forced": None}  # a column of that name is the dataset's own
    judged |= {"prediction": said.text, "outcome": outcome(example, said.text), "cut": said.cut}
    if "forced" in row:
        answer = from_row(row["forced"], 1)[0][0]
        judged["forced"] = {
            "prediction": answer.text,
            "outcome": outcome(example, answer.text),
            "logprob": answer.logprob,
            "logodds": row["logodds"],
            "margin": row["margin"],
        }
    return judged
