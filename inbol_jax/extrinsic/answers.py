"""What a model says to questions about images, kept in a store of answers."""

from collections.abc import Sequence
from pathlib import Path

from inbol_jax.answers import AnswerStore, Asker, Generation, ImageHashes, from_row, to_row
from inbol_jax.extrinsic.config import ExtrinsicConfig
from inbol_jax.extrinsic.generators import Answerer
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.models.processor import prompt_for
from inbol_jax.prompts import DEFAULT
from inbol_jax.records import VQAExample
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engines import CheckpointEngine
from inbol_jax.sharding import make_mesh
from inbol_jax.stage import SetAside

MAX_NEW_TOKENS = 12


def open_model(config: ExtrinsicConfig, data: Path) -> Checkpoint:
    """The checkpoint of `--model`, asked as the options, its folder or the dataset's header say."""
    assert config.model is not None
    prompt = prompt_for(config.model, config.prompt, [data])
    mesh = make_mesh(*config.mesh)
    return load_pretrained(config.model, dtype=config.dtype, mesh=mesh).asked_by(prompt)


def greedy_answers(
    checkpoint: Checkpoint, store: AnswerStore, root: Path, *, batch_size: int
) -> Answerer:
    """The most probable answers of a checkpoint, asked as its `prompt` says. Only what the store
    does not hold yet is asked.

    Args:
      root: image folder.
    """
    options = SamplingOptions(n=1, temperature=0.0, max_new_tokens=MAX_NEW_TOKENS)
    engine = CheckpointEngine(lambda: checkpoint, options, 0, batch_size)
    settings, prompt = engine.settings() | {"tokens": MAX_NEW_TOKENS}, checkpoint.prompt or DEFAULT

    def answers(questions: Sequence[VQAExample], label: str) -> list[Generation | None]:
        # A picture of the same name may be another one the next time, so no hash is remembered.
        asker = Asker(settings, prompt, ImageHashes(root))
        keys = asker.keys(questions)
        new = {keys[q.id]: q for q in questions if keys[q.id] not in store}
        set_aside = SetAside(most=1.0)  # the caller counts those without an answer
        if new:
            how = {"prompt": prompt, "label": None, "set_aside": set_aside}
            for batch in engine.generate(list(new.values()), root, **how):
                store.add({keys[question.id]: to_row(said) for question, said in batch})
        set_aside.report(label, len(new), remedy="")
        said = (keys[question.id] for question in questions)
        return [
            store.read(key, lambda row: from_row(row, 1))[0][0] if key in store else None
            for key in said
        ]

    return answers
