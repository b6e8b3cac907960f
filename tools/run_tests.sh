#!/usr/bin/env bash
# The test suite in the same environment as the quickstart's; arguments go to pytest.
#
#   bash tools/run_tests.sh [-k few_labels] [-m slow] ...
set -euo pipefail

EXTRAS=tests
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
cd "$root"
exec python -m pytest "$@"
