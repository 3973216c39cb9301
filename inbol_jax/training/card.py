"""The card of a trained model: README.md in its folder, which the hub shows."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from inbol_jax.artifacts import write_atomically
from inbol_jax.models.loading import Checkpoint
from inbol_jax.prompts import PRESETS
from inbol_jax.training.config import RunConfig

# Where files lie on the machine of the run is nobody's business, and decides nothing.
_OF_THE_MACHINE = {"data", "out", "model", "images", "eval_data", "mesh", "distributed"}


def write_card(
    folder: Path, checkpoint: Checkpoint, config: RunConfig, *, method: str, steps: int
) -> None:
    """Writes what the model is, how it was trained, how it is to be asked and how it is loaded.

    A card that is there stays: its owner may have edited it.
    """
    file = folder / "README.md"
    if file.exists():
        return
    template = Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")
    prompt, base = checkpoint.prompt, checkpoint.hub_id
    card = jinja2.Template(template, keep_trailing_newline=True, trim_blocks=True).render(
        adapters=checkpoint.model.lora is not None,
        base=base or f"path/to/{checkpoint.path.name}",
        rank=checkpoint.model.lora and checkpoint.model.lora.rank,
        on_hub=base is not None,
        method=method,
        steps=steps,
        options=dict(_changed(config)),
        prompt=prompt and PRESETS.get(prompt.prompt, prompt.prompt),
        without_options=PRESETS["short"] if prompt and prompt.prompt == "letter" else None,
        system=prompt and prompt.system,
    )
    write_atomically(file, card.encode())


def _changed(options: Any) -> Iterator[tuple[str, Any]]:
    """The options that are not as by default, by their names on the command line."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from _changed(value)
        elif field.name not in _OF_THE_MACHINE and value != field.default:
            words = map(str, value if isinstance(value, list | tuple) else (value,))
            yield f"--{field.name.replace('_', '-')}", " ".join(words).replace("|", "\\|")
