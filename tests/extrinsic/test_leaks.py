from extrinsic_cases import candidate, example, make_filter
from PIL import Image

from inbol_jax.extrinsic.leaks import EvaluationQuestions


def test_leaks_are_told_by_text_and_picture(tmp_path):
    for name, color in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (9, 9), color).save(tmp_path / f"{name}.png")
    (tmp_path / "eval").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "eval/another.bmp")
    (tmp_path / "eval/none.png").write_bytes(b"no picture")
    evaluation, steps = EvaluationQuestions(), []
    split = [
        example(0, image="another.bmp"),
        example(1, "What color is the cow?", image="none.png"),
    ]
    evaluation.add(split, tmp_path / "eval", lambda: steps.append(1))
    assert evaluation.unreadable == 1
    assert len(steps) == 2
    leaked = make_filter("leaked", [], tmp_path, evaluation=evaluation)
    dog = "What color is the dog?"
    for image, question, changed, reason in (
        ("a.png", "what color is  the dog", None, "in an evaluation split"),
        ("b.png", dog, None, None),
        ("a.png", "What color is the cat?", None, None),
        ("b.png", dog, "a.png", "in an evaluation split"),
        ("missing.png", dog, None, None),
    ):
        asked = candidate(example(0, image=image), question, image=changed)
        assert leaked.reject(asked) == reason
