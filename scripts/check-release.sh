#!/usr/bin/env bash
# Checks that a tag (v1.2.3) is the version in pyproject.toml and has an entry in CHANGELOG.md. With
# --notes it prints that entry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tag=${1:?"usage: scripts/check-release.sh v1.2.3 [--notes]"}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
if [ "$tag" != "v$version" ]; then
  echo "the tag is $tag, the version in pyproject.toml is $version" >&2
  exit 1
fi
notes=$(awk -v heading="## $version" '$0 ~ /^## / { found = index($0, heading) == 1; next } found' CHANGELOG.md)
if [ -z "${notes//[[:space:]]/}" ]; then
  echo "CHANGELOG.md has no entry '## $version'" >&2
  exit 1
fi
if [ "${2:-}" = --notes ]; then echo "$notes"; fi
