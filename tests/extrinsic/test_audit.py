import json
import re
import shutil

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from inbol_jax.artifacts import meta_path, read_jsonl, read_meta, write_json
from inbol_jax.cli import main
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.audit import (
    AuditedQuestion,
    auc_estimate,
    audit,
    findings,
    funnel_table,
    samples,
    text_shortcut,
)
from inbol_jax.extrinsic.config import AuditConfig, ExtrinsicConfig
from inbol_jax.extrinsic.extrinsic import extrinsic
from inbol_jax.extrinsic.files import QUESTIONS, Header, read_header

HOSTILE = (
    "What is the <script>alert('q')</script> \"quoted\" & "
    "<img src=http://evil/x.png onerror=alert(1)> thing?"
)


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `inbol extrinsic` makes of 60 questions about 30 images. Read-only by agreement."""
    folder = tmp_path_factory.mktemp("made")
    data = folder / "data"
    data.mkdir()
    things, rows = ("dog", "kite", "bus", "cake", "clock"), []
    for i in range(30):
        Image.new("RGB", (24, 24), (8 * i, 0, 0)).save(data / f"{i}.png")
        about = {"images": [f"{i}.png"], "answers": ["red"], "answerable": True}
        questions = f"How many of them are in picture {i}?", f"What color is the {things[i % 5]}?"
        rows += [{"id": f"q{i}-{k}", "question": q} | about for k, q in enumerate(questions)]
    about = {"images": ["0.png"], "answers": [], "answerable": False}
    rows.append({"id": "none", "question": "Why?"} | about)
    write(data / "data.jsonl", rows)
    names = ("unseeable", "mismatched")
    extrinsic(ExtrinsicConfig(data, folder / "run", share=1.0, generators=names, allow_tell=True))
    return folder / "run"


@pytest.fixture
def run(made, tmp_path):
    """A copy of it that a test may change."""
    shutil.copytree(made.parent, tmp_path / "made")
    return tmp_path / "made/run"


def test_what_the_page_holds(run, capsys):
    result = audit(AuditConfig(run))
    said = capsys.readouterr().out
    page = Page((run / "audit.html").read_text())
    assert not page.open
    assert not page.unbalanced
    text = " ".join(page.texts)
    for sentence in result["findings"]:
        assert sentence in said
        assert sentence in text
    kept = [*read_jsonl(run / "extrinsic.jsonl")]
    assert sum(row["question"] in text for row in kept) >= 4
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(images) == sum(tag == "article" for tag, _ in page.tags)
    assert all(image.startswith("data:image/png;base64,") for image in images)
    assert json.loads((run / "audit.json").read_text()) == result
    assert result["rows"] == len(kept)
    auc = result["text"]["auc"]
    assert set(auc) == {"all", *(row["generator"] for row in kept)}
    assert auc["all"]["low"] > 0.6  # the templates give their questions away
    assert f"unseeable ({auc['unseeable']['value']:.2f})" in result["findings"][0]


def test_the_same_page_again(run):
    pages = []
    for seed in (0, 0, 1):
        audit(AuditConfig(run, samples=2, seed=seed))
        pages.append((run / "audit.html").read_bytes())
    assert pages[0] == pages[1] != pages[2]


def test_hostile_text_stays_text(run):
    file = run / QUESTIONS
    rows = [*read_jsonl(file)]
    for row in rows:
        row |= {"question": HOSTILE, "generator": HOSTILE, "id": HOSTILE + row["id"]}
    rows[0]["images"] = ["../../../etc/passwd"]
    rows[1]["images"] = ['x"><script>alert(1)</script>.png']
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


def test_the_funnel_adds_up(made):
    header = read_header(made)
    table = funnel_table(header, None)
    assert [row[0] for row in table.rows] == [*header.generators, "all"]
    for row in table.rows:
        proposed, *rejected, kept = map(int, row[1:-1])
        assert proposed == sum(rejected) + kept
    assert int(table.rows[-1][-2]) == header.rows
    assert len(table.columns) == len(table.rows[0]) == sum(width for _, width in table.spans)


def test_too_few_questions_say_so(run):
    file = run / "extrinsic.jsonl"
    write(file, [*read_jsonl(file)][:5])
    write_json(meta_path(file), read_meta(file) | {"rows": 5})
    result = audit(AuditConfig(run))
    assert result["text"] is None
    assert "Too few questions for the shortcut test" in result["findings"][1]


def test_questions_that_are_not_there(run, tmp_path, capsys):
    assert main(["audit", "--out", str(tmp_path / "empty")]) == 2
    assert "holds no finished extrinsic.jsonl" in capsys.readouterr().err
    meta_path(run / "extrinsic.jsonl").unlink()
    with pytest.raises(InbolError, match="run `inbol extrinsic"):
        audit(AuditConfig(run))


def question(i, text="", generator="", image="a.png"):
    return AuditedQuestion(f"q{i}", (image,), text, generator=generator)


def test_samples_are_uniform_per_value():
    counts, rng = np.zeros(20), np.random.default_rng(0)
    for _ in range(500):
        drawn = samples([question(i, generator="ab"[i == 3]) for i in range(20)], 5, rng)
        assert [q.id for q in drawn["b"]] == ["q3"]
        for q in drawn["a"]:
            counts[int(q.id[1:])] += 1
    assert counts.sum() == 2500
    expected = np.where(np.arange(20) == 3, 0, 2500 / 19)
    assert np.abs(counts - expected).max() < 45  # four standard deviations


def test_findings_follow_the_numbers_and_name_the_generators_to_blame():
    def said(**aucs):
        return list(findings(header, {"auc": {name: {"value": v} for name, v in aucs.items()}}))

    header = Header(10, {"a: kept": 10, "a: present": 10}, {}, "", "", ["a"], {})
    warning, kept, total = said(all=0.88, mismatched=0.7, weather=0.9, unseeable=1.0)
    assert warning.startswith("Warning: the text alone tells generated from real questions")
    assert "(AUC 0.88)" in warning
    assert "It is the questions of unseeable (1.00), weather (0.90): leave" in warning
    assert kept == "10 of 20 proposed questions passed the filters."
    assert "AUC 0.880" in total
    assert not said(all=0.74, unseeable=1.0)[0].startswith("Warning")


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # Of two normal distributions one standard deviation apart: Phi(1 / sqrt 2).
    truth, held = 0.7602, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        label = np.arange(160) < 60
        found = auc_estimate(rng.normal(size=160) + label, label)
        held += found.low <= truth <= found.high
        assert 0 <= found.low <= found.value <= found.high <= 1
    assert 0.9 <= held / 150 <= 0.99


def text_auc(n, tell, per_image=2, seed=0):
    """The AUC on questions of two classes, of which a share holds a word that says which."""
    rng = np.random.default_rng(seed)
    nouns = ["dog", "cat", "house", "car", "tree", "boy", "girl", "ball"]
    sides = {True: [], False: []}
    for i in range(n):
        word = ("costs" if i % 3 else "colors") if rng.random() < tell else "is"
        text = f"What {word} the {' '.join(rng.choice(nouns, 3))}?"
        sides[i % 3 > 0].append(question(i, text, "g" * (i % 3 > 0), f"{i // per_image}.png"))
    return text_shortcut(sides[True], sides[False], seed)


def test_a_word_that_tells_is_found_and_noise_is_not():
    told = text_auc(400, 1.0)
    assert told["auc"]["all"]["value"] > 0.99
    assert "costs" in " ".join(told["telling"]["unanswerable"][:3])
    assert "colors" in " ".join(told["telling"]["answerable"][:3])
    assert 0.65 < text_auc(400, 0.5)["auc"]["all"]["value"] < 0.9  # half can be told
    noise = text_auc(400, 0.0)["auc"]["all"]
    assert noise["low"] - 0.03 < 0.5 < noise["high"] + 0.03


def test_no_text_is_scored_by_what_saw_its_image():
    """Each image's words are its own and tell its class: who saw them would know."""

    def value(groups):
        sides = {True: [], False: []}
        for i in range(400):
            text = f"w{i // 4}a w{i // 4}b w{i // 4}c"
            sides[i // 4 % 2 == 0].append(question(i, text, "", f"{i // groups}"))
        return text_shortcut(sides[True], sides[False], 0)["auc"]["all"]["value"]

    assert abs(value(4) - 0.5) < 0.1
    assert value(1) > 0.95
