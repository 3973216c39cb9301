"""The life of a slice against a stand-in of gcloud, which refuses options that the real one has
not. What jobs do on a slice is in test_slice.py."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cloud import ROOT, Cloud


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.clear()


@pytest.fixture
def pod(cloud):
    """A cloud with a slice of two hosts, `pod`, on which this checkout is."""
    cloud.launch("create", "pod", "zone-a", "v5e:2x4")
    cloud.launch("setup", "pod", "zone-a")
    return cloud


def hosts(cloud, name="pod"):
    return sorted(f for f in (cloud.folder / name).iterdir() if f.is_dir())


MACHINES = {
    "v5e:4x4": "--accelerator-type v5litepod-16 --runtime-version v2-alpha-tpuv5-lite",
    "v6e:2x4": "--accelerator-type v6e-8 --runtime-version v2-alpha-tpuv6e",
    "v5p:2x2x2": "--type v5p --topology 2x2x2 --runtime-version v2-alpha-tpuv5",
    "v4:2x2x4": "--type v4 --topology 2x2x4 --runtime-version tpu-ubuntu2204-base",
}


@pytest.mark.parametrize("topology", MACHINES)
def test_a_request_is_made_once_and_awaited(cloud, topology):
    for _ in range(2):
        cloud.launch("create", "pod", "zone-a", topology, "--spot", "--network", "mine")
    made = [call for call in cloud.calls() if call[1] == "create"]
    options = MACHINES[topology].split()
    named = ["pod", "--node-id", "pod", "--zone", "zone-a"]
    assert made == [["queued-resources", "create", *named, *options, "--spot", "--network", "mine"]]
    assert json.loads((cloud.folder / "pod/state").read_text()) == ["ACTIVE", "READY"]


def test_a_slice_that_was_preempted_is_requested_again_and_one_is_deleted_once(cloud):
    cloud.launch("create", "pod", "zone-a", "v5e:4x4", "--spot")
    cloud.preempt("pod")
    cloud.launch("create", "pod", "zone-a", "v5e:4x4", "--spot")
    assert [call[1] for call in cloud.calls() if call[1] in ("create", "delete")] == [
        "create",
        "delete",
        "create",
    ]
    for _ in range(2):
        cloud.launch("delete", "pod", "zone-a")
    assert not (cloud.folder / "pod").exists()
    assert len([call for call in cloud.calls() if call[1] == "delete"]) == 2


def test_a_request_is_awaited_without_a_network_and_not_begun_without_one(cloud):
    (cloud.folder / "pod").mkdir()
    (cloud.folder / "pod/state").write_text('["PROVISIONING", ""]')
    (cloud.folder / "offline").touch()
    _, error = cloud.launch("create", "pod", "zone-a", "v5e:4x4", code=1)
    assert "network is unreachable" in error
    (cloud.folder / "offline").unlink()
    waiting = cloud.start("create", "pod", "zone-a", "v5e:4x4")
    assert waiting.stdout.readline() == "pod: PROVISIONING\n"
    (cloud.folder / "offline").touch()
    before = len(cloud.calls())
    while len(cloud.calls()) < before + 3:
        assert waiting.poll() is None
        time.sleep(0.1)
    (cloud.folder / "offline").unlink()
    (cloud.folder / "pod/state").write_text('["ACTIVE", "READY"]')
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0


def test_a_request_that_has_failed_is_shown_and_not_repeated(cloud):
    (cloud.folder / "pod").mkdir()
    (cloud.folder / "pod/state").write_text('["FAILED", ""]')
    _, error = cloud.launch("create", "pod", "zone-a", "v5e:4x4", code=1)
    assert "describe pod --zone zone-a" in error


@pytest.mark.parametrize("old", [False, True])
def test_setup_installs_the_checkout_on_every_host(cloud, old):
    """If their Python is older than 3.11, in one that uv brings."""
    cloud.environment |= {"OLD_PYTHON": str(int(old))}
    cloud.launch("create", "pod", "zone-a", "v5e:2x4")
    for _ in range(2):
        cloud.launch("setup", "pod", "zone-a")
    assert len(hosts(cloud)) == 2
    for host in hosts(cloud):
        assert (host / "inbol_jax/train.py").is_file()
        said = (host / "inbol_jax/installed").read_text()
        assert said.count("-m pip install -q -e .[tpu]\n") == 2
        assert said.count("-m uv venv -q --seed --python 3.12 .venv\n") == old
        assert said.count("python3 -m venv .venv\n") == (not old)


def test_setup_mounts_what_is_shared_unless_it_is_mounted(cloud, tmp_path):
    cloud.launch("create", "pod", "zone-a", "v5e:2x2")
    cloud.environment |= {"SHARED": "10.0.0.2:/the share"}
    programs = tmp_path / "programs"
    for name, text in {
        "mountpoint": "test -e mounted",
        "mount.nfs": "",
        "sudo": 'printf "%s|" "$@" >> sudo; [ "$1" != mount ] || touch mounted',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    for _ in range(2):
        cloud.launch("setup", "pod", "zone-a")
    (host,) = hosts(cloud)
    said = (host / "inbol_jax/sudo").read_text()
    mounted = "mkdir|-p|/mnt/run|mount|-t|nfs|10.0.0.2:/the share|/mnt/run|"
    assert said.removesuffix("chmod|go+rwx|/mnt/run|") == mounted


ARGUMENTS = "import json, os, sys; json.dump([os.environ['A_B'], *sys.argv[1:]], open('said', 'w'))"


def test_run_gives_every_host_the_same_words(pod):
    pod.launch("run", "pod", "zone-a", "A_B=1 2", "-c", ARGUMENTS, "--data", "a file; $HOME 'x'")
    for host in hosts(pod):
        said = json.loads((host / "inbol_jax/said").read_text())
        assert said == ["1 2", "--data", "a file; $HOME 'x'"]
    program = "import os, sys; sys.exit(3 * (os.environ['JAX_PROCESS_ID'] == '1'))"
    pod.launch("run", "pod", "zone-a", "-c", program, code=3)


WAITS = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("step", 1, end="\\r", flush=True)
print("step", 2, flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.05)
sys.exit(int(sys.argv[1]) * (os.environ["JAX_PROCESS_ID"] == "1"))
"""


def lines_of(text):
    return sorted(re.findall(r"^\[.*", text, re.MULTILINE))


def await_status(pod, text):
    """Looks until every host says so."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        output, _ = pod.launch("status", "pod", "zone-a")
        if [text in line for line in lines_of(output)] == [True] * len(hosts(pod)):
            return output
    raise AssertionError(output)


def test_what_was_started_lives_on_and_is_watched_to_its_end(pod, tmp_path):
    """Its exit code is the highest of all hosts; the same words are not started twice at a time,
    and others not beside them."""
    assert lines_of(pod.launch("status", "pod", "zone-a")[0])[1] == "[w-1] not started: "
    words = ("start", "pod", "zone-a", "-c", WAITS, "7", "two words")
    pod.launch(*words)
    assert await_status(pod, "running: step 2").startswith("ACTIVE\n")
    before = pod.leaders("pod")
    (hosts(pod)[0] / "inbol_jax/train.py").write_text("as it was")
    pod.launch("setup", "pod", "zone-a")
    assert (hosts(pod)[0] / "inbol_jax/train.py").read_text() == "as it was"
    pod.launch(*words)
    assert pod.leaders("pod") == before
    for others in (("-c", "pass"), (*words[3:-1], "two", "words")):
        _, error = pod.launch("start", "pod", "zone-a", *others, code=1)
        assert "this is running here" in error
    watching = pod.start("watch", "pod", "zone-a")
    assert re.search(r"2 running; \[w-0\] running: step 2", watching.stdout.readline())
    (pod.folder / "offline").touch()  # a network that is away for a while ends nothing
    before = len(pod.calls())
    while len(pod.calls()) < before + 5:
        time.sleep(0.1)
    (pod.folder / "offline").unlink()
    for host in hosts(pod):
        (host / "inbol_jax/go").touch()
    _, error = watching.communicate(timeout=60)
    assert watching.returncode == 7
    assert "[w-1] ended 7: step 2" in error
    pod.launch("logs", "pod", "zone-a", tmp_path / "logs")
    names = [f.name for f in sorted((tmp_path / "logs").iterdir())]
    assert names == ["0.log", "1.log"]
    assert "step 2" in (tmp_path / "logs/1.log").read_text()


def test_stop_ends_it_as_a_signal_does(pod):
    pod.launch("start", "pod", "zone-a", "-c", WAITS, "0")
    await_status(pod, "running: step 2")
    pod.launch("stop", "pod", "zone-a")
    await_status(pod, "ended 143")
    pod.launch("watch", "pod", "zone-a", code=143)


def test_keep_begins_again_after_a_preemption_and_ends_with_the_command(cloud):
    program = WAITS.replace('"go"', f"{str(cloud.folder.parent / 'go')!r}")
    kept = cloud.start("keep", "pod", "zone-a", "v5e:2x4", "--spot", "--", "-c", program, "0")
    while not (started := cloud.leaders("pod")) or len(started) < 2:
        time.sleep(0.1)
    await_status(cloud, "running: step 2")
    cloud.preempt("pod")
    while not (cloud.leaders("pod") and not {*cloud.leaders("pod")} & {*started}):
        time.sleep(0.1)
    (cloud.folder.parent / "go").touch()
    _, error = kept.communicate(timeout=120)
    assert kept.returncode == 0, error
    assert [call[1] for call in cloud.calls() if call[1] in ("create", "delete", "scp")] == [
        "create",
        "scp",
        "delete",
        "create",
        "scp",
    ]
    # An error of the command itself is the user's to see.
    cloud.launch("keep", "pod", "zone-a", "v5e:2x4", "--", "-c", "raise SystemExit(2)", code=2)


def test_keep_gives_up_what_was_stopped_by_hand(pod):
    kept = pod.start("keep", "pod", "zone-a", "v5e:2x4", "--", "-c", WAITS, "0")
    await_status(pod, "running: step 2")
    pod.launch("stop", "pod", "zone-a")
    _, error = kept.communicate(timeout=120)
    assert kept.returncode == 143
    assert "pod has not been preempted" in error


ACTIONS = [
    ("create", "v5e:4x4", "--spot"),
    ("setup",),
    ("run", "tpu/doctor.py"),
    ("start", "train.py", "sft"),
    ("status",),
    ("watch",),
    ("stop",),
    ("logs", "collected"),
    ("keep", "v5p:2x2x2", "--spot", "--", "train.py", "sft"),
    ("delete",),
]


@pytest.mark.parametrize("words", ACTIONS, ids=lambda words: words[0])
def test_a_dry_run_prints_commands_and_runs_none(cloud, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    output, error = cloud.launch("--dry-run", words[0], "pod", "zone-a", *words[1:])
    assert not (cloud.folder / "calls").exists()
    assert not (tmp_path / "collected").exists()
    printed = [line for line in (output + error).splitlines() if line.startswith("gcloud ")]
    assert printed
    if words[0] == "keep":
        for part in (
            "queued-resources create",
            "tpu-vm scp",
            "host.sh\\ install",
            "host.sh\\ start",
        ):
            assert part in output
    # What is printed can be pasted.
    subprocess.run(["bash", "-n"], input=output, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "tpu/launch.sh create NAME ZONE TOPOLOGY"),
        (("run", "pod", "zone-a"), "tpu/launch.sh run NAME ZONE WORDS"),
        (("fly", "pod", "zone-a"), "tpu/launch.sh"),
        (("watch", "pod", "zone-a", "more"), "tpu/launch.sh"),
        (("keep", "pod", "zone-a", "v5e:4x4", "train.py"), "[OPTIONS] -- WORDS"),
        (("create", "pod", "zone-a", "v5e:2x8"), "v5e:2x8: a slice of v5e has a shape of"),
        (("create", "pod", "zone-a", "tpu7x:2x2x1"), "others are on GKE"),
        (("keep", "pod", "zone-a", "v5e:16", "--", "train.py"), "v5e:16: a slice of v5e has"),
    ],
)
def test_what_cannot_be_meant_is_said(cloud, words, said):
    _, error = cloud.launch(*words, code=2)
    assert said in error
    assert not (cloud.folder / "calls").exists()


@pytest.mark.parametrize("file", sorted((ROOT / "tpu").glob("*.sh")), ids=lambda f: f.name)
def test_scripts_are_clean(file):
    subprocess.run([Path(sys.executable).parent / "shellcheck", file], check=True)
