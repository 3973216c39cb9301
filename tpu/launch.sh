#!/usr/bin/env bash
# Installs this checkout on every host of a Cloud TPU slice, and runs commands on all of them at once.
#
#   tpu/launch.sh setup NAME ZONE
#   tpu/launch.sh run NAME ZONE train.py sft --distributed --data /mnt/run/instructions.jsonl --out /mnt/run/idk_it --mesh 1 -1 1
#
# NAME is a TPU VM, made by `gcloud compute tpus tpu-vm create NAME --zone ZONE --accelerator-type v5litepod-16 --version v2-alpha-tpuv5-lite`.
# Its hosts need Python 3.11 or newer; PYTHON names another than their python3.
# Data, checkpoints and results must be seen by all hosts under one path: an NFS (Filestore) or a bucket mounted by gcsfuse. The same command
# given again goes on from the last checkpoint, so a slice that was preempted is made again, set up, and told the same.
# Ends with the exit code of gcloud, which is not 0 when that of any host is not.
set -euo pipefail

usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[ $# -ge 3 ] || usage
action=$1 name=$2 zone=$3
shift 3

on_all() { gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "$1"; }

case $action in
  setup)
    cd "$(dirname "$0")/.."
    git diff --quiet HEAD || echo "changes that are not committed are not installed" >&2
    archive=$(mktemp)
    trap 'rm -f "$archive"' EXIT
    git archive --format tar.gz --output "$archive" HEAD
    gcloud compute tpus tpu-vm scp "$archive" "$name:inbol_jax.tar.gz" --zone "$zone" --worker=all
    on_all "set -e; mkdir -p inbol_jax; tar -xzf inbol_jax.tar.gz -C inbol_jax; cd inbol_jax
      ${PYTHON:-python3} -m venv .venv; .venv/bin/pip install -q -e '.[tpu]'"
    ;;
  run)
    [ $# -ge 1 ] || usage
    on_all "cd inbol_jax && exec .venv/bin/python$(printf ' %q' "$@")"
    ;;
  *) usage ;;
esac
