"""Training in two real processes of four devices each, through the command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_data import assert_same_runs, command_line, dpo, metrics_of, run_sft

from inbol_jax.errors import InbolError
from inbol_jax.processes import join
from inbol_jax.training.config import RlConfig
from inbol_jax.training.rl import rl

ROOT = Path(__file__).parents[2]


def start(*commands, program=ROOT / "train.py", devices=4):
    """`train.py --distributed` with the arguments of each process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    shared = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    shared |= {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}"}
    shared |= {"JAX_NUM_PROCESSES": str(len(commands))}
    # A background shell ignores SIGINT; children inherit that unless it is handled here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return [
        subprocess.Popen(
            [sys.executable, program, *map(str, arguments), "--distributed"],
            env=os.environ | shared | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, arguments in enumerate(commands)
    ]


def together(*arguments, **options):
    """Runs the same in two processes; returns what each printed."""
    running = start(arguments, arguments, **options)
    found = [process.communicate(timeout=300) for process in running]
    for process, (_, error) in zip(running, found, strict=True):
        assert process.returncode == 0, error[-3000:]
        assert "Involuntary full rematerialization" not in error
    return [output for output, _ in found]


REWARD = """
import sys
from inbol_jax.cli import main
from inbol_jax.training.rl import register_reward
register_reward("short")(lambda example, text: -len(text) / 10)
sys.exit(main())
"""


@pytest.mark.slow
def test_two_processes_draw_and_train_as_one(questions, micro, short, tmp_path):
    """On-policy refusal of a model that is split over both."""
    own = {"n": 4, "max_new_tokens": 6, "batch_size": 8}
    own |= {"epochs": 2, "learning_rate": 1e-3, "reward": short, "model": micro.path}
    (tmp_path / "short.py").write_text(REWARD)
    words = command_line("rl", data=questions, out=tmp_path / "two", mesh=(2, 2, 2), **own)
    together(*words, program=tmp_path / "short.py")
    rl(RlConfig.from_options(data=(questions,), out=tmp_path / "one", **own))
    # Batches are padded to sizes that the devices share.
    assert_same_runs(tmp_path / "one", tmp_path / "two", without=("padding",))


OPTIONS = {"epochs": 5, "batch_size": 8, "learning_rate": 1e-3}


@pytest.mark.slow
def test_two_processes_train_as_one(data, micro, tmp_path):
    """IDK-IT of a model that is split over both, with all that goes beside; then CA-DPO of adapters
    on it, twice: nothing is left to do.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    besides = {"eval_data": data / "instructions.jsonl", "eval_steps": 5}
    besides |= OPTIONS
    trained = run_sft(data, micro.path, one / "sft", **besides)
    own = {"data": data / "instructions.jsonl", "model": micro.path, "out": two / "sft"}
    own |= {"mesh": (2, 2, 2)}
    printed = together(*command_line("sft", **own, **besides))
    assert [text.count("IDK-IT: 10 steps") for text in printed] == [1, 0], (
        "the first process speaks"
    )
    assert_same_runs(one / "sft", two / "sft")
    first, last = metrics_of(two / "sft")
    assert (first["step"], last["step"]) == (5, 10)
    assert last["eval/loss"] < first["eval/loss"]

    options = {"lora_rank": 2, "lora_targets": ("q_proj", "down_proj"), **OPTIONS}
    dpo(data, trained, one / "dpo", **options)
    own = {"data": data / "preferences.jsonl", "model": trained, "out": two / "dpo"}
    words = command_line("dpo", **own, **options)
    together(*words)
    assert_same_runs(one / "dpo", two / "dpo")

    def state():
        log, reference = two / "dpo/metrics.jsonl", two / "dpo/reference.npy"
        return log.read_bytes(), reference.stat().st_mtime_ns

    before = state()
    together(*words)  # the reference is read, the checkpoint restored, nothing trained
    assert state() == before


@pytest.mark.slow
def test_two_processes_with_a_copy_on_each_device(data, micro, tmp_path):
    """`pmap`, and a run that goes on from the checkpoint of a run under `jit`."""
    dpo(data, micro.path, tmp_path / "one", **OPTIONS)
    own = {"data": data / "preferences.jsonl", "model": micro.path, "out": tmp_path / "two"}
    together(*command_line("dpo", **own, parallel="pmap", **OPTIONS))
    assert_same_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_ends_both_after_one_step(data, micro, tmp_path, number):
    """Both save that step, and the same command ends where an undisturbed run does."""
    own = {"data": data / "instructions.jsonl", "model": micro.path}
    words = [*command_line("sft", **own, epochs=80, batch_size=8, save_steps=20), "--out"]
    running = start(*[[*words, tmp_path / "broken"]] * 2)
    try:
        log, end = tmp_path / "broken/checkpoints/20", time.monotonic() + 200
        while not log.exists() and time.monotonic() < end:
            time.sleep(0.01)
        running[1].send_signal(number)
        errors = [process.communicate(timeout=100)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [143, 143], errors
    saved = max(int(f.name) for f in (tmp_path / "broken/checkpoints").iterdir())
    assert 20 < saved < 160
    assert saved % 20
    together(*words, tmp_path / "broken")
    together(*words, tmp_path / "whole")
    assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "whole")
    assert_same_runs(tmp_path / "whole", tmp_path / "broken", atol=0)


READS = """
import json, math, sys
from inbol_jax import cli
from inbol_jax.models import reading
from inbol_jax.training import dataset
read = {"rows": 0, "numbers": 0, "of": 0}
class Noted:
    def __init__(self, tensor):
        self.tensor = tensor
        read["of"] += math.prod(tensor.get_shape())
    def __getitem__(self, slices):
        part = self.tensor[slices]
        read["numbers"] += part.size
        return part
place, pictures = reading._place, dataset.load_image_inputs
def load_image_inputs(*words):
    read["rows"] += 1
    return pictures(*words)
reading._place = lambda tensor, *words: place(Noted(tensor), *words)
dataset.load_image_inputs = load_image_inputs
code = cli.main()
print(json.dumps(read))
sys.exit(code)
"""


@pytest.mark.slow
def test_each_process_reads_its_own_part_of_weights_and_pictures(data, micro, tmp_path):
    """Half of the 16 rows, and of the weights what is not whole on every device beside it."""
    (tmp_path / "reads.py").write_text(READS)
    own = {"data": data / "instructions.jsonl", "model": micro.path, "out": tmp_path / "out"}
    words = command_line("sft", **own, epochs=1, batch_size=8, mesh=(1, 8, 1))
    for printed in together(*words, program=tmp_path / "reads.py"):
        read = json.loads(printed.splitlines()[-1])
        assert read["rows"] == 8
        assert read["numbers"] < 0.6 * read["of"], read


EXCHANGE = """
import sys, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from inbol_jax import cli
from inbol_jax.training import sft
def exchange(config):
    spread = NamedSharding(Mesh(np.array(jax.devices()), "d"), PartitionSpec("d"))
    total = jax.jit(lambda x: x.sum())
    for i in range(10**9):
        ones = lambda _: np.ones(1, np.float32)
        float(total(jax.make_array_from_callback((jax.device_count(),), spread, ones)))
        if i == 9:
            print("ready", flush=True)
sft.sft = exchange
sys.exit(cli.main())
"""


@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_process_that_is_killed_ends_the_other_without_a_traceback(tmp_path, lost):
    """By one line; beside it XLA may say that the first one is gone."""
    (tmp_path / "exchange.py").write_text(EXCHANGE)
    words = command_line("sft", data="d", out=tmp_path / "out")
    running = start(words, words, program=tmp_path / "exchange.py", devices=1)
    try:
        for process in running:
            assert "ready\n" in iter(process.stdout.readline, "")
        running[lost].kill()
        _, error = running[1 - lost].communicate(timeout=100)
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert running[1 - lost].returncode in ((2,) if lost else (2, -signal.SIGABRT)), error
    assert "Traceback" not in error
    said = [line for line in error.splitlines() if line.startswith("error: ")]
    if running[1 - lost].returncode == 2:
        assert len(said) == 1
        assert said[0].startswith("error: another process is gone, or cannot be reached (")
        assert said[0].endswith(
            "give the same command again in every process, it goes on from the newest checkpoint"
        )


@pytest.mark.slow
def test_a_process_that_fails_does_not_wait_for_the_others(data, micro, tmp_path):
    """It ends with its own exit code, and the others when they notice."""
    own = {"data": data / "instructions.jsonl", "out": tmp_path / "run", "model": micro.path}
    arguments = command_line("sft", **own)
    running = start([*arguments, "--images", tmp_path], arguments)
    try:
        _, error = running[0].communicate(timeout=100)
        assert running[0].returncode == 2
        assert error.splitlines()[-1].startswith("error: ")
        assert "16 of its images cannot be used" in error
        assert running[1].wait(timeout=100) != 0
    finally:
        for process in running:
            process.kill()
            process.communicate()


def test_processes_that_cannot_be_found(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    with pytest.raises(InbolError, match=r"--distributed: set all of JAX_.*, or none"):
        join()
