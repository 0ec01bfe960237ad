#!/usr/bin/env bash
# Measures. `make bench` calls it.
#
#   benches/run.sh            everything, within the hour: writes docs/benchmarks.md
#   QUICK=1 benches/run.sh    small numbers, under 2 minutes: writes target/benchmarks-quick.md
#   ONLY=throughput,events benches/run.sh   these sections only, printed and written nowhere
#
# Run it on a machine that does nothing else. Everything stays on loopback; a throwaway PostgreSQL comes
# from tests/postgres.sh, pgbench with it, the load generator h2load from Debian's nghttp2-client.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'benches/run.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

# $1: the command; $2: Debian's package with it.
need() {
  command -v "$1" >/dev/null && return 0
  command -v apt-get >/dev/null || die "$1 is missing, and there is no apt-get to install it with"
  say "installing $2 with apt-get"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >&2
  command -v "$1" >/dev/null || die "$2 is installed, but $1 is not there"
}

need h2load nghttp2-client
need taskset util-linux

# Built, the measured binary too, before PostgreSQL is up: compiling is not what it waits for.
"${CARGO:-cargo}" bench --locked --bench broker --no-run
# As often as PostgreSQL does by default: tests are through before it matters.
AUTOVACUUM_NAPTIME=1min exec tests/postgres.sh "${CARGO:-cargo}" bench --locked --bench broker
