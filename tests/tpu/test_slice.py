"""Four hosts of two devices each, from the scripts that a slice of TPUs would use: doctor,
training that is killed and preempted, and what is asked on other numbers of hosts."""

import json
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
    # Not the first one, with which JAX would end the others at once and without a word.
    leader = (cloud.folder / "pod/2/inbol_jax/.run/leader").read_text().strip()
    (python,) = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    os.kill(int(python), signal.SIGKILL)
    _, error = kept.communicate(timeout=600)
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


def lines_of(folder, pattern):
    """The lines of a store, in whatever files and order they stand."""
    return sorted(line for f in folder.glob(pattern) for line in f.read_text().splitlines())


@pytest.mark.slow
def test_other_numbers_of_hosts_go_on_with_what_was_asked(cloud, small_world, micro):
    """Samples and greedy answers are those of one process."""
    hosts = {"four": "v5e:4x4", "two": "v5e:2x4", "one": "v5e:2x2"}
    for name, topology in hosts.items():
        cloud.launch("create", name, "zone-a", topology)
        cloud.launch("setup", name, "zone-a")
    several, alone = cloud.shared / "several", cloud.shared / "alone"
    test, own = small_world / "test", {"n": 4, "max_new_tokens": 6, "batch_size": 4}

    words = ["-m", "inbol_jax", *command_line("confidence", data=test, model=micro.path, **own)]
    together = [*words, "--distributed", "--out", several]
    cloud.launch("run", "four", "zone-a", *together, "--limit", 20)
    assert len(lines_of(several, "confidence/*.jsonl")) == 20
    cloud.launch("run", "two", "zone-a", *together)
    cloud.launch("run", "one", "zone-a", *words, "--out", alone)
    samples = lines_of(several, "confidence/*.jsonl")
    assert len(samples) == 60
    assert samples == lines_of(alone, "confidence/*.jsonl")

    models = {"in_domain": test, "models": ("base", micro.path, "same", micro.path)}
    words = ["evaluate.py", *command_line("", **models, **own)[1:]]
    cloud.launch("run", "two", "zone-a", *words, "--distributed", "--out", several)
    assert not (several / "predictions.jsonl").exists()
    answers = lines_of(several, "answers/*/*.jsonl")
    assert len(answers) == 120
    for out in (several, alone):
        cloud.launch("run", "one", "zone-a", *words, "--out", out)
    assert lines_of(several, "answers/*/*.jsonl") == answers
    assert lines_of(several, "predictions.jsonl") == lines_of(alone, "predictions.jsonl")
    assert metrics_without_seconds(several) == metrics_without_seconds(alone)


def metrics_without_seconds(folder):
    return json.loads((folder / "metrics.json").read_text()) | {"seconds": None}
