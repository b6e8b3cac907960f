#!/usr/bin/env bash
# From a fresh checkout to an evaluated encoder: installs, pretrains on hand-written digits, prints one table.
#
#   bash tools/quickstart.sh [--configs CONFIG ...] [--out FOLDER]
set -euo pipefail

EXTRAS=
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
exec python "$root/tools/quickstart.py" "$@"
