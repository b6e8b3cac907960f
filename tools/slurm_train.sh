#!/usr/bin/env bash
# bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of tools/train.py]
# Environment: GPUS (8), GPUS_PER_NODE (8 or GPUS), CPUS_PER_TASK (5), SRUN_ARGS. GPUS_PER_NODE=0 asks for no GPU: then
# GPUS is the number of CPU processes. GPUS_PER_TASK=1: each process sees its own GPU alone (--gpus-per-task instead of --gres).
# Two minutes before the job must leave (time limit, preemption with grace) SLURM sends SIGUSR1: the run saves and ends with
# 75. Inside a batch job the script then requeues it (sbatch --requeue --signal=USR1@120), elsewhere it asks srun again; the
# next start says --resume.
set -euo pipefail
if [ $# -lt 3 ]; then sed -n 2,7p "$0" >&2; exit 2; fi
partition=$1 job=$2 config=$3
shift 3
root=$(cd "$(dirname "$0")/.." && pwd)
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
if [ -n "${GPUS_PER_TASK:-}" ]; then
  resources=(--gpus-per-task="$GPUS_PER_TASK" --ntasks-per-node="$per_node")
elif [[ "${SRUN_ARGS:-}" == *--gpus-per-task* ]]; then
  resources=(--ntasks-per-node="$per_node")
elif [ "$per_node" -gt 0 ]; then
  resources=(--gres="gpu:$per_node" --ntasks-per-node="$per_node")
else
  resources=()
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
"${PYTHON:-python}" -c 'import mmengine'  # yapf, which it imports, writes a cache that two first imports find half written
batch=${SLURM_JOB_ID:-}
again=()
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then again=(--resume); fi
while :; do
  code=0
  # shellcheck disable=SC2086  # SRUN_ARGS is a list of words
  srun -p "$partition" --job-name="$job" "${resources[@]}" --ntasks="$gpus" --signal=USR1@120 \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$root/tools/train.py" "$config" --launcher slurm "$@" "${again[@]}" || code=$?
  if [ "$code" -eq 138 ]; then code=75; fi # SIGUSR1 before the run has begun: there is nothing to save
  if [ "$code" -ne 75 ]; then exit "$code"; fi
  again=(--resume)
  if [ -n "$batch" ]; then
    echo "The run has saved and ended: job $batch is queued again." >&2
    scontrol requeue "$batch"
    exit 75
  fi
  echo 'The run has saved and ended: asking srun again.' >&2
done
