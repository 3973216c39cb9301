"""What the doctor says of a slice: of reports with one fault each, and of two processes."""

import copy
import re
from pathlib import Path

import doctor
import pytest
from cloud import Cloud

from inbol_jax.errors import InbolError

REPORT = {
    "host": "w",
    "devices": ["TPU v5 lite"] * 4,
    "code": "c0de",
    "told": "70ld",
    "versions": "jax 0.10",
    "free": [100.0, 50.0],
    "unseen": "",
    "broken": "",
    "sum": True,
    "seconds": {"computing": 0.1, "writing": 0.1},
}


def findings(*changes, **options):
    """Those of four processes, to the last ones of which changes are made."""
    reports = [copy.deepcopy(REPORT) for _ in range(4)]
    for report, change in zip(reversed(reports), reversed(changes), strict=False):
        report |= change
    return doctor.findings(reports, doctor.Config(Path("/mnt/run"), **options))


def test_nothing_is_wrong_with_a_slice_whose_processes_agree():
    found = findings(processes=4, devices=16)
    assert [check for check, _, fault in found if fault] == []
    assert ("devices per process", "4 x TPU v5 lite each", "") in found
    assert ("free disk", "50 GiB at least", "") in found


FAULTS = [
    ({}, {"processes": 8}, "processes", "8 are expected"),
    ({}, {"devices": 15}, "devices", "15 are expected"),
    ({"devices": ["TPU v5 lite"] * 3}, {}, "devices per process", "process 3 on w: ['TPU v5 lite'"),
    ({"code": "01d"}, {}, "code", "process 3 on w: 01d"),
    ({"told": "01d"}, {}, "command and environment", "process 3 on w: 01d"),
    ({"versions": "jax 0.9"}, {}, "versions", "process 3 on w: jax 0.9"),
    ({"unseen": "it is blind"}, {}, "shared storage is seen by all", "process 3 on w: it is blind"),
    ({"broken": "no"}, {}, "shared storage keeps its promises", "process 3 on w: no"),
    ({"free": [100.0, 3.0]}, {}, "free disk", "process 3 on w: 3 GiB, of --free 20"),
    ({"sum": False}, {}, "all-reduce", "process 3 on w: the sum is wrong"),
    (
        {"seconds": {"computing": 0.16, "writing": 0.9}},
        {},
        "speed of computing",
        "process 3 on w: 0.160 s",
    ),
    (
        {"seconds": {"computing": 0.1, "writing": 2.0}},
        {},
        "speed of writing",
        "process 3 on w: 2.000 s",
    ),
]


@pytest.mark.parametrize(("change", "options", "check", "said"), FAULTS, ids=lambda x: str(x)[:30])
def test_each_fault_is_found_by_one_check_and_named(change, options, check, said):
    faults = {name: fault for name, _, fault in findings(change, **options) if fault}
    expected = {check, "devices"} if check == "devices per process" and options else {check}
    assert faults.keys() == expected
    assert faults[check].startswith(said)


def test_a_storage_that_cannot_do_what_runs_rely_on_is_found(tmp_path, monkeypatch):
    assert doctor.promises(tmp_path / "whole") == ""

    def fails(*_):
        raise OSError("not here")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        said = doctor.promises(tmp_path / "rename")
        assert said == "folders cannot be renamed (not here)"

    def locked(_):
        raise InbolError("no locks")

    monkeypatch.setattr(doctor, "sole_writer", locked)
    assert doctor.promises(tmp_path / "lock") == "folders cannot be locked (no locks)"


def test_a_file_that_is_named_is_part_of_what_a_host_was_told(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("seed: 1\n")
    before = doctor.content_hash(file)
    file.write_text("seed: 2\n")
    assert doctor.content_hash(file) not in (before, "")
    assert doctor.content_hash("--seed") == ""


def test_two_hosts_that_differ(tmp_path):
    """One has another file, and the folder is one of each host's own."""
    cloud = Cloud(tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    cloud.environment |= {"JAX_PLATFORMS": "cpu"}
    cloud.launch("create", "pod", "zone-a", "v5e:2x4")
    cloud.launch("setup", "pod", "zone-a")
    (tmp_path / "slices/pod/1/inbol_jax/inbol_jax/more.py").write_text("more = 1\n")
    options = "--processes 2 --devices 8 --free 0 --megabytes 1 --slowest 1e6 --timeout 60"
    words = ("--distributed", "--shared", "own", *options.split(), "--", "sft", "--seed", "1")
    output, _ = cloud.launch("run", "pod", "zone-a", "tpu/doctor.py", *words, code=1)
    lines = [line for line in output.splitlines() if re.match("ok|FAIL", line)]
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(lines) == 13, "the first process speaks"
    assert failed[0] == "FAIL  devices: 4; 8 are expected"
    assert re.fullmatch(r"FAIL  code: \w{12}; process 1 on \S+: \w{12}", failed[1])
    assert failed[2].startswith("FAIL  shared storage is seen by all: own; process 0 on ")
    assert "it does not see what process 1 has written" in failed[2]
    assert len(failed) == 3
    assert not list(tmp_path.rglob(".doctor-*/0"))
