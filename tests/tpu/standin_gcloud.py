"""A stand-in of gcloud: slices are folders below $SLICES, whose hosts are folders in them, and what
is run on all workers runs in a process per host, with the variables by which JAX finds the others.

It knows the options of the real one that its reference lists, and refuses others. It notes every
call in $SLICES/calls.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

# https://cloud.google.com/sdk/gcloud/reference/compute/tpus, of what is used or could be passed on
OPTIONS = {
    "queued-resources create": "zone node-id accelerator-type type topology runtime-version spot "
    "service-account network subnetwork internal-ips labels",
    "queued-resources describe": "zone format",
    "queued-resources delete": "zone force quiet async",
    "tpu-vm describe": "zone format",
    "tpu-vm ssh": "zone worker command",
    "tpu-vm scp": "zone worker",
}
FLAGS = ("spot", "force", "quiet", "async", "internal-ips")
CHIPS_PER_HOST = 4


def main(words):
    root = Path(os.environ["SLICES"])
    with (root / "calls").open("a") as calls:
        calls.write(json.dumps(words) + "\n")
    assert words[:2] == ["compute", "tpus"], words
    if (root / "offline").exists():
        sys.exit("ERROR: (gcloud) network is unreachable")
    what, rest = " ".join(words[2:4]), iter(words[4:])
    places, options = [], {}
    for word in rest:
        if not word.startswith("--"):
            places.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if name not in OPTIONS[what].split():
            sys.exit(f"ERROR: (gcloud) unrecognized arguments: {word}")
        options[name] = value if equals else True if name in FLAGS else next(rest)
    assert options["zone"] == "zone-a"
    return globals()[what.replace(" ", "_").replace("-", "_")](root, places, options)


def tpu_state(folder):
    """(state of the request, state of the machines)."""
    if not folder.exists():
        sys.exit("ERROR: (gcloud) NOT_FOUND: Resource was not found")
    return json.loads((folder / "state").read_text())


def queued_resources_create(root, places, options):
    (name,) = places
    assert options["node-id"] == name
    assert options["runtime-version"]
    folder = root / name
    if folder.exists():
        sys.exit("ERROR: (gcloud) ALREADY_EXISTS")
    kind = options.get("accelerator-type") or options["topology"]
    chips = 1
    for side in kind.split("-")[-1].split("x"):
        chips *= int(side)
    for host in range(max(1, chips // CHIPS_PER_HOST)):
        (folder / str(host)).mkdir(parents=True)
    (folder / "state").write_text('["WAITING_FOR_RESOURCES", ""]')


def queued_resources_describe(root, places, options):
    state, machines = tpu_state(root / places[0])
    assert options["format"] == "value(state.state)"
    print(state)
    if state == "WAITING_FOR_RESOURCES":  # the next look finds it there
        (root / places[0] / "state").write_text('["ACTIVE", "READY"]')
    elif machines == "PREEMPTED":
        (root / places[0] / "state").write_text('["SUSPENDED", "PREEMPTED"]')


def queued_resources_delete(root, places, options):
    state, _ = tpu_state(root / places[0])
    assert options.get("force") or state in ("SUSPENDED", "FAILED", "WAITING_FOR_RESOURCES")
    shutil.rmtree(root / places[0])


def tpu_vm_describe(root, places, options):
    assert options["format"] == "value(state)"
    print(tpu_state(root / places[0])[1])


def hosts_of(root, name, options):
    folder = root / name
    if tpu_state(folder)[1] != "READY":
        sys.exit("ERROR: (gcloud) the machines cannot be reached")
    hosts = [folder / str(i) for i in range(len([*folder.glob("*/")]))]
    return hosts if options["worker"] == "all" else [hosts[int(options["worker"])]]


def tpu_vm_scp(root, places, options):
    source, target = places
    name, _, path = target.partition(":")
    for host in hosts_of(root, name, options):
        shutil.copy(source, host / path)


def tpu_vm_ssh(root, places, options):
    hosts = hosts_of(root, places[0], options)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": str(len(hosts))}
    running = [
        subprocess.Popen(
            ["bash", "-c", options["command"]],
            cwd=host,
            env=os.environ | shared | {"JAX_PROCESS_ID": host.name},
        )
        for host in hosts
    ]
    codes = [process.wait() for process in running]
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
