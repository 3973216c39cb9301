import json
import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from inbol_jax.artifacts import read_jsonl, write_jsonl
from inbol_jax.confidence.plot import confidence_histograms
from inbol_jax.errors import InbolError
from inbol_jax.evaluation import plots
from inbol_jax.evaluation.metrics import by_confidence, differences, summarise
from inbol_jax.evaluation.report import choose, headline, write_report
from inbol_jax.pages import figures
from inbol_jax.pages.page import cell, embed
from inbol_jax.pages.table import Table

HOSTILE = "<script>alert('q')</script> \"quoted\" | a\npipe & <img src=http://evil/x.png onerror=alert(1)> ![i](http://evil/y.png) `"
MODELS = ("base", "idk_it", "ca_dpo")
VOID = {"meta", "img", "br", "link", "input", "hr"}


def make_rows(n=48, models=MODELS):
    """Answers that get better from model to model, on every type and in both domains; question 0 is hostile throughout."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(n):
        type = (1, None, 2, 3)[i % 4]
        for skill, model in enumerate(models):
            good = random.random() < 0.3 + 0.6 * skill / max(len(models) - 1, 1)
            right = "correct" if type == 1 else "refused"
            rows.append(
                {
                    "id": f"q{i}",
                    "dataset": "worlds",
                    "domain": "in_domain" if i < n // 2 else "out_of_domain",
                    "model": model,
                    "image": f"{i % 3}.png" if i else 'a"><b>.png',
                    "question": f"What is number {i}?" if i else HOSTILE,
                    "answers": [] if type == 3 else ["red", "red", "blue"] if i else [HOSTILE],
                    "type": type,
                    "kind": "" if i % 3 else HOSTILE if i == 0 else "colour",
                    "confidence": 0.0
                    if type == 3
                    else (0.9 if type == 1 else 0.5 if type is None else 0.1),
                    "prediction": f"answer {i}" if i else HOSTILE,
                    "outcome": right if good else "wrong",
                }
            )
    return rows


def metrics_of(rows):
    return {"models": summarise(rows), "differences": differences(rows), "seconds": {}}


CURVES = {
    "IDK-IT": [{"step": i, "loss": 2 / (i + 1)} for i in range(80)],
    "CA-DPO": [
        {"step": i, "loss": 0.6, "reward_margin": 0.1 * i, "reward_accuracy": 0.5} for i in range(5)
    ],
}


def write(out, rows, folder, **changes):
    arguments = {
        "rows": rows,
        "metrics": metrics_of(rows),
        "curves": CURVES,
        "train_confidence": [0.0, 0.3, 0.5, 0.7, 1.0],
        "thresholds": (0.3, 0.7),
        "settings": {"seed": 0, HOSTILE: HOSTILE, "dpo": {"beta": 0.1}},
        "seconds": {"train": 61.0, "evaluate": 3.25},
        "image_folders": {"worlds": folder},
        "seed": 0,
    }
    write_report(out, **(arguments | changes))


class Page(HTMLParser):
    """Every tag with its attributes, and the tags left open or closed out of order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.unbalanced, self.texts = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (16, 12), "red").save(folder / "0.png")
    Image.new("RGB", (900, 400), "blue").save(folder / "1.png")
    return folder  # 2.png is missing


@pytest.fixture(scope="module")
def report(tmp_path_factory, images):
    out = tmp_path_factory.mktemp("report")
    write(out, make_rows(), images)
    return out


@pytest.fixture(scope="module")
def page(report):
    return Page((report / "report.html").read_text())


def test_tables_measured_elsewhere(tmp_path, images):
    write(tmp_path, make_rows(), images)
    assert (
        "Over several seeds"
        not in (tmp_path / "report.html").read_text() + (tmp_path / "report.md").read_text()
    )
    file = tmp_path / "table.json"
    file.write_text(
        json.dumps(
            {
                "caption": HOSTILE,
                "columns": ["", "seed 0"],
                "rows": [["T | all", HOSTILE], ["other", "+0.5"]],
            }
        )
    )
    write(tmp_path, make_rows(), images, other_tables=[Table.read(file)])
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "<h2>Over several seeds</h2>" in html
    assert "## Over several seeds" in markdown
    assert "| other | +0.5 |" in markdown
    assert HOSTILE not in html + markdown
    page = Page(html)
    assert page.open == page.unbalanced == []
    assert HOSTILE in page.texts


def test_html_is_well_formed_and_loads_nothing(report, page):
    assert page.open == page.unbalanced == []
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "link", "base", "form"}
        for name, text in attributes.items():
            assert not name.startswith("on")
            if name in {
                "src",
                "href",
                "xlink:href",
                "srcset",
                "data",
                "poster",
                "action",
                "background",
            }:
                assert text.startswith(("#", "data:image/png;base64,"))
    assert not re.findall(r"@import|url\((?!#)", (report / "report.html").read_text())
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_html_shows_hostile_text_as_text(page):
    assert any("<script>alert('q')</script>" in text for text in page.texts)
    assert not any(
        "alert(1)" in str(value)
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name != "aria-label"
    )


def test_html_is_accessible(page):
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    figures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(figures) == 5  # summary, two domains by confidence, histogram, curves
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in figures)
    text = " ".join(page.texts)
    assert (
        "✓ correct" in text
        and "✗ wrong" in text
        and "○ refused" in text
        and "✓ refused" in text
        and "✗ answered" in text
    )
    assert "image file missing" in text


def test_markdown_tables_parse_and_hold_no_html(report):
    text = (report / "report.md").read_text()
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 8  # two domains, differences, two kinds, gallery, settings, seconds
    for table in tables:
        header, rule, *body = (line.strip().strip("|").split("|") for line in table.splitlines())
        assert all(re.fullmatch(r" -{3}:? ", part) for part in rule)
        assert body
        assert {len(header)} == {len(rule)} | {len(line) for line in body}
    assert "<" not in text
    links = re.findall(r"!?\[[^\]]*\]\(([^)]*)\)", text)
    assert links == [
        f"figures/{name}.png"
        for name in (
            "summary",
            "confidence_in_domain",
            "confidence_out_of_domain",
            "histogram",
            "curves",
        )
    ]
    assert all((report / link).stat().st_size > 5000 for link in links)


def test_both_formats_carry_the_same_numbers(report, page):
    cell = summarise(make_rows())["ca_dpo"]["in_domain"]["type12"]
    number = f"{cell['t']:+.3f}".replace("-", figures.MINUS)
    assert number in (report / "report.md").read_text()
    assert any(text.startswith(number) for text in page.texts)


def test_the_same_arguments_give_the_same_bytes(report, images, tmp_path):
    write(tmp_path, make_rows(), images)
    for path in report.rglob("*.*"):
        assert path.read_bytes() == (tmp_path / path.relative_to(report)).read_bytes(), path.name


@pytest.mark.parametrize(
    "models", [("only",), ("base", "tuned"), ("a$b$", "x_<b>", "c|d", "e" * 80, "_f")]
)
def test_any_number_of_models_and_little_else(models, tmp_path):
    rows = [r for r in make_rows(8, models) if r["domain"] == "in_domain" and r["type"] != 3]
    write(
        tmp_path,
        rows,
        tmp_path,
        curves={},
        train_confidence=[],
        settings={},
        seconds={},
        image_folders={},
        gallery_size=2,
    )
    page = Page((tmp_path / "report.html").read_text())
    assert page.open == page.unbalanced == []
    assert "no image folder for this dataset" in page.texts


def test_type_3_alone_and_a_lone_surrogate(tmp_path):
    rows = [r | {"prediction": "\ud800 \u202e\x00"} for r in make_rows(16) if r["type"] == 3]
    write(
        tmp_path,
        rows,
        tmp_path,
        train_confidence=[],
        curves={"IDK-IT": [{"step": 0, "loss": float("nan")}]},
    )
    assert (tmp_path / "report.html").read_text()


def test_no_rows_is_an_error(tmp_path):
    with pytest.raises(InbolError, match="no predictions"):
        write(tmp_path, [], tmp_path, metrics={"models": {}, "differences": []})


def test_rows_may_come_from_disk(tmp_path):
    write_jsonl(tmp_path / "predictions.jsonl", make_rows(8), {})
    assert summarise(read_jsonl(tmp_path / "predictions.jsonl")) == summarise(make_rows(8))


def test_headline_says_only_what_the_intervals_allow():
    rows = make_rows(400)
    sentences = headline(metrics_of(rows))
    assert "the interval lies above 0, so ca_dpo beats base" in sentences[0]
    order = {
        "base": "ca_dpo",
        "idk_it": "mid",
        "ca_dpo": "base",
    }  # the same answers, the best model first
    backwards = sorted(
        (r | {"model": order[r["model"]]} for r in rows),
        key=lambda r: ["base", "mid", "ca_dpo"].index(r["model"]),
    )
    assert (
        "the interval lies below 0, so ca_dpo is worse than base"
        in headline(metrics_of(backwards))[0]
    )
    twins = [r for r in rows if r["model"] == "base"]
    same = headline(
        metrics_of(
            twins + [r | {"model": "b"} for r in twins] + [r | {"model": "c"} for r in twins]
        )
    )
    assert "the interval holds 0, so this evaluation does not tell c from base" in same[0]
    assert "c against b: +0.000" in same[2]
    assert "No other model" in headline(metrics_of(twins))[0]


def test_gallery_choice_is_even_and_only_the_seed_decides():
    rows = make_rows(80)
    chosen = choose(rows, 16, seed=3)
    strata = [(q["base"]["domain"], q["base"]["type"]) for q in chosen]
    assert {strata.count(s) for s in strata} == {2}
    assert len(set(strata)) == 8
    assert all(list(q) == list(MODELS) for q in chosen)
    rows.reverse()
    shuffled = sorted(rows, key=lambda r: MODELS.index(r["model"]))
    assert choose(shuffled, 16, seed=3) == chosen != choose(shuffled, 16, seed=4)
    assert len(choose(rows, 1000, seed=0)) == 80
    assert choose(rows, 0, seed=0) == []


def test_embedded_images_are_small_pngs_of_pixels_alone(images):
    tiny, large = embed(images, "0.png"), embed(images, "1.png")
    assert tiny["small"] and not large["small"]
    assert tiny["uri"].startswith("data:image/png;base64,")
    assert len(large["uri"]) < 4000


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "/etc/passwd",
        "",
        "nul\0.png",
        "folder",
        "missing.png",
        "broken.png",
        "huge.png",
    ],
)
def test_images_that_cannot_be_shown_say_why(name, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")  # can be read, and must not be
    folder = tmp_path / "images"
    (folder / "folder").mkdir(parents=True)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    # a header that claims 20,000 x 20,000 pixels: refused without being decoded
    Image.new("1", (8, 8)).save(folder / "huge.png")
    data = bytearray((folder / "huge.png").read_bytes())
    data[16:24] = struct.pack(">II", 20_000, 20_000)
    (folder / "huge.png").write_bytes(data)
    result = embed(folder, name)
    assert result["uri"] == ""
    assert result["note"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_image_can_be_embedded(mode, tmp_path):
    name = "x.jpg" if mode == "CMYK" else "x.png"
    Image.new(mode, (20, 30)).save(tmp_path / name)
    assert embed(tmp_path, name)["uri"]


def test_markdown_cells():
    assert cell("idk_it") == "idk_it"
    assert cell(0.5) == "0.5"
    assert cell("a\n b\r\tc\u2028d") == "a b c d"
    assert cell("_a_ *b*") == "&#95;a&#95; &#42;b&#42;"
    assert not set(cell(HOSTILE)) & set("<>|`[]*\n")


def test_figures_are_the_same_every_time():
    models = summarise(make_rows())
    first, second = (
        figures.svg(plots.summary_bars(models), prefix="p", label='a "label" <b>') for _ in range(2)
    )
    assert first == second
    assert first.startswith('<svg id="p" role="img" aria-label="a &quot;label&quot; &lt;b&gt;"')
    assert "<metadata" not in first
    assert "<!--" not in first


def test_figure_4_takes_bins_with_nothing_in_them():
    rows = [r for r in make_rows() if r["type"] == 1]
    figure = plots.confidence_curves({model: by_confidence(rows, model) for model in MODELS})
    assert len(figure.axes) == 2
    assert [len(axes.lines) for axes in figure.axes] == [3, 3]
    assert figures.svg(figure, prefix="f", label="f")


def test_histogram_classes_follow_the_thresholds():
    figure = confidence_histograms(
        {"Training": [0.1 * 3, 0.3, 0.31, 0.69, 0.7, 7 * 0.1, 1.0, 0.0]}, (0.3, 0.7)
    )
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"Unknown\n38%", "Mixed\n25%", "Known\n38%"} <= set(texts)


def test_curves_draw_what_is_there():
    titles = [axes.get_title(loc="left") for axes in plots.training_curves(CURVES).axes]
    assert titles == [
        "IDK-IT: loss",
        "CA-DPO: loss",
        "CA-DPO: reward margin (nats)",
        "CA-DPO: reward accuracy",
    ]
    assert plots.training_curves({}).axes == []


def test_yes_no_sets_have_a_table_of_their_own(tmp_path):
    rows = [
        row | {"metric": "yes_no", "answers": ["yes"]} if row["type"] == 1 else row
        for row in make_rows(8)
    ]
    write(tmp_path, rows, tmp_path, curves={})
    for name in ("report.html", "report.md"):
        assert "Yes-no questions" in (tmp_path / name).read_text()
