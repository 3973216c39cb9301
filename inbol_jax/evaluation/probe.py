"""`inbol probe`: which questions to refuse, as a linear function of a model's hidden state.

The state is the last one of the prompt, after the last norm, from which the first token of the
response follows. The model stays as it is, and what is learnt is one weight per dimension. Source:
the classifiers on hidden states of Azaria & Mitchell 2023 (arXiv 2304.13734), with the labels of
training: a refusal is worth more than what the model says, see `user_value`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from safetensors import SafetensorError, safe_open

from inbol_jax.artifacts import atomically, canonical_json, one_writer, read_jsonl, read_meta
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.config import ProbeConfig
from inbol_jax.evaluation.selective import auroc
from inbol_jax.models.loading import Checkpoint, load_pretrained, load_without_weights
from inbol_jax.models.processor import make_text_encoder, prompt_for
from inbol_jax.models.vlm import VisionLanguageModel
from inbol_jax.models.writing import write_tensors
from inbol_jax.progress import say
from inbol_jax.prompts import AUTO, Prompt
from inbol_jax.records import BoundaryRecord, VQAExample
from inbol_jax.sampling.generate import BatchRunner, encode_prompts
from inbol_jax.sharding import COMPILER_OPTIONS, make_mesh
from inbol_jax.stage import SetAside

FILE = "probe.safetensors"
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # inverse strengths, as scikit-learn counts
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Probe:
    """A logit of refusing: state @ weight + bias, of a state in f32[d]."""

    weight: np.ndarray
    bias: float

    def scores(
        self, checkpoint: Checkpoint, examples: Sequence[VQAExample], images: Path, **options: Any
    ) -> dict[str, float]:
        """The logits by id. Args: as of `hidden_states`."""
        states = hidden_states(checkpoint, examples, images, **options)
        return {id: float(state @ self.weight) + self.bias for id, state in states}


def read_probe(file: Path, of: Path, prompts: Sequence[Prompt]) -> Probe:
    """The probe on the states of a checkpoint.

    Raises:
      InbolError: if the file cannot be read, holds something else, or is for another checkpoint, or
        for other prompts than these.
    """
    try:
        with safe_open(file, "np") as tensors:
            model, prompt = (tensors.metadata()[name] for name in ("model", "prompt"))
            found = Probe(tensors.get_tensor("weight"), float(tensors.get_tensor("bias")))
        if not np.isfinite([*found.weight, found.bias]).all():
            raise ValueError("a weight is not finite")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InbolError(f"{file} is no file of `inbol probe` ({error})") from error
    if model != load_without_weights(of).fingerprint:
        raise InbolError(f"--probe {file} is for another model than {of}; fit it on this one")
    if {canonical_json(asked.to_json()) for asked in prompts} != {prompt}:
        raise InbolError(f"--probe {file} was fitted with another --prompt: {prompt}")
    return found


@one_writer
def probe(config: ProbeConfig) -> Path:
    """Fits a probe on what training would see, and writes it. Returns its file.

    Its penalty is chosen by cross-validation over images.

    Raises:
      InbolError: if the records are not finished or all alike, or the model cannot be asked.
    """
    from scipy.special import expit
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # ---- States and labels of the questions
    file = config.out / "records.jsonl"
    header = read_meta(file)
    if "rows" not in header:
        raise InbolError(f"{config.out} holds no finished records.jsonl; run `inbol build` first")
    records = {r.id: r for r in read_jsonl(file, BoundaryRecord.from_json)}
    prompt = prompt_for(config.model, AUTO, [file])
    checkpoint = load_pretrained(
        config.model, dtype=config.dtype, mesh=make_mesh(*config.mesh)
    ).asked_by(prompt)
    examples = [
        VQAExample(r.id, r.images, r.question, options=r.options, metric=r.metric)
        for r in records.values()
    ]
    images = config.out / header["images"]
    states = dict(hidden_states(checkpoint, examples, images, batch_size=config.batch_size))
    x = np.stack([*states.values()])  # f32[n, d]
    asked = [records[id] for id in states]
    refuse = np.array([r.type == 3 or r.confidence < 0.5 for r in asked])

    # ---- The penalty that tells questions about other images best, and the probe
    groups = np.array([r.images[0] if r.images else r.id for r in asked], object)
    n_folds = min(FOLDS, len({*groups[refuse]}), len({*groups[~refuse]}))
    if n_folds < 2:
        raise InbolError(
            f"{file}: a probe needs questions to answer and questions to refuse, of several images"
        )
    folds = [*StratifiedGroupKFold(n_folds).split(x, refuse, groups)]
    tried = []
    for penalty in PENALTIES:
        unfitted = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000))
        logits = cross_val_predict(unfitted, x, refuse, cv=folds, method="decision_function")
        tried.append((log_loss(refuse, expit(logits)), logits, unfitted))
    _, held_out, best = min(tried, key=lambda found: found[0])
    scaler, classifier = best.fit(x, refuse)

    # ---- Standardised states are folded into weight and bias
    weight = (classifier.coef_[0] / scaler.scale_).astype(np.float32)
    bias = float(classifier.intercept_[0] - scaler.mean_ @ weight)
    with atomically(config.out / FILE) as path:
        tensors = {"weight": weight, "bias": np.array(bias, np.float32)}
        about = {"model": checkpoint.fingerprint, "prompt": canonical_json(prompt.to_json())}
        write_tensors(tensors, path, about)
    say(
        f"{len(asked)} questions, {refuse.mean():.0%} of them to be refused; cross-validated "
        f"AUROC {auroc(held_out, refuse):.3f} -> {config.out / FILE}"
    )
    return config.out / FILE


def hidden_states(
    checkpoint: Checkpoint,
    examples: Sequence[VQAExample],
    images: Path,
    *,
    batch_size: int,
    label: str = "hidden states",
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields each question's id with the last state of its prompt, f32[d].

    Raises:
      InbolError: if more than a tenth of the questions cannot be asked.
    """
    encoder, set_aside = make_text_encoder(checkpoint), SetAside(0.1, option="")
    runner = BatchRunner(checkpoint, images, batch_size, 1, set_aside, label)
    texts = ((example, encoder.text(example)) for example in examples)
    questions = encode_prompts(encoder, texts, images, set_aside)
    step = functools.partial(last_state, checkpoint.model)
    for members, states in runner.run(questions, step, len(examples)):
        yield from ((example.id, s) for example, s in zip(members, states, strict=False))
    set_aside.report(label, len(examples), "look at their images")


@functools.partial(jax.jit, static_argnums=0, compiler_options=COMPILER_OPTIONS)
def last_state(
    model: VisionLanguageModel, variables: Mapping[str, Any], batch: Mapping[str, jax.Array]
) -> Float[Array, "b d"]:
    """The final hidden state of each prompt's last token, in float32.

    Args:
      batch: input_ids and attention_mask, i32[b, s] padded on the right; the images.
    """
    end = batch["attention_mask"].sum(1, keepdims=True) - 1  # b 1
    return model.apply(variables, batch, end, method="hidden")[:, 0].astype("float32")
