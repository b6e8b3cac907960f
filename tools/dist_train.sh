#!/usr/bin/env bash
# bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# One process per GPU; on a machine without a GPU, GPUS is the number of CPU processes.
# SIGTERM, SIGUSR1 and Ctrl-C: the run saves after its step and the script ends with 75 (start it again with --resume), or
# 130 after Ctrl-C. MAX_RESTARTS=N: torchrun starts the processes again up to N times after a failure.
# Several machines: run it on each, with NNODES, NODE_RANK (0, 1, ...), MASTER_ADDR and PORT in the environment; see
# docs/reliability.md. With MAX_RESTARTS say --resume, too.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n 2,7p "$0" >&2; exit 2; fi
config=$1 gpus=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
nodes=${NNODES:-1}
if [ "$nodes" -gt 1 ] && [ "${MAX_RESTARTS:-0}" -gt 0 ]; then
  if [ "${NODE_RANK:-0}" = 0 ]; then host=true; else host=false; fi
  rendezvous=(--nnodes "$nodes" --rdzv_backend c10d --rdzv_id "mmkernel-${PORT:-29500}" --rdzv_conf "is_host=$host"
              --rdzv_endpoint "${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}" ${LOCAL_ADDR:+--local_addr "$LOCAL_ADDR"})
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # a store of its own for each meeting: the shared one keeps addresses of the dead
elif [ "$nodes" -gt 1 ] || [ -n "${PORT:-}${MASTER_ADDR:-}" ]; then
  rendezvous=(--nnodes "$nodes" --node_rank "${NODE_RANK:-0}"
              --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
else
  rendezvous=(--standalone) # a free port, so that two runs on one machine do not meet
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# beside a GPU one thread per process; on a CPU the cores are shared out
threads=$(($(nproc 2>/dev/null || echo 1) / gpus))
if [ -e /dev/nvidia0 ] || [ "$threads" -lt 1 ]; then threads=1; fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$threads} MKL_NUM_THREADS=${MKL_NUM_THREADS:-$threads}
"${PYTHON:-python}" -c 'import mmengine'  # yapf, which it imports, writes a cache that two first imports find half written
word=$(mktemp -d) asked=
trap 'rm -rf "$word"' EXIT
export MMKERNEL_LAUNCHER=$$ # processes whose script was killed end
# where a run says that it has begun, and leaves its exit code when it has saved and ends: torchrun makes 1 of any
export MMKERNEL_STOP_WORD=$word/code
set -m                               # a process group of its own: Ctrl-C reaches this script alone, which passes it on
"${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" --nproc_per_node "$gpus" \
  --max_restarts "${MAX_RESTARTS:-0}" "$root/tools/train.py" "$config" --launcher pytorch "$@" &
launcher=$!
set +m
ranks() { pgrep -P "$launcher"; }
pass_on() {
  if [ "$1" = INT ] && [ "$asked" = INT ]; then # the second Ctrl-C
    kill -KILL "$launcher" $(ranks) 2>/dev/null || true
    return
  fi
  local told
  asked=$1 told=$(ranks) || true
  # torchrun passes on no SIGUSR1; SIGTERM comes from it alone, and tells a process that another has failed
  kill "-${1/TERM/USR1}" $told 2>/dev/null || end_launcher
  end_others "$told" &
}
end_others() { # processes that torchrun starts after a signal would train on
  local now
  while sleep 0.5 && kill -0 "$launcher" 2>/dev/null; do
    now=$(ranks) || continue
    if grep -qvxF "$1" <<<"$now"; then end_launcher; return; fi
  done
}
end_launcher() { touch "$word/ended"; kill -TERM "$launcher" 2>/dev/null || true; }
for name in TERM USR1 INT; do trap "pass_on $name" "$name"; done
code=0
while kill -0 "$launcher" 2>/dev/null; do
  if wait "$launcher"; then code=0; else code=$?; fi # a signal ends the waiting, not the run
done
said=$(cat "$word/code" 2>/dev/null || true)
if [[ $said = [0-9]* ]]; then
  code=$said
elif [[ -n $asked && $code -ne 0 && (-z $said || -e $word/ended) ]]; then # no failure: it had not begun
  if [ "$asked" = INT ]; then code=130; else code=75; fi
fi
exit "$code"
