import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inbol_jax.data import json_stream
from inbol_jax.data.json_stream import json_objects
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
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(VALUES, max_size=5),
    st.none() | st.integers(0, 3),
    st.dictionaries(st.sampled_from(["info", "license", "n"]), VALUES),
    st.booleans(),
)
def test_elements_are_those_that_the_whole_file_holds(file, elements, indent, others, ascii):
    def write(value):
        text = json.dumps(value, indent=indent, ensure_ascii=ascii)
        file.write_text(text, encoding="utf-8")

    write(elements)
    assert list(json_objects(file)) == elements
    write(others | {"rows": elements, "after": [1, {"rows": []}]})
    assert list(json_objects(file, keys=("rows",))) == elements
    objects = {str(i): {"value": element} for i, element in enumerate(elements)} or {"0": {}}
    write(objects)
    expected = [{"id": key} | value for key, value in objects.items()]
    assert list(json_objects(file, by_id="id")) == expected


@pytest.mark.usefixtures("chunk")
def test_a_file_that_is_torn_anywhere_is_an_error(tmp_path):
    records = [{"id": 1, "q": "où ?"}, {"id": 2}]
    whole = {"info": {"a": [1, 2]}, "questions": records, "n": 12.5}
    text = json.dumps(whole, ensure_ascii=False)
    file = tmp_path / "q.json"
    for end in range(len(text)):
        file.write_text(text[:end], encoding="utf-8")
        with pytest.raises(InbolError, match=r"q\.json: (not whole JSON|holds no list)"):
            list(json_objects(file, keys=("questions",)))
    odd_texts = [text + "]", text.replace('"id": 2', '"id" 2'), text.replace("}, {", "} {")]
    for odd in (*odd_texts, "[1, 2", "[1,, 2]", '"text"', "\ufeff"):
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


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"a":' * 100_000, "[" * 9999 + "]" * 9999])
def test_deep_nesting_is_an_error(tmp_path, nested):
    file = tmp_path / "q.json"
    file.write_text(f'[{{"a": 1}}, {nested}')
    with pytest.raises(InbolError, match="not whole JSON"):
        list(json_objects(file))


def test_text_that_is_not_utf_8_spoils_its_own_record_only(tmp_path):
    file = tmp_path / "q.json"
    file.write_bytes(b'[{"a": "\xff"}, {"a": "\\ud800"}, {"a": NaN, "a": 1}]')
    assert list(json_objects(file)) == [{"a": "\udcff"}, {"a": "\ud800"}, {"a": 1}]
