"""What commands ask: the protocol of a checkpoint and of a model behind an endpoint.

A command that samples is given an `Engine` by the table of commands, so it needs no model.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from inbol_jax.answers import Generation
from inbol_jax.prompts import Prompt, PromptOptions
from inbol_jax.records import VQAExample
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.sampling.config import SamplingOptions

Batches = Iterator[list[tuple[VQAExample, list[Generation]]]]
SetAside = Callable[[VQAExample, str], None]  # gets what cannot be asked, and why


class EngineOptions(Protocol):
    """The options that say which engine a command asks."""

    model: Path
    endpoint: EndpointConfig
    sampling: SamplingOptions
    seed: int
    batch_size: int
    dtype: str
    mesh: tuple[int, int, int]


class Engine(Protocol):
    """Samples responses to questions, always with the same options.

    It is opened before anything is read; weights are loaded when they are first needed.
    """

    options: SamplingOptions

    def settings(self) -> dict[str, Any]:
        """What identifies the model, for headers: resuming with another one is refused."""

    def share(self) -> tuple[int, int]:
        """Which process this is, and of how many that share the questions out among them."""

    def choose_prompt(self, options: PromptOptions, data: Iterable[Path]) -> Prompt:
        """How the model is asked (`prompts.choose_prompt`); reads no weight.

        Raises:
          InbolError: if the model cannot be asked, or not with that prompt.
        """

    def generate(
        self,
        examples: Sequence[VQAExample],
        images: Path,
        *,
        prompt: Prompt,
        label: str,
        set_aside: SetAside,
    ) -> Batches:
        """Yields finished batches, as `sampling.generate.generate`."""

    def p_true(
        self,
        questions: Iterable[tuple[VQAExample, str]],
        images: Path,
        *,
        prompt: Prompt,
        total: int,
        label: str,
        set_aside: SetAside,
    ) -> Iterator[list[tuple[VQAExample, float]]]:
        """Yields finished batches, as `sampling.p_true.self_evaluate`. Endpoints cannot do it."""
