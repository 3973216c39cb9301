"""Whole datasets: batches, threads, ends of responses, and the same samples everywhere."""

import dataclasses
import json
import shutil
import threading
import time
from collections import defaultdict
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from virtual_devices import run_on_devices

from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.records import VQAExample
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate, in_flight, padded_length
from inbol_jax.sampling.sampler import compiled_sample

OPTIONS = SamplingOptions(max_new_tokens=6)


def answers(
    checkpoint, examples, images, *, n=4, options=OPTIONS, seed=0, batch_size=16, aside=None
):
    """{id: generations}; what cannot be asked is added to `aside` as (id, reason), and fails
    without it."""
    found = {}
    for batch in generate(
        checkpoint,
        examples,
        images,
        options=dataclasses.replace(options, n=n),
        seed=seed,
        batch_size=batch_size,
        label="test",
        set_aside=pytest.fail if aside is None else lambda e, reason: aside.append((e.id, reason)),
    ):
        for example, generations in batch:
            assert example.id not in found
            found[example.id] = generations
    return found


@pytest.fixture(scope="module")
def questions(small_world):
    return load_dataset_folder(small_world / "test").examples[::3]


@pytest.fixture(scope="module")
def alike(micro, small_world, tmp_path_factory):
    """A folder of twelve questions of one padded length: each is compiled in every process."""
    folder = shutil.copytree(small_world / "test", tmp_path_factory.mktemp("alike") / "test")
    encoder, rows = make_text_encoder(micro), defaultdict(list)
    lines = (folder / "data.jsonl").read_text().splitlines(keepends=True)
    for example, line in zip(load_dataset_folder(folder).examples, lines, strict=True):
        rows[padded_length(len(encoder.prompt(encoder.text(example))))].append(line)
    (folder / "data.jsonl").write_text("".join(max(rows.values(), key=len)[:12]))
    return folder


def test_padded_lengths_are_few_and_close():
    lengths = {n: padded_length(n) for n in range(1, 8193)}
    assert all(n <= padded and padded % 8 == 0 for n, padded in lengths.items())
    assert all(padded - n < max(8, n / 16) for n, padded in lengths.items())
    assert len({padded for n, padded in lengths.items() if n > 4096}) == 16
    assert [lengths[n] for n in (21, 33, 64, 129, 600, 700)] == [24, 40, 64, 136, 608, 704]


def test_questions_of_one_padded_length_share_a_program(micro, questions, images):
    """However many they are, and in whatever batches."""
    options = SamplingOptions(max_new_tokens=2)
    encoder, before = make_text_encoder(micro), compiled_sample._cache_size()
    for examples, batch_size in ((questions, 16), (questions[3:9], 3), (questions[:1], 1)):
        answers(micro, examples, images, options=options, batch_size=batch_size)
    lengths = {padded_length(len(encoder.prompt(encoder.text(e)))) for e in questions}
    assert compiled_sample._cache_size() - before == len(lengths) > 1


# Meshes, as far as `in_flight` looks at them
ONE, TWO = SimpleNamespace(size=1), SimpleNamespace(size=2)


@pytest.mark.parametrize("workers", [1, 4])
def test_results_come_in_order_from_threads(workers):
    """Each waits until as many as there are workers have begun; the first ones take longest."""
    together, threads = threading.Barrier(workers), set()

    def step(batch):
        threads.add(threading.get_ident())
        together.wait(timeout=60)
        time.sleep(0.02 * (batch % workers == 0))
        return batch**2

    assert list(in_flight(step, range(8), ONE, workers)) == [(i, i**2) for i in range(8)]
    assert len(threads) == workers
    assert threading.get_ident() not in threads


def test_programs_of_several_devices_come_from_one_thread():
    """One is started before the last one is fetched, and no more."""
    began, threads = [], set()

    def step(batch):
        began.append(batch)
        threads.add(threading.get_ident())
        return batch

    for batch, result in in_flight(step, range(5), TWO):
        assert batch == result
        assert began == list(range(min(batch + 2, 5)))
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("mesh", [ONE, TWO], ids=["one", "two"])
def test_what_fails_in_a_step_is_raised(mesh):
    with pytest.raises(ZeroDivisionError):
        list(in_flight(lambda batch: 1 / (batch - 3), range(9), mesh, 2))


PROGRAM = """
import json, sys
from pathlib import Path
import jax
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.models.loading import load_pretrained
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate
from inbol_jax.sharding import make_mesh

model, folder, size, *sizes = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
mesh = make_mesh(*sizes) if sizes else None
questions, options = load_dataset_folder(folder).examples, SamplingOptions(max_new_tokens=6)
checkpoint = load_pretrained(model, dtype="float32", mesh=mesh)
batches = generate(
    checkpoint, questions, folder, options=options, seed=0, batch_size=size, label="",
    set_aside=print
)
print(json.dumps([jax.device_count(), {e.id: g for batch in batches for e, g in batch}]))
"""


def elsewhere(checkpoint, folder, devices, *arguments):
    """{id: generations} of a process with so many virtual devices."""
    done = run_on_devices(PROGRAM, checkpoint.path, folder, *arguments, devices=devices)
    count, found = json.loads(done.stdout.splitlines()[-1])
    assert count == devices
    return {id: [tuple(g) for g in generations] for id, generations in found.items()}


@pytest.mark.slow
def test_samples_are_the_same_on_a_mesh(tiny, alike):
    """The model split over fsdp and tensor: its products are summed in other places, so
    log-probabilities agree to rounding alone."""
    found = elsewhere(tiny, alike, 4, 16, 1, 2, 2)
    here = answers(tiny, load_dataset_folder(alike).examples, alike, n=10)
    assert found.keys() == here.keys()
    pairs = [pair for id in here for pair in zip(here[id], found[id], strict=True)]
    same = [(a, b) for a, b in pairs if a[0] == b[0]]
    # A draw may fall on the other side of a boundary that rounding has moved.
    assert len(same) > 0.99 * len(pairs)
    assert all(abs(a[1] - b[1]) < 1e-3 for a, b in same)


def test_samples_are_the_same_to_the_last_bit_everywhere(micro, alike):
    """Tokens, texts and log-probabilities; on other devices, in other batches and places."""
    questions = load_dataset_folder(alike).examples
    whole = answers(micro, questions[::-1], alike, n=10, batch_size=1)
    assert elsewhere(micro, alike, 8, 7) == whole
    fewer = answers(micro, questions[4:12:2], alike, n=10, batch_size=3)
    assert fewer == {e.id: whole[e.id] for e in questions[4:12:2]}
    (other,) = answers(micro, questions[:1], alike, n=10, seed=1).values()
    assert other != whole[questions[0].id]


def test_questions_are_planned_a_window_at_a_time(micro, questions, images, monkeypatch):
    whole = answers(micro, questions, images)
    monkeypatch.setattr("inbol_jax.sampling.generate.WINDOW", 7)
    assert answers(micro, questions, images) == whole


def test_what_is_cut_goes_on_under_a_higher_limit(micro, questions, images):
    """And nothing else does: whatever ends by itself is the same, and not called cut."""
    # A random model hardly ever draws one end of many tokens: a tenth of them end a response here.
    ends = tuple(range(2, micro.config.text.vocab_size, 10))
    config = dataclasses.replace(micro.config, eos_token_ids=ends)
    model = dataclasses.replace(micro, config=config, model=micro.model.clone(config=config))
    short, long = (
        answers(model, questions, images, options=SamplingOptions(3.0, max_new_tokens=n))
        for n in (2, 9)
    )
    pairs = [pair for id in short for pair in zip(short[id], long[id], strict=True)]
    for before, after in pairs:
        assert before.cut == (after.tokens > before.tokens)
        assert before.cut or before.text == after.text
        assert not (before.cut and before.tokens < 2)
    assert {before.cut for before, _ in pairs} == {True, False}


def test_what_cannot_be_asked_is_set_aside(micro, questions, images):
    """Some of a batch, and whole batches."""
    sound, nowhere = questions[:3], ("nowhere.png",)
    broken = [
        VQAExample("nowhere", nowhere, sound[0].question),
        VQAExample("data", ("data.jsonl",), sound[1].question),
        VQAExample("placeholder", sound[0].images, "What is <image> here?"),
    ]
    mixed = [e for pair in zip(broken, sound, strict=True) for e in pair]
    for examples, size in ((mixed, 3), (broken, 1)):
        aside = []
        found = answers(micro, examples, images, batch_size=size, aside=aside)
        assert sorted(dict(aside)) == ["data", "nowhere", "placeholder"]
        assert len(aside) == 3
        assert all(id in reason for id, reason in aside)
        assert found == (answers(micro, sound, images) if size == 3 else {})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_stop_and_name_the_model(micro, questions, images, temperature):
    params = jax.tree.map(lambda x: x * np.nan, dict(micro.variables["params"]))
    spoilt = dataclasses.replace(micro, variables={"params": params})
    options = SamplingOptions(temperature=temperature, max_new_tokens=2)
    with pytest.raises(InbolError, match=rf"^{micro.path}: .* is not finite; its weights"):
        answers(spoilt, questions[:2], images, options=options)


def test_more_tokens_than_the_model_was_made_for_are_refused(micro, questions, images):
    options = SamplingOptions(max_new_tokens=256)
    with pytest.raises(InbolError, match="--max-new-tokens 256: the model was made for 256"):
        answers(micro, questions[:2], images, options=options)
