import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbol_jax.data.rows import Rejection
from inbol_jax.data.vqa import load_dataset_folder, summarise_rejections
from inbol_jax.errors import InbolError


def row(**changes):
    values = {
        "id": "q1",
        "image": "images/a.png",
        "question": "What colour?",
        "answers": ["red", "red", "blue"],
        "answerable": True,
    }
    return {column: value for column, value in (values | changes).items() if value is not ...}


def write(folder, *rows, name="data.jsonl"):
    """Rows as JSON lines (bytes as they are), beside one image."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images/a.png").write_bytes(b"image")
    lines = [
        r if isinstance(r, bytes) else json.dumps(r, ensure_ascii=False).encode() for r in rows
    ]
    (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    return folder / name


def test_reads_a_folder(tmp_path):
    folder = tmp_path / "kitchen"
    write(
        folder,
        row(split="val", meta={"k": [1]}),
        row(id=2, answers=[], answerable=False),
        row(id="3", answers=..., answerable=None),
    )
    dataset = load_dataset_folder(folder)
    assert (dataset.name, dataset.root, dataset.rejected) == ("kitchen", folder, [])
    first, second, third = dataset.examples
    assert (first.id, first.image, first.question, first.answers) == (
        "q1",
        "images/a.png",
        "What colour?",
        ("red", "red", "blue"),
    )
    assert (first.source, first.split, first.metric, first.extra) == (
        "",
        "val",
        "vqa",
        {"meta": {"k": [1]}},
    )
    assert [e.answerable for e in dataset.examples] == [True, False, None]
    assert (second.id, second.extra, third.answers) == ("2", {}, ())
    assert first.to_json() == row(split="val", meta={"k": [1]})


def test_records_are_read_when_they_are_asked_for(tmp_path):
    origin = {"source": "gqa", "split": "val", "metric": "numeric:0.1"}
    write(
        tmp_path,
        *(row(id=i, question=f"Où est {i} ?", **origin) for i in range(20)),
        b"broken",
        row(id=20),
    )
    examples = load_dataset_folder(tmp_path).examples
    assert len(examples) == 21
    assert [e.id for e in examples] == [str(i) for i in range(21)]
    assert (examples[3].question, examples[-1].id, examples[3].to_json()) == (
        "Où est 3 ?",
        "20",
        row(id="3", question="Où est 3 ?") | origin,
    )
    assert [e.id for e in examples[1::7]] == ["1", "8", "15"]
    assert [e.id for e in examples.take([5, 2, 20])] == ["5", "2", "20"]
    assert list(examples[:2][1:]) == [examples[1]]
    with pytest.raises(IndexError):
        examples[21]
    write(tmp_path, row())
    with pytest.raises(InbolError, match="was changed while it was read"):
        examples[0]


def test_answers_as_objects_and_answerable_as_numbers(tmp_path):
    answers = [{"answer": "red", "answer_confidence": "yes"}, {"answer": "blue"}, "red"]
    write(tmp_path, row(answers=answers, answerable=1), row(id=2, answerable=0))
    first, second = load_dataset_folder(tmp_path).examples
    assert first.answers == ("red", "blue", "red")
    assert (first.answerable, second.answerable) == (True, False)


def test_byte_order_mark_blank_lines_and_line_ends(tmp_path):
    file = write(tmp_path)
    file.write_bytes(
        b"\xef\xbb\xbf"
        + json.dumps(row()).encode()
        + b"\r\n\n  \n"
        + json.dumps(row(id=2, question="où ? \u2028")).encode()
    )
    dataset = load_dataset_folder(tmp_path)
    assert [e.id for e in dataset.examples] == ["q1", "2"]
    assert dataset.rejected == []


def test_a_file_finds_its_images(tmp_path):
    file = write(tmp_path / "set", row(), name="train.jsonl")
    dataset = load_dataset_folder(file)
    assert (dataset.name, dataset.root) == ("train", file.parent)

    built = tmp_path / "build" / "idk.jsonl"
    built.parent.mkdir()
    built.write_bytes(file.read_bytes())
    (built.parent / "idk.jsonl.meta.json").write_text('{"images": "../set"}')
    assert load_dataset_folder(built).root.samefile(tmp_path / "set")
    assert load_dataset_folder(built, images=tmp_path / "set").root == tmp_path / "set"

    (built.parent / "idk.jsonl.meta.json").write_text('{"images": 12}')
    with pytest.raises(InbolError, match=r'idk\.jsonl\.meta\.json: "images" must be a path'):
        load_dataset_folder(built)
    (built.parent / "idk.jsonl.meta.json").write_text('{"images": "nowhere"}')
    with pytest.raises(InbolError, match="nowhere: no such image folder"):
        load_dataset_folder(built)


BAD = [
    (b"{", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'{"id": "bad", "question": "\xff"}', "not UTF-8"),
    (b'{"id": "bad", "image": "images/a.png", "question": "\\ud800?"}', "not UTF-8"),
    (b"[1]", "not a JSON object"),
    (row(id=...), "id missing"),
    (row(id=None), "id missing"),
    (row(id=""), "id missing"),
    (row(id=[1]), "id not a string"),
    (row(id=True), "id not a string"),
    (row(id=1.5), "id not a string"),
    (row(), "duplicated id"),
    (row(id="bad", question=...), "question missing"),
    (row(id="bad", question=" \n"), "question missing"),
    (row(id="bad", question=["What?"]), "question not a string"),
    (row(id="bad", image=None), "image missing"),
    (row(id="bad", image=7), "image not a string"),
    (row(id="bad", image="images/b.png"), "image missing"),
    (row(id="bad", image="images"), "image missing"),
    (row(id="bad", image="a\0b"), "image missing"),
    (row(id="bad", image="a" * 5000), "image missing"),
    (row(id="bad", image="images/loop.png"), "image missing"),
    (row(id="bad", image="images/empty.png"), "image empty"),
    (row(id="bad", image="/etc/hostname"), "image path absolute"),
    (row(id="bad", image="../secret.png"), "image outside the folder"),
    (row(id="bad", image="images/../../secret.png"), "image outside the folder"),
    (row(id="bad", image="images/link.png"), "image outside the folder"),
    (row(id="bad", image="../set-two/a.png"), "image outside the folder"),
    (row(id="bad", answers="red"), "answers not a list"),
    (row(id="bad", answers=["red", 2]), "answer not a string"),
    (row(id="bad", answers=[{"text": "red"}]), "answer not a string"),
    (row(id="bad", answers=[]), "answerable without answers"),
    (row(id="bad", answers=...), "answerable without answers"),
    (row(id="bad", answers=[" "]), "answerable without answers"),
    (row(id="bad", answerable="yes"), "answerable not true, false or null"),
    (row(id="bad", answerable=2), "answerable not true, false or null"),
    (row(id="bad", source=3), "source or split not a string"),
    (row(id="bad", metric="bleu"), "metric not known"),
    (row(id="bad", metric=["vqa"]), "metric not known"),
    (row(id="bad", metric=1), "metric not known"),
]


@pytest.fixture
def surroundings(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "set-two").mkdir()
    (tmp_path / "set-two/a.png").write_bytes(b"image")
    folder = tmp_path / "set"
    write(folder)
    (folder / "images/empty.png").touch()
    (folder / "images/link.png").symlink_to(tmp_path / "secret.png")
    (folder / "images/loop.png").symlink_to("loop.png")
    (folder / "images/inside.png").symlink_to("a.png")
    return folder


@pytest.mark.parametrize(
    ("bad", "reason"), BAD, ids=[f"{i}-{reason}" for i, (_, reason) in enumerate(BAD)]
)
def test_a_bad_record_is_set_aside_with_its_cause(surroundings, bad, reason):
    write(
        surroundings,
        row(),
        bad,
        row(id="q3", image="images/inside.png"),
        row(id="q4", image="./images/../images/a.png"),
    )
    dataset = load_dataset_folder(surroundings, max_rejected=0.25)
    assert [e.id for e in dataset.examples] == ["q1", "q3", "q4"]
    assert [(r.line, r.reason) for r in dataset.rejected] == [(2, reason)]


def test_the_id_of_a_record_with_text_that_is_none(tmp_path):
    lines = [
        b'{"id": "q\\\\x1", "question": "\xff"}',
        b'{"id": "q\xfe2"}',
        b'{"id": "q3\\ud800"}',
        b'{"id": "\xff',
        b'[\xff"]',
    ]
    write(tmp_path, row(), *lines)
    found = [
        (r.line, r.id, r.reason) for r in load_dataset_folder(tmp_path, max_rejected=1).rejected
    ]
    assert found == [
        (i + 2, id, "not UTF-8") for i, id in enumerate([None, "q\\xfe2", "q3\\ud800", None, None])
    ]
    write(tmp_path, row(), b'{"id": "q2", "question": "caf\xe9?"}')
    assert load_dataset_folder(tmp_path, max_rejected=1).rejected == [
        Rejection(2, "q2", "not UTF-8")
    ]


def test_an_id_is_taken_by_the_first_usable_record(tmp_path):
    write(tmp_path, row(question=""), row(), row(id="2"), row(id=2))
    dataset = load_dataset_folder(tmp_path, max_rejected=1)
    assert [e.id for e in dataset.examples] == ["q1", "2"]
    assert dataset.rejected == [
        Rejection(1, "q1", "question missing"),
        Rejection(4, "2", "duplicated id"),
    ]


def test_too_many_bad_records_stop_the_run(tmp_path):
    rows = [row(id=i) for i in range(18)] + [row(id="x", image="b.png"), row(id="y", question="")]
    write(tmp_path, *rows)
    assert len(load_dataset_folder(tmp_path).examples) == 18  # exactly a tenth may go
    write(tmp_path, *rows, row(id="z", image="b.png"))
    with pytest.raises(InbolError) as caught:
        load_dataset_folder(tmp_path)
    message = str(caught.value)
    assert (
        "3 of 21 set aside: 2 image missing (first: x), 1 question missing (y); at most 10% may be"
        in message
    )
    assert message.endswith("starting at line 19")
    assert "\n" not in message
    assert len(load_dataset_folder(tmp_path, max_rejected=0.2).rejected) == 3


def test_what_is_not_a_dataset(tmp_path):
    with pytest.raises(InbolError, match="nowhere: no such file or folder; give a folder"):
        load_dataset_folder(tmp_path / "nowhere")
    with pytest.raises(InbolError, match=r"holds no data\.jsonl; give a folder"):
        load_dataset_folder(tmp_path)
    (tmp_path / "data.csv").write_text("id\n")
    with pytest.raises(InbolError, match=r"not a \.jsonl file"):
        load_dataset_folder(tmp_path / "data.csv")
    (tmp_path / "data.jsonl").write_text("\n")
    with pytest.raises(InbolError, match="holds no records"):
        load_dataset_folder(tmp_path)
    with pytest.raises(InbolError, match="max_rejected is 10"):
        load_dataset_folder(tmp_path, max_rejected=10)


def test_summary_of_rejections():
    rejected = [
        Rejection(1, "q17", "image missing"),
        Rejection(2, "q18", "image missing"),
        Rejection(9, "q3", "duplicated id"),
    ]
    assert (
        summarise_rejections(rejected, 500)
        == "3 of 500 set aside: 2 image missing (first: q17), 1 duplicated id (q3)"
    )
    assert summarise_rejections(rejected[2:]) == "1 set aside: 1 duplicated id (q3)"
    assert (
        summarise_rejections([Rejection(4, None, "not JSON")], 9)
        == "1 of 9 set aside: 1 not JSON (line 4)"
    )
    assert summarise_rejections([], 9) == "0 of 9 set aside"
    assert "\n" not in summarise_rejections([Rejection(4, "a\nb", "image missing")])


REJECTIONS = st.builds(
    Rejection,
    st.integers(1, 99),
    st.none() | st.text(),
    st.sampled_from(["not JSON", "image missing"]),
)


@given(st.lists(REJECTIONS, min_size=1))
def test_summary_is_one_line_and_counts_all(rejected):
    line = summarise_rejections(rejected)
    assert len(line.splitlines()) == 1
    assert line.startswith(f"{len(rejected)} set aside: ")
