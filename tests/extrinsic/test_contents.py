from extrinsic_cases import example

from inbol_jax.extrinsic.contents import ImageContents
from inbol_jax.extrinsic.generators import subject


def test_contents_of_annotated_images():
    contents = ImageContents(
        [
            example(1, "What?", image="a", objects=["red star", "Blue ring"]),
            example(2, "What?", image="b", objects=["green star"]),
        ]
    )
    assert contents.absent("b", "ring")
    assert contents.absent("b", "red star")  # a star there is, but none is red
    assert not contents.absent("a", "red star")
    assert not contents.absent("a", "unicorn")  # named nowhere: who knows
    assert contents.present("a", "star")
    assert contents.present("a", "blue ring")
    assert not contents.present("b", "red star")


def test_contents_from_questions_and_answers_alone():
    contents = ImageContents(
        [
            example(1, "What color is the dog?", ["brown"], image="a"),
            example(2, "Who holds the kite?", ["a woman"], image="b"),
        ]
    )
    assert contents.absent("b", "dog")
    assert not contents.absent("a", "dog")
    assert not contents.absent("b", "woman")
    assert contents.present("b", "kite")


def test_a_verb_behind_the_subject_does_not_make_it_absent():
    contents = ImageContents(
        [
            example(1, "What does the sign say?", ["stop"], image="a"),
            example(2, "What color is the sign?", ["red"], image="b"),
        ]
    )
    # The sign is there, and b answers the question.
    assert not contents.absent("b", subject("What does the sign say?"))


def test_contents_hold_what_a_dictionary_of_sets_would():
    contents = ImageContents(
        [example(0), example(0, "Who holds the leash?", ["a woman"]), example(1)]
    )
    assert contents.present("0.png", "dog leash woman red")
    assert not contents.present("0.png", "kite")
    assert contents.absent("0.png", "kite")
    assert not contents.absent("0.png", "zebra")
    assert not contents.lists_objects
    assert not ImageContents([example(0, objects="dog")]).lists_objects  # a list is wanted
