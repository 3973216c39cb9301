import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbol_jax.data import json_stream
from inbol_jax.data.json_stream import json_objects
from inbol_jax.data.sources import file_rows, joined
from inbol_jax.data.rows import Unusable
from inbol_jax.errors import InbolError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(params=[1, 2, 7, 1 << 20])
def chunk(request, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", request.param)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "rows.json"


@pytest.mark.usefixtures("chunk")
@settings(max_examples=30)
@given(
    st.lists(VALUES, max_size=5),
    st.none() | st.integers(0, 3),
    st.dictionaries(st.sampled_from(["info", "license", "n"]), VALUES),
    st.booleans(),
)
def test_elements_are_those_that_the_whole_file_holds(file, elements, indent, others, ascii):
    file.write_text(json.dumps(elements, indent=indent, ensure_ascii=ascii), encoding="utf-8")
    assert list(json_objects(file)) == elements
    file.write_text(
        json.dumps(
            others | {"rows": elements, "after": [1, {"rows": []}]},
            indent=indent,
            ensure_ascii=ascii,
        ),
        encoding="utf-8",
    )
    assert list(json_objects(file, keys=("rows",))) == elements
    file.write_text(
        json.dumps(
            {str(i): {"value": e} for i, e in enumerate(elements)} or {"0": {}}, indent=indent
        ),
        encoding="utf-8",
    )
    assert list(json_objects(file, by_id="id")) == [
        {"id": str(i), "value": e} for i, e in enumerate(elements)
    ] or [{"id": "0"}]


@pytest.mark.usefixtures("chunk")
def test_a_file_that_is_torn_anywhere_is_an_error(tmp_path):
    text = json.dumps(
        {"info": {"a": [1, 2]}, "questions": [{"id": 1, "q": "où ?"}, {"id": 2}], "n": 12.5},
        ensure_ascii=False,
    )
    file = tmp_path / "q.json"
    for end in range(len(text)):
        file.write_text(text[:end], encoding="utf-8")
        with pytest.raises(InbolError, match=r"q\.json: (not whole JSON|holds no list)"):
            list(json_objects(file, keys=("questions",)))
    for odd in (
        text + "]",
        text.replace('"id": 2', '"id" 2'),
        text.replace("}, {", "} {"),
        "[1, 2",
        "[1,, 2]",
        '"text"',
        "\ufeff",
    ):
        file.write_text(odd, encoding="utf-8")
        with pytest.raises(InbolError, match=r"q\.json: not whole JSON"):
            list(json_objects(file, keys=("questions",)))
    file.write_text("\ufeff" + text, encoding="utf-8")
    assert [row["id"] for row in json_objects(file, keys=("questions",))] == [1, 2]
    with pytest.raises(InbolError, match="holds no list of records under 'rows'"):
        list(json_objects(file, keys=("rows",)))
    with pytest.raises(InbolError, match=r"cannot read .*: No such file"):
        list(json_objects(tmp_path / "nowhere.json"))


def test_a_damaged_object_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "MAX_OBJECT", 1000)
    monkeypatch.setattr(json_stream, "CHUNK", 100)
    file = tmp_path / "q.json"
    file.write_text('[{"a": 1}, {"b": "' + "x" * 100_000 + '"}]')
    read = json_objects(file)
    assert next(read) == {"a": 1}
    with pytest.raises(InbolError, match="not whole JSON"):
        next(read)


def test_json_lines_are_known_by_their_content(tmp_path):
    rows = [{"a": 1}, {"a": 2}]
    file = tmp_path / "rows.json"
    for text in (
        "\n".join(map(json.dumps, rows)),
        "\ufeff" + "\r\n\r\n".join(map(json.dumps, rows)),
        json.dumps(rows),
        json.dumps(rows, indent=1),
    ):
        file.write_bytes(text.encode())
        assert [row for _, row in file_rows(file)] == rows
    file.write_text(json.dumps({"data": rows}, indent=2))
    assert list(file_rows(file)) == list(enumerate(rows, 1))
    file.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n{broken\n{"a": 2}\n')
    found = [str(row) if isinstance(row, Unusable) else row for _, row in file_rows(file)]
    assert found == [{"a": 1}, "not UTF-8", "not JSON", {"a": 2}]


def test_csv_of_any_shape(tmp_path):
    file = tmp_path / "rows.CSV"
    file.write_bytes(b'\xef\xbb\xbfname,question\r\na,"What, or\nwho?"\r\nb\r\nc,d,e\r\n\r\n')
    assert [row for _, row in file_rows(file)] == [
        {"name": "a", "question": "What, or\nwho?"},
        {"name": "b", "question": None},
        {"name": "c", "question": "d"},
    ]
    file.write_bytes(b'name\n"' + b"x" * (1 << 25) + b'"\n')
    with pytest.raises(InbolError, match=r"rows\.CSV: not CSV"):
        list(file_rows(file))


@settings(max_examples=50)
@given(st.integers(0, 30), st.randoms(use_true_random=False))
def test_questions_meet_their_annotations_in_any_order(n, rng):
    questions = [{"question_id": i, "question": str(i)} for i in range(n)]
    annotations = [{"question_id": i, "answers": [{"answer": str(i)}]} for i in range(n)]
    lost, extra = rng.randint(0, n), rng.randint(0, 3)
    annotations = annotations[lost:] + [{"question_id": -1 - i} for i in range(extra)]
    rng.shuffle(questions)
    rng.shuffle(annotations)
    found = list(joined(enumerate(questions, 1), enumerate(annotations, 1)))
    whole = {number: row for number, row in found if not isinstance(row, Unusable)}
    for number, row in whole.items():
        assert row["question_id"] == questions[number - 1]["question_id"]
        answers = [a["answer"] if isinstance(a, dict) else a for a in row["answers"]]
        assert answers == [row["question"]]
    assert len(whole) == n - lost
    faults = [str(row) for _, row in found if isinstance(row, Unusable)]
    assert (
        sorted(faults)
        == ["annotation without question"] * extra + ["question without annotation"] * lost
    )
