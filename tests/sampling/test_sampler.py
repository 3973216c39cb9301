import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from inbol_jax.data.images import load_image
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.models.llava import Llava
from inbol_jax.models.packing import collate
from inbol_jax.models.processor import load_pixels, make_text_encoder
from inbol_jax.records import VQAExample
from inbol_jax.sampling.generate import generate
from inbol_jax.sampling.sampler import SamplingOptions, choose, sample

DRAWN = SamplingOptions()
GREEDY = SamplingOptions(temperature=0)


@pytest.fixture(scope="module")
def questions(small_world):
    return load_dataset_folder(small_world / "test").examples


@pytest.fixture(scope="module")
def images(small_world):
    return small_world / "test"


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def draw(model, n, options, variables, batch, key):
    return sample(model, variables, batch, n=n, key=key, options=options)


@functools.partial(jax.jit, static_argnums=0)
def logprobs_of(model, variables, batch):
    return jax.nn.log_softmax(model.apply(variables, batch), axis=-1)


def make_batch(loaded, examples, images, width=40):
    text = make_text_encoder(loaded)
    rows = []
    for i, example in enumerate(examples):
        prompt = text.prompt(example.question)
        ids = np.pad(np.array(prompt, np.int32), (0, width - len(prompt)), constant_values=9)
        mask = (np.arange(width) < len(prompt)).astype(np.int32)
        pixels = load_pixels(loaded, images / example.image)
        rows.append(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "pixel_values": pixels,
                "question": np.uint32(i),
            }
        )
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def draw_from(loaded, batch, n=1, options=DRAWN, seed=0):
    return jax.device_get(
        draw(loaded.model, n, options, loaded.variables, batch, jax.random.key(seed))
    )


def teacher_forced(loaded, batch, row, responses):
    """f[n, t + 1, V]: log-probabilities of the next token after the prompt and each beginning of the responses i32[n, t]."""
    n, length = len(responses), int(batch["attention_mask"][row].sum())
    prompt = np.repeat(batch["input_ids"][row, None, :length], n, 0)
    ids = np.pad(
        np.concatenate([prompt, responses], axis=1), ((0, 0), (0, 56 - length - responses.shape[1]))
    )
    mask = np.broadcast_to(np.arange(56) < length + responses.shape[1], ids.shape).astype(np.int32)
    pixels = np.repeat(batch["pixel_values"][row : row + 1], n, 0)
    whole = {"input_ids": ids.astype(np.int32), "attention_mask": mask, "pixel_values": pixels}
    logprobs = np.asarray(logprobs_of(loaded.model, loaded.variables, whole))
    return logprobs[:, length - 1 : length + responses.shape[1]]


def truncated(logprobs, options):
    """Probabilities in float64, by the definitions: the k most probable tokens; of these the smallest set, most probable first, of at
    least top-p; of these the ones that are at least min-p times as probable as the first."""
    p = np.exp(np.asarray(logprobs, np.float64) / options.temperature)
    order = np.argsort(-p)[: options.top_k or len(p)]
    q = p[order] / p[order].sum()
    kept = order[: np.searchsorted(np.cumsum(q), options.top_p) + 1]
    kept = kept[p[kept] >= options.min_p * p.max()]
    q = np.zeros_like(p)
    q[kept] = p[kept]
    return q / q.sum()


def assert_drawn_from(tokens, p):
    """Chi-square of counts against probabilities; tokens expected fewer than five times share a bin."""
    counts = np.bincount(tokens, minlength=len(p))
    assert not counts[p == 0].any(), "a token without probability was drawn"
    expected = p * len(tokens)
    common = expected >= 5
    observed, expected = (
        [*counts[common], counts[~common].sum()],
        [*expected[common], expected[~common].sum()],
    )
    if expected[-1] < 1:  # too rare to be a bin of its own
        last = expected.pop()
        assert observed.pop() <= 10 + last
        expected = np.array(expected) * sum(observed) / sum(expected)
    assert len(expected) > 1
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-4


def assert_drawn_jointly(pairs, p):
    """Chi-square of pairs i[k, 2] against two independent draws from p."""
    assert_drawn_from(pairs[:, 0] * len(p) + pairs[:, 1], np.outer(p, p).reshape(-1))


# --- what is drawn


@pytest.mark.parametrize("name", ["tiny", "micro"])
def test_greedy_is_that_of_transformers(request, questions, images, name):
    """Token for token, with transformers' own processor, padding and loop: trained weights, and random ones with fewer keys than heads."""
    import torch
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    loaded, chosen = request.getfixturevalue(name), questions[::4]
    model, processor = (
        LlavaForConditionalGeneration.from_pretrained(loaded.path).eval(),
        AutoProcessor.from_pretrained(TINY, backend="pil"),
    )
    messages = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": e.question}]}]
        for e in chosen
    ]
    texts = [processor.apply_chat_template(m, add_generation_prompt=True) for m in messages]
    pictures = [load_image(images / e.image) for e in chosen]
    inputs = processor(
        images=pictures, text=texts, padding=True, add_special_tokens=False, return_tensors="pt"
    )
    with torch.inference_mode():
        theirs = model.generate(**inputs, do_sample=False, max_new_tokens=GREEDY.max_new_tokens)[
            :, inputs["input_ids"].shape[1] :
        ].numpy()
    batch = make_batch(loaded, chosen, images)
    lengths = batch["attention_mask"].sum(1)
    assert lengths.tolist() == inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths.tolist())) > 2, "prompts of several lengths are wanted"
    ours = draw_from(loaded, batch, options=GREEDY)
    eos = loaded.config.eos_token_ids[0]
    for tokens, length, expected in zip(ours.tokens[:, 0], ours.lengths[:, 0], theirs, strict=True):
        expected = expected.tolist()
        end = expected.index(eos) + 1 if eos in expected else len(expected)
        assert tokens[:length].tolist() == expected[:end]


def test_greedy_forks_are_one_answer(tiny, questions, images):
    found = draw_from(tiny, make_batch(tiny, questions[:3], images), n=4, options=GREEDY)
    assert (found.tokens == found.tokens[:, :1]).all()
    np.testing.assert_allclose(found.logprobs, np.repeat(found.logprobs[:, :1], 4, 1), atol=1e-4)


@pytest.fixture(scope="module")
def undecided(tiny, questions, images):
    """The batch of that one question whose first token is the least certain, and the log-probabilities of that token."""
    batch = make_batch(tiny, questions, images)
    everything = np.asarray(
        logprobs_of(tiny.model, tiny.variables, {k: v for k, v in batch.items() if k != "question"})
    )
    last = everything[np.arange(len(questions)), batch["attention_mask"].sum(1) - 1]
    row = int(np.argmax(-(np.exp(last) * last).sum(-1)))
    return {name: value[row : row + 1] for name, value in batch.items()}, last[row]


def test_a_nucleus_takes_no_more_of_equal_tokens_than_it_needs():
    logits = jnp.log(jnp.array([0.1, 0.3, 0.3, 0.3]))
    uniform = jnp.linspace(0, 1, 100, endpoint=False)
    drawn = choose(jnp.broadcast_to(logits, (1, 100, 4)), uniform[None], SamplingOptions(top_p=0.5))
    assert set(drawn[0].tolist()) == {1, 2}


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(),
        SamplingOptions(temperature=0.7),
        SamplingOptions(top_p=0.9),
        SamplingOptions(2.0, 0.5),
        SamplingOptions(2.0, top_k=5),
        SamplingOptions(2.0, min_p=0.02),
        SamplingOptions(3.0, 0.9, top_k=40, min_p=0.05),
    ],
    ids=str,
)
def test_first_tokens_have_the_softmax_distribution(tiny, undecided, options):
    batch, logprobs = undecided
    found = draw_from(tiny, batch, n=4000, options=dataclasses.replace(options, max_new_tokens=1))
    assert_drawn_from(found.tokens[0, :, 0], truncated(logprobs, options))
    np.testing.assert_allclose(
        found.logprobs[0, :, 0], logprobs[found.tokens[0, :, 0]], atol=1e-3
    )  # at temperature 1 whatever was drawn at


@pytest.mark.parametrize("truncation", [{}, {"top_p": 0.8}, {"top_k": 6}, {"min_p": 0.01}], ids=str)
def test_second_tokens_are_conditioned_on_the_first(micro, questions, images, truncation):
    loaded, n = micro, 6000
    batch, options = (
        make_batch(loaded, questions[:2], images),
        SamplingOptions(0.2, max_new_tokens=2, **truncation),
    )
    found = draw_from(loaded, batch, n=n, options=options)
    tested = set()
    for row in range(2):
        first, second = found.tokens[row].T
        assert_drawn_from(
            first,
            truncated(
                teacher_forced(loaded, batch, row, np.zeros((1, 1), np.int32))[0, 0], options
            ),
        )
        common = [
            t for t in np.argsort(-np.bincount(first))[:6] if t != 2 and (first == t).sum() > 150
        ]
        for token in common:
            p = truncated(
                teacher_forced(loaded, batch, row, np.array([[token]], np.int32))[0, 1], options
            )
            if (p > 0).sum() == 1:  # nothing to compare by chi-square, and nothing left to chance
                assert (second[first == token] == p.argmax()).all()
                continue
            assert_drawn_from(second[first == token], p)
            tested.add((row, int(token)))
    assert len(tested) >= 3


@pytest.mark.parametrize(
    "options",
    [SamplingOptions(0.2), pytest.param(SamplingOptions(0.3, top_p=0.7), marks=pytest.mark.slow)],
    ids=str,
)
def test_forks_are_independent(micro, questions, images, options):
    """Two forks of one prefill have the product of their distributions; in their second tokens too, where the first ones are the same."""
    loaded, size = micro, 1500
    options = dataclasses.replace(options, max_new_tokens=2)
    one = make_batch(loaded, questions[:1], images)
    batch = {name: np.repeat(value, size, 0) for name, value in one.items()} | {
        "question": np.arange(size, dtype=np.uint32)
    }
    tokens = draw_from(
        loaded, batch, n=4, options=options
    ).tokens  # of one question under many keys
    p = truncated(teacher_forced(loaded, one, 0, np.zeros((1, 1), np.int32))[0, 0], options)
    assert_drawn_jointly(tokens[:, [0, 1], 0], p)
    assert_drawn_jointly(tokens[:, [1, 3], 0], p)
    pairs = np.concatenate([tokens[:, [i, j]] for i, j in itertools.combinations(range(4), 2)])
    tested = 0
    for first in np.argsort(-p)[:4]:
        alike = pairs[(pairs[:, :, 0] == first).all(1)][:, :, 1]
        q = truncated(teacher_forced(loaded, one, 0, np.array([[first]], np.int32))[0, 1], options)
        if len(alike) > 200 and (q > 0.05).sum() > 1:
            assert_drawn_jointly(alike, q)
            tested += 1
    assert tested


def test_forks_are_distributed_as_runs_of_their_own(micro, questions, images):
    """Whole responses of n forks of one prefill, against as many runs of one sample each under other seeds: chi-square of the table."""
    loaded, size, options = micro, 400, SamplingOptions(0.15, max_new_tokens=3)
    one = make_batch(loaded, questions[:1], images)
    batch = {name: np.repeat(value, size, 0) for name, value in one.items()} | {
        "question": np.arange(size, dtype=np.uint32)
    }
    forks = draw_from(loaded, batch, n=4, options=options).tokens.reshape(-1, 3)
    runs = np.concatenate(
        [draw_from(loaded, batch, options=options, seed=1 + i).tokens[:, 0] for i in range(4)]
    )
    responses, which = np.unique(np.concatenate([forks, runs]), axis=0, return_inverse=True)
    table = np.stack(
        [np.bincount(part, minlength=len(responses)) for part in np.split(which.reshape(-1), 2)]
    )
    common = table.sum(0) >= 10
    table = np.concatenate([table[:, common], table[:, ~common].sum(1, keepdims=True)], 1)
    assert common.sum() > 5
    assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-4


def test_steps_and_seeds_draw_anew(micro, questions, images):
    loaded = micro
    batch = make_batch(loaded, questions[:4], images)
    options = SamplingOptions(
        5.0, max_new_tokens=8
    )  # nearly uniform over a thousand tokens: equal by chance once in 10^20
    found, again, other = (
        draw_from(loaded, batch, n=6, options=options, seed=seed).tokens for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(found, again)
    for a, b in itertools.combinations(found.reshape(-1, 8), 2):
        assert a.tolist() != b.tolist()
    assert (found == other).mean() < 0.2
    assert (found[..., 1:] == found[..., :-1]).mean() < 0.2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tiny", DRAWN),
        ("micro", SamplingOptions(0.7, 0.9)),
        ("micro", SamplingOptions(temperature=0)),
    ],
)
def test_logprobs_are_those_of_teacher_forcing(request, tiny, questions, images, name, options):
    loaded = tiny if name == "tiny" else request.getfixturevalue("micro")
    chosen = questions[1::9]
    batch, n = make_batch(loaded, chosen, images), 5
    found = draw_from(loaded, batch, n=n, options=options)
    for row in range(len(chosen)):
        logprobs = teacher_forced(loaded, batch, row, found.tokens[row])[:, :-1]
        each = np.take_along_axis(logprobs, found.tokens[row][..., None], -1)[..., 0]
        counted = np.arange(options.max_new_tokens) < found.lengths[row][:, None]
        # The placeholder of an image, should it be drawn, is a word to the sampler and an image to the forward.
        counted &= (found.tokens[row] != loaded.config.image_token_id).all(1, keepdims=True)
        drawn = counted.any(1)
        assert drawn.any()
        np.testing.assert_allclose(
            found.logprobs[row][drawn], (each * counted)[drawn], atol=1e-3, rtol=1e-4
        )


# --- ends and padding


@pytest.mark.parametrize(("count", "stops"), [(1, 0), (3, 0), (3, 2)])
def test_lengths_and_padding(micro, questions, images, count, stops):
    """A response ends at the first of the end-of-sequence or stop tokens, which it includes, or where it is cut."""
    loaded = micro
    options = SamplingOptions(0.4, max_new_tokens=6)
    batch = make_batch(loaded, questions[:8], images)
    drawn = draw_from(loaded, batch, n=40, options=options).tokens
    ends = tuple(
        np.argsort(-np.bincount(drawn.reshape(-1)))[:count].tolist()
    )  # common ones, whatever the weights
    model = Llava(dataclasses.replace(loaded.config, eos_token_ids=ends[: count - stops]))
    options = dataclasses.replace(options, stop_tokens=ends[count - stops :])
    found = jax.device_get(draw(model, 40, options, loaded.variables, batch, jax.random.key(0)))
    assert (found.tokens.shape, found.logprobs.shape, found.lengths.shape) == (
        (8, 40, 6),
        (8, 40, 6),
        (8, 40),
    )
    seen = set()
    for tokens, length in zip(
        found.tokens.reshape(-1, 6).tolist(), found.lengths.reshape(-1), strict=True
    ):
        places = [i for i, token in enumerate(tokens) if token in ends]
        assert length == (places[0] + 1 if places else 6)
        assert all(token == ends[0] for token in tokens[length:])
        seen.add(tokens[places[0]] if places else "cut")
    assert seen == {*ends, "cut"}, "every way to end is wanted in this test"


def test_rows_that_fill_up_the_batch_do_not_matter(micro, questions, images):
    loaded, options = micro, SamplingOptions(0.2)
    batch = make_batch(loaded, questions[:3], images)
    alone = draw_from(loaded, batch, n=4, options=options)
    rows = [{name: value[i] for name, value in batch.items()} for i in range(3)]
    filled = draw_from(loaded, collate(rows, 8), n=4, options=options)
    np.testing.assert_array_equal(filled.tokens[:3], alone.tokens)
    np.testing.assert_array_equal(filled.lengths[:3], alone.lengths)
    np.testing.assert_allclose(filled.logprobs[:3], alone.logprobs, atol=1e-4)
    assert (filled.lengths[3:] == 0).all()
    assert (filled.logprobs[3:] == 0).all()
    assert (filled.tokens[3:] == loaded.config.eos_token_ids[0]).all()


# --- options and the choice of a token


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"temperature": -0.1}, "--temperature -0.1: a finite number of at least 0 is needed"),
        ({"temperature": float("nan")}, "--temperature nan: "),
        ({"temperature": float("inf")}, "--temperature inf: "),
        ({"top_p": 0.0}, "--top-p 0.0: must be greater than 0 and at most 1"),
        ({"top_p": -0.5}, "--top-p -0.5: "),
        ({"top_p": 1.01}, "--top-p 1.01: "),
        ({"top_p": float("nan")}, "--top-p nan: "),
        ({"max_new_tokens": 0}, "--max-new-tokens 0: at least 1 is needed"),
        ({"top_k": -1}, "--top-k -1: at least 1 is needed, or 0 for all tokens"),
        ({"min_p": 1.0}, "--min-p 1.0: must be at least 0 and less than 1"),
        ({"min_p": float("nan")}, "--min-p nan: "),
        ({"stop_tokens": (5, -1)}, r"--stop-tokens \(5, -1\): token ids are not negative"),
        ({"stop": ("a", "")}, r"--stop \('a', ''\): an empty string would stop every response"),
    ],
    ids=str,
)
def test_options_that_cannot_be_meant(bad, message):
    with pytest.raises(InbolError, match=f"^{message}"):
        SamplingOptions(**bad)


def test_options_at_their_limits():
    SamplingOptions(temperature=0, top_p=1e-6, max_new_tokens=1, top_k=1, min_p=0.999)


# What u can be: `jax.random.uniform` gives multiples of 2^-23 in [0, 1).
grid = st.integers(0, 2**23 - 1).map(lambda i: i / 2**23) | st.sampled_from(
    [0.0, 2**-23, 1 - 2**-23, 1 - 2**-22, float(np.nextafter(1, 0, dtype="f4"))]
)


@given(
    hnp.arrays(
        np.float32,
        24,
        elements=st.sampled_from([-np.inf, -200.0, -3.0, -1.0, 0.0, 0.5, 2.0, 60.0])
        | st.floats(-9, 9, width=16),
    ),
    st.lists(grid, min_size=1, max_size=8),
    st.sampled_from([0.0, 0.05, 0.7, 1.0, 3.0]),
    st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    st.sampled_from([0, 1, 3, 30]),
    st.sampled_from([0.0, 0.2, 0.99]),
)
@settings(max_examples=50, deadline=None)
def test_choose_picks_what_can_be(logits, uniform, temperature, top_p, top_k, min_p):
    logits[0] = max(logits[0], 0)  # one token at least has probability
    uniform = np.resize(np.array(uniform, np.float32), 8)
    options = SamplingOptions(temperature, top_p, top_k=top_k, min_p=min_p)
    found = np.asarray(choose(np.broadcast_to(logits, (1, 8, 24)), uniform[None], options))[0]
    assert found.dtype == np.int32
    if temperature == 0:
        assert (found == np.argmax(logits)).all()
        return
    p = np.asarray(jax.nn.softmax(logits / np.float32(temperature)))
    assert (p[found] > 0).all()
    # No token outside the smallest set of probability `top_p`, but for those that are exactly as probable as one inside.
    larger = np.array([p[p > p[token]].sum(dtype=np.float64) for token in found])
    assert (larger < top_p + 1e-6).all()
    assert not top_k or all((p > p[token]).sum() < top_k for token in found)
    assert (p[found] >= min_p * p.max()).all()


@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(top_p=0.95)], ids=str)
def test_choose_at_every_edge(options):
    """u just below, at and above each edge between tokens, in a vocabulary where the sum's rounding is larger than some steps.

    Half of the tokens cannot be: a cumulative sum in parallel need not be monotone, and may rise where nothing was added.
    """
    random, vocabulary = np.random.default_rng(0), 1080
    logits = random.normal(0, 3, vocabulary).astype(np.float32)
    logits[random.random(vocabulary) < 0.5] = -np.inf
    p = jax.nn.softmax(logits)
    edges = np.round(np.asarray(jnp.cumsum(p), np.float64) * 2**23)
    u = np.unique(np.clip(edges[:, None] + [-1, 0, 1], 0, 2**23 - 1)) / 2**23
    allowed = truncated(jnp.log(p), options) > 0
    parts = np.resize(u, (-(-len(u) // 256), 256)).astype(np.float32)
    run = jax.jit(
        lambda u: choose(jnp.broadcast_to(logits, (1, 256, vocabulary)), u[None], options)[0]
    )
    found = np.concatenate([run(part) for part in parts])
    assert set(np.flatnonzero(~allowed)) & set(found.tolist()) == set()


@pytest.mark.parametrize(
    "options",
    [SamplingOptions(), SamplingOptions(top_p=0.9), SamplingOptions(1.5, 0.8, top_k=9, min_p=0.1)],
    ids=str,
)
def test_choose_is_the_inverse_of_the_distribution(options):
    """An even grid of u gives each token in proportion."""
    logits, n = np.random.default_rng(0).normal(0, 2, 30).astype(np.float32), 2**15
    u = ((np.arange(n) + 0.5) / n).astype(np.float32)
    found = np.asarray(choose(logits[None, None], u[None], options))[0]
    np.testing.assert_array_equal(
        found, choose(np.broadcast_to(logits, (1, n, 30)), u[None], options)[0]
    )
    np.testing.assert_allclose(
        np.bincount(found, minlength=30) / n, truncated(logits, options), atol=2 / n
    )
    assert (np.diff(found) >= 0).all()


def test_a_very_low_temperature_is_greedy():
    logits = np.random.default_rng(0).normal(0, 5, (2, 8, 50)).astype(np.float32)
    u = np.random.default_rng(1).random((2, 8), dtype=np.float32)
    np.testing.assert_array_equal(
        choose(logits, u, SamplingOptions(temperature=1e-6)), logits.argmax(-1)
    )


# --- whole datasets


def answers(loaded, examples, images, *, batch_size=16, n=3, options=DRAWN, seed=0):
    """{id: texts}, {id: log-probabilities} and [(id, reason)] of what was set aside."""
    aside = []
    batches = generate(
        loaded,
        examples,
        images,
        n=n,
        options=options,
        seed=seed,
        batch_size=batch_size,
        label="test",
        set_aside=lambda example, reason: aside.append((example.id, reason)),
    )
    found = [item for batch in batches for item in batch]
    assert len({example.id for example, _ in found}) == len(found)
    texts = {example.id: [g.text for g in generations] for example, generations in found}
    return (
        texts,
        {example.id: [g.logprob for g in generations] for example, generations in found},
        aside,
    )


def test_samples_depend_on_neither_batch_nor_order(tiny, questions, images):
    chosen = list(questions[::3])
    texts, logprobs, aside = answers(tiny, chosen, images, batch_size=16)
    assert texts.keys() == {e.id for e in chosen}
    assert aside == []
    assert len({tuple(t) for t in texts.values()}) > 5
    others = {
        "reversed": answers(tiny, chosen[::-1], images, batch_size=16),
        "smaller batches": answers(tiny, chosen[3:] + chosen[:3], images, batch_size=3),
        "fewer": answers(tiny, chosen[5:12:2], images, batch_size=3),
    }
    for name, (other, other_logprobs, _) in others.items():
        assert other == {id: texts[id] for id in other}, name
        assert other_logprobs == {id: logprobs[id] for id in other_logprobs}, (
            name
        )  # to the last bit
    assert len(others["fewer"][0]) == 4
    assert answers(tiny, chosen, images, batch_size=16, seed=1)[0] != texts


def test_generations_are_texts(tiny, questions, images):
    text = make_text_encoder(tiny)
    batches = generate(
        tiny,
        questions[::3],
        images,
        n=3,
        options=DRAWN,
        seed=0,
        batch_size=16,
        label="test",
        set_aside=pytest.fail,
    )
    for example, generations in itertools.chain(*batches):
        assert len(generations) == 3
        for generation in generations:
            assert generation.text == generation.text.strip()
            assert "<" not in generation.text  # no special token
            assert generation.logprob < 0
            assert 1 <= generation.tokens <= DRAWN.max_new_tokens
            if generation.tokens < DRAWN.max_new_tokens and generation.text:
                assert len(text.response(example.question, generation.text)) >= 2


def test_what_cannot_be_asked_is_set_aside(micro, questions, images, tmp_path):
    loaded, options = micro, SamplingOptions(0.2)
    folder = tmp_path / "images"
    folder.mkdir()
    sound = questions[:3]
    for e in sound:
        (folder / e.image.split("/")[-1]).write_bytes((images / e.image).read_bytes())
    (folder / "broken.png").write_bytes((images / sound[0].image).read_bytes()[:100])
    broken = [
        VQAExample("missing", "images/nowhere.png", sound[0].question),
        VQAExample("broken", "images/broken.png", sound[1].question),
        VQAExample("placeholder", sound[0].image, "What is <image> here?"),
    ]
    # Of both kinds in one batch, then a batch of nothing but broken ones.
    for examples, size in (
        ([broken[0], sound[0], broken[1], sound[1], broken[2], sound[2]], 3),
        (broken, 1),
    ):
        texts, _, aside = answers(loaded, examples, tmp_path, batch_size=size, options=options)
        assert dict(aside).keys() == {"missing", "broken", "placeholder"}
        assert len(aside) == 3
        assert "nowhere.png" in dict(aside)["missing"]
        assert "broken.png" in dict(aside)["broken"]
        assert "placeholder" in dict(aside)["placeholder"]
        if size == 3:
            assert texts == answers(loaded, sound, images, batch_size=3, options=options)[0]
        else:
            assert texts == {}


def test_no_question_no_answer(tiny, images):
    assert answers(tiny, [], images) == ({}, {}, [])
