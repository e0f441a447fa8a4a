# shellcheck shell=bash disable=SC2034
# What kafka.sh and postgres.sh share; source it. Everything a person reads goes to stderr: stdout is for `eval`.

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# free_port [NOT_THIS]: below the range from which the system gives out ports, so that no client socket takes it meanwhile.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    [ "$port" != "${1-}" ] && ! taken "$port" && break
  done
  printf '%s' "$port"
}

# in_background LOG COMMAND…: in a session of its own, so that ctrl-c in the caller's terminal does not end it; prints the pid.
in_background() {
  local log=$1
  shift
  if command -v setsid >/dev/null; then set -- setsid "$@"; fi
  nohup "$@" >>"$log" 2>&1 </dev/null &
  echo $!
}

# runs PIDFILE WORD: whether the process lives, and is ours: a pid alone may have gone to another program.
runs() {
  local pid
  pid=$(head -n 1 "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
  ps -ww -o args= -p "$pid" 2>/dev/null | grep -qF -- "$2"
}

# end_process PIDFILE WORD SIGNAL PORT: returns once it is gone; after 20 s it is killed.
end_process() {
  local pid deadline=$((SECONDS + 20))
  if runs "$1" "$2"; then
    pid=$(head -n 1 "$1")
    kill "$3" "$pid" 2>/dev/null || true
    # A killed process of many threads is out of the process list before its last thread has let go of the port.
    while runs "$1" "$2" || taken "$4"; do
      [ $SECONDS -lt $deadline ] || { say "process $pid did not end within 20 s: killing it"; kill -9 "$pid" 2>/dev/null || true; break; }
      sleep 0.05
    done
  fi
  rm -f "$1"
}

# parse_arguments DIR_VARIABLE NAME VERB [OPTION…]: sets verb, dir, port and made. A folder made up here is marked, and goes at stop.
parse_arguments() {
  local variable=$1 name=$2
  shift 2
  verb=${1-} dir='' port='' made=''
  [ $# = 0 ] || shift
  while [ $# -gt 0 ]; do
    case "$1" in
      --dir) dir=${2:?--dir takes a folder}; shift 2 ;;
      --port) port=${2:?--port takes a number}; shift 2 ;;
      -h|--help) usage; exit 0 ;;
      *) usage >&2; die "no such option: $1" ;;
    esac
  done
  case "$verb" in
    start) [ -n "$dir" ] || { dir=$(mktemp -d "${TMPDIR:-/tmp}/$name.XXXXXX"); : >"$dir/.made-by-start"; made=1
      trap '[ $? = 0 ] || forget "$dir"' EXIT; } ;;
    stop|restart|kill|status)
      dir=${dir:-${!variable-}}
      [ -n "$dir" ] || die "which one? give --dir, or set $variable"
      [ -d "$dir" ] || { [ "$verb" != stop ] || exit 0; die "no folder $dir"; } ;;
    -h|--help|help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  mkdir -p "$dir"
  dir=$(cd "$dir" && pwd -P)
}

forget() { [ ! -e "$1/.made-by-start" ] || rm -rf "$1"; }
