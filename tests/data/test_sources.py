import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbol_jax.data.folder import Unusable
from inbol_jax.data.sources import joined, text_rows
from inbol_jax.errors import InbolError


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
        assert [row for _, row in text_rows(file)] == rows
    file.write_text(json.dumps({"data": rows}, indent=2))
    assert list(text_rows(file)) == list(enumerate(rows, 1))
    file.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n{broken\n{"a": 2}\n')
    found = [str(row) if isinstance(row, Unusable) else row for _, row in text_rows(file)]
    assert found == [{"a": 1}, "not UTF-8", "not JSON", {"a": 2}]


def test_csv_of_any_shape(tmp_path):
    file = tmp_path / "rows.CSV"
    file.write_bytes(
        b'\xef\xbb\xbfname,question\r\na,"What, or\nwho?"\r\nb,\r\nc,d,\r\nc,d,e\r\nf\r\n\r\n'
    )
    *rows, more, fewer = [row for _, row in text_rows(file)]
    assert rows == [
        {"name": "a", "question": "What, or\nwho?"},
        {"name": "b", "question": ""},
        {"name": "c", "question": "d"},
    ]
    # A comma too many in a text, or one that is lost: what stands behind it is another column's.
    assert list(map(str, (more, fewer))) == [f"{n} cells than columns" for n in ("more", "fewer")]
    file.write_bytes(b'name\n"' + b"x" * (1 << 25) + b'"\n')
    with pytest.raises(InbolError, match=r"rows\.CSV: not CSV"):
        list(text_rows(file))
    file.write_text('id,question,answers\n1,"Who?,red\n2,Who?,blue\n3,Who?,red\n')
    with pytest.raises(InbolError, match=r"rows\.CSV: not CSV after line 1"):  # none is lost
        list(text_rows(file))


def test_a_csv_in_utf_16_is_refused(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("image,question,answers\n,What?,red\n", encoding="utf-16")
    with pytest.raises(InbolError, match=r"rows\.csv: is UTF-16 and not UTF-8"):
        [*text_rows(file)]


def test_a_csv_header_with_a_column_twice_is_refused(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("id,answers,,answers,\n1,red,,blue,\n")
    with pytest.raises(InbolError, match=r"rows\.csv: column 'answers' comes twice"):
        list(text_rows(file))
    file.write_text("id,answers,,\n1,red,,\n")
    assert list(text_rows(file)) == [(1, {"id": "1", "answers": "red", "": ""})]


@settings(max_examples=50, deadline=None)
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
