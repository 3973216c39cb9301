import pytest
from sample_sets import dataset_row as row
from sample_sets import write_rows as write

from inbol_jax.data.vqa import load_dataset_folder

BAD = [
    (b"{", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'{"id": "a", "extra": {"b": ":", "b" :1}}', "not JSON"),
    (row(id="bad", extra=float("nan")), "not JSON"),
    (row(id="bad", extra=float("inf")), "not JSON"),
    (row(id="bad", extra="x" * (1 << 24)), "not JSON"),
    (b'{"id": "bad", "question": "\xff"}', "not UTF-8"),
    (b'{"id": "bad", "images": ["images/a.png"], "question": "\\ud800?"}', "not JSON"),
    (b"[1]", "not a JSON object"),
    (row(id=...), "Object missing required field `id`"),
    (row(id=None), "Object missing required field `id`"),
    (row(id=""), "Expected `str` of length >= 1 - at `$.id`"),
    (row(id=[1]), "Expected `str`, got `array` - at `$.id`"),
    (row(id=True), "Expected `str`, got `bool` - at `$.id`"),
    (row(id=1.5), "Expected `str`, got `float` - at `$.id`"),
    (row(), "duplicated id"),
    (row(id="bad", question=...), "Object missing required field `question`"),
    (row(id="bad", question=" \n"), "question blank"),
    (row(id="bad", question=["What?"]), "Expected `str`, got `array` - at `$.question`"),
    (row(id="bad", images=None), "Object missing required field `images`"),
    (row(id="bad", images=["images/a.png", ""]), "Expected `str` of length >= 1 - at `$.images[]`"),
    (row(id="bad", images="images/a.png"), "Expected `array`, got `str` - at `$.images`"),
    (row(id="bad", images=["images/b.png"]), "image missing"),
    (row(id="bad", images=["images"]), "image missing"),
    (row(id="bad", images=["a\0b"]), "image missing"),
    (row(id="bad", images=["a" * 5000]), "image missing"),
    (row(id="bad", images=["images/loop.png"]), "image missing"),
    (row(id="bad", images=["images/empty.png"]), "image empty"),
    (row(id="bad", images=["/etc/hostname"]), "image path absolute"),
    (row(id="bad", images=["../secret.png"]), "image outside the folder"),
    (row(id="bad", images=["images/../../secret.png"]), "image outside the folder"),
    (row(id="bad", images=["images/link.png"]), "image outside the folder"),
    (row(id="bad", images=["../set-two/a.png"]), "image outside the folder"),
    (row(id="bad", answers="red"), "Expected `array`, got `str` - at `$.answers`"),
    (row(id="bad", answers=["red", 2]), "Expected `str`, got `int` - at `$.answers[]`"),
    (row(id="bad", answers=[{"text": "red"}]), "Expected `str`, got `null` - at `$.answers[]`"),
    (row(id="bad", answers=[]), "answerable without answers"),
    (row(id="bad", answers=...), "answerable without answers"),
    (row(id="bad", answers=[" "]), "answerable without answers"),
    (row(id="bad", answerable="yes"), "Expected `bool | null`, got `str` - at `$.answerable`"),
    (row(id="bad", answerable=1), "Expected `bool | null`, got `int` - at `$.answerable`"),
    (row(id="bad", source=3), "Expected `str`, got `int` - at `$.source`"),
    (
        row(id="bad", metric="bleu"),
        "metric 'bleu' is not known; choose one of inclusion, vqa, exact, yes_no, choice, numeric",
    ),
    (row(id="bad", metric=1), "Expected `str`, got `int` - at `$.metric`"),
    (row(id="bad", options=["a", " "]), "option blank"),
    (row(id="bad", options=["a", "b"]), "answer none of the options"),
    (row(id="bad", options=["a"] * 27), "Expected `array` of length <= 26 - at `$.options`"),
]


@pytest.fixture
def surroundings(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "set-two").mkdir()
    (tmp_path / "set-two/a.png").write_bytes(b"image")
    folder = tmp_path / "set"
    write(folder)
    (folder / "images/empty.png").touch()
    (folder / "images/link.png").symlink_to(tmp_path / "secret.png")
    (folder / "images/loop.png").symlink_to("loop.png")
    (folder / "images/inside.png").symlink_to("a.png")
    return folder


@pytest.mark.parametrize(
    ("bad", "reason"), BAD, ids=[f"{i}-{reason}" for i, (_, reason) in enumerate(BAD)]
)
def test_a_bad_record_is_set_aside_with_its_cause(surroundings, bad, reason):
    sound = (
        row(id="q3", images=["images/inside.png"]),
        row(id="q4", images=["./images/../images/a.png"]),
    )
    write(surroundings, row(), bad, *sound)
    dataset = load_dataset_folder(surroundings, max_rejected=0.25)
    assert [e.id for e in dataset.examples] == ["q1", "q3", "q4"]
    assert [(r.line, r.reason) for r in dataset.rejected] == [(2, reason)]
