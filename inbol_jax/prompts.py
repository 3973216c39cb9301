"""How a question is asked: the template that its text is put into, and perhaps a system text.

A command asks all its questions by one `Prompt`: what its options name, else what the model's
folder says, else what the dataset's header says, else `DEFAULT`.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from inbol_jax.artifacts import meta_path, read_json, read_meta, write_json
from inbol_jax.errors import InbolError
from inbol_jax.progress import say
from inbol_jax.questions import WithOptions, lettered

FILE = "inbol.json"
"""The file in a checkpoint's folder that says how the model is asked."""
_OPTIONS = "{question}\n{options}"
_SHORT = "Answer the question using a single word or phrase."
# Source: LLaVA-1.5's evaluation (docs/Evaluation.md of its repository), which its successors keep.
PRESETS = {
    "bare": _OPTIONS,
    "short": f"{_OPTIONS}\n{_SHORT}",
    "letter": f"{_OPTIONS}\nAnswer with the option's letter from the given choices directly.",
    "vizwiz": f"{_OPTIONS}\nWhen the provided information is insufficient, "
    f"respond with 'Unanswerable'.\n{_SHORT}",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """How a model is asked.

    Attributes:
      prompt: one of `PRESETS`, or a template: a text with {question}, and with {options} if options
        are to be shown, each on a line with its letter. A question without options is asked as by
        `short` in place of `letter`.
      system: the system text; empty for none.

    Raises:
      InbolError: if the template has no place for the question, or one for something else.
    """

    prompt: str = "letter"
    system: str = ""

    def __post_init__(self) -> None:
        fields = {*re.findall(r"\{(\w*)\}", self.prompt)}
        if self.prompt not in PRESETS and not {"question"} <= fields <= {"question", "options"}:
            raise InbolError(
                f"prompt {self.prompt[:60]!r}: give one of {', '.join(PRESETS)}, or a text with "
                "{question}, perhaps {options}, and no other name in braces"
            )

    def text(self, question: WithOptions) -> str:
        """The whole text of the user's turn."""
        name = "short" if self.prompt == "letter" and not question.options else self.prompt
        template, options = PRESETS.get(name, name), "\n".join(lettered(question.options))
        if not options:  # without an empty line in their place
            template = template.replace("\n{options}", "")
        parts = {"question": question.question, "options": options}
        # In one pass: what a question or an option has in braces stays as it is.
        return re.sub(r"\{(question|options)\}", lambda found: parts[found[1]], template)

    def to_json(self) -> dict[str, str]:
        """The columns of a header, or of `FILE`."""
        return {"prompt": self.prompt, "system": self.system}

    def __str__(self) -> str:
        name = self.prompt if self.prompt in PRESETS else repr(self.prompt)
        return f"{name} with system {self.system!r}" if self.system else name


DEFAULT, BARE = Prompt(), Prompt("bare")


@dataclasses.dataclass(frozen=True)
class PromptOptions:
    """How questions are put to the model."""

    prompt: str = "auto"
    """How a question is asked: bare, short (for a word or phrase), letter (of an option, and short
    if there are none), vizwiz, or a text of your own with {question} and perhaps {options} in it.
    By default the model's folder says it, or else the dataset, or else it is letter."""
    system: str | None = None
    """System text, if the model's chat template takes one. By default it is the one that the
    model's folder names, if any."""

    def __post_init__(self) -> None:
        try:
            _ = self.named
        except InbolError as error:
            raise InbolError(f"--{error}") from error

    @property
    def named(self) -> Prompt | None:
        """The prompt that the option names, without a system text; None if it names none."""
        if self.prompt == "auto":
            return None
        return Prompt(self.prompt.replace(r"\n", "\n"))  # a line break is hard to type


AUTO = PromptOptions()


def choose_prompt(
    options: PromptOptions,
    own: Prompt | None,
    data: Iterable[Path],
    *,
    model: object,
    tell: Callable[[str], object] = say,
) -> Prompt:
    """The prompt of a command, as the module says.

    Args:
      own: what the model's folder says.
      data: the files of the datasets.
      model: what messages call the model.
      tell: gets the line that says which prompt it is, and a warning if it is not the model's own.
    Raises:
      InbolError: if the choice is left to datasets that differ.
    """
    if named := options.named:
        chosen, by = named, "--prompt"
    elif own:
        chosen, by = own, "the model's own"
    else:
        chosen, by = _prompt_of_data(data) or DEFAULT, "by default"
    system = own.system if own else ""
    if options.system is not None:
        system = options.system.strip()
    prompt = dataclasses.replace(chosen, system=system)
    tell_prompt(prompt, by, own, model=model, tell=tell)
    return prompt


def tell_prompt(
    prompt: Prompt,
    by: str,
    own: Prompt | None,
    *,
    model: object,
    tell: Callable[[str], object] = say,
) -> None:
    """Tells how a model is asked, and who chose it, with a warning if its folder says otherwise."""
    tell(f"prompt {prompt} ({by}): {PRESETS.get(prompt.prompt, prompt.prompt)!r}")
    if own and own != prompt:
        tell(f"warning: {model} is asked with prompt {prompt}, and its {FILE} says {own}")


def _prompt_of_data(data: Iterable[Path]) -> Prompt | None:
    """What the headers of the datasets say; None if none of them says anything."""
    said = {prompt: file for file in data if (prompt := header_prompt(file))}
    if len(said) > 1:
        (one, file), (other, other_file) = list(said.items())[:2]
        raise InbolError(
            f"{file} is asked with prompt {one}, and {other_file} with {other}: give --prompt"
        )
    return next(iter(said), None)


def header_prompt(file: Path) -> Prompt | None:
    """What the header of a file of questions says of how they are asked; None if nothing."""
    header = read_meta(file)
    return None if header.get("prompt") is None else _read(header, meta_path(file))


def read_prompt(*folders: Path | None) -> Prompt | None:
    """What the first of these folders of a checkpoint that says it says of how the model is asked;
    None if none does.

    Raises:
      InbolError: if its `FILE` cannot be read.
    """
    files = (folder / FILE for folder in folders if folder)
    file = next(filter(Path.is_file, files), None)
    return _read(read_json(file), file) if file else None


def write_prompt(folder: Path, prompt: Prompt) -> None:
    """Makes a checkpoint's folder say how the model is asked."""
    write_json(folder / FILE, prompt.to_json())


def _read(said: Mapping[str, Any], file: Path) -> Prompt:
    texts = [said.get("prompt"), said.get("system", "")]
    if not all(isinstance(text, str) for text in texts):
        raise InbolError(f'{file}: "prompt" must be a text, and "system" as well')
    try:
        return Prompt(*texts)
    except InbolError as error:
        raise InbolError(f"{file}: {error}") from error
