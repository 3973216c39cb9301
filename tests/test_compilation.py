"""The compilation cache: on by default, bounded, safe, and never a reason to fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inbol_jax.compilation import use_cache

PROGRAM = """
from inbol_jax.compilation import use_cache
use_cache()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
found = []
jax.monitoring.register_event_listener(lambda name, **_: found.append(name))
print(jax.jit(lambda x: x * 2 + 1)(3.0))
print(sum("cache_hits" in name for name in found), sum("cache_misses" in name for name in found))
"""
NAMES = ("JAX_COMPILATION_CACHE_DIR", "JAX_COMPILATION_CACHE_MAX_SIZE")
NAMES += ("JAX_ENABLE_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No variable of the cache is set; the user's cache folder is an empty one."""
    for name in NAMES:
        monkeypatch.setenv(name, "")  # is put back, whatever becomes of it
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path


def processes(count):
    """What each of so many processes prints that run at once."""
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    return [process.communicate()[0].splitlines() for process in started]


def test_what_one_process_compiles_the_next_reads(clean):
    (first, second), ((result, counts),) = processes(2), processes(1)
    assert first[0] == second[0] == result == "7.0"
    hits, misses = map(int, counts.split())
    assert hits
    assert not misses
    (folder,) = (clean / "home/inbol_jax").iterdir()
    torn = next(folder.glob("*-cache"))
    torn.with_name(f"{torn.name.removesuffix('-cache')}-atime").unlink()  # as a killed process
    use_cache()
    assert not torn.exists()
    assert Path(os.environ[NAMES[0]]) == folder
    assert int(os.environ[NAMES[1]]) == 4 << 30


@pytest.mark.parametrize("named", ["own", "gs://bucket/cache", ""])
def test_jax_s_own_variable_is_followed(clean, monkeypatch, named):
    value = str(clean / named) if named == "own" else named
    monkeypatch.setenv(NAMES[0], value)
    use_cache()
    assert os.environ[NAMES[0]] == value
    assert NAMES[1] not in os.environ, "how large it may be is the user's"
    assert not (clean / "home").exists()
    assert (clean / "own").is_dir() == (named == "own")


@pytest.mark.parametrize("named", [True, False])
def test_a_folder_that_cannot_be_written_is_one_line(clean, monkeypatch, capsys, named):
    (clean / "file").touch()
    monkeypatch.setenv(NAMES[0] if named else "XDG_CACHE_HOME", str(clean / "file/below"))
    use_cache()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("what is compiled is not kept for the next command (")
    assert "JAX_COMPILATION_CACHE_DIR can name another folder" in line
    assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"
