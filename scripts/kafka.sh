#!/usr/bin/env bash
# A real Apache Kafka without Docker: one KRaft broker on 127.0.0.1, for tests and for trying things.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/kafka.sh start|stop|restart|kill|status [--dir D] [--port P]

  start    fetches the jars (Maven, once), starts a broker, waits until it answers; prints on stdout what to export:
             eval "$(scripts/kafka.sh start)"
  stop     ends the broker; removes its folder when start had made it up
  kill     ends the broker as a crash does (kill -9); start or restart with the same folder brings it back with its data
  restart  stops the broker if it runs, and starts it on the same port with the same data
  status   exit 0 and the exports when the broker runs, else 1

  --dir D   folder for data, log and pid; default for start: a new temporary one, for the others: $KAFKA_DIR
  --port P  default: the one the folder had before, else a free one

Needs Java 17 or newer and, the first time, Maven. KAFKA_HEAP_OPTS replaces -Xmx512m.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# The jars lie outside the tree, in a folder named after the content of the pom, so that another version gets another folder.
jars() {
  local pom=$here/kafka/pom.xml cache tmp
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/event-driven-orders/kafka-$(cksum <"$pom" | cut -d' ' -f1)
  if [ ! -d "$cache" ]; then
    command -v mvn >/dev/null || die "no mvn: install Maven (Debian: apt-get install maven) to fetch Kafka's jars"
    say "fetching Kafka's jars from Maven Central"
    mkdir -p "$(dirname "$cache")"
    tmp=$(mktemp -d "$cache.XXXXXX")
    mvn -q -B -Dstyle.color=never -f "$pom" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$tmp" >&2 </dev/null ||
      { rm -rf "$tmp"; die "Maven could not fetch Kafka's jars"; }
    # Another start may have been faster; its folder is as good.
    mv -T "$tmp" "$cache" 2>/dev/null || rm -rf "$tmp"
  fi
  printf '%s' "$cache"
}

configure() {
  local controller
  controller=$(free_port "$port")
  cat >"$dir/server.properties" <<TEXT
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
log.dirs=$dir/data
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# After a kill -9 the same broker is let in again only when its old session is over. Half the time would do for that, but then
# a disk that stalls for some seconds costs the only broker its session.
broker.session.timeout.ms=9000
broker.heartbeat.interval.ms=500
# Members of tests come and go quickly; clients may ask for short sessions.
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=500
TEXT
}

# Asks for the supported API versions, byte by byte, because a client in Java would take a second for it.
answers() {
  timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" &&
    printf "\0\0\0\012\0\022\0\0\0\0\0\1\377\377" >&3 && [ "$(head -c 4 <&3 | wc -c)" = 4 ]' _ "$port" 2>/dev/null
}

launch() {
  local libs heap
  command -v java >/dev/null || die "no java: install Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"
  libs=$(jars)
  read -ra heap <<<"${KAFKA_HEAP_OPTS:--Xmx512m}"
  configure
  if [ ! -e "$dir/data/meta.properties" ]; then
    java -Xmx128m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile="$here/kafka/log4j2.properties" -cp "$libs/*" \
      kafka.tools.StorageTool format -c "$dir/server.properties" -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c1-22)" \
      >"$dir/kafka.log" 2>&1 || { tail -n 20 "$dir/kafka.log" >&2; die "could not format $dir/data"; }
  fi
  : >"$dir/kafka.log"
  # Without the optimising compiler: in a broker that lives a minute it takes a third of a core from what is tested.
  in_background "$dir/kafka.log" java "${heap[@]}" -XX:TieredStopAtLevel=1 -Djava.awt.headless=true -Dlog4j2.configurationFile="$here/kafka/log4j2.properties" \
    -cp "$libs/*" kafka.Kafka "$dir/server.properties" >"$dir/kafka.pid"
  local deadline=$((SECONDS + 120))
  # Started is said once the broker is unfenced; before that clients would see no leader.
  until grep -q 'Kafka Server started' "$dir/kafka.log" && answers; do
    # Not `running`: for a moment the process is still a copy of this script, and would not be taken for ours.
    kill -0 "$(head -n 1 "$dir/kafka.pid")" 2>/dev/null || return 1
    [ $SECONDS -lt $deadline ] || { tail -n 20 "$dir/kafka.log" >&2; end -9; die "the broker did not answer within 120 s"; }
    sleep 0.1
  done
}

running() { runs "$dir/kafka.pid" "$dir/server.properties"; }
end() { end_process "$dir/kafka.pid" "$dir/server.properties" "${1--15}" "$(known_port)"; }
exports() { printf 'export KAFKA_BROKERS=127.0.0.1:%s\nexport KAFKA_DIR=%q\n' "$port" "$dir"; }
known_port() { sed -n 's|^advertised.listeners=.*:||p' "$dir/server.properties" 2>/dev/null || true; }

start() {
  local given=$port tries
  if running; then port=$(known_port); say "already running"; exports; return; fi
  trap '[ $? = 0 ] || { end -9; [ -z "$made" ] || forget "$dir"; }' EXIT
  for tries in 1 2 3 4 5; do
    port=${given:-$(known_port)}
    port=${port:-$(free_port)}
    ! taken "$port" || die "port $port is in use; give another with --port"
    if launch; then say "Kafka answers on 127.0.0.1:$port (folder $dir)"; exports; return; fi
    # Another process took a port between the look and the start.
    [ "$tries" != 5 ] && grep -q 'Address already in use' "$dir/kafka.log" || break
    [ -n "$given" ] || rm -f "$dir/server.properties"
  done
  tail -n 30 "$dir/kafka.log" >&2
  die "the broker ended at once; its log is above"
}

parse_arguments KAFKA_DIR event-orders-kafka "$@"
case "$verb" in
  start) start ;;
  restart) end; start ;;
  kill) end -9 ;;
  stop) end; forget "$dir" ;;
  status) running || { say "no broker runs in $dir"; exit 1; }; port=$(known_port); exports ;;
esac
