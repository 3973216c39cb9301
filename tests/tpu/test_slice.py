"""Four hosts of two devices each, from the scripts that a slice of TPUs would use: doctor,
training that is killed and preempted, and what is asked on other numbers of hosts."""

import os
import signal
import time
from pathlib import Path

import pytest
from cloud import Cloud
from training_data import command_line, instructions, metrics_of, write_jsonl


@pytest.fixture
def cloud(tmp_path):
    """Its storage, which all hosts see, is the folder `shared`."""
    own = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    # Or else XLA sums in another order when a run is given other processors.
    cloud = Cloud(tmp_path, **own, NPROC="1", POLL="1")
    cloud.shared = tmp_path / "shared"
    yield cloud
    cloud.clear()


def await_checkpoint(run, above=0):
    """Waits until a run has a checkpoint of a step that is later. Returns the step."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        steps = [int(f.name) for f in run.glob("checkpoints/*") if f.name.isdigit()]
        if max(steps, default=0) > above:
            return max(steps)
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint in {run}")


@pytest.mark.slow
def test_a_run_that_is_killed_and_preempted_ends_as_an_undisturbed_one(cloud, small_world, micro):
    """To the last bit, by the same command each time."""
    shared = cloud.shared
    file = write_jsonl(
        shared / "instructions.jsonl", instructions(small_world), small_world / "train"
    )
    own = {"data": file, "model": micro.path, "epochs": 80, "batch_size": 8, "save_steps": 20}
    words = [*command_line("sft", **own, mesh=(1, -1, 1)), "--distributed", "--out"]
    cache = f"JAX_COMPILATION_CACHE_DIR={shared}/programs"
    cloud.launch("create", "pod", "zone-a", "v5e:4x4", "--spot")
    cloud.launch("setup", "pod", "zone-a")

    looks = "--distributed --processes 4 --devices 8 --free 0 --megabytes 1 --slowest 1e6"
    told = ("--shared", shared, *looks.split(), "--", *words)
    said, _ = cloud.launch("run", "pod", "zone-a", cache, "tpu/doctor.py", *told)
    assert said.count("ok    ") == 13
    assert "FAIL" not in said

    run = shared / "idk_it"
    keep = ["keep", "pod", "zone-a", "v5e:4x4", "--spot", "--", cache, "train.py", *words, run]
    kept = cloud.start(*keep)
    step = await_checkpoint(run)
    leader = cloud.leaders("pod")[0]
    (python,) = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    os.kill(int(python), signal.SIGKILL)
    _, error = kept.communicate(timeout=300)
    assert kept.returncode == 137, error
    assert "ended 137" in error
    assert error.count("ended 2: error: another process is gone") >= 1, error

    kept = cloud.start(*keep)
    await_checkpoint(run, above=step)
    cloud.preempt("pod")
    _, error = kept.communicate(timeout=600)
    assert kept.returncode == 0, error
    assert [call[1] for call in cloud.calls()].count("create") == 2

    cloud.launch("start", "pod", "zone-a", cache, "train.py", *words, shared / "whole")
    cloud.launch("watch", "pod", "zone-a")
    assert metrics_of(run) == metrics_of(shared / "whole")
    assert metrics_of(run)[-1]["step"] == 160
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (shared / "whole" / weights).read_bytes()
    assert any((shared / "programs").iterdir())
    cloud.launch("logs", "pod", "zone-a", shared / "logs")
    texts = [(shared / f"logs/{i}.log").read_text() for i in range(4)]
    assert ["IDK-IT: 160 steps" in text for text in texts] == [True, False, False, False]


@pytest.mark.slow
def test_what_four_hosts_have_asked_two_go_on_with(cloud, small_world, micro):
    """And the samples are those of one process."""
    own = {"data": small_world / "test", "model": micro.path, "n": 4, "max_new_tokens": 6}
    words = ["-m", "inbol_jax", *command_line("confidence", **own, batch_size=4)]
    for name, topology in (("four", "v5e:4x4"), ("two", "v5e:2x4"), ("one", "v5e:2x2")):
        cloud.launch("create", name, "zone-a", topology)
        cloud.launch("setup", name, "zone-a")
    several = [*words, "--distributed", "--out", cloud.shared / "several"]
    cloud.launch("run", "four", "zone-a", *several, "--limit", 20)
    cloud.launch("run", "two", "zone-a", *several)
    cloud.launch("run", "one", "zone-a", *words, "--out", cloud.shared / "one")
    lines = [
        sorted(
            line
            for file in (cloud.shared / run).glob("confidence/*.jsonl")
            for line in file.read_text().splitlines()
        )
        for run in ("several", "one")
    ]
    assert len(lines[0]) == 60
    assert lines[0] == lines[1]
