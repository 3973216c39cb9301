"""The compilation cache: on by default, in JAX's own settings, and never a reason to fail."""

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
NAME = "JAX_COMPILATION_CACHE_DIR"


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No variable of the cache is set; the user's cache folder is an empty one."""
    for name in (NAME, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "")  # is put back, whatever becomes of it
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path


def test_what_one_process_compiles_the_next_reads(clean):
    command, environment = [sys.executable, "-c", PROGRAM], os.environ | {"JAX_PLATFORMS": "cpu"}
    for read in (False, True):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        result, counts = done.stdout.splitlines()
        hits, misses = map(int, counts.split())
        assert (result, bool(hits), bool(misses)) == ("7.0", read, not read)
    (folder,) = (clean / "home/inbol_jax").iterdir()
    use_cache()
    assert Path(os.environ[NAME]) == folder


@pytest.mark.parametrize("named", ["own", "gs://bucket/cache", ""])
def test_jax_s_own_variable_is_followed(clean, monkeypatch, named):
    monkeypatch.setenv(NAME, named)
    use_cache()
    assert os.environ[NAME] == named
    assert not (clean / "home").exists()


def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(clean, monkeypatch):
    (clean / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(clean / "file/below"))
    use_cache()
    assert NAME not in os.environ
