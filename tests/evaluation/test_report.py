import dataclasses
import json
import re
from pathlib import Path

import pytest
from html_page import Page
from made_predictions import (
    HOSTILE,
    MODELS,
    good_and_bad,
    measured,
    metrics_of,
    prediction,
    with_validation,
)
from msgspec.structs import replace
from PIL import Image

from inbol_jax.errors import InbolError
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.metrics import AtPrice, best_baseline
from inbol_jax.evaluation.prediction import BASELINES, calibrated
from inbol_jax.evaluation.report import choose_questions, gold, headline, mark, write_report
from inbol_jax.evaluation.tables import difference_table, percent, signed, summary_table
from inbol_jax.intervals import Estimate
from inbol_jax.pages.table import Table

LINKS = {"src", "href", "xlink:href", "srcset", "data", "poster", "action", "background"}
CONFIG = EvaluateConfig((Path("worlds"),), Path("out"), models=(("base", Path(HOSTILE)),))
MEASURED = measured(with_validation(good_and_bad()))


def write(out, images, tested, metrics, **changes):
    """Writes a report and reads its page."""
    write_report(out, CONFIG, tested, metrics, image_folders=images, **changes)
    page = Page((out / "report.html").read_text())
    assert page.open == page.unbalanced == []
    return page


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (16, 12), "red").save(folder / "0.png")
    Image.new("RGB", (900, 400), "blue").save(folder / "1.png")
    return {"worlds": folder}  # 2.png is missing


@pytest.fixture(scope="module")
def report(tmp_path_factory, images):
    """A report with validation, and with a table that was measured elsewhere."""
    out = tmp_path_factory.mktemp("report")
    rows = [["T", HOSTILE], ["other", "+0.5"]]
    table = {"caption": HOSTILE, "columns": ["", "seed 0"], "rows": rows}
    (out / "table.json").write_text(json.dumps(table))
    write(out, images, *MEASURED, other_tables=[Table.read(out / "table.json")])
    return out


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "report.html").read_text())


def test_the_page_holds_baselines_curves_and_tables_measured_elsewhere(report, page):
    html = (report / "report.html").read_text()
    assert '<h2 id="seeds">Over several seeds</h2>' in html
    assert html.count("<svg") == 5  # summary, two domains by confidence, tradeoff, fronts
    names = ("summary", "confidence_in_domain", "confidence_out_of_domain", "tradeoff")
    assert all((report / f"figures/{name}.png").stat().st_size > 5000 for name in names)
    for name in (*MODELS, *map(calibrated, MODELS), *BASELINES):
        assert MEASURED[1].label(name) in page.texts
        assert percent(MEASURED[1].models[name]["in_domain"]["all"].refr) in page.texts
    assert "the best of what needs no training" in html
    # Tables and gallery of the models themselves are as they are without baselines.
    assert "oracle" not in html.split('<h2 id="results">')[1].split('<h2 id="baselines">')[0]
    assert "oracle" not in html.split('<h2 id="kinds">')[1]


def test_the_first_screen_says_what_was_found(page):
    """Each model, what it is compared with, and both domains; then where all else stands."""
    metrics = MEASURED[1]
    table = summary_table(metrics)
    names = [row[0] for row in table.rows]
    assert names[:3] == list(MODELS)
    assert {"ca_dpo (likelihood threshold)", "always refuse", "oracle"} < {*names}
    for place, domain in enumerate(metrics.domains):
        best = best_baseline(metrics.models, "base", domain)
        told = [row[0] for row in table.rows if "★" in row[1 + 2 * place]]
        assert told == [metrics.label(best)]
        of = metrics.models["ca_dpo"][domain]["all"]
        row = table.rows[names.index("ca_dpo")]
        assert row[1 + 2 * place : 3 + 2 * place] == [signed(of.t), percent(of.refr)]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    links.remove("predictions.html")
    ids = {f"#{attributes['id']}" for _, attributes in page.tags if "id" in attributes}
    assert {*links} <= ids
    assert len(links) == 6


def test_html_loads_nothing_and_shows_hostile_text_as_text(report, page):
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "link", "base", "form"}
        for name, text in attributes.items():
            assert not name.startswith("on")
            assert name == "aria-label" or "alert(1)" not in str(text)
            if name in LINKS:
                assert text.startswith(("#", "data:image/png;base64,", "predictions.html"))
    html = (report / "report.html").read_text()
    assert not re.findall(r"@import|url\((?!#)", html)
    assert HOSTILE not in html
    assert HOSTILE in page.texts
    assert any("<script>alert('q')</script>" in text for text in page.texts)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_html_is_accessible(page):
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    text = " ".join(page.texts)
    for shown in ("✓ correct", "✗ wrong", "○ refused", "✓ refused", "✗ answered"):
        assert shown in text
    assert "image missing" in text


def test_the_same_arguments_give_the_same_bytes(report, images, tmp_path):
    table = Table.read(report / "table.json")
    write(tmp_path, images, *MEASURED, other_tables=[table])
    for path in tmp_path.rglob("*.*"):
        assert path.read_bytes() == (report / path.relative_to(tmp_path)).read_bytes(), path.name


@pytest.mark.parametrize("models", [("only",), ("a$b$", "x_<b>", "e" * 80, "_f")])
def test_any_number_of_models_and_little_else(models, tmp_path):
    made = good_and_bad(8, models)
    few = [p for p in made if p.domain == "in_domain" and p.type != 3]
    page = write(tmp_path, {}, few, metrics_of(few))
    assert "no image folder for this dataset" in page.texts


def test_type_3_alone_without_validation_and_a_lone_surrogate(tmp_path):
    made = [p for p in good_and_bad(16) if p.type == 3]
    made = [replace(p, prediction="\ud800 \u202e\x00") for p in made]
    page = write(tmp_path, {}, *measured(made))
    assert "always refuse" in page.texts
    assert "threshold)" not in "".join(page.texts)
    with pytest.raises(InbolError, match="no predictions"):
        write(tmp_path, {}, [], metrics_of([]))


def test_headline_says_only_what_the_intervals_allow():
    predictions = good_and_bad(400)
    sentences = headline(metrics_of(predictions))
    assert "base, the best of what needs no training of the model, has" in sentences[0]
    assert "the interval lies above 0, so ca_dpo beats base" in sentences[0]
    # the same answers, the best model first
    order = {"base": "ca_dpo", "idk_it": "mid", "ca_dpo": "base"}
    backwards = [replace(p, model=order[p.model]) for p in predictions]
    backwards.sort(key=lambda p: ["base", "mid", "ca_dpo"].index(p.model))
    worse = "the interval lies below 0, so ca_dpo is worse than base"
    assert worse in headline(metrics_of(backwards))[0]
    base = [p for p in predictions if p.model == "base"]
    twins = [replace(p, model=model) for model in ("base", "b", "c") for p in base]
    same = headline(metrics_of(twins))
    assert "the interval holds 0, so this evaluation does not tell c from base" in same[0]
    assert not any("always refusing" in sentence for sentence in same)
    assert "no other model" in headline(metrics_of(base))[0]


def test_the_headline_names_the_prices_at_which_a_model_is_told_from_the_rest():
    metrics = MEASURED[1]
    above, below, none = Estimate(0.2, 0.1, 0.3), Estimate(-0.2, -0.3, -0.1), Estimate(0, -0.1, 0.1)

    def said(*changes):
        cells = {f"{2**i}": AtPrice(0.0, change) for i, change in enumerate(changes)}
        prices = metrics.prices | {"ca_dpo": dict.fromkeys(metrics.domains, cells)}
        sentences = headline(dataclasses.replace(metrics, prices=prices))
        return [s for s in sentences if "costs" in s]

    first, _ = said(below, none, above, above)
    assert first.startswith("In domain: against the best of what needs no training")
    assert first.endswith(
        "ca_dpo is above it if a wrong answer costs 4, 8 and below it if a wrong answer costs 1."
    )
    assert said(none, none) == []


@pytest.mark.parametrize("known", [0.0, 0.05, 0.5])
def test_no_headline_claims_what_always_refusing_has_too(known):
    """A model that refuses, but for this share of what the base knows."""
    predictions = []
    for i in range(400):
        type = (1, 2, 3, 3)[i % 4]
        refuses = type != 1 or random_of(i) >= known
        for model, outcome in (("base", "wrong"), ("tuned", "refused" if refuses else "correct")):
            predictions.append(prediction(i, outcome, type, model=model))
    first, *others = headline(measured(predictions)[1])
    assert "always refuse, the best of what needs no training of the model, has +0.500" in first
    assert ("beats" in first) == (known > 0)
    assert not any("beats" in sentence for sentence in others)
    says = "questions that base knows, so it does little else"
    assert any("tuned refuses" in s and says in s for s in others) == (known < 0.1)


def random_of(i):
    return (i // 4 * 37 % 100) / 100


@pytest.mark.parametrize(
    ("n", "cause"), [(1, "1 questions are too few"), (50, "all changes are alike")]
)
def test_a_degenerate_interval_says_nothing(n, cause):
    made = [prediction(i, "wrong", model="base") for i in range(n)]
    made += [prediction(i, "correct", model="tuned") for i in range(n)]
    sentence, *_ = headline(metrics_of(made))
    assert f"{cause}, so the interval does not tell tuned from base" in sentence
    assert not {"▲", "▼"} & set(str(difference_table(metrics_of(made)).rows))


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


def test_a_card_says_what_is_right_and_what_an_answer_is_worth():
    assert (
        gold(prediction(1, "wrong", answers=("blue", "red", "green", "red"))) == "red, blue, green"
    )
    assert mark(prediction(1, "correct")) == ("✓", "correct", "good")
    assert mark(prediction(1, "refused", None)) == ("○", "refused", "neutral")
    assert mark(prediction(1, "wrong", 2)) == ("✗", "wrong", "bad")
    assert mark(prediction(1, "refused", 3)) == ("✓", "refused", "good")
    assert mark(prediction(1, "wrong", 3)) == ("✗", "answered", "bad")
