import json
import re

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from inbol_jax.artifacts import meta_path, read_jsonl, read_meta, write_json
from inbol_jax.cli import main
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.audit import Reservoirs, audit
from inbol_jax.extrinsic.audit_page import findings, funnel_table
from inbol_jax.extrinsic.config import AuditConfig, ExtrinsicConfig
from inbol_jax.extrinsic.extrinsic import extrinsic
from inbol_jax.extrinsic.files import read_header, trail_file

HOSTILE = (
    "What is the <script>alert('q')</script> \"quoted\" & "
    "<img src=http://evil/x.png onerror=alert(1)> thing?"
)


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path):
    """What `inbol extrinsic` makes of 60 questions about 30 images."""
    data = tmp_path / "data"
    data.mkdir()
    things, rows = ("dog", "kite", "bus", "cake", "clock"), []
    for i in range(30):
        Image.new("RGB", (24, 24), (8 * i, 0, 0)).save(data / f"{i}.png")
        about = {"image": f"{i}.png", "answers": ["red"], "answerable": True}
        questions = f"How many of them are in picture {i}?", f"What color is the {things[i % 5]}?"
        rows += [{"id": f"q{i}-{k}", "question": q} | about for k, q in enumerate(questions)]
    about = {"image": "0.png", "answers": [], "answerable": False}
    rows.append({"id": "none", "question": "Why?"} | about)
    write(data / "data.jsonl", rows)
    extrinsic(ExtrinsicConfig(data, tmp_path / "run", share=1.0))
    return tmp_path / "run"


def test_what_the_page_holds(run, capsys):
    result = audit(AuditConfig(run))
    said = capsys.readouterr().out
    page = Page((run / "audit.html").read_text())
    # Its first line and its last one warn of what the templates give away.
    lines = [line for line in said.splitlines() if line.strip()]
    assert [line.startswith("Warning: the text alone tells") for line in lines[:1]] == [True]
    assert said.count("unseeable (") >= 2
    assert not page.open
    assert not page.unbalanced
    text = " ".join(page.texts)
    for sentence in findings(result):
        assert sentence in said
        assert sentence in text
    kept = [*read_jsonl(run / "extrinsic.jsonl")]
    assert sum(row["question"] in text for row in kept) >= 4
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == sum(tag == "article" for tag, _ in page.tags)
    assert all(image.startswith("data:image/png;base64,") for image in images)
    assert json.loads((run / "audit.json").read_text()) == json.loads(json.dumps(result.to_json()))
    assert result.to_json()["rows"] == len(kept)
    assert set(result.text.auc) == {"all", *(row["generator"] for row in kept)}
    # The question without an answer is not among them.
    assert result.text.auc["all"].n == (len(kept), 60)
    assert result.text.auc["all"].low > 0.6
    reasons = {row["reason"] for row in read_jsonl(trail_file(run / "extrinsic.jsonl"))}
    assert any(reason in text for reason in reasons)


def test_the_same_page_again(run):
    audit(AuditConfig(run))
    before = (run / "audit.html").read_bytes()
    audit(AuditConfig(run))
    assert (run / "audit.html").read_bytes() == before
    audit(AuditConfig(run, seed=1))
    assert (run / "audit.html").read_bytes() != before


def test_hostile_text_stays_text(run):
    file = run / "extrinsic.jsonl"
    for spoiled in (trail_file(file), file):
        rows = [*read_jsonl(spoiled)]
        for row in rows:
            row |= {"question": HOSTILE, "reason": HOSTILE, "id": HOSTILE + row["id"]}
        write(spoiled, rows)
    rows[0]["image"] = "../../../etc/passwd"
    rows[1]["image"] = 'x"><script>alert(1)</script>.png'
    write(file, rows)
    meta = read_meta(file)
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
    assert "image outside the folder" in text
    assert "image missing" in text
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_the_funnel_adds_up(run):
    header = read_header(run / "extrinsic.jsonl")
    table = funnel_table(header)
    assert [row[0] for row in table.rows] == [*header["generators"], "all"]
    for row in table.rows:
        proposed, *rejected, kept = map(int, row[1:-1])
        assert proposed == sum(rejected) + kept
    assert int(table.rows[-1][-2]) == read_meta(run / "extrinsic.jsonl")["rows"]
    assert len(table.columns) == len(table.rows[0]) == sum(width for _, width in table.spans)


def test_a_model_is_asked_with_and_without_the_image(run, micro):
    config = AuditConfig(run, model=micro.path, model_questions=25, samples=1)
    model = audit(config).model
    assert model.not_asked == 0
    for summary in (model.image, model.blank):
        assert summary.auc.n == (25, 25)
        assert summary.refused_answerable.n == summary.refused_unanswerable.n == 25
    difference = model.image.auc.value - model.blank.auc.value
    assert model.difference.value == pytest.approx(difference)
    assert "with a grey image" in (run / "audit.html").read_text()
    files = (run / "audit.answers.jsonl", run / "audit.html")
    before = [file.read_bytes() for file in files]
    audit(config)
    assert [file.read_bytes() for file in files] == before


def test_a_model_sees_no_image_outside_the_folder(run, micro):
    Image.new("RGB", (24, 24)).save(run.parent / "secret.png")
    lines = [*read_jsonl(run / "extrinsic.jsonl")]
    for line in lines[:3]:
        line["image"] = "../secret.png"
    write(run / "extrinsic.jsonl", lines)
    model = audit(AuditConfig(run, model=micro.path, model_questions=len(lines), samples=1)).model
    assert model.not_asked == 3
    generated = len(lines) - 3
    assert generated in model.image.auc.n


def test_too_few_questions_say_so(run):
    write(run / "extrinsic.jsonl", [*read_jsonl(run / "extrinsic.jsonl")][:5])
    result = audit(AuditConfig(run))
    assert result.text is None
    assert "Too few questions for the shortcut test" in [*findings(result)][1]
    assert "Not measured" in (run / "audit.html").read_text()


def test_questions_that_are_not_there(run, tmp_path, capsys):
    assert main(["audit", "--out", str(tmp_path / "empty")]) == 2
    assert "holds no finished extrinsic.jsonl" in capsys.readouterr().err
    meta_path(run / "extrinsic.jsonl").unlink()
    with pytest.raises(InbolError, match="run `inbol extrinsic"):
        audit(AuditConfig(run))


def test_reservoirs_are_uniform():
    counts = np.zeros(20)
    for seed in range(1000):
        reservoirs = Reservoirs(5, seed)
        for i in range(20):
            reservoirs.add("a", i)
            reservoirs.add(i, i)
        for i in reservoirs.items["a"]:
            counts[i] += 1
        assert reservoirs.items[7] == [7]
    assert counts.sum() == 5000
    assert np.abs(counts - 250).max() < 60  # four standard deviations
