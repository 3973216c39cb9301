"""What every command that leaves a file shares: its header, and what it set aside."""

import pytest

from inbol_jax.artifacts import meta_path, read_meta, write_atomically, write_json, write_jsonl
from inbol_jax.errors import InbolError
from inbol_jax.records import VQAExample
from inbol_jax.stage import SetAside, Stage

SETTINGS = {"n": 10, "seed": 0, "against": []}
INPUTS = {"data": "aaaa"}


def stage(folder, settings=SETTINGS, command="probe", inputs=INPUTS, **options):
    return Stage(folder / "probe.jsonl", command, settings, inputs=inputs, **options)


def finish(folder, rows=3, **about):
    with stage(folder, **about) as one:
        assert not one.finished
        write_atomically(one.file, "{}\n" * rows)
        one.finish(rows, images="..")


def test_a_finished_stage_is_finished_and_says_so(tmp_path, capsys):
    finish(tmp_path)
    with stage(tmp_path) as again:
        assert again.finished
        assert again.header["rows"] == 3
        assert again.header["images"] == ".."
    out = capsys.readouterr().out
    assert out == f"{tmp_path / 'probe.jsonl'}: finished before, by the same settings (3 rows)\n"
    assert again.header == read_meta(again.file)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"settings": SETTINGS | {"n": 20}}, "was made with --n 10, and now --n 20: choose anoth"),
        (
            {"settings": SETTINGS | {"n": 2, "seed": 3}},
            "--n 10, and now --n 2; --seed 0, and now --seed 3: choose",
        ),
        ({"settings": SETTINGS | {"against": ["a", "b"]}}, "no --against, and now --against a b"),
        ({"settings": SETTINGS | {"partial": True}}, "with no --partial, and now --partial: cho"),
        ({"inputs": {"data": "bbbb"}}, "was made of another --data, or of what has changed since"),
        (
            {"inputs": INPUTS | {"model": "cc"}, "settings": SETTINGS | {"dtype": "float32"}},
            "was made of another --model, or of what has changed since: choose another",
        ),
        ({"command": "other"}, "was not made by `inbol other`: choose another --out, or delete it"),
    ],
)
def test_the_output_of_another_run_is_refused(tmp_path, other, message):
    finish(tmp_path)
    before = read_meta(tmp_path / "probe.jsonl")
    with pytest.raises(InbolError) as error, stage(tmp_path, **other):
        pass
    assert message in str(error.value)
    assert read_meta(tmp_path / "probe.jsonl") == before


@pytest.mark.parametrize("damage", [{"settings": [1]}, {"inputs": None}])
def test_a_header_that_is_none_is_refused(tmp_path, damage):
    finish(tmp_path)
    file = tmp_path / "probe.jsonl"
    write_json(meta_path(file), read_meta(file) | damage)
    with pytest.raises(InbolError, match=r"was not made by|cannot be read"), stage(tmp_path):
        pass


def test_a_file_that_was_cut_is_not_finished(tmp_path):
    """Nor is a command that has lost one of several files; given again, it makes what is gone."""
    other = tmp_path / "other.jsonl"
    finish(tmp_path)
    write_jsonl(other, [{}, {}], {})
    with stage(tmp_path, others=[other]) as whole:
        assert whole.finished
    for file, rows in ((whole.file, 3), (other, 2)):
        before = file.read_text()
        file.write_text("{}\n")
        message = f"{file.name} holds 1 lines, and by its header {rows}; delete it and give its c"
        with pytest.raises(InbolError, match=message), stage(tmp_path, others=[other]):
            pass
        file.unlink()
        with stage(tmp_path, others=[other]) as again:
            assert not again.finished
            again.finish(3)
        file.write_text(before)


def test_a_file_that_a_user_wrote_is_refused(tmp_path):
    write_atomically(tmp_path / "probe.jsonl", "mine")
    with pytest.raises(InbolError, match="was not made by"), stage(tmp_path):
        pass
    assert (tmp_path / "probe.jsonl").read_text() == "mine"


def test_a_run_that_stopped_goes_on_and_only_with_its_settings(tmp_path):
    with stage(tmp_path) as first:
        write_atomically(first.file, "{}\n")
    assert "rows" not in read_meta(first.file)
    with pytest.raises(InbolError, match="--n 10, and now --n 1"), stage(tmp_path, {"n": 1}):
        pass
    finish(tmp_path)


def test_nothing_is_left_if_nothing_was_made(tmp_path):
    with pytest.raises(KeyboardInterrupt), stage(tmp_path):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    finish(tmp_path, settings={"n": 1})


def test_one_process_writes(tmp_path):
    with stage(tmp_path, writes=False) as reader:
        reader.finish(0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("most", "stops"), [(0.2, False), (0.1, True), (0.0, True)])
def test_what_is_set_aside_is_said_and_limited(capsys, most, stops):
    set_aside = SetAside(most)
    set_aside.report("sampling", 10, "mend them")
    assert not capsys.readouterr().out
    for id in ("a", "b"):
        set_aside(VQAExample(id, ("x.png",), "What?"), f"{id}.png: damaged")
    line = "sampling: 2 of 10 questions set aside (first: a: a.png: damaged)"
    if stops:
        with pytest.raises(InbolError) as error:
            set_aside.report("sampling", 10, "mend them")
        assert str(error.value) == f"{line}, more than --max-rejected {most} allows; mend them"
    else:
        set_aside.report("sampling", 10, "mend them")
        assert capsys.readouterr().out == line + "\n"
