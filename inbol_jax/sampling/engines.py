"""The engines: a checkpoint on this machine's devices, and a model behind an endpoint."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from inbol_jax.answers import Generation
from inbol_jax.artifacts import hash64
from inbol_jax.errors import InbolError
from inbol_jax.models.loading import Checkpoint, load_pretrained
from inbol_jax.models.processor import prompt_for
from inbol_jax.progress import progress, say
from inbol_jax.prompts import Prompt, PromptOptions, choose_prompt
from inbol_jax.records import VQAExample
from inbol_jax.responses.chat import ChatQuestion, Choice
from inbol_jax.responses.config import ENDPOINT, EndpointConfig
from inbol_jax.responses.endpoint import Endpoint
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.engine_protocol import Batches, Engine, EngineOptions, SetAside
from inbol_jax.sampling.generate import generate
from inbol_jax.sampling.p_true import self_evaluate
from inbol_jax.sharding import make_mesh


def open_engine(config: EngineOptions) -> Engine:
    """What the options name: the endpoint's model, or else the checkpoint, which is not loaded yet.

    Raises:
      InbolError: if the endpoint's options cannot be.
    """
    if config.endpoint.endpoint:
        return EndpointEngine(config.endpoint, config.sampling, config.seed)

    def load() -> Checkpoint:
        mesh = make_mesh(*config.mesh, devices=jax.local_devices())
        return load_pretrained(config.model, dtype=config.dtype, mesh=mesh)

    return CheckpointEngine(load, config.sampling, config.seed, config.batch_size, config.model)


@dataclasses.dataclass(frozen=True)
class CheckpointEngine:
    """A checkpoint on this machine's devices.

    Attributes:
      load: gives the checkpoint, when it is first needed.
      place: the folder or hub id from which `choose_prompt` reads how it is asked.
    """

    load: Callable[[], Checkpoint]
    options: SamplingOptions
    seed: int
    batch_size: int
    place: str | Path = ""

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint in memory."""
        return self.load()

    def settings(self) -> dict[str, Any]:
        """The checkpoint's fingerprint, and its dtype."""
        dtype = self.checkpoint.model.dtype.name
        return {"model": self.checkpoint.fingerprint, "dtype": dtype}

    def share(self) -> tuple[int, int]:
        """Which of the processes of `--distributed` this is, and how many there are."""
        return jax.process_index(), jax.process_count()

    def choose_prompt(self, options: PromptOptions, data: Iterable[Path]) -> Prompt:
        """As `processor.prompt_for`."""
        return prompt_for(self.place, options, data)

    def generate(
        self,
        examples: Sequence[VQAExample],
        images: Path,
        *,
        prompt: Prompt,
        **shown: Any,
    ) -> Batches:
        """As `sampling.generate.generate`, to which label and set_aside go."""
        own = {"options": self.options, "seed": self.seed, "batch_size": self.batch_size}
        return generate(self.checkpoint.asked_by(prompt), examples, images, **own, **shown)

    def p_true(
        self,
        questions: Iterable[tuple[VQAExample, str]],
        images: Path,
        *,
        prompt: Prompt,
        **shown: Any,
    ) -> Iterator[list[tuple[VQAExample, float]]]:
        """As `sampling.p_true.self_evaluate`, to which total, label and set_aside go."""
        asked = self.checkpoint.asked_by(prompt)
        return self_evaluate(asked, questions, images, batch_size=self.batch_size, **shown)


# Who is not told that samples are neither truncated nor penalised takes what the model's
# generation_config.json says, or defaults of its own.
_PLAIN = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
_MAX_CHOICES = 128  # per request, as at OpenAI
_WITHHELD = ("content_filter", "abort", "error")  # why an answer ends that is not the model's own
_DOUBTFUL = 5  # questions in a row, all answers to each of which were the same


class EndpointEngine:
    """A model behind an OpenAI-compatible endpoint. Nothing of it touches a device.

    Seeds, several answers per request and log-probabilities are asked for, unless
    `EndpointConfig.endpoint_without` names them.
    """

    def __init__(self, config: EndpointConfig, options: SamplingOptions, seed: int):
        """Raises InbolError for what is wrong with the options; nothing is sent."""
        self.options, self._seed, self._name = options, seed, config.endpoint_model
        # What the options say is sent in any case; `top_logprobs`, as llama.cpp lists 20 at each
        # place if it is not told.
        fields = _PLAIN | {"logprobs": True, "top_logprobs": 1, "seed": 0, "n": options.n}
        without = {*config.endpoint_without, *(["n"] if options.n == 1 else [])}
        without |= {"top_logprobs"} if "logprobs" in without else set()
        fields = {name: value for name, value in fields.items() if name not in without}
        fields |= {"top_k": options.top_k} if options.top_k else {}
        self._sent = frozenset(fields)
        self._alike = 0
        self._endpoint = Endpoint(
            config,
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_new_tokens,
            **fields,
        )

    def settings(self) -> dict[str, Any]:
        """The model's name. Its address may change."""
        return {"model": f"{ENDPOINT}{self._name}"}

    def share(self) -> tuple[int, int]:
        """One process asks an endpoint."""
        return 0, 1

    def choose_prompt(self, options: PromptOptions, data: Iterable[Path]) -> Prompt:
        """As `prompts.choose_prompt`; nobody knows which prompt the model would name."""
        return choose_prompt(options, None, data, model=self._name)

    def generate(
        self,
        examples: Sequence[VQAExample],
        images: Path,
        *,
        prompt: Prompt,
        label: str,
        set_aside: SetAside,
    ) -> Batches:
        """Yields the examples with their responses, in the order of the examples until a signal
        comes (`Endpoint.map`).

        The seed of a response depends on the engine's seed, on the question's id and on how many
        responses the question has before it.

        Raises:
          InbolError: as `Endpoint.map`.
        """
        sample = functools.partial(self._sample, images, prompt)
        answered = self._endpoint.map(sample, examples)
        with (
            contextlib.closing(answered),
            progress(label, len(examples), "questions", boundary=False) as advance,
        ):
            for batch in answered:
                for example, responses in batch:
                    if isinstance(responses, InbolError):
                        set_aside(example, str(responses))
                    else:
                        self._doubt(responses)
                yield [pair for pair in batch if not isinstance(pair[1], InbolError)]
                advance(len(batch))

    async def _sample(self, images: Path, prompt: Prompt, example: VQAExample) -> list[Generation]:
        """Asks until all answers are there: an endpoint may give fewer than were asked for.

        Raises InbolError as `Endpoint.messages` and `Endpoint.choices`, and if an answer was
        withheld.
        """
        files = tuple(images / name for name in example.images)
        question = ChatQuestion(prompt.text(example), files, prompt.system)
        messages, answers = await self._endpoint.messages(question), list[Choice]()
        # From the id: a run that resumes, or asks in another order, sends the same seeds.
        seed = hash64(f"{self._seed}:{example.id}") >> 34  # 30 bits: servers take signed 32
        # 10 answers of a server that gives 4 per request: 4, 4, 2, with the seeds s, s + 4, s + 8.
        while (missing := self.options.n - len(answers)) > 0:
            fields = {"n": min(missing, _MAX_CHOICES), "seed": seed + len(answers)}
            fields = {name: x for name, x in fields.items() if name in self._sent}
            choices = await self._endpoint.choices(messages, **fields)
            if withheld := {c.finish_reason for c in choices if c.finish_reason in _WITHHELD}:
                raise InbolError(f"an answer was withheld (finish_reason {min(withheld)!r})")
            answers += choices[: fields.get("n", 1)]
        return [
            Generation(c.text.strip(), c.logprob, c.tokens, cut=c.finish_reason == "length")
            for c in answers
        ]

    def _doubt(self, responses: Sequence[Generation]) -> None:
        """Warns once of a server that may draw all answers of a request from one seed."""
        if self.options.temperature and len(responses) > 1:
            self._alike = self._alike + 1 if len({r.text for r in responses}) == 1 else 0
        if self._alike == _DOUBTFUL:
            say(
                f"Warning: {self._name} gave the same answer {len(responses)} times to each of "
                f"{_DOUBTFUL} questions; if it draws all answers of a request from one seed, give "
                "--endpoint-without n"
            )
