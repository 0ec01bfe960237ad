#!/usr/bin/env bash
# Runs a command beside a throwaway PostgreSQL and returns the command's exit status.
#
#   tests/postgres.sh cargo test
#   tests/postgres.sh psql "$SQL_OPTIONS"      # inside, TEST_POSTGRES_URL names the server
#
# The server listens on a Unix socket in a temporary folder only, keeps nothing on disk longer than the
# run, and is stopped by its own pid file. The command sees
#   TEST_POSTGRES_URL   postgres://postgres@%2Fthe%2Fsocket%2Ffolder/postgres
# and the PG* variables that psql and libpq read. Tables are looked after every AUTOVACUUM_NAPTIME (5min). A
# machine without PostgreSQL gets it from apt-get; where that can't be done either this fails, it never skips.
set -euo pipefail

say() { printf 'tests/postgres.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ $# -gt 0 ] || die "give a command to run, such as: tests/postgres.sh cargo test"

# The folder with initdb, pg_ctl and postgres; Debian keeps them out of PATH, one folder a major version.
find_binaries() {
  local folder initdb
  for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) /usr/local/pgsql/bin; do
    [ -x "$folder/initdb" ] && [ -x "$folder/pg_ctl" ] && { echo "$folder"; return 0; }
  done
  if initdb=$(command -v initdb) && command -v pg_ctl >/dev/null; then
    dirname "$(readlink -f "$initdb")"
    return 0
  fi
  return 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

if ! bin=$(find_binaries); then
  command -v apt-get >/dev/null || die "no initdb found, and no apt-get to install PostgreSQL with"
  say "installing PostgreSQL with apt-get"
  log=$(mktemp)
  # Without create_main_cluster the package would start a server of its own.
  if ! {
    as_root apt-get update -qq \
      && as_root mkdir -p /etc/postgresql-common/createcluster.d \
      && echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.d/tests.conf \
      && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql
  } >"$log" 2>&1; then
    cat "$log" >&2
    die "PostgreSQL could not be installed"
  fi
  rm -f "$log"
  bin=$(find_binaries) || die "PostgreSQL is installed, but initdb is not where it is expected"
fi

# PostgreSQL refuses to run as root, so root lends the server to another account.
server_user=
if [ "$(id -u)" -eq 0 ]; then
  for name in postgres nobody; do
    if id -u "$name" >/dev/null 2>&1; then server_user=$name; break; fi
  done
  [ -n "$server_user" ] || die "root can't run PostgreSQL, and there is neither a postgres nor a nobody account"
fi
as_server() {
  if [ -n "$server_user" ]; then runuser -u "$server_user" -- "$@"; else "$@"; fi
}

# /tmp whatever TMPDIR says: a socket's path may have 107 bytes at most.
folder=$(mktemp -d /tmp/tokenbroker-pg.XXXXXX)
# Others may reach the socket (the server decides who connects), but can't list or change the folder.
chmod 0711 "$folder"

command_pid=
clean_up() {
  local status=$?
  trap - EXIT
  [ -z "$command_pid" ] || kill -TERM -- "-$command_pid" 2>/dev/null || true
  if [ -f "$folder/data/postmaster.pid" ]; then
    as_server "$bin/pg_ctl" --pgdata="$folder/data" --mode=immediate --wait --timeout=30 --silent stop >&2 \
      || say "the server did not stop; its log was in $folder"
  fi
  rm -rf "$folder"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

[ -z "$server_user" ] || chown "$server_user" "$folder"
# The server may not be able to enter the caller's folder.
here=$PWD
cd "$folder"

as_server "$bin/initdb" --pgdata="$folder/data" --username=postgres --auth=trust --encoding=UTF8 \
  --no-locale --no-sync >"$folder/initdb.log" 2>&1 || { cat "$folder/initdb.log" >&2; die "initdb failed"; }

# What a crash would lose does not matter here; how many tests run at once does.
cat >>"$folder/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$folder'
max_connections = 300
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 128MB
autovacuum_naptime = ${AUTOVACUUM_NAPTIME:-5min}
timezone = 'UTC'
log_min_messages = warning
CONF

as_server "$bin/pg_ctl" --pgdata="$folder/data" --log="$folder/server.log" --wait --timeout=60 --silent start >&2 \
  || { cat "$folder/server.log" >&2 || true; die "the server did not start"; }

cd "$here"
export TEST_POSTGRES_URL="postgres://postgres@${folder//\//%2F}/postgres"
export PGHOST=$folder PGUSER=postgres PGDATABASE=postgres

status=0
if [ -t 0 ]; then
  # At a terminal Ctrl-C reaches the command by itself.
  "$@" || status=$?
else
  # In a group of its own and waited for, so that a signal to this script ends all of it at once.
  set -m
  "$@" <&0 &
  command_pid=$!
  set +m
  wait "$command_pid" || status=$?
  command_pid=
fi
exit "$status"
