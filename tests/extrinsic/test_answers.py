from types import SimpleNamespace

from PIL import Image

from inbol_jax.answers import AnswerStore, Generation
from inbol_jax.extrinsic import answers
from inbol_jax.records import VQAExample
from inbol_jax.sampling import engines


def test_only_what_the_store_does_not_hold_is_asked(tmp_path, monkeypatch, capsys):
    asked = []

    def generate(checkpoint, examples, images, *, set_aside, **options):
        assert options["options"].temperature == 0
        asked.extend(e.question for e in examples)
        for e in examples:
            if e.question == "of none":
                set_aside(e, "image missing")
        yield [(e, [Generation("red", -0.5, 2)]) for e in examples if e.question != "of none"]

    monkeypatch.setattr(engines, "generate", generate)
    model = SimpleNamespace(dtype=SimpleNamespace(name="float32"))
    checkpoint = SimpleNamespace(fingerprint="f", model=model, prompt=None)
    checkpoint.asked_by = lambda prompt: checkpoint
    file = tmp_path / "a.png"
    questions = [
        VQAExample("a", (str(file),), "of the file"),
        VQAExample("b", (str(tmp_path / "b.png"),), "of none"),
    ]
    with AnswerStore(tmp_path / "answers.jsonl", 0) as store:
        answerer = answers.greedy_answers(checkpoint, store, tmp_path, batch_size=2)
        # What could not be asked is asked again, as is a picture that has changed.
        for pixels, again in (((0, 0, 0), 2), ((0, 0, 0), 1), ((9, 0, 0), 2)):
            Image.new("RGB", (4, 4), pixels).save(file)
            asked.clear()
            assert answerer(questions, "looking") == [Generation("red", -0.5, 2), None]
            assert len(asked) == again
    assert (
        "looking: 1 of 2 questions set aside (first: b: image missing)" in capsys.readouterr().out
    )
