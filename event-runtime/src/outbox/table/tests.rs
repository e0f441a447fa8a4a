use shared_events::{CorrelationId, OrderDeadlineReached, OrderId};

use super::*;
use crate::Outbox;

async fn empty() -> (Database, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
    database.migrate(&[]).await.unwrap();
    (database, folder)
}

#[tokio::test]
async fn of_a_relays_buckets_those_rows_are_read_that_are_not_in_hand() {
    let (database, _folder) = empty().await;
    let mut outbox = Outbox::root("test", CorrelationId::new(), Timestamp::UNIX_EPOCH);
    for _ in 0..100 {
        outbox.publish(&OrderDeadlineReached { order_id: OrderId::new() }).unwrap();
    }
    database.commit(database.begin().await.unwrap(), outbox).await.unwrap();
    let all: Fences = Buckets::all().iter().map(|bucket| (bucket, 1)).collect();
    let mut ours = all.clone();
    let theirs = ours.split_off(&Bucket::numbered(8).unwrap());
    let mut seqs = Vec::new();
    for fences in [&all, &ours, &theirs] {
        let batch = read(&database, fences, &BTreeMap::new()).await.unwrap();
        assert!(batch.unreadable.is_empty() && batch.rows.iter().all(|row| fences.contains_key(&row.bucket)));
        let mut in_hand: BTreeMap<Bucket, Vec<i64>> = BTreeMap::new();
        for row in &batch.rows[1..] {
            in_hand.entry(row.bucket).or_default().push(row.seq);
        }
        let rest = read(&database, fences, &in_hand).await.unwrap();
        assert_eq!(rest.rows, batch.rows[..1]);
        seqs.push(batch.rows.iter().map(|row| row.seq).collect::<Vec<_>>());
    }
    assert!(seqs.iter().all(|seqs| seqs.is_sorted()), "{seqs:?}");
    assert_eq!((seqs[0].len(), seqs[1].len() + seqs[2].len()), (100, 100));
}

/// SQLite takes any bytes for text, and the driver then fails the statement for all rows.
#[tokio::test]
async fn what_cannot_be_read_is_only_the_row_that_is_no_text() {
    let (database, _folder) = empty().await;
    let mut outbox = Outbox::root("test", CorrelationId::new(), Timestamp::UNIX_EPOCH);
    for _ in 0..3 {
        outbox.publish(&OrderDeadlineReached { order_id: OrderId::new() }).unwrap();
    }
    database.commit(database.begin().await.unwrap(), outbox).await.unwrap();
    let mut tx = database.begin().await.unwrap();
    for change in ["topic = CAST(x'ff' AS TEXT) WHERE seq = 2", "bucket = NULL WHERE seq = 3"] {
        sqlx::query(AssertSqlSafe(format!("UPDATE outbox SET {change}"))).execute(tx.conn()).await.unwrap();
    }
    tx.commit().await.unwrap();
    let holder = Holder::new("1".to_owned());
    let fences = holder.take(&database, Buckets::all(), Timestamp::UNIX_EPOCH).await.unwrap();
    let fence = fences[&Bucket::FIRST];
    assert!(!sort(&database, &holder, fence + 1, Timestamp::UNIX_EPOCH).await.unwrap(), "it has lost the bucket");
    assert!(sort(&database, &holder, fence, Timestamp::UNIX_EPOCH).await.unwrap());
    let batch = read(&database, &fences, &BTreeMap::new()).await.unwrap();
    assert_eq!(batch.rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 3]);
    let [unreadable] = &batch.unreadable[..] else { panic!("{} rows", batch.unreadable.len()) };
    assert_eq!((unreadable.seq, unreadable.fence), (2, fences[&unreadable.bucket]));
    assert!(matches!(&unreadable.fate, Fate::Poison(reason) if reason.starts_with("the row cannot be read: ")));
}

#[tokio::test]
async fn the_depth_is_what_waits_and_for_how_long() {
    let (database, _folder) = empty().await;
    let now = Timestamp::from_second(1000).unwrap();
    assert_eq!(depth(&database, now).await.unwrap(), Depth { rows: 0, oldest_age: None, delayed: 0, set_aside: 0 });
    for seconds in 0..2 {
        let now = now + SignedDuration::from_secs(seconds);
        let mut outbox = Outbox::root("test", CorrelationId::new(), now);
        let event = OrderDeadlineReached { order_id: OrderId::new() };
        outbox.publish(&event).unwrap();
        // What is due at once is not delayed.
        outbox.publish_at(&event, now).unwrap();
        outbox.publish_at(&event, now + SignedDuration::from_micros(1)).unwrap();
        database.commit(database.begin().await.unwrap(), outbox).await.unwrap();
    }
    let oldest_age = Some(SignedDuration::from_secs(5));
    let later = now + SignedDuration::from_secs(5);
    assert_eq!(depth(&database, later).await.unwrap(), Depth { rows: 4, oldest_age, delayed: 2, set_aside: 0 });
}

#[test]
fn a_batch_is_full_when_no_more_could_be_read_whether_or_not_all_of_it_is_readable() {
    let unreadable = |seq| Done { seq, bucket: Bucket::FIRST, fence: 1, fate: Fate::Poison("unreadable".to_owned()) };
    for (rows, unreadable_rows, full) in [(249, 0, false), (250, 0, true), (248, 1, false), (248, 2, true)] {
        let rows = (0..rows).map(|seq| StoredRow::sample(seq, "k")).collect();
        let batch = Batch { rows, unreadable: (0..unreadable_rows).map(unreadable).collect() };
        assert_eq!(batch.is_full(), full);
    }
}

#[test]
fn that_the_database_could_not_be_asked_says_nothing_of_the_values() {
    assert_eq!(values(Ok(1)).unwrap().unwrap(), 1);
    values::<()>(Err(sqlx::Error::Decode("no text".into()))).unwrap().unwrap_err();
    let column = sqlx::Error::ColumnDecode { index: "key".to_owned(), source: "no text".into() };
    values::<()>(Err(column)).unwrap().unwrap_err();
    values::<()>(Err(sqlx::Error::PoolTimedOut)).unwrap_err();
}
