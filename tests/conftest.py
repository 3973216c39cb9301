import atexit
import gc
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from importlib import metadata

# The tests compile much and compute little: this halves their time. With 0 in the environment they
# run what users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Likewise: the CPU compiler's older emitters take a fourth of the newer ones' time. Which JAX knows
# the option decides whether it may be given: an unknown one ends the process.
if metadata.version("jaxlib").startswith("0.10."):
    own = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{own} {os.environ.get('XLA_FLAGS', '')}"
# What one test has compiled, the others of this run and their commands read.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="inbol-jax-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis
import jax.numpy as jnp
import pytest
import tiny_families
from endpoint_server import KEY, Server
from tiny_families import SIZES, write_random

from inbol_jax.defaults import TINY
from inbol_jax.models import loading
from inbol_jax.models.loading import load_pretrained, save_pretrained
from inbol_jax.prompts import FILE
from inbol_jax.sampling import generate
from inbol_jax.world.config import Split
from inbol_jax.world.export import ExportConfig, export

hypothesis.settings.register_profile("suite", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """What lives on behind a module, compiled programs above all, is searched for garbage once."""
    yield
    gc.collect()
    gc.freeze()


atexit.register(gc.unfreeze)  # what is frozen when the process ends is reported as leaked


@pytest.fixture(scope="session")
def tiny():
    """The checkpoint that ships with the package."""
    return load_pretrained(TINY, dtype=jnp.float32)


@pytest.fixture(scope="session")
def micro(tiny, tmp_path_factory):
    """A random checkpoint with the shipped one's tokenizer and processor, of one small layer each.

    It compiles fast. It is not tied: tied and random, it would repeat itself.
    """
    folder = tmp_path_factory.mktemp("micro") / "checkpoint"
    save_pretrained(tiny, folder)
    config = json.loads((folder / "config.json").read_text())
    untied = {"tie_word_embeddings": False}
    config["vision_config"] |= SIZES
    config["text_config"] |= SIZES | untied | {"num_key_value_heads": 1, "head_dim": 16}
    return load_pretrained(write_random(folder, config | untied), dtype=jnp.float32)


def _family(write):
    @pytest.fixture(scope="session")
    def checkpoint(tmp_path_factory):
        return load_pretrained(write(tmp_path_factory.mktemp("family")), dtype=jnp.float32)

    return checkpoint


# Random checkpoints in the shapes of the families, of few small layers each.
smolvlm = _family(tiny_families.write_smolvlm)
internvl = _family(tiny_families.write_internvl)
gemma3 = _family(tiny_families.write_gemma3)
llava_next = _family(tiny_families.write_llava_next)
llava_onevision = _family(tiny_families.write_llava_onevision)
qwen2_5_vl = _family(tiny_families.write_qwen2_5_vl)
qwen3_vl = _family(tiny_families.write_qwen3_vl)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory):
    """The world's splits `train` (60 questions) and `test` (40, and 20 of Type 3). Read-only."""
    folder = tmp_path_factory.mktemp("world")
    for split, n in ((Split.TRAIN, 60), (Split.TEST, 60)):
        export(ExportConfig(folder / split, split, n))
    return folder


@pytest.fixture(scope="module")
def one_length():
    """Prompts are padded to multiples of 64 tokens: of each length a program is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "padded_length", lambda length: -(-length // 64) * 64)
        yield


@pytest.fixture
def unreadable_weights(monkeypatch):
    """Who reads a checkpoint's weights fails: what is refused must be refused before."""
    monkeypatch.setattr(loading, "load_params", lambda *_, **__: pytest.fail("weights were read"))


@pytest.fixture
def untold(micro, tmp_path):
    """A checkpoint whose chat template drops the question."""
    folder = shutil.copytree(micro.path, tmp_path / "untold")
    (folder / "chat_template.jinja").write_text("hello")
    (folder / "chat_template.json").unlink(missing_ok=True)
    return folder


@pytest.fixture
def talkative(micro, tmp_path):
    """A checkpoint whose chat template takes a system text; its folder says no prompt."""
    folder = shutil.copytree(micro.path, tmp_path / "talkative")
    (folder / FILE).unlink()
    (folder / "chat_template.json").unlink(missing_ok=True)
    system = "{% for m in messages if m.role == 'system' %}[{{ m.content[0].text }}]{% endfor %}"
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(
        template.replace("{{ '<s>' }}", "{{ '<s>' }}" + system)
    )
    return folder


@pytest.fixture
def held(tmp_path):
    """An empty folder into which another process writes."""
    script = "import sys, time; from pathlib import Path; from inbol_jax.artifacts import *\n"
    script += "with sole_writer(Path(sys.argv[1])): print(flush=True); time.sleep(600)"
    command = [sys.executable, "-c", script, str(tmp_path / "held")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        yield tmp_path / "held"
        other.kill()


class Killed(BaseException):
    """What a process ends by that is killed."""


@pytest.fixture
def kills(monkeypatch):
    """`kills(run)` calls `run` again and again, killed before its 1st, 2nd, ... renaming, and at
    last not at all. Returns how often it was killed."""
    rename = os.replace

    def killed(run, left):
        def replace(*paths):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            rename(*paths)

        monkeypatch.setattr(os, "replace", replace)
        try:
            run()
        except Killed:
            return True
        return False

    return lambda run: next(n for n in itertools.count() if not killed(run, n))


@pytest.fixture
def serve(monkeypatch):
    """`serve(reply)` starts an endpoint, see `Server`; the key is in the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(reply):
        server = Server(reply)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
