"""`inbol confidence --try-prompts`: with which prompt a model answers best, on a hundred questions.

Nothing is stored. Which prompt serves a model cannot be read off its size or family.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inbol_jax.confidence.boundary import Boundary, classify
from inbol_jax.confidence.config import ConfidenceConfig
from inbol_jax.confidence.sample_warnings import cut_warning
from inbol_jax.confidence.samples import sampled_question
from inbol_jax.data.importing import open_dataset
from inbol_jax.data.vqa import VQADataset
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.prompts import Prompt, header_prompt
from inbol_jax.records import VQAExample
from inbol_jax.sampling.engine_protocol import Engine
from inbol_jax.stage import SetAside

QUESTIONS = 100  # that each prompt is tried on
LOW = 0.05  # a mean confidence below which hardly any answer matches


class Trial(NamedTuple):
    """What came of one prompt.

    Attributes:
      confidence: the mean over the questions.
      shares: of the questions that are Known, Mixed and Unknown.
      cut: share of the answers that were cut at --max-new-tokens.
      answer, gold: of one question, the same for all prompts.
    """

    prompt: Prompt
    confidence: float
    shares: dict[Boundary, float]
    cut: float
    answer: str
    gold: str


def try_prompts(config: ConfidenceConfig, engine: Engine) -> list[Trial]:
    """Asks the same questions with each prompt that fits, and says one row per prompt.

    Raises:
      InbolError: for what is wrong with data, model or options, or if questions cannot be asked.
    """
    dataset = open_dataset(config.data, out=config.out, max_rejected=config.max_rejected)
    examples = _draw(dataset, config.seed)
    default = engine.choose_prompt(config.prompt, [dataset.file])
    fitting = _fitting(examples, default, header_prompt(dataset.file))
    trials = [_try(prompt, engine, dataset, examples, config) for prompt in fitting]
    for line in _table(trials, config.sampling.max_new_tokens):
        say(line)
    return trials


def _draw(dataset: VQADataset, seed: int) -> list[VQAExample]:
    """Random answerable questions; all of them if there are no more than `QUESTIONS`."""
    order = np.random.default_rng(seed).permutation(len(dataset.examples)).tolist()
    examples = (dataset.examples[i] for i in order)
    answerable = (e for e in examples if e.answerable is not False and e.answers)
    drawn = list(itertools.islice(answerable, QUESTIONS))
    if not drawn:
        raise InbolError(f"{dataset.file}: holds no question with an answer to try prompts on")
    return drawn


def _fitting(
    examples: Sequence[VQAExample], default: Prompt, of_data: Prompt | None
) -> list[Prompt]:
    """The prompts that are tried: presets that fit, what the dataset says, and the default."""
    names = ["bare", "short"]
    if any(example.options for example in examples):
        names.append("letter")
    elif default.prompt == "letter":  # which is the same
        default = dataclasses.replace(default, prompt="short")
    if of_data:
        names.append(of_data.prompt)
    prompts = [Prompt(name, default.system) for name in names]
    return list(dict.fromkeys([*prompts, default]))


def _try(
    prompt: Prompt,
    engine: Engine,
    dataset: VQADataset,
    examples: Sequence[VQAExample],
    config: ConfidenceConfig,
) -> Trial:
    set_aside, label = SetAside(config.max_rejected), f"prompt {prompt}"
    batches = engine.generate(
        examples, dataset.root, prompt=prompt, label=label, set_aside=set_aside
    )
    asked = {e.id: sampled_question(e, said) for batch in batches for e, said in batch}
    set_aside.report(label, len(examples), "give a --prompt of your own, or mend the questions")
    questions = [asked[example.id] for example in examples if example.id in asked]
    counts = Counter(classify(q.n_correct, q.n_samples, config.thresholds) for q in questions)
    shown = questions[0]
    return Trial(
        prompt,
        float(np.mean([q.confidence for q in questions])),
        {boundary: counts[boundary] / len(questions) for boundary in Boundary},
        float(np.mean([sample.cut for q in questions for sample in q.samples])),
        Counter(s.text for s in shown.samples).most_common(1)[0][0],
        shown.example.answer_texts[0],
    )


def _table(trials: Sequence[Trial], max_new_tokens: int) -> list[str]:
    """A row per prompt, and what to do."""
    width = max(len(str(trial.prompt)) for trial in trials)
    shares = "".join(f"{boundary.value.capitalize():>9}" for boundary in Boundary)
    lines = [f"{'prompt':{width}}  confidence{shares}      cut  an answer, and the gold one"]
    for prompt, confidence, shares_of, cut, answer, gold in trials:
        shares = "".join(f"{shares_of[boundary]:9.0%}" for boundary in Boundary)
        line = f"{prompt!s:{width}}  {confidence:10.3f}{shares}  {cut:7.0%}"
        lines.append(f"{line}  {answer!r}, {gold!r}")
    best = max(trials, key=lambda trial: trial.confidence)
    if best.confidence < LOW:
        lines.append(
            "no prompt gives answers that match: compare the answers with the gold ones, and try a "
            "--prompt of your own, a higher --max-new-tokens or another metric of the dataset"
        )
    else:
        lines.append(f"the highest mean confidence has --prompt {best.prompt.prompt!r}")
    return [*lines, *cut_warning(f"prompt {best.prompt}", best.cut, 1, max_new_tokens)]
