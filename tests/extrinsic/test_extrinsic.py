"""`inbol extrinsic` from its options to its files."""

import hashlib
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from extrinsic_cases import COLORS, THINGS
from PIL import Image

from inbol_jax.answers import Generation
from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic import answers
from inbol_jax.extrinsic.config import AuditConfig, ExtrinsicConfig
from inbol_jax.extrinsic.extrinsic import extrinsic
from inbol_jax.extrinsic.funnel import Funnel
from inbol_jax.prompts import Prompt
from inbol_jax.sampling import engines
from inbol_jax.world.config import Split
from inbol_jax.world.export import ExportConfig, export

OTHER_WORDS = {"generators": ("unseeable", "mismatched"), "allow_tell": True}


def run(data, out, **options):
    return extrinsic(ExtrinsicConfig(data, out, **options))


def records(n):
    about = {"answerable": True, "source": "photos", "split": "train"}
    rows = []
    for i in range(n):
        question = f"What color is the {THINGS[i % 8]}?"
        row = {"id": f"q{i}", "images": [f"images/{i}.png"], "question": question}
        rows.append(row | {"answers": [COLORS[i % 2]]} | about)
    return rows


def write(folder, rows):
    (folder / "images").mkdir(parents=True)
    for i in range(len(rows)):
        Image.new("RGB", (24, 24), (10 * i, 0, 0)).save(folder / f"images/{i}.png")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def photos(tmp_path):
    return write(tmp_path / "photos", records(24))


def test_the_world_is_what_the_results_were_made_with(tmp_path):
    """The figures of docs/results.md hold only as long as these questions come out."""
    export(ExportConfig(tmp_path / "train", Split.TRAIN, 300, seed=5))
    rows = read_jsonl(run(tmp_path / "train", tmp_path / "out", seed=5, **OTHER_WORDS))
    said = [[row["id"], *row["images"], row["question"], row["generator"]] for row in rows]
    assert hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16] == "cf2eb23ad919ff65"


def test_by_default_the_set_itself_is_asked(photos, tmp_path, capsys):
    file = run(photos, tmp_path / "out", share=1.0)
    rows, meta = [*read_jsonl(file)], read_meta(file)
    assert sorted(r["question"] for r in rows) == sorted(r["question"] for r in records(24))
    assert not {r["images"][0] for r in rows} & {r["images"][0] for r in records(24)}
    assert meta["rows"] == len(rows) == meta["counts"]["unreadable: kept"] == 24
    assert {(row["source"], row["split"]) for row in rows} == {("photos", "train")}
    assert (tmp_path / "out" / meta["data"]).samefile(photos / "data.jsonl")
    dataset = load_dataset_folder(file)  # the header leads to the images
    assert dataset.root.samefile(photos)
    assert [e.id for e in dataset.examples] == [row["id"] for row in rows]
    assert {e.answerable for e in dataset.examples} == {False}
    said = capsys.readouterr().out.splitlines()
    told = "the text alone tells them from the dataset's own with an AUC of 0."
    assert said[0].startswith(f"24 questions of 8 distinct sentences; {told}")
    assert "--model finds better ones" in said[-2]
    assert said[-1].startswith("24 Type 3 questions (")
    run(photos, tmp_path / "out", share=1.0)
    assert "extrinsic.jsonl: finished before, by the same settings" in capsys.readouterr().out


def test_questions_that_their_words_give_away_are_refused(photos, tmp_path, capsys):
    options = {"share": 1.0, "generators": ("unseeable",)}
    with pytest.raises(
        InbolError,
        match="by wording: the default --gen",
    ):
        run(photos, tmp_path / "out", **options)
    run(photos, tmp_path / "out", **options, allow_tell=True)
    assert "AUC of 1.00: the default --generators lower that" in capsys.readouterr().out


def test_share_and_repetition(photos, tmp_path):
    file = run(photos, tmp_path / "out", share=0.5)
    assert read_meta(file)["rows"] == 12
    before = file.stat().st_mtime_ns
    run(photos, tmp_path / "out", share=0.5)
    assert file.stat().st_mtime_ns == before
    with pytest.raises(
        InbolError, match=r"with --share 0\.5, and now --share 0\.25: choose another"
    ):
        run(photos, tmp_path / "out", share=0.25)
    (photos / "data.jsonl").write_text((photos / "data.jsonl").read_text().replace("color", "hue"))
    with pytest.raises(InbolError, match="was made of another --data, or of what has changed"):
        run(photos, tmp_path / "out", share=0.5)
    assert file.stat().st_mtime_ns == before


GERMAN = {"question": "Welche Farbe hat es?"}
MESSAGES = [  # options, what the records are changed to, message
    *(({"share": share}, {}, "--share") for share in (0, -1, 1.5, float("nan"))),
    ({"generators": ("taste",)}, {}, "--generators taste: there is no such .* choose among "),
    ({"generators": ("unseeable",) * 2}, {}, "--generators: name each generator once"),
    ({"generators": ("evidence_removed",)}, {}, "evidence_removed: needs --model, which finds"),
    (OTHER_WORDS, GERMAN, "questions are not in English, and unseeable and mismatched ask in"),
    ({}, {"answers": [], "answerable": False}, "holds no question that one image answers"),
    (
        {"generators": ("unseeable", "mismatched")},
        {"question": "How many dogs are there?"},
        r"no question names a subject \('the \.\.\.'\)",
    ),
    (
        {"generators": ("mismatched",)},
        {"question": "What color is the dog?"},
        "no question is left .mismatched: present .* choose other --generators",
    ),
]


@pytest.mark.parametrize(("options", "change", "message"), MESSAGES)
def test_one_line_says_what_cannot_be(tmp_path, options, change, message):
    data = write(tmp_path / "photos", [row | change for row in records(8)])
    with pytest.raises(InbolError, match=message):
        run(data, tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("extrinsic*"))


def test_audit_options_that_cannot_be(tmp_path):
    with pytest.raises(InbolError, match="--samples -1"):
        AuditConfig(tmp_path, samples=-1)


def test_a_run_that_failed_leaves_no_half_file_and_no_header(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def breaks(funnel, n):
        raise KeyboardInterrupt

    monkeypatch.setattr(Funnel, "questions", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(photos, out, seed=1)
    assert not list(out.iterdir())
    monkeypatch.undo()
    assert run(photos, out).exists()


class Made:
    """A checkpoint that holds nothing."""

    fingerprint, model = "made up", SimpleNamespace(dtype=np.dtype("float32"))

    def asked_by(self, prompt):
        self.prompt = prompt
        return self


def test_a_model_is_asked_once(photos, tmp_path, monkeypatch):
    """What was answered before a run was killed is not asked again."""
    asked = []
    monkeypatch.setattr(answers, "prompt_for", lambda *_: Prompt("short"))
    monkeypatch.setattr(answers, "load_pretrained", lambda *_, **__: Made())

    def generate(checkpoint, examples, images, **_):
        assert checkpoint.prompt == Prompt("short")
        for e in examples:
            asked.append(e.id)
            # It is blind to what the hand, the night and the second and the last window cover.
            blind = e.images[0].endswith(("-1.png", "-2.png", "-4.png"))
            yield [(e, [Generation("no" if blind or not e.answers else e.answers[0], -1.0, 1)])]

    monkeypatch.setattr(engines, "generate", generate)
    out = tmp_path / "out"
    options = {"share": 1.0, "model": tmp_path / "model"}
    file = run(photos, out, **options)
    meta, store = read_meta(file), out / "extrinsic.answers.jsonl"
    assert meta["inputs"]["model"] == "made up"
    assert (meta["settings"]["dtype"], meta["settings"]["prompt"]) == ("float32", "short")
    removed = [row["removed"] for row in read_jsonl(file)]
    assert {r["degree"] for r in removed if "degree" in r} == {1}
    assert {tuple(r["window"]) for r in removed if "window" in r} == {(0.4, 0, 0.6, 0.6)}
    before, answered = file.read_bytes(), store.read_bytes()
    assert len(asked) == answered.count(b"\n") > 12
    file.unlink()
    half = answered[: len(answered) // 2]  # a run that was killed in the middle of a line
    store.write_bytes(half)
    asked.clear()
    run(photos, out, **options)
    assert file.read_bytes() == before
    assert len(asked) == answered.count(b"\n") - half.count(b"\n")
    assert sorted(store.read_bytes().splitlines()) == sorted(answered.splitlines())


def test_what_is_unanswerable_or_not_about_one_image_is_not_drawn_on(tmp_path, capsys):
    rows = records(16)
    for row in rows[8:]:
        row |= {"answers": [], "answerable": False}
    rows[0]["images"], rows[1]["images"] = ["images/0.png", "images/1.png"], []
    file = run(write(tmp_path / "photos", rows), tmp_path / "out", share=1.0)
    drawn = {row["removed"]["image"] for row in read_jsonl(file)}
    assert drawn == {f"images/{i}.png" for i in range(2, 8)}
    assert "2 questions about several images, or none, are left out" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["mismatched", "unreadable", "other_image"])
def test_a_question_brings_its_options(tmp_path, name):
    rows = [row | {"options": ["red", "blue"], "answers": ["A"]} for row in records(16)]
    rows = [row | {"objects": [THINGS[i % 8]]} for i, row in enumerate(rows)]
    data = write(tmp_path / "photos", rows)
    options = {"share": 1.0, "generators": (name,)}
    examples = load_dataset_folder(run(data, tmp_path / "out", **options)).examples
    assert {(e.options, e.metric, e.answerable) for e in examples} == {
        (("red", "blue"), "choice", False)
    }


def test_without_a_model_jax_is_not_imported(photos, tmp_path):
    words = ["extrinsic", "--data", photos, "--out", tmp_path / "out"]
    program = (
        "import sys; from inbol_jax.cli import main; "
        "sys.exit(main(sys.argv[1:]) or 'jax' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, *map(str, words)], check=True)
