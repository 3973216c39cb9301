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
from inbol_jax.evaluation.prediction import BASELINES, calibrated
from inbol_jax.evaluation.report import choose_questions, gold, headline, mark, write_report
from inbol_jax.evaluation.tables import difference_table, percent
from inbol_jax.pages.page import cell
from inbol_jax.pages.table import Table

LINKS = {"src", "href", "xlink:href", "srcset", "data", "poster", "action", "background"}


CONFIG = EvaluateConfig((Path("worlds"),), Path("out"), models=(("base", Path(HOSTILE)),))


def write(out, predictions, folder, **changes):
    metrics = dataclasses.replace(
        metrics_of(predictions), seconds={"train": 61.0, "evaluate": 3.25}
    )
    folders = {"worlds": folder} if folder else {}
    write_report(out, CONFIG, predictions, metrics, image_folders=folders, **changes)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (16, 12), "red").save(folder / "0.png")
    Image.new("RGB", (900, 400), "blue").save(folder / "1.png")
    return folder  # 2.png is missing


@pytest.fixture(scope="module")
def report(tmp_path_factory, images):
    out = tmp_path_factory.mktemp("report")
    write(out, good_and_bad(), images)
    return out


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "report.html").read_text())


def texts(out):
    return (out / "report.html").read_text(), (out / "report.md").read_text()


def test_tables_measured_elsewhere(report, images, tmp_path):
    assert "Over several seeds" not in "".join(texts(report))
    file = tmp_path / "table.json"
    rows = [["T | all", HOSTILE], ["other", "+0.5"]]
    file.write_text(json.dumps({"caption": HOSTILE, "columns": ["", "seed 0"], "rows": rows}))
    write(tmp_path, good_and_bad(), images, other_tables=[Table.read(file)])
    html, markdown = texts(tmp_path)
    assert "<h2>Over several seeds</h2>" in html
    assert "## Over several seeds" in markdown
    assert "| other | +0.5 |" in markdown
    assert HOSTILE not in html + markdown
    page = Page(html)
    assert page.open == page.unbalanced == []
    assert HOSTILE in page.texts


def test_baselines_and_curves_stand_in_both_formats(images, tmp_path):
    tested, metrics = measured(with_validation(good_and_bad(48)))
    write_report(tmp_path, CONFIG, tested, metrics, image_folders={"worlds": images})
    html, markdown = texts(tmp_path)
    page = Page(html)
    assert page.open == page.unbalanced == []
    assert "<h2>Against simple baselines</h2>" in html
    assert "## Against simple baselines" in markdown
    assert "![T against the share of refusals" in markdown
    assert html.count("<svg") == 5
    assert (tmp_path / "figures" / "tradeoff.png").is_file()
    for name in (*MODELS, *map(calibrated, MODELS), *BASELINES):
        scores = metrics.models[name]["in_domain"]["all"]
        label = cell(name)
        row = f"| {label} | {percent(scores.refr)} |"
        assert row in markdown, row
        assert name in page.texts
    assert all("the best of what needs no training" in text for text in (html, markdown))
    # Tables and gallery of the models themselves are as they are without baselines.
    assert "oracle" not in markdown.split("## Results")[1].split("## Against")[0]
    assert "oracle" not in markdown.split("## By kind of question")[1]


def test_without_validation_always_refusing_stands_in_the_report(images, tmp_path):
    tested, metrics = measured(good_and_bad(48))
    write_report(tmp_path, CONFIG, tested, metrics, image_folders={"worlds": images})
    for text in texts(tmp_path):
        assert "always_refuse" in text.split("Against simple baselines")[1]
        assert "base_threshold" not in text
    assert Page(texts(tmp_path)[0]).unbalanced == []


def test_html_is_well_formed_and_loads_nothing(report, page):
    assert page.open == page.unbalanced == []
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "link", "base", "form"}
        for name, text in attributes.items():
            assert not name.startswith("on")
            if name in LINKS:
                assert text.startswith(("#", "data:image/png;base64,"))
    assert not re.findall(r"@import|url\((?!#)", (report / "report.html").read_text())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_html_shows_hostile_text_as_text(page):
    assert any("<script>alert('q')</script>" in text for text in page.texts)
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert name == "aria-label" or "alert(1)" not in str(value)


def test_html_is_accessible(page):
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawn) == 4  # summary, two domains by confidence, histogram
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawn)
    text = " ".join(page.texts)
    for shown in ("✓ correct", "✗ wrong", "○ refused", "✓ refused", "✗ answered"):
        assert shown in text
    assert "image missing" in text


def test_markdown_tables_parse_and_hold_no_html(report):
    text = (report / "report.md").read_text()
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 10  # twice two domains, differences, kinds twice, gallery, settings, time
    for table in tables:
        header, rule, *body = (line.strip().strip("|").split("|") for line in table.splitlines())
        assert all(re.fullmatch(r" -{3}:? ", part) for part in rule)
        assert body
        assert {len(header)} == {len(rule)} | {len(line) for line in body}
    assert "<" not in text
    links = re.findall(r"!?\[[^\]]*\]\(([^)]*)\)", text)
    names = ("summary", "confidence_in_domain", "confidence_out_of_domain", "histogram")
    assert links == [f"figures/{name}.png" for name in names]
    assert all((report / link).stat().st_size > 5000 for link in links)


def test_the_same_arguments_give_the_same_bytes(report, images, tmp_path):
    write(tmp_path, good_and_bad(), images)
    for path in report.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(report)).read_bytes(), path.name


@pytest.mark.parametrize(
    "models", [("only",), ("base", "tuned"), ("a$b$", "x_<b>", "c|d", "e" * 80, "_f")]
)
def test_any_number_of_models_and_little_else(models, tmp_path):
    made = good_and_bad(8, models)
    few = [p for p in made if p.domain == "in_domain" and p.type != 3]
    write(tmp_path, few, None)
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == page.unbalanced == []
    assert "no image folder for this dataset" in page.texts


def test_type_3_alone_a_lone_surrogate_and_nothing(tmp_path):
    with pytest.raises(InbolError, match="no predictions"):
        write(tmp_path, [], None)
    made = [p for p in good_and_bad(16) if p.type == 3]
    made = [replace(p, prediction="\ud800 \u202e\x00") for p in made]
    write(tmp_path, made, tmp_path)
    assert (tmp_path / "report.html").read_text()


def test_headline_says_only_what_the_intervals_allow():
    predictions = good_and_bad(400)
    sentences = headline(metrics_of(predictions))
    assert "base, the best of what needs no training, has" in sentences[0]
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
    assert "always_refuse, the best of what needs no training, has +0.500" in first
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
    assert not {"▲", "▼"} & set(str(difference_table(metrics_of(made).differences).rows))


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
