#!/usr/bin/env bash
# bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# One process per GPU; on a machine without a GPU, GPUS is the number of CPU processes.
# Several machines: run it on each, with NNODES, NODE_RANK (0, 1, ...), MASTER_ADDR and PORT in the environment.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n 2,4p "$0" >&2; exit 2; fi
config=$1 gpus=$2
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
nodes=${NNODES:-1}
if [ "$nodes" -gt 1 ] || [ -n "${PORT:-}${MASTER_ADDR:-}" ]; then
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
exec "${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" --nproc_per_node "$gpus" \
  "$root/tools/train.py" "$config" --launcher pytorch "$@"
