"""Losses, log-probabilities and gradients against TRL's DPOTrainer, on the shipped LLaVA in torch
and the same questions and images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from datasets import Dataset
from flax.traverse_util import flatten_dict
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration
from trl import DPOConfig, DPOTrainer

from inbol_jax.artifacts import read_jsonl
from inbol_jax.defaults import TINY
from inbol_jax.losses import PAIR_LOSSES, PairLogprobs, sequence_logprob
from inbol_jax.models.loading import param_shapes
from inbol_jax.models.packing import Branch, RowShape, collate, pack_row
from inbol_jax.models.processor import load_image_inputs, make_text_encoder
from inbol_jax.models.reading import load_params
from inbol_jax.models.tiles import UNTILED
from inbol_jax.training.ca_dpo import ca_dpo_objective, pair_logprobs
from inbol_jax.training.config import CaDpoLossConfig
from inbol_jax.training.step import target_logprobs

# transformers has renamed an option that TRL sets, and what it asks of a model before each forward
# of the reference.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`(is_)?gradient_checkpointing` is deprecated:FutureWarning"
)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
BETAS = (0.1, 1.0)

# Ours -> theirs: options of our loss, then TRL's `loss_type`. What we take of averages, TRL
# averages by itself.
SAME = {
    "sigmoid": ("sigmoid", {}, False, "sigmoid"),
    "sigmoid, smoothed": (
        "sigmoid",
        {"label_smoothing": 0.2},
        False,
        "aot",
    ),  # of one pair, where there is nothing to sort
    "sigmoid, length-normalised": ("sigmoid", {}, True, "sigmoid_norm"),
    "robust": ("robust", {"label_smoothing": 0.2}, False, "robust"),
    "ipo": ("ipo", {}, True, "ipo"),
    "hinge": ("hinge", {}, False, "hinge"),
}


@pytest.fixture(scope="module")
def rows(small_world):
    """Pairs of every length: an answer over a refusal, a refusal over a long answer, ..."""
    questions = list(read_jsonl(small_world / "train/data.jsonl"))[:6]
    other = ["I don't know.", "a blue triangle on the left", "red"]
    other += ["The picture is too noisy to tell.", "seventeen", "I cannot say"]
    rows = []
    for i, (q, text) in enumerate(zip(questions, other, strict=True)):
        chosen, rejected = (q["answers"][0], text)[:: 1 if i % 2 else -1]
        image = small_world / "train" / q["images"][0]
        row = {"image": image, "question": q["question"]}
        rows.append(row | {"chosen": chosen, "rejected": rejected})
    return rows


def conversation(row):
    """A row as TRL's collator takes it."""
    with Image.open(row["image"]) as image:
        image.load()
    turns = {key: [{"role": "assistant", "content": row[key]}] for key in ("chosen", "rejected")}
    return turns | {"prompt": [{"role": "user", "content": row["question"]}], "images": [image]}


@pytest.fixture(scope="module")
def trainer(rows, tmp_path_factory):
    """The shipped checkpoint as the policy; as the reference, the same with noise of a tenth on
    every weight.
    """
    policy, reference = (
        LlavaForConditionalGeneration.from_pretrained(TINY, local_files_only=True) for _ in range(2)
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))
    out = tmp_path_factory.mktemp("trl")
    options = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    args = DPOConfig(output_dir=str(out), report_to=[], max_length=None, **options)
    processor = AutoProcessor.from_pretrained(TINY, local_files_only=True)
    dataset = Dataset.from_list([conversation(row) for row in rows])
    return DPOTrainer(policy, reference, args, train_dataset=dataset, processing_class=processor)


@pytest.fixture(scope="module")
def ours(tiny, trainer, rows, tmp_path_factory):
    """(packed batch, variables of the policy, variables of the reference)."""
    folder = tmp_path_factory.mktemp("reference")
    trainer.ref_model.save_pretrained(folder)
    text = make_text_encoder(tiny)
    packed = []
    for row in rows:
        responses = [text.response(row["question"], row[key]) for key in ("chosen", "rejected")]
        packed.append((text.prompt(row["question"]), [Branch(ids) for ids in responses]))
    shape = RowShape.fitting(packed)
    batch = [
        pack_row(*row, shape) | load_image_inputs(tiny, [r["image"]], [UNTILED])
        for row, r in zip(packed, rows, strict=True)
    ]
    reference = {"params": load_params(folder, param_shapes(tiny.config))}
    return collate(batch, len(batch)), dict(tiny.variables), reference


def set_loss(trainer, loss_type, beta, label_smoothing=0.0, reference_free=False):
    """These are attributes of the trainer, once it is made."""
    trainer.beta, trainer.loss_types, trainer.label_smoothing = beta, [loss_type], label_smoothing
    trainer.precompute_ref_logps = reference_free


def theirs(trainer, rows, loss_type, beta, label_smoothing=0.0, reference_free=False):
    """TRL's loss of every pair alone, f32[b]: its own of a batch is a mean."""
    set_loss(trainer, loss_type, beta, label_smoothing, reference_free)
    found = []
    for row in rows:
        batch = trainer.data_collator([conversation(row)])
        if reference_free:
            batch |= {"ref_chosen_logps": torch.zeros(1), "ref_rejected_logps": torch.zeros(1)}
        with torch.no_grad():
            found.append(float(trainer.compute_loss(trainer.model, batch)))
    return np.array(found)


@functools.partial(jax.jit, static_argnums=0)
def token_values(model, variables, batch):
    return target_logprobs(model, variables, batch)


def our_logprobs(tiny, ours, average):
    """Chosen and rejected, under policy and reference: the arguments of a loss."""
    batch, *models = ours
    return [
        pair_logprobs(token_values(tiny.model, variables, batch), batch, average=average)
        for variables in models
    ]


def test_the_same_tokens(tiny, trainer, rows, ours):
    """The two packages ask the same of their models: prompt, image and responses are the same
    numbers.
    """
    batch, theirs = ours[0], trainer.data_collator([conversation(row) for row in rows])
    n = len(rows)
    pixels = tiny.model.apply({}, batch, method="normalised_pixels")
    np.testing.assert_allclose(theirs["pixel_values"][:n], pixels, atol=1e-6)
    for i in range(n):
        for branch, j in ((1, i), (2, n + i)):
            shown = theirs["attention_mask"][j] == 1
            mine = np.concatenate(
                [batch["input_ids"][i][batch["segments"][i] == s] for s in (0, branch)]
            )
            assert theirs["input_ids"][j][shown].tolist() == mine.tolist()
            assert (
                theirs["completion_mask"][j].sum() == (batch["target_segment"][i] == branch).sum()
            )


def test_log_probabilities(tiny, trainer, rows, ours):
    """Of chosen and rejected, of both models, in one batch with its padding."""
    batch = trainer.data_collator([conversation(row) for row in rows])
    expected = [
        x.numpy()
        for model in (trainer.model, trainer.ref_model)
        for x in trainer.compute_ref_log_probs(model, batch)
    ]
    found = jax.tree.leaves(our_logprobs(tiny, ours, average=False))
    assert np.ptp((expected[0] - expected[2]) - (expected[1] - expected[3])) > 1, (
        "margins too small for a tolerance to mean anything"
    )
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, **CLOSE)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", SAME)
def test_losses(tiny, trainer, rows, ours, name, beta):
    loss, options, average, loss_type = SAME[name]
    expected = theirs(trainer, rows, loss_type, beta, **options)
    assert np.ptp(expected) > 1e-3
    found = PAIR_LOSSES[loss](*our_logprobs(tiny, ours, average), beta=beta, **options)
    np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "hinge"])
def test_reference_free_losses(tiny, trainer, rows, ours, name):
    loss, options, average, loss_type = SAME[name]
    expected = theirs(trainer, rows, loss_type, 0.1, reference_free=True)
    policy, _ = our_logprobs(tiny, ours, average)
    zero = jnp.zeros(len(rows))
    found = PAIR_LOSSES[loss](policy, PairLogprobs(zero, zero), beta=0.1, **options)
    np.testing.assert_allclose(found, expected, **CLOSE)


def test_the_nll_term(tiny, trainer, rows, ours):
    """TRL's `sft` loss of a pair."""
    batch, variables, _ = ours
    found = -sequence_logprob(
        token_values(tiny.model, variables, batch), batch["target_segment"] == 1, average=True
    )
    np.testing.assert_allclose(found, theirs(trainer, rows, "sft", 0.1), **CLOSE)


@pytest.mark.parametrize("name", ["sigmoid", "ipo"])  # of sums, and of means over tokens
def test_gradients(tiny, trainer, rows, ours, name, tmp_path):
    """Of the mean loss of the batch by every parameter, the vision tower's too: through packed
    rows, whose branches share an image.
    """
    loss, options, average, loss_type = SAME[name]
    batch, variables, _ = ours
    _, reference = our_logprobs(tiny, ours, average)
    batch = batch | {"confidence": jnp.ones(len(rows)), "kind": jnp.zeros(len(rows), int)}
    batch |= {"ref_chosen": reference.chosen, "ref_rejected": reference.rejected}
    plain = {"pair_weighting": "uniform", "nll_coef": 0.0, "length_normalized": average}
    config = CaDpoLossConfig(loss=loss, beta=0.3, **plain, **options)
    objective = ca_dpo_objective(tiny.model, config)

    def loss_of(params):
        total, weight = objective({"params": params}, batch)["loss"]
        return total / weight

    value, gradient = jax.jit(jax.value_and_grad(loss_of))(variables["params"])

    set_loss(trainer, loss_type, 0.3, **options)
    trainer.model.zero_grad()
    expected = trainer.compute_loss(
        trainer.model, trainer.data_collator([conversation(row) for row in rows])
    )
    assert float(value) == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)
    expected.backward()
    theirs_by_key = {
        key: torch.zeros_like(p) if p.grad is None else p.grad
        for key, p in trainer.model.named_parameters()
    }
    save_file(theirs_by_key, tmp_path / "model.safetensors")
    exact = flatten_dict(load_params(tmp_path, param_shapes(tiny.config)), sep="/")
    found = flatten_dict(dict(gradient), sep="/")
    assert found.keys() == exact.keys()
    assert max(np.abs(x).max() for x in exact.values()) > 0.01
    for path, x in found.items():
        np.testing.assert_allclose(
            x, exact[path], atol=1e-4 * max(1.0, np.abs(exact[path]).max()), err_msg=path
        )
