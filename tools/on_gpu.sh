#!/usr/bin/env bash
# Everything that needs a GPU, in order of worth, without network. Results are written as they are found.
#
#   bash tools/on_gpu.sh [--parts a,b,c,d,e] [--quick] [--limit SECONDS] [--out FOLDER] [--data FILE] [--encoders FOLDER]
#
# a  the tests marked gpu                          tests.jsonl
# b  the whole fast suite on all cores             suite.jsonl
# c  objectives, optimizer, Sinkhorn, neighbours,  gpu_losses.json gpu_optimizer.json gpu_sinkhorn.json gpu_knn.json
#    and the device part of views                  gpu_data.json
# d  a whole ResNet-50 step: rank 0 of 8, switches gpu_world8.json gpu_step.json
# e  CIFAR-10 from the npz file of --data          gpu_cifar.json
# --limit is for all parts together; each gets its share of what is left. --quick: tiny sizes, on a CPU too. COMMIT names the
# commit where the code was copied without its history.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
parts=a,b,c,d,e quick=() limit=580 out=on_gpu data=() encoders=()
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=(--quick); shift; continue ;;
    --parts | --limit | --out | --data | --encoders) [ $# -gt 1 ] || { echo "$1 needs a value" >&2; exit 2; } ;;&
    --parts) parts=$2 ;;
    --limit) limit=$2 ;;
    --out) out=$2 ;;
    --data) data=(--data "$(realpath "$2")") ;;
    --encoders) encoders=(--encoders "$(realpath -m "$2")") ;;
    *) sed -n 2,14p "${BASH_SOURCE[0]}" >&2; exit 2 ;;
  esac
  shift 2
done
declare -A worth=([a]=8 [b]=10 [c]=6 [d]=8 [e]=12)
left=0
for part in ${parts//,/ }; do
  [ -n "${worth[$part]:-}" ] || { echo "--parts $part: expected some of a,b,c,d,e" >&2; exit 2; }
  left=$((left + worth[$part]))
done
mkdir -p "$out" && out=$(realpath "$out") && cd "$root" || exit 1
python=${PYTHON:-python3} workers=$(($(nproc) > 1 ? $(nproc) - 1 : 1))
device=$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")') || exit 1
if [ "$device" = cpu ] && [ ${#quick[@]} = 0 ]; then echo 'torch sees no GPU; --quick tries everything on a CPU' >&2; exit 1; fi
export PYTHONPATH=$root:$root/tests${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
export TORCHINDUCTOR_COMPILE_THREADS=1 CUBLAS_WORKSPACE_CONFIG=:4096:8
failed=0

say() { echo "[on_gpu ${SECONDS} s] $*"; }
within() { # SECONDS COMMAND...: killed when the time is over, and the next goes on
  local seconds=$1 status=0
  shift
  [ "$seconds" -gt 4 ] || { say "no time left: $*"; failed=1; return; }
  timeout --kill-after=10 "$seconds" "$@" || status=$?
  [ $status = 0 ] || { say "status $status: ${*//$root\//}"; failed=1; }
}
rest() { echo $((end - SECONDS)); }
tests() { # FILE ARGUMENTS...
  local file=$1
  shift
  within "$(rest)" "$python" -m pytest -p record --record "$out/$file" -o addopts='-q --strict-markers' --tb=short -p no:cacheprovider "$@"
}
benchmark() { # NAME[:FILE] SECONDS ARGUMENTS...
  local name=${1%:*} file=${1#*:} seconds=$2
  shift 2
  [ "$seconds" -lt "$(rest)" ] || seconds=$(rest)
  within "$seconds" "$python" "benchmarks/$name.py" --json "$out/$prefix$file.json" --device "$device" "${quick[@]}" "$@"
}

[ "$device" = cuda ] && prefix=gpu_ || prefix=cpu_
for part in ${parts//,/ }; do
  share=$(((limit - SECONDS) * worth[$part] / left)) left=$((left - worth[$part])) end=$((SECONDS + share))
  say "part $part: $share s"
  case $part-${#quick[@]} in
    a-0) tests tests.jsonl -m gpu -n "$workers" --dist worksteal tests ;;
    a-1) tests tests.jsonl -m 'not slow' tests/test_engine/test_on_device.py -k 'digits_L3 and (steps or resumed)' ;;
    b-0) tests suite.jsonl -m 'not slow and not gpu' -n "$workers" --dist worksteal --durations 20 tests ;;
    b-1) tests suite.jsonl -m 'not slow and not gpu' -n 2 tests/test_models/test_parts.py tests/test_kernels/test_library.py ;;
    c-*)
      for name in data optimizer sinkhorn knn; do benchmark $name $((share / 5)) --no-memory; done
      benchmark losses "$(rest)" --limit-s $(($(rest) * 6 / 10)) --no-memory
      ;;
    d-0)
      benchmark step:world8 $((share * 7 / 10)) --whole --fake-world 8 --precision float16
      benchmark step "$(rest)" --whole --switches channels_last,contiguous,compile,channels_last+compile,checkpointing,tf32
      ;;
    d-1) benchmark step:world8 "$(rest)" --whole --fake-world 8 ;;
    e-*) benchmark cifar "$(rest)" --limit-s $(($(rest) - 10)) --workers "$workers" "${data[@]}" "${encoders[@]}" ;;
  esac
done
say "done: $(ls "$out" | tr '\n' ' ')"
exit $failed
