#!/usr/bin/env bash
# The test suite in the same environment as the quickstart's; arguments go to pytest.
#
#   bash tools/run_tests.sh [-k few_labels] [-m slow] [-m gpu] [-n 1] ...
#
# One pytest process per core, eight at most (-n N: another number), each with one thread of its own.
set -euo pipefail

EXTRAS=tests
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
exec python -m pytest -n auto --dist worksteal "$@"
