#!/usr/bin/env bash
# What one host of a slice does; tpu/launch.sh calls it on all of them at once.
#
#   tpu/host.sh install                     makes .venv; mounts the NFS that SHARED names on /mnt/run
#   tpu/host.sh run [NAME=VALUE ...] WORDS  runs python WORDS until it ends
#   tpu/host.sh start [NAME=VALUE ...] WORDS  the same in the background: it lives on when ssh ends
#   tpu/host.sh busy                        whether that is still running, as exit code
#   tpu/host.sh status                      one line: not started, running, ended CODE or lost
#   tpu/host.sh stop                        sends SIGTERM: training saves its last finished step
#   tpu/host.sh log                         prints what was started here have printed
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Of what was started last: the process that leads its group, its words, its exit code.
leader=.run/leader words=.run/words code=.run/code log=.run/log

install() {
  if [ -n "${SHARED:-}" ] && ! mountpoint -q /mnt/run; then
    command -v mount.nfs >/dev/null || sudo apt-get -o DPkg::Lock::Timeout=300 install -y -q nfs-common
    sudo mkdir -p /mnt/run
    sudo mount -t nfs "$SHARED" /mnt/run
    [ -w /mnt/run ] || sudo chmod go+rwx /mnt/run # a new Filestore is root's
  fi
  local python=${PYTHON:-python3}
  if [ ! -x .venv/bin/python ]; then
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      "$python" -m venv .venv
    else # Ubuntu 22.04, of which the images of Cloud TPU are, has Python 3.10
      "$python" -m pip install -q --user uv
      "$python" -m uv venv -q --seed --python 3.12 .venv
    fi
  fi
  .venv/bin/python -m pip install -q -e '.[tpu]'
}

run() {
  local variables=()
  while [[ ${1-} =~ ^[A-Z_][A-Z0-9_]*= ]]; do
    variables+=("$1")
    shift
  done
  env "${variables[@]}" .venv/bin/python "$@"
}

start() {
  mkdir -p .run
  if alive && [ "$(printf '%q ' "$@")" != "$(<"$words")" ]; then
    echo "this is running here, stop it first: $(<"$words")" >&2
    return 1
  elif ! alive; then
    rm -f "$code"
    printf '%q ' "$@" >"$words"
    setsid bash tpu/host.sh lead "$@" >>"$log" 2>&1 </dev/null &
    echo $! >"$leader"
  fi
  status
}

# Runs in a session of its own. SIGTERM reaches the whole group, and this stays to note the code.
lead() {
  trap : TERM
  local result=0
  run "$@" || result=$?
  echo "$result" >"$code.new"
  mv "$code.new" "$code"
}

alive() { [ -s "$leader" ] && grep -qs "host.sh" "/proc/$(<"$leader")/cmdline"; }

status() {
  local state="not started"
  if [ -s "$code" ]; then
    state="ended $(<"$code")"
  elif alive; then
    state=running
  elif [ -s "$leader" ]; then
    state=lost # the host was started again, or everything was killed
  fi
  # Short enough that the lines of several hosts cannot mix.
  echo "[$(hostname)] $state: $(tail -n 1 "$log" 2>/dev/null | tr '\r' '\n' | tail -n 1 | cut -c 1-300)"
}

stop() {
  if alive; then kill -TERM -- "-$(<"$leader")"; fi
}

# In braces for the reason that launch.sh says.
{
  case ${1-} in
    install) install ;;
    run) run "${@:2}" ;;
    start) start "${@:2}" ;;
    lead) lead "${@:2}" ;;
    busy) alive ;;
    status) status ;;
    stop) stop ;;
    log) if [ -e "$log" ]; then cat "$log"; fi ;;
    *) sed -n '2,/^set /s/^# \{0,1\}//p' tpu/host.sh >&2 && exit 2 ;;
  esac
  exit
}
