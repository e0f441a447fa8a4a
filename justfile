# The commands of this project; CI runs the same ones through .ci/run.

set shell := ["bash", "-euo", "pipefail", "-c"]

# what there is
default:
    @just --list

# the whole system in one process, until ctrl-c: just run --chaos duplicates,gateway-failures=0.3 breaks it on purpose
run *arguments:
    cargo run -- {{arguments}}

# the same duplicates with and without inbox and idempotency key: who is charged how often
idempotency-demo *arguments:
    cargo run -- idempotency-demo {{arguments}}

# place an order with whatever runs: just place --sku COFFEE-1KG --quantity 1 --customer ada@example.com
place *arguments:
    cargo run --quiet -p order-service -- place {{arguments}}

# what the compiler and the house style say
check:
    cargo fmt --all --check
    scripts/check-style.sh
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

# all tests; needs no server
test *arguments:
    cargo test --workspace {{arguments}}

# the conformance and end-to-end tests on a real Apache Kafka and a real PostgreSQL
test-real:
    .ci/run servers real

# all fuzz tests with so many inputs each (cargo test makes 5,000); FUZZ_SEED=n makes the one that a failure names again
fuzz iterations="200000":
    FUZZ_ITERATIONS={{iterations}} cargo test -p event-runtime -p eventctl --lib fuzz -- --nocapture

# all simulations with so many schedules each (cargo test plays 300); SIMULATION_SEED=n plays the one that a failure names again
simulate schedules="10000":
    SIMULATION_SCHEDULES={{schedules}} cargo test -p event-runtime --test it simulation:: -- --nocapture

# chaos on real servers: CHAOS_SEED=n repeats a plan, CHAOS_ORDERS=n places so many, CHAOS_RATE=n so many a second
chaos orders="1000":
    # It starts its own servers; the variable only says that they are to be real.
    TEST_DATABASE_URL=own CHAOS_ORDERS={{orders}} cargo test -p end-to-end-tests --test it chaos -- --nocapture

# the changes to the scheduler, to retries and to the outbox's pure parts that no test notices; hours. Needs cargo-mutants
mutants *arguments:
    SIMULATION_SCHEDULES=60 cargo mutants -p event-runtime {{arguments}}

# the same for what reads, writes and waits: relay, inbox, a consumer's offsets and partitions; hours. With a PostgreSQL of its own
mutants-io *arguments:
    #!/usr/bin/env bash
    set -euo pipefail
    eval "$(scripts/postgres.sh start)"
    trap 'scripts/postgres.sh stop' EXIT
    TEST_DATABASE_URL=$DATABASE_URL cargo mutants --config .cargo/mutants-io.toml -p event-runtime {{arguments}}

# records/s of a transactional handler, one by one and in batches, beside a hand-written loop; RECORDS=n, TEST_DATABASE_URL for PostgreSQL
measure-batches:
    cargo test --release -p event-runtime --test it how_fast -- --ignored --nocapture

# the instructions a record takes on the hot paths, beside those on record; --record makes the record again. Needs valgrind
instructions *arguments:
    scripts/instructions.sh {{arguments}}

# event-runtime beside loops written by hand, on servers of its own: just bench relay poison -- --rounds 3; all without names
bench *arguments:
    scripts/bench.sh {{arguments}}

# a real Kafka without Docker: eval "$(just kafka start)"
kafka *arguments:
    @scripts/kafka.sh {{arguments}}

# a real PostgreSQL without Docker: eval "$(just postgres start)"
postgres *arguments:
    @scripts/postgres.sh {{arguments}}

# the whole system in containers
up:
    docker compose up --build --wait

# the same, with Prometheus on http://127.0.0.1:9090
up-observed:
    docker compose --profile observability up --build --wait

# containers go, data stays (just down -v: data too)
down *arguments:
    docker compose --profile observability down {{arguments}}

# the compose stack, tried with orders, mails and a restarted broker, and taken down
check-compose:
    scripts/check-compose.sh

# everything CI does
ci *stages:
    .ci/run {{stages}}
