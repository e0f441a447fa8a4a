#!/usr/bin/env bash
# Counts the instructions a record takes on the paths that every record passes, and compares them with those on record.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/instructions.sh [--record] [PATH…]

  --record  writes the counts to benchmarks/instructions.txt instead of comparing them
  PATH      as `hot-paths` lists them; all by default

Exit 1 when a path takes over 5 % more than on record; one that takes over 5 % less is named, so that the record is made
again. Exit 77 where nothing can be compared: the record is of another processor architecture.
Needs valgrind (Debian: apt-get install valgrind).
TEXT
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
record=benchmarks/instructions.txt alarm=5 recording='' paths=()
while [ $# -gt 0 ]; do
  case "$1" in
    --record) recording=yes ;;
    -h|--help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) paths+=("$1") ;;
  esac
  shift
done
named=${#paths[@]}
command -v valgrind >/dev/null || { echo "no valgrind: install it (Debian: apt-get install valgrind)" >&2; exit 1; }

# What counts depend on, besides the code: the compiler, the allocator and copying of the C library.
versions() {
  local libc
  libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || echo 'another C library')
  printf '%s, %s, %s, %s\n' "$(uname -m)" "$(rustc --version | cut -d' ' -f1,2)" "$libc" "$(valgrind --version)"
}
here=$(versions)
recorded=$(sed -n 's/^# with: //p' "$record" 2>/dev/null || true)
if [ -z "$recording" ] && [ -n "$recorded" ] && [ "${recorded%%,*}" != "${here%%,*}" ]; then
  echo "the record is of ${recorded%%,*}, this is ${here%%,*}: nothing is compared"
  exit 77
fi

# One line says what all counts were made with.
if [ -n "$recording" ] && [ "$named" -gt 0 ] && [ -n "$recorded" ] && [ "$recorded" != "$here" ]; then
  echo "the record was made with other versions ($recorded): name no path, so that all of it is made again" >&2
  exit 2
fi

cargo build --release --locked -p benchmarks --bin hot-paths
program=${CARGO_TARGET_DIR:-target}/release/hot-paths
[ "$named" -gt 0 ] || mapfile -t paths < <("$program")
counts=$(mktemp -d)
trap 'rm -rf "$counts"' EXIT

# Instructions a record of a path. Counted is what happens inside the one function that the program calls for that.
count() {
  local records instructions
  records=$(valgrind --tool=callgrind --toggle-collect='*hot_paths::counted*' --callgrind-out-file="$counts/out" \
    "$program" "$1" 2>"$counts/log") || { cat "$counts/log" >&2; return 1; }
  instructions=$(sed -n 's/.*Collected : //p' "$counts/log")
  [ "${instructions:-0}" -gt "$records" ] ||
    { echo "nothing was counted of $1: is its function still called hot_paths::counted?" >&2; return 1; }
  echo $((instructions / records))
}

if [ -n "$recording" ]; then
  {
    echo "# Instructions a record, as scripts/instructions.sh --record counted them. docs/BENCHMARKS.md says more."
    echo "# with: $here"
  } >"$counts/record"
  for path in "${paths[@]}"; do
    instructions=$(count "$path")
    printf '%-25s %8d\n' "$path" "$instructions" | tee -a "$counts/record"
  done
  # With some named, the others keep their counts, and all their places.
  if [ "$named" -gt 0 ] && [ -e "$record" ]; then
    awk 'NR == FNR { if (!/^#/) now[$1] = $0; else print; next }
      /^#/ { next } { print $1 in now ? now[$1] : $0; delete now[$1] }
      END { for (path in now) print now[path] }' "$counts/record" "$record" >"$counts/merged"
    mv "$counts/merged" "$counts/record"
  fi
  cp "$counts/record" "$record"
  exit
fi

[ "$recorded" = "$here" ] || printf 'recorded with %s\nhere          %s\n' "${recorded:-nothing}" "$here"
over=() under=()
printf '%-25s %8s %8s %8s\n' path recorded now change
for path in "${paths[@]}"; do
  now=$(count "$path")
  before=$(awk -v path="$path" '$1 == path { print $2 }' "$record" 2>/dev/null || true)
  [ -n "$before" ] || { printf '%-25s %8s %8d\n' "$path" none "$now"; over+=("$path"); continue; }
  printf '%-25s %8d %8d %+7.1f %%\n' "$path" "$before" "$now" "$(awk "BEGIN { print ($now - $before) * 100 / $before }")"
  if [ $((now * 100)) -gt $((before * (100 + alarm))) ]; then over+=("$path")
  elif [ $((now * 100)) -lt $((before * (100 - alarm))) ]; then under+=("$path"); fi
done
[ ${#under[@]} = 0 ] ||
  echo "over $alarm % less than on record, so make the record again (scripts/instructions.sh --record): ${under[*]}"
[ ${#over[@]} = 0 ] || {
  echo "over $alarm % more than on record, or not on record: ${over[*]}"
  echo "where that is what a change is worth, scripts/instructions.sh --record makes the record again"
  exit 1
}
