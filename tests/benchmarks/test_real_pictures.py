"""benchmarks/real_pictures.py, as far as it needs no package: splits, Type 3, stages, policies."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import picture_sets as sets
import picture_tower as tower
import pytest
import real_stages
import refusal_policies as policies
from picture_objects import Picture, simple_name
from PIL import Image

N_THINGS = 120  # of each kind


@pytest.fixture(scope="module")
def pictures():
    """Each thing in two styles, one of them out of domain; every second flag has a capital."""
    return [
        Picture(kind, f"{kind} {i}", (), style, Path(f"{kind}-{i}-{style}.png"), capital)
        for kind in sets.QUESTIONS
        if kind != "capital"
        for i in range(N_THINGS)
        for style in ("google", sets.STYLE_OUT)
        for capital in [f"city {i}" if kind == "flag" and i % 2 else ""]
    ]


def lines_of(pictures, name, number=100):
    about = sets.sets(pictures)[name]
    others = [p for p in pictures if p.kind in sets.IN_DOMAIN]
    return sets.questions(about, others, number, 0.4, "0")


def test_a_thing_is_asked_about_in_one_split_only(pictures):
    found = sets.sets(pictures)
    things = {name: {p.thing for p in found[name]} for name in ("train", "validation", "test")}
    for a, b in itertools.combinations(things, 2):
        assert not things[a] & things[b]
    assert all(p.source == sets.STYLE_OUT and p.thing in things["test"] for p in found["ood_style"])
    in_domain = set.union(*things.values())
    assert not in_domain & {p.thing for p in (*found["ood_kinds"], *found["ood_regions"])}
    # The capital of a country is asked in the split of its flag.
    flags = {name: {p.name for p in found[name] if p.kind == "flag"} for name in things}
    for name in things:
        assert {p.name for p in found[name] if p.kind == "capital"} <= flags[name]


def test_the_tower_sees_neither_the_other_style_nor_regions_and_never_some_things(pictures):
    shown = sets.shown_to_tower(pictures)
    assert not {p.source for p, _ in shown} & {sets.STYLE_OUT}
    assert not {p.kind for p, _ in shown} & {"region"}
    usual = {p.thing for p in pictures if p.kind != "region"}
    seen = {p.thing for p, _ in shown}
    assert abs(len(usual - seen) / len(usual) - sets.NEVER) < 0.05
    # What is seen how often does not depend on the split.
    train = {thing for thing in usual if sets.split_of(thing) == "train"}
    assert abs(len(train & seen) / len(train) - (1 - sets.NEVER)) < 0.1


@pytest.mark.parametrize("name", ["train", "test", "ood_style", "ood_kinds", "ood_regions"])
def test_the_text_does_not_tell_type_3(pictures, name):
    lines = lines_of(pictures, name)
    shares = {
        text: np.mean([not line["answerable"] for line in lines if line["question"] == text])
        for text in {line["question"] for line in lines}
    }
    assert max(shares.values()) - min(shares.values()) < 0.05
    assert abs(np.mean(list(shares.values())) - 0.4 / 1.4) < 0.03
    assert abs(sets.text_auc(lines_of(pictures, "train"), lines) - 0.5) < 0.05


def test_the_picture_of_a_type_3_question_lacks_what_is_asked_for_or_is_blurred(pictures):
    lines = [line for line in lines_of(pictures, "train") if not line["answerable"]]
    for line in lines:
        kinds = (line["kind"],) if line["blurred"] else sets.LACKING[line["kind"]]
        assert line["shows_kind"] in kinds
        assert not line["answers"]
    blurred = Counter(line["kind"] for line in lines if line["blurred"])
    assert set(blurred) == set(sets.IN_DOMAIN)


def test_what_is_written_is_kept_and_depends_on_the_seed_alone(pictures, tmp_path):
    def write(folder, seed):
        sizes = sets.Sizes(train=20, validation=10, test=10, ood=10)
        sets.write(folder, pictures, sizes, seed, read=lambda file: Image.new("RGB", (8, 8)))
        return {p.name: (p / "data.jsonl").read_bytes() for p in sorted(folder.iterdir())}

    first = write(tmp_path / "a", 0)
    assert set(first) == set(sets.sets([]))
    assert write(tmp_path / "b", 0) == first != write(tmp_path / "c", 1)
    mine = tmp_path / "a/train/data.jsonl"
    mine.write_text("mine")
    assert write(tmp_path / "a", 0)["train"] == b"mine"
    for file in (tmp_path / "b").glob("*/data.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            assert (file.parent / line["images"][0]).exists()


def test_a_stage_runs_once_and_one_that_failed_runs_again(tmp_path):
    ran = []

    def fail():
        ran.append("fails")
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        real_stages.Stages(tmp_path).run("gather", fail)
    for _ in range(2):
        real_stages.Stages(tmp_path).run("gather", lambda: ran.append("gather"))
    with pytest.raises(real_stages.Stop):
        real_stages.Stages(tmp_path, until="gather").run("gather", lambda: ran.append("again"))
    assert ran == ["fails", "gather"]


def test_names_are_what_a_child_would_say():
    assert simple_name("Rice, puffed") == ("rice", ("puffed rice",))
    assert simple_name("Brinjal 15") == ("brinjal", ())


def test_names_are_spelled_at_the_places_of_the_image(monkeypatch):
    class Letters:
        def __call__(self, text):
            return {"input_ids": [ord(letter) for letter in text]}

    monkeypatch.setattr(tower, "BEGINNING", "a")
    targets, used, end = tower.name_tokens(["bc", "bcdefghijkl"], Letters())
    spelled = ["".join(chr(used[i]) for i in row) for row in targets]
    assert spelled == ["a bc" + "\n" * 5, "a bcdefgh"]
    assert end == ord("\n")


def prediction(model, domain, i, rng):
    """One of Type 1, 2 or 3, of which the base is the surer the more it knows."""
    type = (1, 2, 3)[i % 3]
    correct = type == 1
    return {
        "id": str(i), "dataset": domain, "domain": domain, "model": model, "type": type,
        "outcome": "correct" if correct else "wrong", "confidence": float(correct),
        "consistency": rng.random(), "p_true": rng.random(),
        "question": f"{i} or | what?", "answers": [f"gold {i}"], "prediction": f"{model}\n{i}",
        "forced": {
            "outcome": "correct" if correct else "wrong", "logodds": rng.normal(),
            "logprob": rng.normal() + 2 * correct, "margin": rng.normal(),
        },
    }  # fmt: skip


@pytest.fixture
def questions(tmp_path):
    rng = np.random.default_rng(0)
    domains = ("in_domain", "out_of_domain", "validation")
    rows = [
        prediction(m, d, i, rng) for m in ("base", "idk_it") for d in domains for i in range(90)
    ]
    file = tmp_path / "predictions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return policies.read(file)


def test_policies_are_worth_what_their_responses_are(questions):
    found = {p.name: p for p in policies.policies(questions)}
    worth = {name: p.value["in_domain"].mean() for name, p in found.items()}
    assert worth["always refuse"] == pytest.approx(1 / 3)
    assert worth["base as it is"] == pytest.approx(-1 / 3)
    assert worth["oracle"] == pytest.approx(2 / 3)
    assert worth["always refuse"] < worth["base, likelihood"] < worth["oracle"]
    header, *lines = policies.table(questions, list(found.values()))
    assert all(len(line) == len(header) for line in lines)
    best = [line for line in lines if line[3] == "best"]
    assert [line[0] for line in best] == ["base, likelihood"]


def test_a_probe_that_knows_the_type_is_the_oracle(questions):
    rows = questions.models["base"]
    scores = {(row["dataset"], row["id"]): float(row["type"] != 1) for row in rows}
    found = {p.name: p for p in policies.policies(questions, {"linear probe": scores})}
    for domain in policies.DOMAINS:
        assert (found["linear probe"].value[domain] == found["oracle"].value[domain]).all()
    assert not found["linear probe"].free


def test_sayings_are_those_of_questions_drawn_at_random(questions):
    header, *lines = policies.sayings(questions, 5)
    assert header == ["question", "type", "gold", "base", "idk_it"]
    places = [int(line[0].split()[0]) for line in lines]
    assert len({*places}) == 5
    assert max(places) > 5
    for i, line in zip(places, lines, strict=True):
        gold = "none" if i % 3 == 2 else f"gold {i}"
        assert line[1:] == [str((1, 2, 3)[i % 3]), gold, f"base {i}", f"idk_it {i}"]
    assert r"0 or \| what?" in policies.markdown([header, ["0 or | what?", "1", "", "", ""]])


def test_a_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = [{"type": int(t)} for t in rng.integers(1, 4, size=12)]
        correct = rng.random(12) < 0.5
        score = rng.integers(5, size=12).astype(float)
        worth = {
            t: policies.value(rows, score > t, correct).sum()
            for t in (np.inf, 3.5, 2.5, 1.5, 0.5, -np.inf)
        }
        chosen = policies.best_threshold(score, rows, correct)
        assert policies.value(rows, score > chosen, correct).sum() == max(worth.values())


def test_an_interval_holds_the_mean():
    changes = np.random.default_rng(0).integers(-1, 2, size=200)
    low, high = policies.interval(changes)
    assert low < changes.mean() < high
    assert policies.interval(np.ones(5)) == (1, 1)
