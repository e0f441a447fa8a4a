#!/usr/bin/env bash
# Brings the compose stack up under a name and with volumes of its own, uses it as a person would, and takes it down again.
# Needs Docker with compose v2 and the stack's ports. KEEP=1 leaves the stack up for a look.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export COMPOSE_PROJECT_NAME=event-driven-orders-check IMAGE=event-driven-orders:check PROFILE=${PROFILE:-fast}
export COMPOSE_PROFILES=observability
# A broker that is away for longer than a group's session holds its groups for a second session: on a busy machine
# that is longer than an order may take by default, and what is to be seen here is that it is completed all the same.
export ORDER_DEADLINE=5m
mkdir -p target/ci-logs
exports=$(mktemp -d)
step() { printf '[%3d s] %s\n' $SECONDS "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

finish() {
  local rc=$?
  docker compose logs --no-color >target/ci-logs/compose-services.log 2>&1 || true
  if [ $rc != 0 ]; then
    docker compose ps --all || true
    docker compose logs --no-color --tail 25 || true
  fi
  [ -n "${KEEP-}" ] || docker compose down --volumes >/dev/null 2>&1 || true
  rm -rf "$exports"
}

# within SECONDS COMMAND…: repeats the command until it succeeds.
within() {
  local deadline=$((SECONDS + $1)) out=''
  shift
  until out=$("$@" 2>&1); do
    [ $SECONDS -lt $deadline ] || { printf '%s\n' "$out" >&2; die "not in time: $*"; }
    sleep 0.5
  done
}

inside() { docker compose exec -T order-service "$@"; }
outside() { ORDER_SERVICE_URL=http://127.0.0.1:8080 KAFKA_BROKERS=127.0.0.1:9092 cargo run --quiet -p order-service -- "$@"; }

# ends_with CODE COMMAND…: prints what it printed, too.
ends_with() {
  local wanted=$1 rc=0
  shift
  "$@" || rc=$?
  [ "$rc" = "$wanted" ] || die "exit code $rc instead of $wanted: $*"
}

api() { curl -fsS --max-time 5 "http://127.0.0.1:$1"; }
mails_to() { api '8025/api/v1/messages?limit=1000' | grep -oE '"To": ?\[\{[^]]*\]' | grep -cE "\"$1\"" || true; }
has_one_mail() { [ "$(mails_to "$1")" = 1 ] || { echo "$(mails_to "$1") mails to $1"; return 1; }; }
charges() { api 8090/charges | grep -oE "\"status\": ?\"$1\"" | wc -l; }

# Every metric that an alert names must be one that a service has, or the alert would never fire.
alerts_name_real_metrics() {
  local known metric
  known=$(for port in 8080 8081 8082 8083; do api $port/metrics; done | sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' | sort -u)
  for metric in $(grep -v 'summary:' ops/alerts.yml | grep -oE '\b(consumer|outbox|http_server)_[a-z_]+' | sort -u); do
    grep -qxE "$(sed -E 's/_(total|count|sum|bucket)$//' <<<"$metric")" <<<"$known" ||
      { echo "no service has the metric $metric of ops/alerts.yml; there are:"; echo "$known"; return 1; }
  done
}
# With the alerts' own tests, which are not mounted: a copy of both.
alerts_fire() {
  docker compose cp ops/alerts.yml prometheus:/tmp/alerts.yml
  docker compose cp ops/alerts-test.yml prometheus:/tmp/alerts-test.yml
  docker compose exec -T prometheus promtool test rules /tmp/alerts-test.yml
}
prometheus_sees_all() {
  local up
  up=$(api '9090/api/v1/query?query=sum(up)' | grep -oE '"value":\[[^]]*\]') && [[ "$up" == *'"4"]' ]] || { echo "up: $up"; return 1; }
}

# What docs/OPERATIONS.md tells an operator to do after an incident.
nothing_is_lost_or_doubled() {
  local service
  for service in order-service payment-service inventory-service email-service; do
    docker compose exec -T "$service" "$service" audit >"$exports/$service.jsonl"
  done
  cargo run --quiet -p eventctl -- verify --audit-dir "$exports" --grace 0s --brokers 127.0.0.1:9092 \
    --gateway-url http://127.0.0.1:8090 --mailpit-url http://127.0.0.1:8025
}

# Two of these at a time would take each other's stack down.
exec 9>"${TMPDIR:-/tmp}/event-driven-orders-check.lock"
flock -n 9 || { step "waiting for another check of the stack on this machine"; flock -w 1200 9 || die "it does not end"; }
trap finish EXIT
trap 'exit 130' INT TERM
docker compose down --volumes --timeout 5 >/dev/null 2>&1 || true

step "building the image (profile $PROFILE)"
docker compose --progress plain build
docker image inspect -f '{{.Size}}' "$IMAGE" | awk '{ printf "image: %d MB\n", $1 / 1e6 }'
step "bringing the stack up"
docker compose up --wait --wait-timeout 240 --quiet-pull
docker compose ps
[ "$(inside id -u)" != 0 ] || die "the services run as root"

step "orders from inside the container and from the host"
ends_with 0 inside order-service place --sku COFFEE-1KG --quantity 1 --customer inside@example.com --timeout 30s
ends_with 3 inside order-service place --sku MUG-BLUE --quantity 2 --customer declined@example.com --payment-token tok_chargeDeclined --timeout 30s
ends_with 3 inside order-service place --sku GIFT-CARD-RARE --quantity 1 --customer out-of-stock@example.com --timeout 30s
ends_with 0 outside place --item TEA-GREEN-250G=3 --customer outside@example.com --timeout 30s

step "a broker restart with orders in flight and placed meanwhile"
before=$(inside order-service place --sku COFFEE-1KG --quantity 1 --customer before-restart@example.com --no-wait | head -n 1)
docker compose restart kafka &
restart=$!
during=$(inside order-service place --sku COFFEE-1KG --quantity 1 --customer during-restart@example.com --no-wait | head -n 1)
wait $restart
for order in "$before" "$during"; do
  ends_with 0 timeout 180 docker compose exec -T order-service order-service status "$order" --watch
done
ends_with 0 inside order-service place --sku COFFEE-1KG --quantity 1 --customer after-restart@example.com --timeout 120s

step "mails, charges, stock, lag"
for customer in inside declined out-of-stock outside before-restart during-restart after-restart; do
  within 30 has_one_mail "$customer@example.com"
done
within 10 bash -c '[ "$(curl -fsS http://127.0.0.1:8082/stock/COFFEE-1KG | grep -oE "\"(reserved|sold)\": ?[0-9]+" | tr -d "\" " | paste -sd,)" = reserved:0,sold:4 ]'
[ "$(charges succeeded)" = 5 ] || die "$(charges succeeded) charges stand, for 5 paid orders"
within 30 inside eventctl lag --max 0
inside eventctl lag
inside eventctl explain "$during"
# Until the relays have removed what they published.
within 30 nothing_is_lost_or_doubled
nothing_is_lost_or_doubled
alerts_name_real_metrics
alerts_fire
within 30 prometheus_sees_all

step "what it takes"
docker stats --no-stream --format 'table {{.Name}}\t{{.MemUsage}}\t{{.CPUPerc}}'
step "stopping"
docker compose stop
# 137 would be a kill: something did not end within its grace period, or ran out of memory.
docker compose ps --all --format '{{.Service}} {{.ExitCode}}' | tee -a /dev/stderr | awk '/service|gateway/ && $2 != 0 { bad = 1 } END { exit bad }' ||
  die "a service did not end cleanly"
step "done"
