"""What a model says to a question about a picture, and whether it should have refused.

    python examples/ask.py --model runs/demo/ca_dpo/model --picture photo.png \
      --question "What color is the star?" --answers red
"""

import dataclasses
from pathlib import Path

import tyro

import inbol_jax
from inbol_jax.defaults import TINY


@dataclasses.dataclass(frozen=True)
class Config:
    picture: Path
    question: str
    model: Path = TINY
    answers: tuple[str, ...] = ()
    """The gold answers, for the confidence; none for a question that cannot be answered."""
    templates: str = "short"
    """The refusals that the model was taught; the demo's are short."""


def main(config: Config) -> None:
    model = inbol_jax.load(config.model, templates=config.templates)
    said = model.ask(config.picture, config.question)
    print(f"{said.text}   (likelihood {said.likelihood:.2f}, refused: {said.refusal or 'no'})")
    print(f"chance of refusing: {said.chance_of_refusing:.2f}")
    samples = [answer.text for answer in model.sample(config.picture, config.question)]
    print(f"ten samples: {', '.join(samples)}")
    if config.answers:
        share, low, high = model.confidence(config.picture, config.question, config.answers)
        print(f"confidence: {share:.1f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
