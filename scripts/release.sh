#!/usr/bin/env bash
# Builds and checks a release: tests, changelog, wheel and sdist in dist/. Uploads nothing.
#   scripts/release.sh 0.2.0
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?usage: scripts/release.sh VERSION}
python=.venv/bin/python

[[ -z $(git status --porcelain) ]] || { echo "error: uncommitted changes; commit them first." >&2; exit 2; }
grep -q "VERSION = \"$version\"" cpm_tune/version.py \
  || { echo "error: cpm_tune/version.py has another version than $version." >&2; exit 2; }
grep -q "^version: $version\$" CITATION.cff \
  || { echo "error: CITATION.cff has another version than $version." >&2; exit 2; }
grep -Eq "^## $version \([0-9]{4}-[0-9]{2}-[0-9]{2}\)\$" CHANGELOG.md \
  || { echo "error: CHANGELOG.md has no section '## $version (DATE)', such as (2027-01-31)." >&2; exit 2; }

make test
rm -rf dist
"$python" -m build
"$python" -m twine check --strict dist/*
for file in dist/*; do
  bytes=$(wc -c < "$file")
  (( bytes < 60 * 1000 * 1000 )) || { echo "error: $file has $bytes bytes, over 60 MB." >&2; exit 1; }
  echo "$file  $bytes bytes"
done
echo "next: git tag v$version && git push --tags, then twine upload dist/*"
