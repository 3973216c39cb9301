#!/usr/bin/env bash
# The life of a Cloud TPU slice: requested, set up with this checkout on all of its hosts, used, deleted.
#
#   tpu/launch.sh create NAME ZONE TOPOLOGY [--spot] [OPTIONS]  requests a slice and waits until it is there
#   tpu/launch.sh setup NAME ZONE            installs the last commit of this checkout on every host
#   tpu/launch.sh run NAME ZONE WORDS        runs python WORDS on every host and shows what they print; for what is
#                                            short, as gcloud gives a command again when its connection is lost
#   tpu/launch.sh start NAME ZONE WORDS      the same in the background: nothing ends it when this computer sleeps
#   tpu/launch.sh status NAME ZONE           shows the state of the slice, and a line per host
#   tpu/launch.sh watch NAME ZONE            the same until WORDS has ended everywhere; ends with its exit code
#   tpu/launch.sh stop NAME ZONE             sends SIGTERM: training saves its last finished step
#   tpu/launch.sh logs NAME ZONE FOLDER      collects what was printed, FOLDER/0.log, FOLDER/1.log, ...
#   tpu/launch.sh keep NAME ZONE TOPOLOGY [--spot] [OPTIONS] -- WORDS
#                                            create, setup, start and watch, again after each preemption
#   tpu/launch.sh delete NAME ZONE           gives the slice back
#
# Each may be given again: what is there is not made twice. --dry-run, before them, prints the commands and runs none.
#
# TOPOLOGY is as in tpu/plan.py: v5e:4x4, v6e:2x4, v5p:2x2x2, v4:2x2x4. OPTIONS go to `gcloud compute tpus
# queued-resources create`, as --service-account. The project is that of `gcloud config`. In front of WORDS may stand
# variables: JAX_COMPILATION_CACHE_DIR=/mnt/run/programs train.py sft --distributed ... Give the same WORDS again, and
# training goes on from its newest checkpoint.
#
# Data, checkpoints and results must be seen by all hosts under one path. SHARED=ADDRESS:/SHARE lets `setup` mount an
# NFS (Filestore) on /mnt/run. PYTHON names a Python of the hosts, 3.11 or newer. POLL is the number of seconds between
# two looks (30).
set -euo pipefail

usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }

dry=
if [ "${1-}" = --dry-run ]; then
  dry=--dry-run
  shift
fi
case ${1-}:$# in # the action, and how many words there are with it
  setup:3 | status:3 | watch:3 | stop:3 | delete:3 | logs:4) ;;
  create:[4-9]* | create:??* | run:[4-9]* | run:??* | start:[4-9]* | start:??* | keep:[6-9]* | keep:??*) ;;
  *) usage ;;
esac
self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0") action=$1 name=$2 zone=$3 pretended=NONE
shift 3
host="bash inbol_jax/tpu/host.sh"

call() {
  if [ -z "$dry" ]; then "$@"; else printf '%q ' "$@" && echo; fi
}

on() { call gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" "--worker=$1" --command "$2"; }

on_all() { on all "$1"; }

quoted() { printf ' %q' "$@"; }

pause() { sleep "${POLL:-30}"; }

# NONE, WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDED (it was preempted), FAILED, ...
state() {
  local describe=(describe "$name" --zone "$zone") requested
  if [ -n "$dry" ]; then
    call gcloud compute tpus queued-resources "${describe[@]}" "--format=value(state.state)" >&2
    echo "$pretended"
    return
  fi
  if ! requested=$(gcloud compute tpus queued-resources "${describe[@]}" \
    "--format=value(state.state)" 2>"$errors"); then
    grep -q NOT_FOUND "$errors" || { cat "$errors" >&2 && return 1; }
    requested=NONE
  elif [ "$requested" = ACTIVE ]; then # the request stays so for a while when its machines are gone
    case $(gcloud compute tpus tpu-vm describe "$name" --zone "$zone" "--format=value(state)" 2>"$errors") in
      READY) ;;
      PREEMPTED | TERMINATED) requested=SUSPENDED ;;
      *) requested=PROVISIONING ;;
    esac
  fi
  echo "$requested"
}

# Not if that cannot be known: this computer may be without a network for a while.
gone() {
  local now
  now=$(state) || return 1
  [ "$now" != ACTIVE ]
}

# The options of a request for a topology: v5litepod-N and v6e-N count chips, and each number has one shape.
machine() {
  local shape=${1#*:}
  case $1 in
    v5e:* | v6e:*)
      case $shape in
        1x1 | 2x2 | 2x4 | 4x4 | 4x8 | 8x8 | 8x16 | 16x16) ;;
        *) echo "$1: a slice of ${1%%:*} has a shape of 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16 or 16x16" >&2 && return 2 ;;
      esac ;;
    v4:*x*x* | v5p:*x*x*) ;;
    *)
      echo "$1: not such as v5e:4x4, v6e:2x4, v5p:2x2x2 or v4:2x2x4; others are on GKE, see tpu/jobset.yaml" >&2
      return 2 ;;
  esac
  case $1 in
    v5e:*) echo --accelerator-type "v5litepod-$((${shape/x/*}))" --runtime-version v2-alpha-tpuv5-lite ;;
    v6e:*) echo --accelerator-type "v6e-$((${shape/x/*}))" --runtime-version v2-alpha-tpuv6e ;;
    v5p:*) echo --type v5p --topology "$shape" --runtime-version v2-alpha-tpuv5 ;;
    v4:*) echo --type v4 --topology "$shape" --runtime-version tpu-ubuntu2204-base ;;
  esac
}

create() {
  local options now known='' before=
  options=$(machine "$1")
  read -ra options <<<"$options"
  shift
  while true; do
    if ! now=$(state); then
      [ -n "$known" ] || return 1
      pause # a request may wait for longer than this computer has a network
      continue
    fi
    known=yes
    case $now in
      ACTIVE) return ;;
      NONE)
        call gcloud compute tpus queued-resources create "$name" --node-id "$name" --zone "$zone" "${options[@]}" "$@"
        pretended=ACTIVE ;;
      SUSPENDED) delete ;; # a request that is spent keeps its name
      FAILED)
        echo "the request has failed: gcloud compute tpus queued-resources describe $name --zone $zone" >&2
        return 1 ;;
      *)
        [ "$now" = "$before" ] || echo "$name: $now"
        before=$now
        pause ;;
    esac
  done
}

delete() {
  if [ -n "$dry" ] || [ "$(state)" != NONE ]; then
    call gcloud compute tpus queued-resources delete "$name" --zone "$zone" --force --quiet
  fi
}

setup() {
  local checkout variables=
  checkout=$(cd "$(dirname "$self")/.." && pwd)
  git -C "$checkout" diff --quiet HEAD || echo "changes that are not committed are not installed" >&2
  [ -z "${PYTHON:-}" ] || variables+="PYTHON=$(printf %q "$PYTHON") "
  [ -z "${SHARED:-}" ] || variables+="SHARED=$(printf %q "$SHARED") "
  call git -C "$checkout" archive --format tar.gz --output "$archive" HEAD
  call gcloud compute tpus tpu-vm scp "$archive" "$name:inbol_jax.tar.gz" --zone "$zone" --worker=all
  # The files of a program that is running stay as they are.
  local install="mkdir -p inbol_jax && tar -xzf inbol_jax.tar.gz -C inbol_jax && $variables$host install"
  on_all "if $host busy 2>/dev/null; then $host status; else $install; fi"
}

# Of the lines of all hosts the states: running, ended CODE, lost, not started.
states() { sed -nE 's/^\[[^]]*\] (not started|running|ended [0-9]+|lost): .*/\1/p'; }

watch() {
  local lines code=0
  if [ -n "$dry" ]; then
    on_all "$host status"
    return
  fi
  while true; do
    if lines=$(on_all "$host status" | sort); then
      echo "$(date +%H:%M:%S) $(states <<<"$lines" | sort | uniq -c | xargs); $(grep -m 1 '^\[' <<<"$lines")"
      states <<<"$lines" | grep -q running || break
    elif gone; then
      echo "$name is gone" >&2
      return 128
    fi
    pause
  done
  while read -r what number; do
    case $what in
      ended) ;;
      *) number=137 ;;
    esac
    if [ "$number" -gt "$code" ]; then code=$number; fi
  done < <(states <<<"$lines")
  [ "$code" = 0 ] || echo "$lines" >&2
  return "$code"
}

# One host after the other: what several print at once is not kept apart, and --output-directory of gcloud has written
# into a folder `None`.
collect() {
  if [ -n "$dry" ]; then
    on 0 "$host log"
    return
  fi
  local lines worker
  lines=$(on_all "$host status")
  mkdir -p "$1"
  for ((worker = 0; worker < $(states <<<"$lines" | wc -l); worker++)); do
    on "$worker" "$host log" >"$1/$worker.log" </dev/null
  done
}

# Every part is a process of its own, so that the first of its commands that fails ends it.
keep() {
  local request=() code
  while [ "${1---}" != -- ]; do
    request+=("$1")
    shift
  done
  [ $# -ge 2 ] && [ ${#request[@]} -ge 1 ] || usage
  shift
  while true; do
    part create "${request[@]}" || return
    code=1
    if part setup && part start "$@"; then
      code=0
      part watch || code=$?
      # The command has ended by itself, on hosts that could all be asked.
      if [ "$code" -lt 128 ]; then return "$code"; fi
    fi
    preempted || { echo "$name has not been preempted" >&2 && return "$code"; }
  done
}

# Whether the slice goes within ten looks: its hosts hear of it half a minute before.
preempted() {
  for _ in {1..10}; do
    pause
    if gone; then return 0; fi
  done
  return 1
}

part() { "$self" ${dry:+"$dry"} "$1" "$name" "$zone" "${@:2}"; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
archive=$scratch/inbol_jax.tar.gz errors=$scratch/errors

# In braces, so that all of it is read before any of it runs: the checkout may change meanwhile.
{
  case $action in
    create) create "$@" ;;
    setup) setup ;;
    run | start) on_all "$host $action$(quoted "$@")" ;;
    status) state && on_all "$host status" ;;
    watch) watch ;;
    stop) on_all "$host stop" ;;
    logs) collect "$1" ;;
    keep) keep "$@" ;;
    delete) delete ;;
  esac
  exit
}
