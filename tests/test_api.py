"""The Python interface against the commands, with the shipped model."""

import numpy as np
import pytest
from PIL import Image

import inbol_jax
from inbol_jax.answers import ImageHashes
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.defaults import TINY
from inbol_jax.errors import InbolError
from inbol_jax.evaluation.asking import ask, greedy
from inbol_jax.prompts import BARE
from inbol_jax.sampling.engines import CheckpointEngine

pytestmark = pytest.mark.usefixtures("one_length")


@pytest.fixture(scope="module")
def dataset(small_world):
    return load_dataset_folder(small_world / "test")


@pytest.fixture(scope="module")
def model():
    return inbol_jax.load(TINY, templates="short")


def test_a_model_answers_as_the_command_does(model, dataset, tmp_path):
    some = dataset.examples[:6]
    pictures = [dataset.root / example.images[0] for example in some]
    said = model.ask(pictures, [example.question for example in some])
    engine = CheckpointEngine(lambda: model.checkpoint, greedy(12), 0, 32)
    rows = ask(
        engine,
        dataset,
        ImageHashes(dataset.root),
        tmp_path / "answers.jsonl",
        prompt=BARE,
        refusals=("I don't know.",),
        label="test",
    )
    for example, answer in zip(some, said, strict=True):
        assert answer.text == rows[example.id]["prediction"]
        assert answer.refused == (rows[example.id]["outcome"] == "refused")
        assert 0 < answer.likelihood < 1
        assert 0 < answer.chance_of_refusing < 1


def test_a_picture_is_a_file_an_image_or_an_array(model, dataset):
    example = dataset.examples[0]
    file = dataset.root / example.images[0]
    image = Image.open(file)
    pictures = (file, str(file), image, np.asarray(image.convert("RGB")))
    first, *others = (model.ask(picture, example.question) for picture in pictures)
    assert all(other == first for other in others)
    turned = image.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6  # which says that it is to be turned back
    assert model.ask(turned, example.question) == first
    assert model.ask(image.convert("CMYK"), example.question).text


def test_many_questions_are_about_one_picture_or_as_many(model, dataset):
    example = dataset.examples[0]
    picture = np.asarray(Image.open(dataset.root / example.images[0]).convert("RGB"))
    first, *others = model.ask(picture, [example.question] * 3)
    assert all(other == first for other in others)
    with pytest.raises(InbolError, match="3 questions about 2 pictures"):
        model.ask([picture, picture], [example.question] * 3)


def test_given_responses_have_the_likelihood_that_they_are_answered_with(model, dataset):
    example = dataset.examples[0]
    picture = dataset.root / example.images[0]
    said = model.ask(picture, example.question)
    own, other = model.logprobs(picture, example.question, [said.text, "I don't know."])
    assert own == pytest.approx(np.log(said.likelihood), abs=1e-4)
    assert own > other
    assert model.logprobs(picture, example.question, said.text) == pytest.approx(own, abs=1e-5)
    with pytest.raises(InbolError, match="no response is given"):
        model.logprobs(picture, example.question, [])


def test_the_confidence_is_the_share_of_samples_that_are_correct(model, dataset):
    example = dataset.examples[0]
    picture = dataset.root / example.images[0]
    samples = [answer.text for answer in model.sample(picture, example.question, 20, seed=3)]
    most = max(samples, key=samples.count)
    found = model.confidence(picture, example.question, most, metric="exact", n=20, seed=3)
    assert found.value == samples.count(most) / 20
    assert found.low < found.value <= found.high


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("none.png", "question 0: .*/none.png"),
        ("a\0b.png", "question 0: "),
        (np.zeros((2, 2, 5), np.uint8), "a picture is a path, a PIL image or an array"),
        (7, "a picture is a path, a PIL image or an array"),
    ],
)
def test_what_is_no_picture_is_said(model, picture, message):
    with pytest.raises(InbolError, match=message):
        model.ask(picture, "What is this?")


def test_a_question_that_cannot_be_asked_is_named(model):
    image = Image.new("RGB", (8, 8))
    with pytest.raises(InbolError, match=r"question 1: .*placeholder"):
        model.ask([image, image], ["What is this?", "What is <image>?"])


ROWS = (
    {"question": "Capital of France?", "answers": "Paris", "confidence": np.float32(0.9)},
    {"question": "Capital of Peru?", "answers": ["Lima"], "confidence": 0.1},
    {"question": "Capital of Zub?", "answerable": False},
)


@pytest.mark.parametrize(
    ("said", "t"),
    [
        (("It is Paris.", "I don't know.", "I don't know."), 2 / 3),
        (("London", "Lima", "Zubville"), -1 / 3),
        (("I don't know.",) * 3, 1 / 3),
    ],
)
def test_anybodys_answers_are_judged(said, t):
    rows = [row | {"prediction": text} for row, text in zip(ROWS, said, strict=True)]
    scores = inbol_jax.score(rows)["model"]["in_domain"]
    assert [scores[name].n for name in ("type1", "type2", "type3")] == [1, 1, 1]
    assert scores["all"].t == pytest.approx(t)


def test_refusing_what_one_gets_wrong_is_no_accuracy():
    """POPE's trap: where answers that are neither yes nor no are left out, as some scorers do, a
    model that refuses what it would get wrong has an F1 of 1."""
    asked = [{"question": f"Is there a {i}?", "answers": "yes"} for i in range(10)]
    models = {"answers": ("yes", "no"), "refuses": ("Yes.", "I don't know."), "silent": ("yes", "")}
    for model, said in models.items():
        rows = [row | {"prediction": said[i % 2], "model": model} for i, row in enumerate(asked)]
        scores = inbol_jax.score(rows)[model]["in_domain"]["all"]
        assert scores.acc == 0.5
        assert scores.refr == (0.5 if model == "refuses" else 0)
        assert scores.t == (0.5 if model == "refuses" else 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answers": ["a"], "question": "q"}, "row 1: .*required field `prediction`$"),
        ({"question": "q", "prediction": "x"}, "row 1: it needs the gold answers"),
        ({"answers": ["a"], "prediction": "x"}, "row 1: .*`question`"),
        (ROWS[0] | {"prediction": "x", "confidence": 3}, "row 1: .*confidence"),
        (ROWS[0] | {"prediction": "x", "id": 0}, "prediction '0' of model on dataset stands twice"),
    ],
)
def test_rows_that_cannot_be_judged_are_named(row, message):
    with pytest.raises(InbolError, match=message):
        inbol_jax.score([ROWS[0] | {"prediction": "Paris"}, row])
