"""`inbol extrinsic`: Type 3 questions about the images of a dataset, as a dataset of their own."""

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Both register their generators.
import inbol_jax.extrinsic.other_image
import inbol_jax.extrinsic.unreadable  # noqa: F401
from inbol_jax.answers import AnswerStore
from inbol_jax.artifacts import atomic_lines, file_fingerprint, json_line, one_writer, read_jsonl
from inbol_jax.data.vqa import VQADataset, load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic import audit, evidence
from inbol_jax.extrinsic.config import ExtrinsicConfig
from inbol_jax.extrinsic.files import QUESTIONS, read_header
from inbol_jax.extrinsic.funnel import NOTHING, Funnel
from inbol_jax.extrinsic.generators import Context, get_generators
from inbol_jax.progress import progress, say
from inbol_jax.prompts import header_prompt
from inbol_jax.records import VQAExample
from inbol_jax.stage import Stage

# They ask the dataset's own questions, so the words tell nothing.
GENERATORS = ("other_image", "unreadable")


@one_writer
def extrinsic(config: ExtrinsicConfig) -> Path:
    """Writes the questions, unless they are there already. Returns their file.

    Raises:
      InbolError: for what is wrong with the options, the data or the model, or if the dataset gives
        no such question.
    """
    get_generators(config.generators)
    dataset = load_dataset_folder(config.data, max_rejected=config.max_rejected)
    names = "share", "seed", "generators"
    settings = {name: getattr(config, name) for name in names}
    inputs = {"data": file_fingerprint(dataset.file)}
    if config.model is not None:
        from inbol_jax.extrinsic.answers import greedy_answers, open_model  # these import JAX

        checkpoint = open_model(config, dataset.file)
        inputs["model"] = checkpoint.fingerprint
        settings |= {"dtype": checkpoint.model.dtype.name, **checkpoint.prompt.to_json()}
    file = config.out / QUESTIONS
    with Stage(file, "extrinsic", settings, inputs=inputs) as stage:
        if not stage.finished:
            context = Context(_answerable_by_one_image(dataset), dataset.root)
            with contextlib.ExitStack() as stack:
                if config.model is not None:
                    answers = AnswerStore(config.out / "extrinsic.answers.jsonl", process=0)
                    store = stack.enter_context(answers)
                    context.model = greedy_answers(
                        checkpoint, store, dataset.root, batch_size=config.batch_size
                    )
                _write(config, context, stage, dataset.file)
    header = read_header(config.out)
    if header.set_aside:
        say(f"set aside by a generator: {_list(header.set_aside)}")
    if config.model is None and header.counts.get("unreadable: kept") == header.rows:
        say("in none of their images anything can be seen; --model finds better ones")
    say(f"{header.rows} Type 3 questions ({_list(header.counts)}) -> {file}")
    return file


def _answerable_by_one_image(dataset: VQADataset) -> list[VQAExample]:
    """The questions that Type 3 questions are made from: all generators need an image, and one."""
    answerable = [example for example in dataset.examples if example.answerable is not False]
    of_one_image = [example for example in answerable if len(example.images) == 1]
    if others := len(answerable) - len(of_one_image):
        say(f"{others} questions about several images, or none, are left out")
    if not of_one_image:
        raise InbolError(
            f"{dataset.file}: holds no question that one image answers; Type 3 questions are made "
            "from those"
        )
    return of_one_image


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())


def _write(config: ExtrinsicConfig, context: Context, stage: Stage, source: Path) -> None:
    """Writes the questions, and then their header, without which they are not finished."""
    default = (*GENERATORS, evidence.NAME) if context.model else GENERATORS
    generators = get_generators(config.generators or default)
    for generator in generators:
        if generator.check:
            generator.check(context)
    rows = 0
    with (
        progress("generating", len(context.pool), "images") as advance,
        atomic_lines(stage.file) as questions,
    ):
        funnel = Funnel(context, generators, seed=config.seed, advance=advance)
        for row in funnel.questions(max(1, round(config.share * len(context.pool)))):
            questions.write(json_line(row))
            rows += 1
        if not rows:
            raise InbolError(f"{source}: {_why_none(funnel)}")
    _check_tell(config, context.pool, stage.file)
    out = config.out.resolve()
    said = header_prompt(source)
    stage.finish(
        rows,
        **(said.to_json() if said else {}),  # the questions are asked as those of the dataset
        images=os.path.relpath(context.root.resolve(), out),
        data=os.path.relpath(source.resolve(), out),
        generators=[generator.name for generator in generators],
        counts=_by_text(funnel.verdicts),
        set_aside=_by_text(funnel.set_aside),
    )


def _check_tell(config: ExtrinsicConfig, pool: Sequence[VQAExample], file: Path) -> None:
    """Says how well the text alone tells the questions, which a model would learn as well.

    Raises:
      InbolError: if it does so too well.
    """
    questions = [*read_jsonl(file, audit.AuditedQuestion.from_json)]
    rng = np.random.default_rng(config.seed)
    own = audit.answerable(pool, rng)
    text = audit.text_shortcut(audit.some(questions, rng), own, config.seed)
    distinct = len({question.question for question in questions})
    line = f"{len(questions)} questions of {distinct} distinct sentences"
    if text is None:
        say(f"{line}; too few to test whether their text alone tells them")
        return
    auc = text["auc"]["all"]["value"]
    line = f"{line}; the text alone tells them from the dataset's own with an AUC of {auc:.2f}"
    remedy = "the default --generators lower that" if config.generators else "see `inbol audit`"
    if auc > audit.STOPPING_AUC and not config.allow_tell:
        raise InbolError(
            f"{line}, and a model would learn to refuse by wording: {remedy}; or --allow-tell"
        )
    say(line + (f": {remedy}" if auc > audit.TELLING_AUC else ""))


def _by_text(counts: Counter[tuple[str, str]]) -> dict[str, int]:
    """By "generator: verdict" or "generator: cause"."""
    return {": ".join(key): n for key, n in sorted(counts.items())}


def _why_none(funnel: Funnel) -> str:
    """Why there is no question, and what to do."""
    if not funnel.verdicts and {cause for _, cause in funnel.set_aside} <= {NOTHING}:
        return (
            "no question names a subject ('the ...') that could be asked about; add unreadable to "
            "--generators"
        )
    causes = (funnel.verdicts + funnel.set_aside).most_common(5)
    why = ", ".join(f"{generator}: {cause} {n}" for (generator, cause), n in causes)
    return f"no question is left ({why}); choose other --generators"
