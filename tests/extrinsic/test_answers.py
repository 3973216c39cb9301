from PIL import Image

from inbol_jax.answers import AnswerStore, Generation, to_row
from inbol_jax.extrinsic.answers import StoredAnswers
from inbol_jax.extrinsic.generators import ImageQuestion, Reply
from inbol_jax.prompts import BARE


def test_an_image_that_changed_is_asked_about_again(tmp_path):
    file, asked = tmp_path / "a.png", []

    def ask(examples, label, sampling, tell):
        asked.extend(e.question for e in examples)
        said = [
            Generation("no", None, None),
            Generation("red", -0.5, 2),
            Generation("no", None, None),
        ]
        yield {e.id: to_row(said) for e in examples}

    def draw():
        return Image.open(file)

    questions = [
        ImageQuestion("of the file", file, "a.png"),
        ImageQuestion("of a part", draw, "a.png without", file),
        ImageQuestion("of no file", lambda: Image.new("RGB", (4, 4)), "blank"),
    ]
    with AnswerStore(tmp_path / "answers.jsonl", 0) as store:
        for pixels, again in (((0, 0, 0), 3), ((0, 0, 0), 0), ((9, 0, 0), 2)):
            Image.new("RGB", (4, 4), pixels).save(file)
            asked.clear()
            answerer = StoredAnswers(store, {}, BARE, ask)
            replies = answerer(questions, label="", n=3)
            assert replies == [[Reply("no"), Reply("no"), Reply("red", -0.5)]] * 3
            assert len(asked) == again
    assert "of no file" not in asked
