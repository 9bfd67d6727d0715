#!/usr/bin/env bash
# The engine's environment (engine/.venv) from its lock. Arguments go to `uv sync` (for example
# --no-install-package NAME).
#
# The lock holds the CUDA build of PyTorch, which brings several GB of libraries. Without an NVIDIA
# GPU the CPU build of the same version is installed in its place. ENGINE_TORCH=cuda|cpu overrides
# what is found. A second call installs nothing. With --check it only says, by its exit status,
# whether there is nothing to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../engine"
uv=../scripts/uv.sh

check=no
if [ "${1:-}" = --check ]; then check=yes; shift; fi
flavour="${ENGINE_TORCH:-}"
if [ -z "$flavour" ]; then
  if [ -e /dev/nvidiactl ] || command -v nvidia-smi >/dev/null 2>&1; then flavour=cuda; else flavour=cpu; fi
fi
stamp="$flavour $* $(sha256sum uv.lock ../scripts/setup-engine.sh | sha256sum | cut -d' ' -f1)"
if [ "$(cat .venv/.stamp 2>/dev/null || true)" = "$stamp" ]; then exit 0; fi
if [ $check = yes ]; then exit 1; fi

echo "setting up the engine's environment ($flavour)" >&2
rm -f .venv/.stamp
case "$flavour" in
  cuda)
    "$uv" sync --frozen --quiet "$@"
    ;;
  cpu)
    # torch and torchvision come as a pair: the locked torchvision is built against CUDA.
    cuda_only=$(sed -n 's/^name = "\(\(nvidia-\|cuda-\|triton\|torch\).*\)"$/\1/p' uv.lock)
    torch="torch==$(sed -n '/^name = "torch"$/{n;s/version = "\(.*\)"/\1/p}' uv.lock)"
    skip=()
    for name in $cuda_only; do skip+=(--no-install-package "$name"); done
    "$uv" sync --frozen --quiet "${skip[@]}" "$@"
    # A CPU build kept on this machine first, then PyTorch's own CPU channel, then the locked build,
    # which runs on a CPU too and is only larger.
    links="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
    { [ -n "$links" ] && "$uv" pip install --quiet --no-deps --no-index --find-links "$links" "$torch"; } ||
      "$uv" pip install --quiet --no-deps --torch-backend=cpu "$torch" ||
      "$uv" sync --frozen --quiet "$@"
    ;;
  *)
    echo "ENGINE_TORCH must be cuda or cpu, not '$flavour'" >&2
    exit 2
    ;;
esac
echo "$stamp" > .venv/.stamp
