#!/usr/bin/env bash
# The clients that the tests embed with (tests/clients), from their locks: one Python environment,
# and the npm package where there is npm. A second call installs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../tests/clients"

stamp=$(sha256sum uv.lock node/package-lock.json ../../scripts/setup-clients.sh | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.stamp 2>/dev/null || true)" != "$stamp" ]; then
  echo "setting up the clients for the tests" >&2
  rm -f .venv/.stamp
  ../../scripts/uv.sh sync --frozen --quiet
  echo "$stamp" > .venv/.stamp
fi

if [ "$(cat node/node_modules/.stamp 2>/dev/null || true)" = "$stamp" ]; then exit 0; fi
if ! command -v npm >/dev/null 2>&1; then exit 0; fi
# Without the npm registry everything but the Node client is tested all the same.
if (cd node && npm ci --silent); then
  echo "$stamp" > node/node_modules/.stamp
else
  echo "npm could not install the Node client: its test will be skipped" >&2
fi
