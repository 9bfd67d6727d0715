#!/usr/bin/env bash
# The worker's environment (.venv) from its lock. Arguments go to `uv sync` (for example --no-dev).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec scripts/uv.sh sync --frozen --quiet "$@"
