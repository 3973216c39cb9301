import json

from inbol_jax.pages.table import Table


def test_both_header_rows_become_one():
    spans = (("", 2), ("base", 2))
    table = Table("caption", ("Questions", "n", "Acc", "T"), [], spans)
    assert table.flat_columns == ["Questions", "n", "base Acc", "base T"]
    assert Table("caption", ("a", "b"), []).flat_columns == ["a", "b"]


def test_a_table_is_read_from_json(tmp_path):
    content = {"caption": "c", "columns": ["", "seed 0"], "rows": [["T", "+0.5"]]}
    (tmp_path / "table.json").write_text(json.dumps(content | {"checkpoint": "0123"}))
    assert Table.read(tmp_path / "table.json") == Table("c", ["", "seed 0"], [["T", "+0.5"]])
