import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from inbol_jax import interruption
from inbol_jax.artifacts import fingerprint, json_line, meta_path, read_jsonl, read_meta
from inbol_jax.confidence.estimate import sampled_question, scored
from inbol_jax.confidence.store import (
    _COLUMNS,
    ConfidenceStore,
    check_data,
    missing_shards,
    read_rows,
    read_store,
    shard_path,
    shards,
)
from inbol_jax.construction.stores import unfinished
from inbol_jax.data.images import ImageHashes
from inbol_jax.errors import InbolError
from inbol_jax.records import VQAExample
from inbol_jax.sampling.generate import Generation

SETTINGS = {"command": "confidence", "model": "m1", "n": 10, "seed": 0}
IMAGES = ImageHashes(Path("no images"))


def example(i, question="What color is the dog?", image="a.png"):
    return VQAExample(f"q{i}", (image,), question, ("red",), True, {"kind": "color"})


def line(i):
    return sampled_question(
        example(i),
        [
            Generation("Red", -0.1234567, 2),
            Generation("blue", -2.0, 2),
            Generation("I don't know.", -3.0, 5),
        ],
    )


def row(i):
    return line(i).to_json()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "confidence/train.jsonl"


def test_a_line_holds_the_question_and_every_sample():
    assert line(3).to_json() == {
        "id": "q3",
        "images": ["a.png"],
        "question": "What color is the dog?",
        "answers": ["red"],
        "answerable": True,
        "options": [],
        "source": "",
        "split": "",
        "metric": "inclusion",
        "kind": "color",
        "samples": ["Red", "blue", "I don't know."],
        "logprobs": [-0.12346, -2.0, -3.0],
        "token_counts": [2, 2, 5],
        "outcomes": ["correct", "wrong", "refused"],
        "samples_cut": [False, False, False],
        "n_correct": 1,
        "n_samples": 3,
    }


def write_data(file, *images):
    """A dataset's file beside that of the store, and its images, of which no two are alike."""
    folder = file.parent.parent / "data"
    folder.mkdir()
    for name in images:
        (folder / name).write_text(name)
    (folder / "data.jsonl").write_text("{}")
    return folder / "data.jsonl"


def fill(file, *numbers, settings=SETTINGS):
    with ConfidenceStore(file, settings, IMAGES) as store:
        store.append(row(i) for i in numbers)


def test_what_is_there_is_not_asked_again(file):
    examples = [example(i) for i in range(4)]
    with ConfidenceStore(file, SETTINGS, IMAGES) as store:
        assert store.pending(examples) == examples
        store.append([row(0), row(2)])
        assert [e.id for e in store.pending(examples)] == ["q1", "q3"]
    with ConfidenceStore(file, SETTINGS, IMAGES) as again:
        assert [e.id for e in again.pending(examples)] == ["q1", "q3"]
        again.append([row(1), row(3)])
        assert list(read_store(file)) == [line(0), line(2), line(1), line(3)]
        fingerprints = {row["fingerprint"] for row in read_jsonl(file)}
        assert fingerprints == {again.fingerprint} == {fingerprint(SETTINGS)}
    assert read_meta(file)["model"] == "m1"


@pytest.mark.parametrize("cut", [1, 7, 150])
def test_a_torn_last_line_is_cut_off(file, cut):
    fill(file, 0, 1, 2)
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert [question for _, question in read_rows(file)] == [line(0), line(1)]
    with ConfidenceStore(file, SETTINGS, IMAGES) as store:
        assert [e.id for e in store.pending([example(i) for i in range(3)])] == ["q2"]
        store.append([row(2)])
    assert file.read_bytes() == whole


def test_a_first_line_that_was_torn_leaves_an_empty_store(file):
    fill(file, 0)
    file.write_bytes(file.read_bytes()[:20])
    with ConfidenceStore(file, SETTINGS, IMAGES) as store:
        assert not store.done
    assert file.read_bytes() == b""


def test_other_settings_are_refused(file):
    fill(file, 0)
    before = file.read_bytes()
    with pytest.raises(
        InbolError,
        match=r"--model m1, and now --model m2; --seed 0, and now --seed 1: choose",
    ):
        ConfidenceStore(file, SETTINGS | {"model": "m2", "seed": 1}, IMAGES)
    meta_path(file).unlink()
    with pytest.raises(InbolError, match="was made by another command"):
        ConfidenceStore(file, SETTINGS, IMAGES)
    assert file.read_bytes() == before
    fill(file.with_name("other.jsonl"), settings=SETTINGS | {"seed": 1})
    # It holds nothing yet, and belongs to another run all the same.
    with pytest.raises(InbolError, match="--seed 1, and now --seed 0"):
        ConfidenceStore(file.with_name("other.jsonl"), SETTINGS, IMAGES)


@pytest.mark.parametrize("foreign", [fingerprint(SETTINGS | {"seed": 1}), fingerprint(SETTINGS)])
def test_lines_of_another_run_and_lines_twice_are_refused(file, foreign):
    fill(file, 0, 1)
    lines = file.read_text().splitlines()
    file.write_text(
        "\n".join([*lines, json.dumps(json.loads(lines[0]) | {"fingerprint": foreign})]) + "\n"
    )
    before = file.read_bytes()
    with pytest.raises(
        InbolError, match=r"train\.jsonl:3: a line of another run, or one that is there twice"
    ):
        ConfidenceStore(file, SETTINGS, IMAGES)
    assert file.read_bytes() == before


@pytest.mark.parametrize("damaged", ["{", "[1]", '{"id": "q1"}', ""])
def test_a_damaged_line_is_named(file, damaged):
    fill(file, 0)
    file.write_text(file.read_text() + damaged + "\n" + file.read_text())
    with pytest.raises(InbolError, match=r"train\.jsonl:2: not a line of a confidence store"):
        ConfidenceStore(file, SETTINGS, IMAGES)


@pytest.mark.parametrize(
    "change",
    [
        {"samples": None},
        {"samples": ["Red"]},
        {"token_counts": []},
        {"samples_cut": [True]},
        {"n_samples": 4},
        {"n_correct": 2},
        {"answers": [7]},
        {"question": {}},
        {name: [] for name in _COLUMNS} | {"n_samples": 0},
    ],
    ids=str,
)
def test_a_line_whose_samples_do_not_fit_together_is_named(file, change):
    fill(file, 0, 1)
    rows = list(read_jsonl(file))
    file.write_text(json_line(rows[0]) + json_line(rows[1] | change))
    with pytest.raises(InbolError, match=r"train\.jsonl:2: not a line of a confidence store \("):
        list(read_rows(file))


def test_offsets_are_those_behind_the_lines(file):
    fill(file, 0, 1, 2)
    lines = file.read_bytes().splitlines(keepends=True)
    assert [end for end, _ in read_rows(file)] == list(itertools.accumulate(map(len, lines)))


@pytest.mark.parametrize(
    "changed", [example(0, question="What color is the cat?"), example(0, image="b.png")]
)
def test_a_question_that_was_changed_is_refused(file, changed):
    data = write_data(file, "a.png", "b.png")
    with ConfidenceStore(file, SETTINGS, ImageHashes(data.parent)) as store:
        store.append([row(0), row(1)])
        before = file.read_bytes()
        with pytest.raises(
            InbolError,
            match="q0 was another question, or had another image, when it was sampled "
            r"\(and 0 more\); put back what was, choose another --out or delete it",
        ):
            store.update([changed, example(1)], data, scored)
        assert file.read_bytes() == before
        store.update([changed, example(1)], data, scored, ask_again=True)
        assert store.done == {"q1"}
        assert [r["id"] for r in read_jsonl(file)] == ["q1"]


def test_an_image_that_was_replaced_is_refused(file):
    data = write_data(file, "a.png")
    with ConfidenceStore(file, SETTINGS, ImageHashes(data.parent)) as store:
        store.append([row(0), row(1)])
        assert {len(r["image_hash"]) for r in read_jsonl(file)} == {16}
    (data.parent / "a.png").write_text("another image")
    with (
        ConfidenceStore(file, SETTINGS, ImageHashes(data.parent)) as store,
        pytest.raises(InbolError, match=r"had another image, when it was sampled \(and 1 more"),
    ):
        store.update([example(0), example(1)], data, scored)
    (data.parent / "b.png").write_text("a.png")  # the first image under another name
    moved = [example(i, image="b.png") for i in range(2)]
    with ConfidenceStore(file, SETTINGS, ImageHashes(data.parent)) as store:
        store.update(moved, data, scored)
    assert [question.example for question in read_store(file)] == moved


def test_a_store_stays_finished_when_it_is_refused(file):
    data = write_data(file, "a.png")
    with ConfidenceStore(file, SETTINGS, ImageHashes(data.parent)) as store:
        store.append([row(0)])
        store.update([example(0)], data, scored)
        store.finish()
    (data.parent / "a.png").write_text("another image")
    with (
        pytest.raises(InbolError, match="had another image"),
        ConfidenceStore(file, SETTINGS, ImageHashes(data.parent)) as store,
    ):
        store.update([example(0)], data, scored)
    assert unfinished(file) is None


def test_answers_that_changed_are_scored_again_and_what_is_gone_is_dropped(file, capsys):
    """Nothing is sampled, the lock stays, and once more there is nothing to change."""
    data = write_data(file, "a.png")
    images = ImageHashes(data.parent)
    new = replace(example(1), answers=("blue",))
    type3 = replace(example(2), answers=(), answerable=False)
    other = replace(example(3), extra={"kind": "shade"})
    null = replace(example(4), extra={"kind": None})
    with ConfidenceStore(file, SETTINGS, images) as store:
        store.append([*map(row, range(4)), {**row(4), "kind": None}, row(5)])
        store.update([new, type3, other, null, example(5), example(9)], data, scored)
        assert store.done == {"q1", "q2", "q3", "q4", "q5"}
        with pytest.raises(InbolError, match="is being written by another run"):
            ConfidenceStore(file, SETTINGS, images)
        store.append([row(9)])
        store.finish()
    assert "3 scored again, as answers or other columns of theirs changed; 1 dropped, as they" in (
        capsys.readouterr().out
    )
    found = {q.example.id: q for q in read_store(file)}
    assert list(found) == ["q1", "q2", "q3", "q4", "q5", "q9"]
    assert [found["q1"].example, found["q2"].example, found["q3"].example] == [new, type3, other]
    outcomes = {id: [sample.outcome for sample in q.samples] for id, q in found.items()}
    assert outcomes["q1"] == ["wrong", "correct", "refused"]
    assert outcomes["q2"] == ["wrong", "wrong", "refused"]
    assert outcomes["q3"] == outcomes["q5"] == ["correct", "wrong", "refused"]
    assert found["q5"] == line(5)
    before = file.stat()
    with ConfidenceStore(file, SETTINGS, images) as store:
        again = [new, type3, other, replace(null, extra={"kind": None})]
        store.update([*again, example(5), example(9)], data, scored)
    assert os.path.samestat(file.stat(), before)
    assert capsys.readouterr().out == ""


def test_a_share_that_lost_records_is_refused(file):
    """The questions of several processes are shared by their places."""
    data = write_data(file, "a.png")
    with ConfidenceStore(file, SETTINGS, IMAGES, index=0, count=2) as store:
        store.append([row(0), row(2)])
        with pytest.raises(InbolError, match="q0 is no longer in the share of this process"):
            store.update([example(2)], data, scored)


def test_a_store_whose_dataset_changed_is_not_read(file, tmp_path):
    data = write_data(file, "a.png")
    with ConfidenceStore(file, SETTINGS, IMAGES) as store:
        store.update([], data, scored)
        store.append([row(0)])
        store.finish()
    check_data(file)
    data.write_text("another")
    with pytest.raises(InbolError, match=r"data\.jsonl was changed since .*train\.jsonl was made"):
        check_data(file)
    data.unlink()
    check_data(file)


def test_a_refusal_leaves_no_empty_store(file):
    with pytest.raises(InbolError), ConfidenceStore(file, SETTINGS, IMAGES):
        raise InbolError("an option that is refused late")
    assert list(file.parent.iterdir()) == []
    fill(file, 0)
    with pytest.raises(InbolError), ConfidenceStore(file, SETTINGS, IMAGES):
        raise InbolError("refused")
    assert len(list(file.parent.iterdir())) == 2


def test_lines_of_other_settings_are_replaced_if_asked_for(file):
    fill(file, 0, 1)
    with ConfidenceStore(file, SETTINGS | {"seed": 1}, IMAGES, replace=True) as store:
        assert not store.done
        assert file.read_bytes() == b""
        store.append([row(1)])
    assert read_meta(file)["seed"] == 1


def test_a_finished_store_says_how_many_questions_it_holds(file):
    with ConfidenceStore(file, SETTINGS, IMAGES) as store:
        assert "rows" not in read_meta(file)
        store.append([row(0), row(1)])
        store.finish(set_aside=3)
    assert (read_meta(file)["rows"], read_meta(file)["set_aside"]) == (2, 3)
    with ConfidenceStore(file, SETTINGS, IMAGES) as again:
        assert again.done == {"q0", "q1"}, "the number is not one of the settings"
    assert read_meta(file)["started_with"] == 2


def test_a_store_that_is_brought_up_to_date_is_not_finished_until_it_is(file):
    """Its dataset may have grown, and the run be killed before its first new line."""
    data = write_data(file)
    with ConfidenceStore(file, SETTINGS, IMAGES) as store:
        store.append([row(1)])
        store.finish()
    with ConfidenceStore(file, SETTINGS, IMAGES) as store:
        store.update([example(1), example(2)], data, scored)
    assert unfinished(file)
    with ConfidenceStore(file, SETTINGS, IMAGES) as store:
        store.finish()
    assert unfinished(file) is None


def test_every_process_writes_a_shard_of_its_own(file):
    for index in (1, 0):
        with ConfidenceStore(file, SETTINGS, IMAGES, index=index, count=2) as store:
            store.append([row(index)])
            assert store.file.name == f"train.000{index + 1}-of-0002.jsonl"
        assert missing_shards(store.file) == index
    assert shards(file) == [shard_path(file, 0, 2), shard_path(file, 1, 2)]
    assert missing_shards(file) == 0
    fill(file.with_name("train2.jsonl"), 0)
    assert shards(file) == [shard_path(file, 0, 2), shard_path(file, 1, 2)]
    for count in (1, 3):
        with pytest.raises(
            InbolError,
            match="was sampled by another number of processes; go on with as many, "
            "or choose another --out",
        ):
            ConfidenceStore(file, SETTINGS, IMAGES, index=0, count=count)
    assert len(shards(file)) == 2


FILL = """
import sys
import time
from pathlib import Path
from inbol_jax.confidence.store import ConfidenceStore
from inbol_jax.data.images import ImageHashes
from inbol_jax.records import Sample, SampledQuestion, VQAExample

SAMPLES = (Sample("red", -1.0, 2, "correct"),)
examples = [VQAExample(f"q{i}", ("a.png",), "What is this? " * (i % 7)) for i in range(1500)]
with ConfidenceStore(Path(sys.argv[1]), {"seed": 0}, ImageHashes(Path())) as store:
    pending = store.pending(examples)
    for i in range(0, len(pending), 3):
        store.append(SampledQuestion(e, SAMPLES).to_json() for e in pending[i : i + 3])
        time.sleep(0.005)  # time for ten kills, on a busy machine as well
    store.finish()
"""


def test_a_writer_killed_ten_times_leaves_what_an_unbroken_one_does(tmp_path):
    """SIGKILL at random moments while lines are being written; nothing twice, nothing missing."""
    draw = random.Random(0)
    files = [tmp_path / name / "train.jsonl" for name in ("whole", "killed")]
    subprocess.run([sys.executable, "-c", FILL, files[0]], check=True)
    found = []
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", FILL, files[1]])
        before = found[-1] if found else 0
        end = time.monotonic() + 60
        while not files[1].exists() or files[1].stat().st_size <= before:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.0005)
        time.sleep(draw.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found.append(files[1].stat().st_size)
    assert "rows" not in read_meta(files[1]), "the kills came too late to tear anything"
    assert len(set(found)) == 10
    # A kill seldom falls within a write: tear a line as a power cut would.
    if files[1].read_bytes().endswith(b"\n"):
        os.truncate(files[1], found[-1] - 7)
    subprocess.run([sys.executable, "-c", FILL, files[1]], check=True)
    whole, killed = (sorted(file.read_text().splitlines()) for file in files)
    assert killed == whole
    assert len(whole) == read_meta(files[1])["rows"] == 1500


def test_a_signal_before_a_batch_is_appended_does_not_lose_it(file):
    """Its images, which no line had before, are hashed first: that is no boundary."""
    rows = [example(i, image=f"{i}.png").to_json() | row(i) for i in range(3)]
    interrupted = pytest.raises(interruption.Interrupted)
    with interrupted, interruption.handling_signals(), interruption.boundaries():
        os.kill(os.getpid(), signal.SIGTERM)
        while not interruption.has_come():
            time.sleep(0.001)
        with ConfidenceStore(file, SETTINGS, IMAGES) as store:
            store.append(rows)
    assert [row["id"] for row in read_jsonl(file)] == ["q0", "q1", "q2"]


def test_questions_with_options_and_any_number_of_images(file):
    """They come back as they were, and are asked again if their options or one image changed."""
    data = write_data(file, "a.png", "b.png")
    images = ImageHashes(data.parent)
    about = {"answers": ("A",), "metric": "choice", "options": ("red", "blue")}
    examples = [
        VQAExample(f"q{i}", paths, "Which?", **about)
        for i, paths in enumerate([("a.png", "b.png"), (), ("a.png",)])
    ]
    lines = [sampled_question(e, [Generation("A. red", -1.0, 2)]) for e in examples]
    with ConfidenceStore(file, SETTINGS, images) as store:
        store.append(x.to_json() for x in lines)
    assert list(read_store(file)) == lines
    assert {sample.outcome for x in lines for sample in x.samples} == {"correct"}
    hashes = [row["image_hash"] for row in read_jsonl(file)]
    assert hashes[0].split("-")[0] == hashes[2] != hashes[0].split("-")[1]
    assert hashes[1] == ""

    def changed(*now):
        with ConfidenceStore(file, SETTINGS, ImageHashes(data.parent)) as store:
            store.update(now, data, scored)

    changed(*examples)
    with pytest.raises(InbolError, match="q2 was another question"):
        changed(*examples[:2], replace(examples[2], options=("blue", "red")))
    (data.parent / "b.png").write_text("another picture")
    with pytest.raises(InbolError, match=r"q0 was another question, .* \(and 0 more\)"):
        changed(*examples)
