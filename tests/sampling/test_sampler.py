"""Whole responses: greedy ones against transformers, log-probabilities, ends and padding."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from draws import DRAWN, GREEDY, draw_from, make_batch, teacher_forced
from torch_reference import asked

from inbol_jax.data.images import load_image
from inbol_jax.defaults import TINY
from inbol_jax.models.llava import Llava
from inbol_jax.models.loading import load_pretrained
from inbol_jax.models.packing import collate
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.forced import refusal_tokens
from inbol_jax.taught_refusals import SHORT_REFUSALS


def test_greedy_with_a_bias_is_that_of_transformers(tiny, questions, images, tmp_path):
    """Token for token, with transformers' own processor, padding and loop. Both read the bias from
    generation_config.json: it turns some answers into refusals, not all."""
    plain = assert_greedy_as_transformers(tiny, questions[::4], images)
    folder = shutil.copytree(TINY, tmp_path / "biased")
    file = folder / "generation_config.json"
    encoder = make_text_encoder(tiny)
    (_, refusals), end = refusal_tokens(encoder, SHORT_REFUSALS), tiny.config.eos_token_ids[0]
    bias = [[[token], 3.25] for token in refusals] + [[[end], -1.5]]
    # Some tokens in a row: what the first word is, and that it is not the last one.
    bias += [[[encoder.prompt("Is it red?")[-1], token], 4.0] for token in refusals]
    bias += [[[token, end], -8.0] for token in {row[0] for row in plain}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sequence_bias": bias}))
    biased = load_pretrained(folder, dtype="float32")
    assert dict(biased.config.sequence_bias) == {tuple(tokens): value for tokens, value in bias}
    assert biased.fingerprint != tiny.fingerprint
    moved = assert_greedy_as_transformers(biased, questions[::4], images)
    refused = [sum(row[0] in refusals for row in rows) for rows in (plain, moved)]
    assert refused[0] < refused[1] < len(moved)


def assert_greedy_as_transformers(checkpoint, chosen, images):
    """Returns transformers' responses, which are ours."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    model = LlavaForConditionalGeneration.from_pretrained(checkpoint.path).eval()
    processor = AutoProcessor.from_pretrained(TINY, backend="pil")
    rows = [(e.question, [load_image(images / e.image)]) for e in chosen]
    inputs = asked(processor, *rows, add_special_tokens=False)
    inputs = {name: torch.tensor(x) for name, x in inputs.items()}
    with torch.inference_mode():
        theirs = model.generate(**inputs, do_sample=False, max_new_tokens=GREEDY.max_new_tokens)
    theirs = theirs[:, inputs["input_ids"].shape[1] :].tolist()
    batch = make_batch(checkpoint, chosen, images)
    lengths = batch["attention_mask"].sum(1)
    assert lengths.tolist() == inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths.tolist())) > 2, "prompts of several lengths are wanted"
    ours = draw_from(checkpoint, batch, options=GREEDY)
    eos = checkpoint.config.eos_token_ids[0]
    theirs = [row[: row.index(eos) + 1] if eos in row else row for row in theirs]
    for tokens, length, expected in zip(ours.tokens[:, 0], ours.lengths[:, 0], theirs, strict=True):
        assert tokens[:length].tolist() == expected
    return theirs


@pytest.mark.parametrize(
    ("name", "options"),
    [("tiny", DRAWN), ("micro", SamplingOptions(0.7, 0.9))],
)
def test_logprobs_are_those_of_teacher_forcing(request, questions, images, name, options):
    checkpoint, chosen = request.getfixturevalue(name), questions[1::9]
    batch = make_batch(checkpoint, chosen, images)
    found = draw_from(checkpoint, batch, n=5, options=options)
    for row in range(len(chosen)):
        logprobs = teacher_forced(checkpoint, batch, row, found.tokens[row])[:, :-1]
        each = np.take_along_axis(logprobs, found.tokens[row][..., None], -1)[..., 0]
        counted = np.arange(options.max_new_tokens) < found.lengths[row][:, None]
        # The placeholder of an image, should it be drawn, is a word to the sampler and an image to
        # the forward.
        counted &= (found.tokens[row] != checkpoint.config.image_token_id).all(1, keepdims=True)
        drawn = counted.any(1)
        assert drawn.any()
        np.testing.assert_allclose(
            found.logprobs[row][drawn], (each * counted)[drawn], atol=1e-3, rtol=1e-4
        )


@pytest.mark.parametrize("count", [1, 3])
def test_lengths_and_padding(micro, questions, images, count):
    """A response ends at the first of the end-of-sequence tokens, which it includes, or where it is
    cut."""
    options = SamplingOptions(0.4, max_new_tokens=6)
    batch = make_batch(micro, questions[:8], images)
    drawn = draw_from(micro, batch, n=40, options=options).tokens
    # Common ones, whatever the weights
    ends = tuple(np.argsort(-np.bincount(drawn.reshape(-1)))[:count].tolist())
    model = Llava(dataclasses.replace(micro.config, eos_token_ids=ends))
    found = draw_from(micro, batch, n=40, options=options, model=model)
    assert found.tokens.shape == found.logprobs.shape == (8, 40, 6)
    assert found.lengths.shape == (8, 40)
    seen = set()
    responses = found.tokens.reshape(-1, 6).tolist()
    for tokens, length in zip(responses, found.lengths.reshape(-1), strict=True):
        places = [i for i, token in enumerate(tokens) if token in ends]
        assert length == (places[0] + 1 if places else 6)
        assert all(token == ends[0] for token in tokens[length:])
        seen.add(tokens[places[0]] if places else "cut")
    assert seen == {*ends, "cut"}, "every way to end is wanted in this test"


def test_rows_that_fill_up_the_batch_do_not_matter(micro, questions, images):
    checkpoint, options = micro, SamplingOptions(0.2)
    batch = make_batch(checkpoint, questions[:3], images)
    alone = draw_from(checkpoint, batch, n=4, options=options)
    rows = [{name: value[i] for name, value in batch.items()} for i in range(3)]
    filled = draw_from(checkpoint, collate(rows, 8), n=4, options=options)
    np.testing.assert_array_equal(filled.tokens[:3], alone.tokens)
    np.testing.assert_array_equal(filled.lengths[:3], alone.lengths)
    np.testing.assert_allclose(filled.logprobs[:3], alone.logprobs, atol=1e-4)
    assert (filled.lengths[3:] == 0).all()
    assert (filled.logprobs[3:] == 0).all()
    assert (filled.tokens[3:] == checkpoint.config.eos_token_ids[0]).all()
