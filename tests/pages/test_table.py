import json

from inbol_jax.pages.table import Table


def test_a_table_is_read_from_json(tmp_path):
    content = {"caption": "c", "columns": ["", "seed 0"], "rows": [["T", "+0.5"]]}
    (tmp_path / "table.json").write_text(json.dumps(content | {"checkpoint": "0123"}))
    assert Table.read(tmp_path / "table.json") == Table("c", ["", "seed 0"], [["T", "+0.5"]])
