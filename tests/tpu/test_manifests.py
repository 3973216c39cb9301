"""The manifests for GKE and Slurm: their fields agree with each other, and the commands in them are
commands."""

import math
import os
import re
import shlex
import subprocess

import doctor
import pytest
import yaml
from cloud import ROOT

from inbol_jax.cli import parse_options
from inbol_jax.training.config import SftConfig


def check_commands(words, slices=1):
    """The doctor's and training's words of one text; the former as often as the latter."""
    told = words[words.index("tpu/doctor.py") + 1 :]
    told = told[: next(i for i, word in enumerate([*told, "&&"]) if word == "&&")]
    looks = parse_options(doctor.Config, "doctor.py", told)
    trains = parse_options(SftConfig, "sft", words[words.index("train.py") + 2 :])
    assert looks.distributed
    assert trains.distributed
    assert str(trains.out).startswith(str(looks.shared))
    assert trains.runtime.mesh == (slices, -1, 1), "a copy of the weights per slice, or node"
    return looks, trains


def test_the_jobset_has_a_pod_per_host_of_its_slice():
    jobset = yaml.safe_load((ROOT / "tpu/jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = jobset["spec"]["replicatedJobs"]
    assert job["replicas"] == 1
    job = job["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    chips = math.prod(map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")))
    hosts = chips // container["resources"]["limits"]["google.com/tpu"]
    assert job["completions"] == job["parallelism"] == hosts == 4
    assert (job["completionMode"], job["backoffLimit"]) == ("Indexed", 0)
    assert pod["restartPolicy"] == "Never"
    (mount,) = container["volumeMounts"]
    assert [volume["name"] for volume in pod["volumes"]] == [mount["name"]]
    text = " ".join(container["args"])
    assert "exec python train.py" in text
    looks, trains = check_commands(shlex.split(text))
    assert (looks.devices, looks.processes) == (chips, hosts)
    assert str(looks.shared) == mount["mountPath"]
    assert str(trains.data).startswith(mount["mountPath"])
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


# Of sbatch (https://slurm.schedmd.com/sbatch.html)
KNOWN = "job-name nodes ntasks-per-node gpus-per-node cpus-per-task time signal requeue open-mode "
KNOWN = (KNOWN + "output").split()


@pytest.mark.parametrize(("code", "queued_again"), [(0, False), (2, False), (143, True)])
def test_the_slurm_script_looks_first_and_is_queued_again_after_a_signal(
    tmp_path, code, queued_again
):
    text = (ROOT / "tpu/slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", text, re.MULTILINE))
    assert {*options} <= {*KNOWN}
    assert len(options) == text.count("#SBATCH")
    assert options["ntasks-per-node"] == options["gpus-per-node"], "JAX: a process per GPU"
    programs = {
        "srun": f'printf "%q " "$@" >> calls; [ "$4" != train.py ] || exit {code}',
        "scontrol": 'echo "$@" > again',
    }
    for name, program in programs.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{program}\n")
        (tmp_path / name).chmod(0o755)
    own = {"RUN": str(tmp_path / "a run"), "SLURM_SUBMIT_DIR": str(tmp_path)}
    own |= {
        "SLURM_NTASKS": "16",
        "SLURM_NNODES": options["nodes"],
        "SLURM_JOB_ID": "7",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    done = subprocess.run([ROOT / "tpu/slurm.sh"], env=os.environ | own, check=False)
    assert done.returncode == code
    looks, trains = check_commands(
        [
            "&&" if word == "--kill-on-bad-exit=1" else word
            for word in shlex.split((tmp_path / "calls").read_text())
        ],
        slices=2,
    )
    assert looks.processes == 16
    assert trains.out == tmp_path / "a run/idk_it"
    assert (tmp_path / "again").exists() == queued_again
    if queued_again:
        assert (tmp_path / "again").read_text() == "requeue 7\n"
