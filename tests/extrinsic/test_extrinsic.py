"""`inbol extrinsic` from its options to its files."""

import hashlib
import json
from collections import Counter

import pytest
from endpoint_server import said
from extrinsic_cases import COLORS, THINGS
from PIL import Image

from inbol_jax.artifacts import read_jsonl, read_meta
from inbol_jax.cli import main
from inbol_jax.data.vqa import load_dataset_folder
from inbol_jax.errors import InbolError
from inbol_jax.extrinsic.config import ExtrinsicConfig
from inbol_jax.extrinsic.extrinsic import GENERATORS_WITHOUT, extrinsic
from inbol_jax.extrinsic.files import trail_file
from inbol_jax.extrinsic.funnel import Funnel
from inbol_jax.extrinsic.generators import subject
from inbol_jax.responses.config import EndpointConfig
from inbol_jax.world.config import Split
from inbol_jax.world.export import ExportConfig, export

WITHOUT_OBJECTS = [
    *("ill_formed", "language", "ungrammatical", "present"),
    *("answer_present", "duplicate"),
]


def run(data, out, **options):
    return extrinsic(ExtrinsicConfig(data, out, **options))


def asked(rows):
    return {(row["images"][0], row["question"]) for row in rows}


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
    for i, row in enumerate(rows):
        Image.new("RGB", (24, 24), (10 * i, 0, 0)).save(folder / row["images"][0])
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def photos(tmp_path):
    return write(tmp_path / "photos", records(24))


def test_the_world_by_default_is_what_the_results_were_made_with(tmp_path):
    """The figures of docs/results.md hold only as long as these questions come out."""
    export(ExportConfig(tmp_path / "train", Split.TRAIN, 300, seed=5))
    rows = read_jsonl(run(tmp_path / "train", tmp_path / "out", seed=5))
    said = [[row["id"], *row["images"], row["question"], row["generator"]] for row in rows]
    assert hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16] == "cf2eb23ad919ff65"


def test_every_rejected_question_is_in_the_trail(photos, tmp_path):
    file = run(photos, tmp_path / "out", share=1.0)
    meta, kept, rejected = read_meta(file), [*read_jsonl(file)], [*read_jsonl(trail_file(file))]
    assert rejected
    verdicts = [f"{row['generator']}: {row['filter']}" for row in rejected]
    verdicts += [f"{row['generator']}: kept" for row in kept]
    assert Counter(verdicts) == meta["counts"]
    filters = meta["filters"]
    assert filters == WITHOUT_OBJECTS
    for row in rejected:
        assert set(row) == {"id", "images", "question", "generator", "passed", "filter", "reason"}
        assert row["passed"] == filters[: filters.index(row["filter"])]
    for row in kept:
        assert row["filters"] == filters
        assert (row["source"], row["split"]) == ("photos", "train")
    assert (tmp_path / "out" / meta["data"]).samefile(photos / "data.jsonl")


def test_filters_can_be_chosen_and_left_out(photos, tmp_path):
    options = {"filters": ("duplicate", "ill_formed"), "generators": ("mismatched",)}
    chosen = read_meta(run(photos, tmp_path / "a", share=1.0, **options))
    assert chosen["filters"] == ["ill_formed", "duplicate"]
    without = ("answer_present", "language")
    left = read_meta(run(photos, tmp_path / "b", share=1.0, no_filters=without))
    kept = ["ill_formed", "ungrammatical", "present", "duplicate"]
    assert left["filters"] == kept


def test_a_set_without_objects(photos, tmp_path, capsys):
    file = run(photos, tmp_path / "out", share=1.0)
    rows, meta = [*read_jsonl(file)], read_meta(file)
    assert {row["generator"] for row in rows} == set(GENERATORS_WITHOUT)
    assert {tuple(row["filters"]) for row in rows} == {tuple(WITHOUT_OBJECTS)}
    noun = {row["images"][0]: subject(row["question"]) for row in records(24)}
    for row in rows:
        if row["generator"] != "beyond_frame":
            assert (noun[row["images"][0]] in row["question"]) is (
                row["generator"] == "unseeable"
            ), row
    kept = sum(n for verdict, n in meta["counts"].items() if verdict.endswith("kept"))
    assert meta["rows"] == len(rows) == kept
    dataset = load_dataset_folder(file)  # the header leads to the images
    assert dataset.root.samefile(photos)
    assert [e.id for e in dataset.examples] == [row["id"] for row in rows]
    assert {e.answerable for e in dataset.examples} == {False}
    assert capsys.readouterr().out.startswith(f"{len(rows)} Type 3 questions (")
    run(photos, tmp_path / "out", share=1.0)
    assert "extrinsic.jsonl: finished before, by the same settings" in capsys.readouterr().out


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


def test_questions_that_are_unanswerable_already_are_not_drawn_on(tmp_path):
    rows = records(16)
    for row in rows[8:]:
        row |= {"answers": [], "answerable": False}
    file = run(write(tmp_path / "photos", rows), tmp_path / "out", share=1.0)
    assert {row["images"][0] for row in read_jsonl(file)} <= {row["images"][0] for row in rows[:8]}


ENDPOINT = EndpointConfig(endpoint="http://127.0.0.1:9/v1")
OPTIONS = [
    *(({"share": share}, "--share") for share in (0, -1, 1.5, float("nan"))),
    ({"filters": ("answered",)}, "--filters answered: needs --model"),
    ({"language": "klingon"}, "--language klingon: choose auto or one of en, de"),
    ({"turns": (1, 0)}, "--turns: at least 1 for each"),
    ({"turns": (1, 4)}, "--turns: give a number for each generator: unseeable"),
    ({"agreement": 0.5}, "--agreement 0.5: more than 0.5"),
    ({"model_samples": 0}, "--model-samples 0: at least 1"),
    ({"endpoint": ENDPOINT}, "--endpoint: only the generator model_written asks it"),
    ({"endpoint": ENDPOINT, "generators": ("model_written",)}, "--endpoint-model"),
    ({"generators": ("taste",)}, "--generators taste: there is no such generator; choose among un"),
    ({"generators": ("unseeable",) * 2}, "name each generator once, and at least one"),
    ({"generators": ("model_written",)}, "model_written: needs --model, or --endpoint"),
    ({"generators": ("evidence_removed",)}, "evidence_removed: needs a column `evidence` in"),
    ({"filters": ("taste",)}, "--filters taste: there is no such filter; choose among ill_formed"),
    ({"no_filters": ("taste",)}, "--no-filters taste: there is no such filter"),
    (
        {"generators": ("unseeable",), "language": "de", "share": 1.0},
        r"no question is left .*unseeable: language 24.*--no-filters",
    ),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_options_that_cannot_be(photos, tmp_path, options, message):
    with pytest.raises(InbolError, match=message):
        run(photos, tmp_path / "out", **options)
    assert not list((tmp_path / "out").glob("extrinsic*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answers": [], "answerable": False}, "holds no question that one image answers"),
        ({"question": "How many dogs are there?"}, "no question names a subject"),
    ],
)
def test_sets_of_which_no_question_is_made(tmp_path, change, message):
    data = write(tmp_path / "photos", [row | change for row in records(16)])
    with pytest.raises(InbolError, match=message):
        run(data, tmp_path / "out", generators=("unseeable", "mismatched"))


def test_a_run_that_failed_leaves_no_half_file_and_no_header(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def breaks(funnel, n):
        raise KeyboardInterrupt

    monkeypatch.setattr(Funnel, "run", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(photos, out, seed=1)
    assert not list(out.iterdir())
    monkeypatch.undo()
    assert run(photos, out).exists()


def written(body, number):
    return said("1. Who built the thing in the far distance?\n2. What color is it?")


def writing(photos, out, server, *more):
    """A command line by which the server's model writes the questions."""
    words = ["extrinsic", "--data", photos, "--out", out, "--share", "1", *more]
    words += ["--generators", "model_written"]
    return [str(word) for word in (*words, "--endpoint", server.url, "--endpoint-model", "writer")]


def test_an_endpoint_writes_questions_once(photos, tmp_path, serve):
    server = serve(written)
    words = writing(photos, tmp_path / "out", server)
    assert main(words) == 0
    file = tmp_path / "out/extrinsic.jsonl"
    rows = [*read_jsonl(file)]
    assert {row["question"] for row in rows} == {"Who built the thing in the far distance?"}
    assert len(rows) == len(server.asked) == 24
    content = server.asked[0][2]["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    before = file.read_bytes()
    file.unlink()
    assert main(words) == 0
    assert file.read_bytes() == before
    assert len(server.asked) == 24  # its answers were kept


def test_a_model_filters_writes_and_finds_evidence(micro, small_world, tmp_path):
    """The model is random, so what it says does not matter, but the same must come out again
    without asking."""
    data, out = tmp_path / "data", tmp_path / "out"
    # A copy, because images without their evidence are written beside the others.
    (data / "images").mkdir(parents=True)
    rows = [*read_jsonl(small_world / "train/data.jsonl")][:24]
    for row in rows:
        (data / row["images"][0]).write_bytes(
            (small_world / "train" / row["images"][0]).read_bytes()
        )
        row["evidence"] = [[4, 4, 30, 30]]
    (data / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    generators = ("unseeable", "mismatched", "evidence_removed")
    options = {"share": 1.0, "model": micro.path, "model_samples": 3, "agreement": 1.0}
    file = run(data, out, generators=generators, **options)
    meta = read_meta(file)
    assert meta["filters"] == ["ill_formed", "present", "duplicate", "text_only", "answered"]
    assert meta["inputs"]["model"] == micro.fingerprint
    store = out / "extrinsic.answers.jsonl"
    answers = store.read_bytes()
    assert answers.count(b"\n") > 20
    before = file.read_bytes(), trail_file(file).read_bytes()
    file.unlink()
    half = answers[: len(answers) // 2]  # a run that was killed in the middle of a line
    store.write_bytes(half)
    run(data, out, generators=generators, **options)
    assert (file.read_bytes(), trail_file(file).read_bytes()) == before
    again = store.read_bytes()
    assert sorted(again.splitlines()) == sorted(answers.splitlines())
    assert again.startswith(half[: half.rindex(b"\n")])


def test_questions_about_several_images_or_none_are_left_out_and_counted(tmp_path, capsys):
    rows = records(16)
    data = write(tmp_path / "photos", rows)
    for row, images in zip(rows, (["images/0.png", "images/1.png"], []), strict=False):
        row["images"] = images
    (data / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert all(row["images"] for row in read_jsonl(run(data, tmp_path / "out", share=1.0)))
    assert "2 questions about several images, or none, are left out" in capsys.readouterr().out


def test_a_question_of_another_image_brings_its_options(tmp_path):
    rows = [row | {"options": ["red", "blue"], "answers": ["A"]} for row in records(16)]
    data = write(tmp_path / "photos", rows)
    options = {"share": 1.0, "generators": ("mismatched",), "filters": ("ill_formed",)}
    file = run(data, tmp_path / "out", **options)
    examples = load_dataset_folder(file).examples
    assert {(e.options, e.metric, e.answerable) for e in examples} == {
        (("red", "blue"), "choice", False)
    }
