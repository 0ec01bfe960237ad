#!/usr/bin/env bash
# The interop check: `tokenbroker serve` against the npm package oidc-provider, a headless Chromium, and clients in
# JavaScript, Python and Go (grpcurl); every line of README.md's tour and of docs/automation-jobs.md; our own
# authorisation server against the npm package openid-client and Python's authlib, and its pages in that Chromium
# (pictures: target/interop-shots); and `tokenbroker work` with a worker of its own that drives that Chromium through
# the provider's screens. Prints a line a check; the last one reads "N passed, 0 failed".
#
# `run.sh playground` starts that provider alone, on http://127.0.0.1:9400, for the tour in README.md; it needs npm only.
#
# Needs chromium, npm, python3 with venv, grpcurl and jq: `.ci/setup` installs them. The Node.js that runs the check and
# all packages are pinned by package-lock.json and requirements.txt and installed beside the build.
#   TOKENBROKER_BIN     the binary to check, instead of building target/debug/tokenbroker
#   ACCESS_TOKEN_TTL    seconds an access token lives at the provider (20)
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

need() {
  command -v "$1" >/dev/null || { echo "interop: $1 is missing; run .ci/setup" >&2; exit 1; }
}
export PATH="$root/target/tools/bin:$PATH"
need npm
if [ "${1:-}" != playground ]; then
  need python3
  need grpcurl
  need jq
fi

if ! cmp -s package-lock.json node_modules/.installed; then
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.installed
fi
node=
for candidate in node_modules/node-linux-*/bin/node; do
  if [ -x "$candidate" ]; then node=$PWD/$candidate; fi
done
# On other systems whatever Node.js there is has to do; oidc-provider says so if it is too old.
[ -n "$node" ] || { need node; node=node; }

if [ "${1:-}" = playground ]; then
  exec env ANY_LOOPBACK_REDIRECT=1 ACCESS_TOKEN_TTL="${ACCESS_TOKEN_TTL:-60}" "$node" provider.mjs 9400
fi

venv=$target/interop-venv
if ! cmp -s requirements.txt "$venv/installed.txt"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: -r requirements.txt
  cp requirements.txt "$venv/installed.txt"
fi

if [ -z "${TOKENBROKER_BIN:-}" ]; then
  (cd "$root" && cargo build --locked --bin tokenbroker)
  export TOKENBROKER_BIN=$target/debug/tokenbroker
fi
export PYTHON=$venv/bin/python
results=$(mktemp)
trap 'rm -f "$results"' EXIT
# Each adds its checks to those counted so far; no count at all is a failure.
passed=0 failed=0
for part in run tour issuer jobs; do
  "$node" "$part.mjs" "$passed" "$failed" | tee "$results" || true
  counts=$(sed -n '$s/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$results")
  read -r passed failed <<<"${counts:-$passed $((failed + 1))}"
done
[ "$failed" -eq 0 ]
