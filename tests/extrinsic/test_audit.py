import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from inbol_jax.artifacts import read_jsonl, read_meta, write_json
from inbol_jax.cli import main
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.audit import AuditConfig, Reservoirs, audit, findings, funnel_table
from inbol_jax.extrinsic.extrinsic import ExtrinsicConfig, extrinsic, trail_file

HOSTILE = "What is the <script>alert('q')</script> \"quoted\" & <img src=http://evil/x.png onerror=alert(1)> thing?"
VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture
def run(tmp_path):
    """A set of 60 questions about 30 images, and what `inbol extrinsic` makes of it."""
    data = tmp_path / "data"
    data.mkdir()
    things, rows = ("dog", "kite", "bus", "cake", "clock"), []
    for i in range(30):
        Image.new("RGB", (24, 24), (8 * i, 0, 0)).save(data / f"{i}.png")
        for k in range(2):
            question = (
                f"What color is the {things[i % 5]}?"
                if k
                else f"How many of them are in picture {i}?"
            )
            rows.append(
                {
                    "id": f"q{i}-{k}",
                    "image": f"{i}.png",
                    "question": question,
                    "answers": ["red"],
                    "answerable": True,
                }
            )
    rows.append(
        {"id": "none", "image": "0.png", "question": "Why?", "answers": [], "answerable": False}
    )
    (data / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    extrinsic(ExtrinsicConfig(data, tmp_path / "run", share=1.0))
    return tmp_path / "run"


class Page(HTMLParser):
    """Every tag with its attributes, and the tags left open or closed out of order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.unbalanced, self.texts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_what_the_page_holds(run, capsys):
    result = audit(AuditConfig(run))
    said = capsys.readouterr().out
    page = Page((run / "audit.html").read_text())
    assert not page.open
    assert not page.unbalanced
    text = " ".join(page.texts)
    for line in result["findings"]:
        assert line in said
        assert line in text
    kept = list(read_jsonl(run / "extrinsic.jsonl"))
    shown = [r for r in kept if r["question"] in text]
    assert len(shown) >= 4
    assert sum(tag == "img" for tag, _ in page.tags) == page_cards(page)
    assert all(
        a["src"].startswith("data:image/png;base64,") for tag, a in page.tags if tag == "img"
    )
    assert json.loads((run / "audit.json").read_text()) == json.loads(json.dumps(result))
    assert result["rows"] == len(kept)
    found = result["text"]["auc"]
    assert set(found) == {"all", *(r["generator"] for r in kept)}
    assert tuple(found["all"]["n"]) == (
        len(kept),
        60,
    )  # the question without an answer is not among them
    assert found["all"]["low"] > 0.6
    reasons = {r["reason"] for r in read_jsonl(trail_file(run / "extrinsic.jsonl"))}
    assert sum(reason in text for reason in reasons) >= 1


def page_cards(page):
    return sum(tag == "article" for tag, _ in page.tags)


def test_the_same_page_again(run):
    audit(AuditConfig(run))
    before = (run / "audit.html").read_bytes()
    audit(AuditConfig(run))
    assert (run / "audit.html").read_bytes() == before
    audit(AuditConfig(run, seed=1))
    assert (run / "audit.html").read_bytes() != before


def test_hostile_text_stays_text(run):
    def spoil(file):
        rows = list(read_jsonl(file))
        for row in rows:
            row |= {"question": HOSTILE, "reason": HOSTILE, "id": HOSTILE + row["id"]}
        file.write_text("".join(json.dumps(r) + "\n" for r in rows))

    for file in (run / "extrinsic.jsonl", trail_file(run / "extrinsic.jsonl")):
        spoil(file)
    rows = list(read_jsonl(run / "extrinsic.jsonl"))
    rows[0]["image"] = "../../../etc/passwd"
    rows[1]["image"] = 'x"><script>alert(1)</script>.png'
    (run / "extrinsic.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    meta = read_meta(run / "extrinsic.jsonl")
    meta["generators"] = [*meta["generators"], HOSTILE]
    meta["set_aside"] = {f"unseeable: {HOSTILE}": 3}
    meta[HOSTILE] = HOSTILE
    write_json(run / "extrinsic.jsonl.meta.json", meta)
    audit(AuditConfig(run, samples=60))
    text = (run / "audit.html").read_text()
    page = Page(text)
    assert not page.unbalanced
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', text)
    assert HOSTILE in " ".join(page.texts)
    assert "image path leads out of its folder" in text
    assert "image file missing" in text
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_the_funnel_adds_up(run):
    meta = read_meta(run / "extrinsic.jsonl")
    table = funnel_table(meta)
    assert [row[0] for row in table.rows] == [*meta["generators"], "all"]
    for row in table.rows:
        proposed, *dropped, kept = map(int, row[1:-1])
        assert proposed == sum(dropped) + kept
    assert int(table.rows[-1][-2]) == meta["rows"]
    assert len(table.columns) == len(table.rows[0]) == sum(width for _, width in table.spans)


def test_a_model_is_asked_with_and_without_the_image(run, micro):
    config = AuditConfig(run, model=micro.path, model_questions=25, samples=1)
    result = audit(config)
    model = result["model"]
    assert model["not_asked"] == 0
    for name in ("image", "blank"):
        assert tuple(model[name]["auc"]["n"]) == (25, 25)
        assert {model[name][f"refused_{c}"]["n"] for c in ("answerable", "unanswerable")} == {25}
    assert model["difference"]["value"] == pytest.approx(
        model["image"]["auc"]["value"] - model["blank"]["auc"]["value"]
    )
    assert "with a grey image" in (run / "audit.html").read_text()
    answers = (run / "audit.answers.jsonl").read_bytes()
    before = (run / "audit.html").read_bytes()
    audit(config)
    assert (run / "audit.answers.jsonl").read_bytes() == answers
    assert (run / "audit.html").read_bytes() == before


def fake(text, image=None, blank=None, difference=None, half=0.02):
    def interval(value):
        return {"value": value, "low": value - half, "high": value + half}

    result = {
        "rows": 10,
        "counts": {"a: kept": 10, "a: present": 10},
        "text": {"auc": {"all": interval(text)}},
    }
    if image:
        result["model"] = {
            "image": {"auc": interval(image)},
            "blank": {"auc": interval(blank)},
            "difference": interval(difference),
        }
    return list(findings(result))


def test_findings_follow_the_numbers():
    assert fake(0.95)[0] == "10 of 20 proposed questions passed the filters (50%)."
    assert "the text alone gives the questions away" in fake(0.95)[1]
    assert "gives part of them away" in fake(0.8)[1]
    assert "gives little away" in fake(0.55)[1]
    assert "something away, though not much" in fake(0.65, half=0.1)[1]
    assert "too few questions to say" in fake(0.55, half=0.2)[1]
    assert "the image helps it" in fake(0.6, 0.9, 0.6, 0.3)[2]
    assert "this does not show that it looks" in fake(0.6, 0.6, 0.6, 0.01)[2]
    assert "worse with the image than without" in fake(0.6, 0.5, 0.6, -0.1)[2]
    assert (
        fake(0.6, 0.9, 0.6, 0.3)[3]
        == "The model with the image tells them better than the text, by 0.300."
    )
    assert (
        "to refuse by the text is what training on these questions would teach first"
        in fake(0.9, 0.6, 0.6, 0.0)[3]
    )


def test_too_few_questions_say_so(run):
    rows = list(read_jsonl(run / "extrinsic.jsonl"))[:5]
    (run / "extrinsic.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    result = audit(AuditConfig(run))
    assert result["text"] is None
    assert "Too few questions for the shortcut test" in result["findings"][1]
    assert "Not measured" in (run / "audit.html").read_text()


def test_what_it_refuses(run, tmp_path, capsys):
    for options, message in (
        ({"model_questions": 3}, "--model-questions 3"),
        ({"samples": -1}, "--samples -1"),
    ):
        with pytest.raises(InbolError, match=message):
            audit(AuditConfig(run, **options))
    assert main(["audit", "--out", str(tmp_path / "empty")]) == 2
    assert "holds no finished extrinsic.jsonl" in capsys.readouterr().err
    (run / "extrinsic.jsonl.meta.json").unlink()
    with pytest.raises(InbolError, match="run `inbol extrinsic"):
        audit(AuditConfig(run))


def test_reservoirs_are_uniform():
    counts = np.zeros(20)
    for seed in range(1000):
        reservoirs = Reservoirs(5, seed)
        for i in range(20):
            reservoirs.add("a", i)
            reservoirs.add(i, i)
        for i in reservoirs.rows["a"]:
            counts[i] += 1
        assert reservoirs.rows[7] == [7]
    assert counts.sum() == 5000
    assert np.abs(counts - 250).max() < 60  # four standard deviations
