//! What never answers, neither well nor with an error: the relay stops waiting for it, says so, and goes on.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use event_runtime::{
    Database, Tx,
    outbox::{Metrics, OnPublished, Published, Relay},
    producer::Producer,
    telemetry::metrics::Metrics as Families,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::AssertSqlSafe;
use test_support::eventually;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::stage::{
    Log, Noted, PATIENCE, RunningRelay, TestClock, TestDatabase, TestKafka, becomes_empty, first_numbers, publish,
    read, relay,
};

/// The relay's, so that it gives up soon.
const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(600);

/// A relay with little patience, and what it says.
struct Watched {
    relay: RunningRelay,
    families: Families,
}

impl Watched {
    fn start(relay: Relay, of_database: Duration, of_kafka: Duration) -> Watched {
        let families = Families::default();
        let relay = relay.with_metrics(Metrics::register(&families));
        Watched { relay: RunningRelay::start(relay.with_patience(of_database, of_kafka)), families }
    }

    async fn gives_up(&self, times: u64) {
        eventually(PATIENCE, "end of the relay's patience", async || {
            let shown = self.families.encode();
            let count = shown.lines().find_map(|line| line.strip_prefix("outbox_timeouts_total "));
            match count.and_then(|count| count.parse::<u64>().ok()) {
                Some(count) if count >= times => Ok(()),
                count => Err(count),
            }
        })
        .await;
    }
}

/// Somebody locks a table and goes to lunch.
#[tokio::test]
async fn a_relay_that_waits_for_a_lock_says_so_and_publishes_when_it_has_it() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    if test.is_sqlite() {
        return;
    }
    let log = Log::default();
    let dispatch = log.dispatch();
    // One thread, so that the default of this thread is the relay's.
    let _default = tracing::dispatcher::set_default(&dispatch[0]);
    let database = test.connect();
    let watched = Watched::start(relay(&database, &kafka.config()), SHORT, LONG);
    let mut ids = publish(&database, &[Noted::new("a", 0), Noted::new("b", 0)]).await;
    becomes_empty(&database).await;

    for (round, (table, waited_for)) in
        [("outbox_bucket", "extending its leases"), ("outbox_delayed", "looking for delayed rows")]
            .into_iter()
            .enumerate()
    {
        let mut lunch = database.begin().await.unwrap();
        let lock = AssertSqlSafe(format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
        sqlx::query(lock).execute(lunch.conn()).await.unwrap();
        for number in 1..4 {
            let number = u32::try_from(round).unwrap() * 3 + number;
            ids.extend(publish(&database, &[Noted::new("a", number), Noted::new("b", number)]).await);
        }
        eventually(PATIENCE, "line of the log", async || {
            let text = log.text();
            let waited_for = format!("waited_for=\"{waited_for}\" seconds=");
            let said = |line: &str| ["WARN", &waited_for, " rows="].iter().all(|part| line.contains(part));
            if text.lines().any(said) { Ok(()) } else { Err(text) }
        })
        .await;
        lunch.rollback().await.unwrap();
        becomes_empty(&database).await;
    }
    watched.gives_up(2).await;
    let numbers = first_numbers(&read(&kafka.config(), &ids).await);
    for key in ["a", "b"] {
        assert_eq!(numbers[key], (0..7).collect::<Vec<u32>>(), "{key}");
    }
    watched.relay.stop().await;
}

/// Between a relay and its database: passes everything on until it no longer does, without closing anything.
struct Wire {
    url: String,
    up: Arc<Mutex<CancellationToken>>,
    /// Connections that hang, and that the relay has not closed.
    hanging: Arc<AtomicUsize>,
}

impl Wire {
    async fn to(database: &Database) -> Wire {
        let server = std::env::var("TEST_DATABASE_URL").unwrap();
        let name: String =
            sqlx::query_scalar("SELECT CURRENT_DATABASE()::TEXT").fetch_one(database.pool()).await.unwrap();
        let (user, place) = server.split_once("://").unwrap().1.rsplit_once('@').unwrap();
        let place = place.split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://{user}@{}/{name}", listener.local_addr().unwrap());
        let up = Arc::new(Mutex::new(CancellationToken::new()));
        let hanging = Arc::new(AtomicUsize::new(0));
        let (state, left) = (Arc::clone(&up), Arc::clone(&hanging));
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let cut = state.lock().unwrap().clone();
                let mut there = TcpStream::connect(&place).await.unwrap();
                let left = Arc::clone(&left);
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy_bidirectional(&mut here, &mut there) => {}
                        // Both sides stay open, and neither hears of the other again.
                        () = cut.cancelled() => {
                            left.fetch_add(1, Ordering::SeqCst);
                            tokio::io::copy(&mut here, &mut tokio::io::sink()).await.ok();
                            left.fetch_sub(1, Ordering::SeqCst);
                            std::future::pending::<()>().await;
                        }
                    }
                });
            }
        });
        Wire { url, up, hanging }
    }

    /// What is connected hangs from now on; what connects later does not.
    fn cut(&self) {
        std::mem::take(&mut *self.up.lock().unwrap()).cancel();
    }
}

/// Cuts the wire while the transaction that removes rows is open, when told to.
struct CutsInside(Wire, AtomicBool);

impl OnPublished for CutsInside {
    fn published<'a>(&'a self, _: &'a mut Tx, _: &'a [Published]) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        if self.1.swap(false, Ordering::SeqCst) {
            self.0.cut();
        }
        async { Ok(()) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_connections_hang_publishes_by_new_ones() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    if test.is_sqlite() {
        return;
    }
    let database = test.connect();
    let wire = Wire::to(&database).await;
    let over_wire = Database::connect_lazy(&wire.url).unwrap();
    let cuts = Arc::new(CutsInside(wire, AtomicBool::new(false)));
    let (producer, clock) = (Producer::new(&kafka.config()).unwrap(), TestClock::default().clock());
    let relay = Relay::new(over_wire, producer, "test", Some(Arc::clone(&cuts) as _), clock);
    let watched = Watched::start(relay, SHORT, LONG);
    let mut ids = Vec::new();
    for number in 0..6 {
        // By turns while nothing is asked, and while a transaction has locks that nobody but the server can take from it.
        let inside = number % 2 == 1;
        cuts.1.store(inside, Ordering::SeqCst);
        ids.extend(publish(&database, &[Noted::new("a", number), Noted::new("b", number)]).await);
        becomes_empty(&database).await;
        if !inside {
            cuts.0.cut();
        }
    }
    watched.gives_up(3).await;
    eventually(PATIENCE, "end of what was given up", async || match cuts.0.hanging.load(Ordering::SeqCst) {
        // The one that listens, which hears nothing as when nobody rings, and those that were just being given back.
        0..=4 => Ok(()),
        hanging => Err(hanging),
    })
    .await;
    let numbers = first_numbers(&read(&kafka.config(), &ids).await);
    for key in ["a", "b"] {
        assert_eq!(numbers[key], (0..6).collect::<Vec<u32>>(), "{key}");
    }
    watched.relay.stop().await;
}

/// A NOTIFY waits for a lock of the whole server, which anybody's NOTIFY can hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_bell_that_cannot_be_rung_holds_up_no_event() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::start().await);
    if test.is_sqlite() {
        return;
    }
    let database = test.connect();
    // The lock at the commit cannot be held from outside, so here is a pg_notify with a lock of its own.
    let name: String = sqlx::query_scalar("SELECT CURRENT_DATABASE()::TEXT").fetch_one(database.pool()).await.unwrap();
    let setup = format!(
        "CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(1)'; \
         ALTER DATABASE {name} SET search_path = public, pg_catalog"
    );
    let mut lock = database.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(setup)).execute(lock.conn()).await.unwrap();
    lock.commit().await.unwrap();
    let mut lock = database.begin().await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_xact_lock(1)").execute(lock.conn()).await.unwrap();

    // Both pools are new, so that their sessions have that function.
    let writing = test.connect();
    let relays = [
        Watched::start(relay(&writing, &kafka.config()), LONG, LONG),
        Watched::start(relay(&test.connect(), &kafka.config()), LONG, LONG),
    ];
    eventually(PATIENCE, "even shares", async || {
        let shown = relays.each_ref().map(|relay| relay.families.encode());
        if shown.iter().all(|shown| shown.contains("outbox_buckets 8")) { Ok(()) } else { Err(shown) }
    })
    .await;
    let mut ids = Vec::new();
    for number in 0..20 {
        let keys: Vec<Noted> = (0..16).map(|key| Noted::new(&format!("key-{key}"), number)).collect();
        ids.extend(publish(&writing, &keys).await);
    }
    becomes_empty(&database).await;
    // What was given up ends: sessions come and go, and do not become more.
    let mut seen = HashSet::new();
    eventually(PATIENCE, "sixth session that waits to ring", async || {
        publish(&writing, &(16..32).map(|key| Noted::new(&format!("key-{key}"), 0)).collect::<Vec<_>>()).await;
        let waiting: Vec<i32> = sqlx::query_scalar(
            "SELECT pid FROM pg_stat_activity WHERE datname = CURRENT_DATABASE() AND wait_event = 'advisory'",
        )
        .fetch_all(database.pool())
        .await
        .unwrap();
        assert!(waiting.len() <= 4, "{waiting:?} wait to ring");
        seen.extend(waiting);
        if seen.len() >= 6 { Ok(()) } else { Err(seen.len()) }
    })
    .await;
    let numbers = first_numbers(&read(&kafka.config(), &ids).await);
    assert!(numbers.len() == 16 && numbers.values().all(|numbers| numbers.is_sorted()), "{numbers:?}");
    lock.rollback().await.unwrap();
    for watched in relays {
        watched.relay.stop().await;
    }
}

/// A client that would wait for ever, as one does that has gone silent.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_does_not_wait_for_ever_for_an_acknowledgement() {
    let (test, kafka) = (TestDatabase::migrated().await, TestKafka::embedded());
    let database = test.connect();
    let mut config = kafka.config();
    config.settings.push("message.timeout.ms=0".to_owned());
    let watched = Watched::start(relay(&database, &config), LONG, SHORT);
    let mut ids = publish(&database, &[Noted::new("a", 0)]).await;
    becomes_empty(&database).await;
    kafka.cluster().broker_down(1).unwrap();
    for number in 1..4 {
        ids.extend(publish(&database, &[Noted::new("a", number), Noted::new("b", number)]).await);
    }
    watched.gives_up(4).await;
    kafka.cluster().broker_up(1).unwrap();
    becomes_empty(&database).await;
    let numbers = first_numbers(&read(&config, &ids).await);
    assert_eq!((&numbers["a"][..], &numbers["b"][..]), (&[0, 1, 2, 3][..], &[1, 2, 3][..]));
    watched.relay.stop().await;
}
