//! The steps of a relay, each by itself, on SQLite and without a broker.

use jiff::SignedDuration;
use shared_events::{CorrelationId, OrderDeadlineReached, OrderId};

use super::*;
use crate::{Outbox, config::KafkaConfig, telemetry::metrics::Metrics as Families};

struct Table {
    database: Database,
    _folder: tempfile::TempDir,
}

impl Table {
    async fn new() -> Table {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
        database.migrate(&[]).await.unwrap();
        Table { database, _folder: folder }
    }

    fn relay(&self) -> (Relay, Wake, Work<'static>) {
        let nowhere = KafkaConfig { brokers: "127.0.0.1:1".to_owned(), settings: Vec::new() };
        let producer = Producer::new(&nowhere).unwrap();
        let relay = Relay::new(self.database.clone(), producer, "test", None, Clock::system());
        let wake = Wake::new(&self.database, relay.holder.name());
        (relay, wake, Work::new(Instant::now()))
    }

    /// Says two events, of which one is due then.
    async fn publish(&self, later: Timestamp) {
        let mut outbox = Outbox::root("test", CorrelationId::new(), Timestamp::now());
        outbox.publish(&OrderDeadlineReached { order_id: OrderId::new() }).unwrap();
        outbox.publish_at(&OrderDeadlineReached { order_id: OrderId::new() }, later).unwrap();
        self.database.commit(self.database.begin().await.unwrap(), outbox).await.unwrap();
    }
}

#[tokio::test]
async fn one_relay_counts_what_waits_and_not_all_the_time() {
    let (table, families) = (Table::new().await, Families::default());
    let (one, wake, mut work) = table.relay();
    let one = one.with_metrics(Metrics::register(&families));
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    table.publish(in_an_hour).await;
    for _ in 0..2 {
        one.look_at_leases(&mut work, &wake).await.unwrap();
        assert_eq!(one.waiting.rows(), Some(1));
        let shown = families.encode();
        for line in ["outbox_rows 1", "outbox_delayed_rows 1", "outbox_buckets 16"] {
            assert!(shown.lines().any(|shown| shown == line), "no {line} in {shown}");
        }
        table.publish(in_an_hour).await;
    }

    let (other, wake, mut work) = table.relay();
    other.waiting.counted(Some(7));
    other.look_at_leases(&mut work, &wake).await.unwrap();
    assert_eq!(other.waiting.rows(), None, "it is the first one that counts");
    let families = Families::default();
    let metrics = Metrics::register(&families);
    metrics.show(&depth(&table.database, in_an_hour).await.unwrap());
    other.with_metrics(metrics).measure(&mut work, Buckets::default(), in_an_hour).await;
    let shown = families.encode();
    for line in ["outbox_rows 0", "outbox_delayed_rows 0", "outbox_oldest_age_seconds 0.0"] {
        assert!(shown.lines().any(|shown| shown == line), "no {line} in {shown}");
    }
}

#[tokio::test]
async fn buckets_that_others_are_to_have_are_given_back_once_nothing_of_them_is_in_hand() {
    let table = Table::new().await;
    let (one, wake, mut work) = table.relay();
    let (other, others_wake, mut others_work) = table.relay();
    one.look_at_leases(&mut work, &wake).await.unwrap();
    other.look_at_leases(&mut others_work, &others_wake).await.unwrap();
    for (seq, bucket) in (1..).zip(Buckets::all().iter()) {
        work.lanes.hold(seq, bucket, 1);
    }
    for (removed, held) in [(0, 16), (1, 15), (16, 8)] {
        // From the last bucket on: those are given back.
        (17 - removed..17).for_each(|seq| work.lanes.removed(seq));
        one.look_at_leases(&mut work, &wake).await.unwrap();
        assert_eq!(one.publisher.share.held().len(), held);
    }
    other.look_at_leases(&mut others_work, &others_wake).await.unwrap();
    assert_eq!(other.publisher.share.held().len(), 8);
}

#[tokio::test]
async fn delayed_rows_are_moved_when_they_are_due_and_then_there_is_something_to_read() {
    let table = Table::new().await;
    let (relay, wake, mut work) = table.relay();
    relay.look_at_leases(&mut work, &wake).await.unwrap();
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    table.publish(in_an_hour).await;
    work.look = false;
    relay.fulfil_duties(&mut work, &wake).await.unwrap();
    let due = Timestamp::from_microsecond(in_an_hour.as_microsecond()).unwrap();
    assert_eq!((work.look, work.next_due), (false, Some(due)));

    let relay = Relay { clock: Clock::from_fn(move || in_an_hour), ..relay };
    relay.fulfil_duties(&mut work, &wake).await.unwrap();
    assert_eq!((work.look, work.next_due), (true, None));
    assert_eq!(depth(&table.database, in_an_hour).await.unwrap().delayed, 0);
}

#[tokio::test]
async fn what_is_acknowledged_after_the_end_has_begun_is_removed_and_the_buckets_are_free() {
    let table = Table::new().await;
    let (relay, wake, mut work) = table.relay();
    relay.look_at_leases(&mut work, &wake).await.unwrap();
    table.publish(Timestamp::now()).await;
    let batch = table::read(&table.database, &relay.publisher.share.open(), &work.lanes.in_hand()).await.unwrap();
    for row in batch.rows {
        let acknowledged = async {
            sleep(Duration::from_millis(50)).await;
            (row, Some(Fate::Poison("too large".to_owned())))
        };
        work.sending.push(acknowledged.boxed());
    }
    relay.finish(work, &wake).await.unwrap();
    let depth = depth(&table.database, Timestamp::now()).await.unwrap();
    assert_eq!((depth.rows, depth.set_aside), (0, 2));
    let held: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM outbox_bucket WHERE owner <> ''")
        .fetch_one(table.database.pool())
        .await
        .unwrap();
    assert_eq!(held, 0);
}

#[tokio::test]
async fn a_relay_that_lost_a_bucket_looks_at_its_leases_at_once() {
    let table = Table::new().await;
    let (relay, wake, mut work) = table.relay();
    relay.look_at_leases(&mut work, &wake).await.unwrap();
    table.publish(Timestamp::now()).await;
    let batch = table::read(&table.database, &relay.publisher.share.open(), &work.lanes.in_hand()).await.unwrap();
    let arrive = |work: &mut Work<'_>| work.arrived(&batch.rows[0], Fate::Poison(String::new()), Instant::now());
    arrive(&mut work);
    relay.settle(&mut work).await.unwrap();
    assert!(work.done.is_empty() && work.leases_seen.is_some());
    relay.holder.leave(&table.database).await.unwrap();
    arrive(&mut work);
    relay.settle(&mut work).await.unwrap();
    assert!(work.done.is_empty() && work.leases_seen.is_none());
}

#[tokio::test]
async fn a_bell_is_heeded() {
    let table = Table::new().await;
    let (relay, wake, mut work) = table.relay();
    work.look = false;
    relay.heard(Bell::Rows, &mut work, &wake);
    assert!(work.look);
}

#[tokio::test]
async fn that_nothing_is_acknowledged_is_an_outage() {
    let table = Table::new().await;
    let (relay, _, _) = table.relay();
    let mut work = Work::new(Instant::now() - Duration::from_secs(60));
    relay.watch_progress(&mut work);
    assert!(!relay.publisher.kafka.is_away());
    let mut work = Work::new(Instant::now() - Duration::from_secs(60));
    work.sending.push(std::future::pending().boxed());
    relay.watch_progress(&mut work);
    assert!(relay.publisher.kafka.is_away());
}

#[tokio::test]
async fn a_pause_lasts_until_its_end_or_the_shutdown() {
    let (began, shutdown) = (Instant::now(), CancellationToken::new());
    let a_moment = Duration::from_millis(20);
    pause(a_moment, &shutdown).await;
    assert!(began.elapsed() >= a_moment);
    shutdown.cancel();
    timeout(Duration::from_secs(20), pause(Duration::MAX, &shutdown)).await.unwrap();
}
