#!/usr/bin/env bash
# The benchmarks on a real Kafka and a real PostgreSQL of their own, which are gone afterwards.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/bench.sh [WORKLOAD…] [-- OPTION…]

  WORKLOAD  pass-through, keyed-io, poison, relay, transactional, backlog, scale, start, orders, request-reply;
            all by default
  OPTION    of `benchmarks`, for each workload, such as --rounds 3 or -o jsonl

Figures go to stdout, everything else to stderr. Needs what scripts/kafka.sh and scripts/postgres.sh need.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
workloads=()
while [ $# -gt 0 ]; do
  case "$1" in
    --) shift; break ;;
    -h|--help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) workloads+=("$1"); shift ;;
  esac
done
[ ${#workloads[@]} -gt 0 ] ||
  workloads=(pass-through keyed-io poison relay transactional backlog scale start orders request-reply)

# Built first: a compiler beside the servers would only make them slow to start.
cargo build --release --locked --manifest-path "$here/../Cargo.toml" -p benchmarks
program=${CARGO_TARGET_DIR:-$here/../target}/release/benchmarks

servers=$(mktemp -d "${TMPDIR:-/tmp}/event-orders-bench.XXXXXX")
# The database's owner may be another user.
chmod 755 "$servers"
mkdir "$servers/kafka" "$servers/postgres"
end() {
  trap '' INT TERM
  "$here/kafka.sh" stop --dir "$servers/kafka" >/dev/null 2>&1 || true
  "$here/postgres.sh" stop --dir "$servers/postgres" >/dev/null 2>&1 || true
  rm -rf "$servers"
}
trap end EXIT
trap 'exit 130' INT TERM
# One by one: an eval of a substitution that fails is no failure of this script.
exports=$("$here/kafka.sh" start --dir "$servers/kafka")
eval "$exports"
exports=$("$here/postgres.sh" start --dir "$servers/postgres")
eval "$exports"

status=0
for workload in "${workloads[@]}"; do
  # A workload that fails says so, and the others run all the same.
  "$program" "$@" "$workload" || status=$?
done
exit $status
