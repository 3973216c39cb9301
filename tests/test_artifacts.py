import dataclasses
import enum
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inbol_jax.artifacts import (
    canonical_json,
    check_name,
    file_fingerprint,
    fingerprint,
    hash64,
    meta_path,
    parse_json,
    read_jsonl,
    read_meta,
    sole_writer,
    write_atomically,
    write_json,
    write_jsonl,
)
from inbol_jax.errors import InbolError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_writes_text_and_bytes_into_new_folders(tmp_path):
    write_atomically(tmp_path / "a/b/c.txt", "où\n")
    write_atomically(tmp_path / "a/b/c.bin", b"\0\xff", sync=False)
    assert (tmp_path / "a/b/c.txt").read_bytes() == "où\n".encode()
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"\0\xff"
    assert (tmp_path / "a/b/c.txt").stat().st_mode & 0o777 == 0o644
    write_atomically(tmp_path / "a/b/c.txt", "new")
    assert (tmp_path / "a/b/c.txt").read_text() == "new"
    assert sorted(p.name for p in (tmp_path / "a/b").iterdir()) == ["c.bin", "c.txt"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "seen"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, InbolError)]
)
def test_a_failure_while_writing_leaves_what_was_there(tmp_path, monkeypatch, failing, error, seen):
    file = tmp_path / "records.jsonl"
    file.write_text("old")

    def fail(*_):
        raise error(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(seen, match="No space left on device"):
        write_atomically(file, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["records.jsonl"]
    assert file.read_text() == "old"


def test_what_cannot_be_written_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    names = ("file/x.json", "file/deeper/x.json", "folder")
    for path in (*(tmp_path / name for name in names), Path("/proc/inbol/x.json")):
        message = f"cannot write {path}: .+; choose another --out"
        with pytest.raises(InbolError, match=message) as caught:
            write_atomically(path, "x")
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InbolError, match="Permission denied; choose another --out"):
        write_atomically(tmp_path / "x", "x")


def test_fingerprints_do_not_change():
    """Headers of users' files hold them; another spelling of the settings would refuse those."""

    class Split(enum.StrEnum):
        TRAIN = "train"

    @dataclasses.dataclass
    class Config:
        out: Path
        seed: int

    value = {
        "b": [1, 2.5, None, True],
        "a": {"config": Config(Path("x/y"), 3), "split": Split.TRAIN, "text": "où"},
    }
    assert canonical_json(value) == (
        '{"a":{"config":{"out":"x/y","seed":3},"split":"train","text":"où"},"b":[1,2.5,null,true]}'
    )
    assert fingerprint(value) == "cfd8448977d079a9"


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON, min_size=2))
def test_fingerprint_ignores_the_order_of_keys(value):
    assert fingerprint(dict(reversed(value.items()))) == fingerprint(value)
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)


def test_hash64_does_not_change():
    assert hash64("0:q1") == 14813249367029252116


def test_file_fingerprint(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"12")
    b.write_bytes(b"3")
    first = file_fingerprint(a, b)
    assert file_fingerprint(a, b) == first
    assert file_fingerprint(b, a) != first
    a.touch()
    assert file_fingerprint(a, b) == first
    a.write_bytes(b"1")
    b.write_bytes(b"23")
    assert file_fingerprint(a, b) != first
    assert len(first) == 16


@settings(max_examples=30, deadline=None)  # each writes and syncs two files
@given(rows=st.lists(st.dictionaries(st.text(), JSON)))
def test_rows_round_trip(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    assert write_jsonl(file, rows, {"seed": 3}) == len(rows)
    assert list(read_jsonl(file)) == rows
    assert read_meta(file) == {"seed": 3, "rows": len(rows)}


def test_the_header_comes_last_and_goes_first(tmp_path):
    file = tmp_path / "x.jsonl"
    write_jsonl(file, [{"id": 1}], {"config": "one"})

    def rows():
        assert read_meta(file) == {}  # while a file is being replaced, it is not finished
        yield {"id": 2}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(file, rows(), {"config": "two"})
    assert read_meta(file) == {}
    assert list(read_jsonl(file)) == [{"id": 1}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"id": 1}\n{"id"\n', r"rows\.jsonl:2: not JSON"),
        (b'{"id": 1}\n\n', r"rows\.jsonl:2: not JSON"),
        (b'{"id": ":"}\n{"id": 1, "id": 1}\n', r"rows\.jsonl:2: not JSON \(a key is there twice"),
        (b'{"id": 1}\n{"id": 2}\n[3]\n', r"rows\.jsonl:3: expected a JSON object"),
        (b'{"id": 1}\n"text"', r"rows\.jsonl:2: expected a JSON object"),
        (b'{"id": "\xff"}\n', r"rows\.jsonl:1: not (JSON|UTF-8)"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    with pytest.raises(InbolError, match=message) as caught:
        list(read_jsonl(file))
    assert "\n" not in str(caught.value)


HOSTILE = {
    "nested too deeply": [b"[" * 100_000],
    "surrogate|truncated": [b'"\\ud800"', b'{"\\uDFFF": 1}', b'"\\ude00\\ud83d"'],
    "decode": [b'"\xff"', b'"\xed\xa0\x80"', b'\xff\xfe"\x00"\x00'],
    "malformed|out of range": [b"NaN", b"[-Infinity]", b'{"a": 1e999}', b"[" + b"1" * 5000 + b"]"],
    "twice": [b'{"a": 1, "a": 1}', b'{"a": [{"b": ":", "c": {"d":2 , "d" :3}}]}'],
    "more than 16 MiB": [b'"' + b"x" * (1 << 24) + b'"'],
    "malformed|Input data": [b"", b"\0", b"1 2", b'{"a": 1,}', b'"a\0b"'],
}


@pytest.mark.parametrize(
    ("data", "message"), [(data, message) for message in HOSTILE for data in HOSTILE[message]]
)
def test_json_that_not_every_program_can_read_is_refused_everywhere(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        parse_json(data)
    for name in ("rows.jsonl", "rows.jsonl.meta.json"):
        (tmp_path / name).write_bytes(data + b"\n")
    with pytest.raises(InbolError, match=r"rows\.jsonl:1: not JSON"):
        list(read_jsonl(tmp_path / "rows.jsonl"))
    with pytest.raises(InbolError, match=r"rows\.jsonl\.meta\.json: cannot be read"):
        read_meta(tmp_path / "rows.jsonl")


def test_json_that_looks_hostile_and_is_not():
    text = {"a": ["\U0001f600", "\\ud800", "[" * 500, "NaN"], "b": 10**300, "c": -1e308}
    for ascii in (True, False):
        assert parse_json(json.dumps(text, ensure_ascii=ascii).encode()) == text
    assert parse_json(b"\xef\xbb\xbf" + b"[" * 100 + b"]" * 100)


def test_rows_are_parsed_and_what_is_wrong_with_one_is_said_with_its_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": 1}\n{"id": "two"}\n')

    def parse(row):
        if not isinstance(row["id"], int):
            raise InbolError("'id' is no number")
        return row["id"]

    rows = read_jsonl(file, parse)
    assert next(rows) == 1
    with pytest.raises(InbolError, match=r"rows\.jsonl:2: 'id' is no number"):
        next(rows)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InbolError, match=r"cannot read .*none\.jsonl: No such file"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(InbolError, match=r"cannot read .*: Is a directory"):
        list(read_jsonl(tmp_path))


NOT_NAMES = ("", ".", "..", "a/b", "a\\b", "a\n", "\x1b[2J", "\udc80", "é" * 51)


@pytest.mark.parametrize("name", NOT_NAMES)
def test_names_that_no_file_can_have(name):
    with pytest.raises(InbolError, match=r"--name .*: files are called by it, so it needs 1 to"):
        check_name(name, "--name")
    for good in ("test", "VQAv2 test-dev", "問い", "é" * 50):
        check_name(good, "--name")


def test_headers(tmp_path):
    file = tmp_path / "x.jsonl"
    assert meta_path(file) == tmp_path / "x.jsonl.meta.json"
    assert read_meta(file) == {}
    write_json(meta_path(file), {"seed": 1, "name": "où"})
    assert read_meta(file) == {"seed": 1, "name": "où"}
    for damaged in (b'{"seed": ', b"\xff\xfe", b"[1]", b"null"):
        meta_path(file).write_bytes(damaged)
        with pytest.raises(
            InbolError,
            match=r"x\.jsonl\.meta\.json: cannot be read .*; delete it and x.jsonl, and give the",
        ):
            read_meta(file)


def in_another_process(code, *arguments):
    """What a process says on standard error, which is nothing if it succeeds."""
    code = f"from pathlib import Path; import sys; from inbol_jax.artifacts import *; {code}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return done.stderr.strip()


def test_a_folder_has_one_writer(tmp_path):
    enter = "sole_writer(Path(sys.argv[1])).__enter__()"
    with sole_writer(tmp_path / "run"):
        with sole_writer(tmp_path / "run"):
            pass  # as a stage of the demo
        error = in_another_process(enter, tmp_path / "run")
        assert error.endswith(
            f"{tmp_path / 'run'} is being written by another run; wait for its end, or choose "
            "another --out"
        )
        assert not in_another_process(enter, tmp_path / "other")
    assert not in_another_process(enter, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_what_a_killed_writer_leaves_is_taken_over(tmp_path):
    kill = "os.kill(os.getpid(), 9)"
    code = f"import os; c = atomically(Path(sys.argv[1])); c.__enter__().write_text('long'); {kill}"
    in_another_process(code, tmp_path / "x")
    assert [p.name for p in tmp_path.iterdir()] == [".x.tmp"]
    write_atomically(tmp_path / "x", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "new")]
