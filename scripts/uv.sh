#!/usr/bin/env bash
# Runs uv. Where the machine has none (or an old one), a pinned one is put into .tools/ first,
# from the package index, so that nothing is installed into the system.
set -euo pipefail
UV_VERSION=0.13.9
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools="$root/.tools/uv-$UV_VERSION"
export UV_PYTHON_INSTALL_DIR="${UV_PYTHON_INSTALL_DIR:-$root/.tools/python}"

if [ -x "$tools/bin/uv" ]; then
  exec "$tools/bin/uv" "$@"
fi
if command -v uv >/dev/null 2>&1 && [ "$(uv --version | cut -d' ' -f2)" = "$UV_VERSION" ]; then
  exec uv "$@"
fi
echo "setting up uv $UV_VERSION in .tools/" >&2
rm -rf "$tools.partial"
"${PYTHON:-python3}" -m venv "$tools.partial"
"$tools.partial/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
mv "$tools.partial" "$tools"
exec "$tools/bin/uv" "$@"
