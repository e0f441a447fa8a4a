//! Which events were handled is a set: an id counts once, however the ids alternate.

use event_runtime::{Database, inbox};
use jiff::{SignedDuration, Timestamp};
use shared_events::EventId;

use crate::stage::TestDatabase;

async fn record(database: &Database, group: &str, event: EventId, now: Timestamp) -> bool {
    let mut tx = database.begin().await.unwrap();
    let new = inbox::record(&mut tx, group, event, now).await.unwrap();
    tx.commit().await.unwrap();
    new
}

async fn seen(database: &Database, group: &str, event: EventId) -> bool {
    let mut tx = database.begin().await.unwrap();
    let seen = inbox::seen(&mut tx, group, event).await.unwrap();
    tx.rollback().await.unwrap();
    seen
}

#[tokio::test]
async fn an_event_is_new_once_for_each_group_also_behind_others() {
    let test = TestDatabase::migrated().await;
    let (database, now) = (test.connect(), Timestamp::now());
    let (a, b) = (EventId::new(), EventId::new());
    let news = [
        record(&database, "g", a, now).await,
        record(&database, "g", b, now).await,
        record(&database, "g", a, now).await,
        record(&database, "other", a, now).await,
    ];
    assert_eq!(news, [true, true, false, true]);
    assert!(seen(&database, "g", b).await);
    assert!(!seen(&database, "other", b).await);
}

#[tokio::test]
async fn an_event_whose_transaction_rolled_back_is_still_new() {
    let test = TestDatabase::migrated().await;
    let (database, event) = (test.connect(), EventId::new());
    let mut tx = database.begin().await.unwrap();
    assert!(inbox::record(&mut tx, "g", event, Timestamp::now()).await.unwrap());
    assert!(inbox::seen(&mut tx, "g", event).await.unwrap());
    drop(tx);
    assert!(record(&database, "g", event, Timestamp::now()).await);
}

/// Two consumers with the same event at the same time: one of them waits, and then knows.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_transactions_with_one_event_one_finds_it_new() {
    let test = TestDatabase::migrated().await;
    let event = EventId::new();
    let attempts: Vec<_> = (0..8)
        .map(|_| {
            let database = test.connect();
            tokio::spawn(async move { record(&database, "g", event, Timestamp::now()).await })
        })
        .collect();
    let mut new = 0;
    for attempt in attempts {
        new += usize::from(attempt.await.unwrap());
    }
    assert_eq!(new, 1);
}

#[tokio::test]
async fn cleaning_forgets_what_is_older_and_nothing_else() {
    let test = TestDatabase::migrated().await;
    let (database, now) = (test.connect(), Timestamp::now());
    let week = SignedDuration::from_hours(7 * 24);
    let (old, young) = (EventId::new(), EventId::new());
    record(&database, "g", old, now - week - SignedDuration::from_secs(1)).await;
    record(&database, "g", young, now - week + SignedDuration::from_secs(1)).await;
    assert_eq!(inbox::clean(&database, now - week).await.unwrap(), 1);
    assert!(!seen(&database, "g", old).await);
    assert!(seen(&database, "g", young).await);
}
