"""The parts of the benchmark on real questions that need no package."""

import itertools
import random

import real_facts as facts

CITIES = ("Hamburg", "Marburg", "Marbella", "Hambrook", "Marlow", "Barlow", "Barking", "Marking")


def test_made_up_names_are_new_and_none_of_the_real_ones(monkeypatch):
    monkeypatch.setattr(facts, "ORDER", 1)
    made = list(itertools.islice(facts.made_up_names(CITIES, random.Random(0)), 3))
    assert len({*made}) == len(made) == 3
    real = {name.lower() for name in CITIES}
    assert not any(name.lower() in one or one in name.lower() for name in made for one in real)
    assert made == list(itertools.islice(facts.made_up_names(CITIES, random.Random(0)), 3))
    assert list(facts.made_up_names(["Rome"], random.Random(0))) == []  # ends if there are none


def test_what_is_asked_of_one_thing_is_in_one_split():
    splits = [facts.split_of(f"city {i}") for i in range(2000)]
    assert {name: round(splits.count(name) / 2000, 1) for name in facts.SPLITS} == {
        "train": 0.7,
        "validation": 0.1,
        "test": 0.2,
    }


def test_kinds_are_taken_as_evenly_as_they_allow():
    some = [facts.Fact("many", str(i), ("x",)) for i in range(50)]
    some += [facts.Fact("few", str(i), ("x",)) for i in range(3)]
    taken = facts.take(some, 10, random.Random(0))
    assert sorted(fact.kind for fact in taken) == ["few"] * 3 + ["many"] * 7
    assert len(facts.take(some, 99, random.Random(0))) == len({*some}) == 53


def test_every_kind_can_be_asked():
    for kind, templates in facts.TEMPLATES.items():
        fact = facts.Fact(kind, "zinc", ("Zn",))
        row = facts.question(fact, 7, exists=True, rng=random.Random(0))
        assert "zinc" in row["question"].lower()
        assert row["question"][0].isupper()
        assert {template.count("{}") for template in templates} == {1}
    assert {*facts.OUT_OF_DOMAIN} < {*facts.TEMPLATES}
