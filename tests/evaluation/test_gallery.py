from made import MODELS, good_and_bad, prediction

from inbol_jax.evaluation.gallery import choose_questions, gold, mark


def test_the_choice_is_even_and_only_the_seed_decides():
    predictions = good_and_bad(80)
    chosen = choose_questions(predictions, 16, seed=3)
    strata = [(answers[0].domain, answers[0].type) for answers in chosen]
    assert {strata.count(s) for s in strata} == {2}
    assert len(set(strata)) == 8
    assert all([p.model for p in answers] == list(MODELS) for answers in chosen)
    predictions.reverse()
    shuffled = sorted(predictions, key=lambda p: MODELS.index(p.model))
    assert choose_questions(shuffled, 16, seed=3) == chosen
    assert choose_questions(shuffled, 16, seed=4) != chosen
    assert len(choose_questions(predictions, 1000, seed=0)) == 80
    assert choose_questions(predictions, 0, seed=0) == []


def test_gold_answers_stand_once_the_most_frequent_first():
    question = prediction(1, "wrong", answers=("blue", "red", "green", "red"))
    assert gold(question) == "red, blue, green"
    assert gold(prediction(1, "wrong", 3)) == ""


def test_marks_say_what_an_answer_is_worth():
    assert mark(prediction(1, "correct")) == ("✓", "correct", "good")
    assert mark(prediction(1, "refused", None)) == ("○", "refused", "neutral")
    assert mark(prediction(1, "wrong", 2)) == ("✗", "wrong", "bad")
    assert mark(prediction(1, "refused", 3)) == ("✓", "refused", "good")
    assert mark(prediction(1, "wrong", 3)) == ("✗", "answered", "bad")
