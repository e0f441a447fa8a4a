#!/usr/bin/env bash
# A throw-away PostgreSQL cluster on 127.0.0.1 from the machine's server package, for tests and for trying things.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/postgres.sh start|stop|restart|kill|status [--dir D] [--port P]

  start    makes a cluster if the folder has none, starts it, waits until it is ready; prints on stdout what to export:
             eval "$(scripts/postgres.sh start)"
  stop     ends the server; removes its folder when start had made it up
  kill     ends the server without a checkpoint, as a crash does; start or restart with the same folder recovers it
  restart  stops the server if it runs, and starts it on the same port with the same data
  status   exit 0 and the exports when the server runs, else 1

  --dir D   folder for data, log and socket; default for start: a new temporary one, for the others: $POSTGRES_DIR
  --port P  default: the one the folder had before, else a free one

The newest server found is used: PATH, then /usr/lib/postgresql. Anyone on this machine may connect: put no data there that matters.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

find_server() {
  local found
  found=$(find /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin -name initdb 2>/dev/null | sort -V | tail -n 1 || true)
  [ -n "$found" ] || found=$(readlink -f "$(command -v initdb || command -v postgres || true)" 2>/dev/null || true)
  [ -n "$found" ] || die "no PostgreSQL server: install one (Debian: apt-get install postgresql), or give DATABASE_URL of one that runs"
  bin=$(dirname "$found")
}

# The server refuses to run as root.
as_owner() {
  if [ -z "$owner" ]; then "$@"
  elif command -v setpriv >/dev/null; then setpriv --reuid "$owner" --regid "$(id -g "$owner")" --clear-groups -- env HOME="$dir" "$@"
  else runuser -u "$owner" -- env HOME="$dir" "$@"; fi
}
pg_ctl() { (cd "$dir" && as_owner "$bin/pg_ctl" -D "$dir/data" "$@" >&2); }

configure() {
  cat >"$dir/data/cluster.conf" <<TEXT
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$dir'
max_connections = 200
# fsync stays on: what a commit costs is part of what is tested here.
shared_buffers = 64MB
log_line_prefix = '%m [%p] '
log_min_duration_statement = 1000
TEXT
  grep -q cluster.conf "$dir/data/postgresql.conf" || echo "include 'cluster.conf'" >>"$dir/data/postgresql.conf"
}

running() { [ -e "$dir/data/postmaster.pid" ] && pg_ctl status >/dev/null 2>&1; }
end() { ! running || pg_ctl stop -s -w -t 30 -m "$1"; }
exports() { printf 'export DATABASE_URL=postgres://orders@127.0.0.1:%s/orders\nexport POSTGRES_DIR=%q\n' "$port" "$dir"; }
known_port() { sed -n 's|^port = ||p' "$dir/data/cluster.conf" 2>/dev/null || true; }

start() {
  local given=$port tries
  if running; then port=$(known_port); say "already running"; exports; return; fi
  trap '[ $? = 0 ] || { end immediate; [ -z "$made" ] || forget "$dir"; }' EXIT
  [ -z "$owner" ] || chown "$owner" "$dir"
  as_owner test -w "$dir" || die "user $owner cannot write in $dir: give a folder with --dir that it can reach"
  if [ ! -s "$dir/data/PG_VERSION" ]; then
    as_owner "$bin/initdb" -D "$dir/data" -U orders -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$dir/postgres.log" 2>&1 ||
      { tail -n 20 "$dir/postgres.log" >&2; die "initdb failed"; }
    [ -z "$owner" ] || chown "$owner" "$dir/postgres.log"
  fi
  for tries in 1 2 3 4 5; do
    port=${given:-$(known_port)}
    port=${port:-$(free_port)}
    ! taken "$port" || die "port $port is in use; give another with --port"
    configure
    if pg_ctl start -s -w -t 60 -l "$dir/postgres.log"; then
      as_owner "$bin/createdb" -h "$dir" -p "$port" -U orders orders 2>/dev/null || true   # there since an earlier start
      say "PostgreSQL $(cat "$dir/data/PG_VERSION") answers on 127.0.0.1:$port (folder $dir)"
      exports
      return
    fi
    # Another process took a port between the look and the start.
    [ "$tries" != 5 ] && [ -z "$given" ] && tail -n 5 "$dir/postgres.log" | grep -q 'in use' || break
    rm -f "$dir/data/cluster.conf"
  done
  tail -n 20 "$dir/postgres.log" >&2
  die "the server did not start; its log is above"
}

owner='' bin=''
if [ "$(id -u)" = 0 ]; then owner=$(id -un postgres 2>/dev/null || echo nobody); fi
parse_arguments POSTGRES_DIR event-orders-postgres "$@"
find_server
case "$verb" in
  start) start ;;
  restart) end fast; start ;;
  kill) end immediate ;;
  stop) end fast; forget "$dir" ;;
  status) running || { say "no server runs in $dir"; exit 1; }; port=$(known_port); exports ;;
esac
