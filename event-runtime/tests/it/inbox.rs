//! Which events were handled is a set: an id counts once, however the ids alternate.

use std::collections::HashSet;

use event_runtime::{
    Database,
    inbox::{self, Fate},
};
use jiff::{SignedDuration, Timestamp};
use shared_events::EventId;

use crate::stage::TestDatabase;

async fn record(database: &Database, group: &str, event: EventId, now: Timestamp) -> bool {
    let mut tx = database.begin().await.unwrap();
    let new = inbox::record(&mut tx, group, event, 0, Fate::Handled, now).await.unwrap();
    tx.commit().await.unwrap();
    new
}

async fn seen(database: &Database, group: &str, event: EventId) -> bool {
    let mut tx = database.begin().await.unwrap();
    let seen = inbox::seen(&mut tx, group, event, 0).await.unwrap();
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
    assert!(inbox::record(&mut tx, "g", event, 0, Fate::Handled, Timestamp::now()).await.unwrap());
    assert!(inbox::seen(&mut tx, "g", event, 0).await.unwrap());
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
async fn of_many_events_those_are_new_that_are_not_in_the_inbox_in_whichever_way() {
    let test = TestDatabase::migrated().await;
    let (database, now) = (test.connect(), Timestamp::now());
    let (handled, elsewhere, dead) = (EventId::new(), EventId::new(), EventId::new());
    record(&database, "g", handled, now).await;
    record(&database, "other", elsewhere, now).await;
    take(&database, dead, Bury(0)).await;
    for count in [1, 2, 3, 255, 256, 257, 600] {
        let new: HashSet<EventId> = (0..count).map(|_| EventId::new()).collect();
        let twice = *new.iter().next().unwrap();
        let mut events: Vec<EventId> = new.iter().copied().collect();
        events.extend([handled, dead, twice]);
        let mut tx = database.begin().await.unwrap();
        assert_eq!(inbox::record_all(&mut tx, "g", events.clone(), now).await.unwrap(), new, "of {count}");
        assert_eq!(inbox::record_all(&mut tx, "g", events, now).await.unwrap(), HashSet::new());
        tx.commit().await.unwrap();
        assert!(!take(&database, twice, Bury(0)).await, "it is handled, not dead");
        assert!(!take(&database, twice, Handle(1)).await, "so no replay gets through");
    }
    let mut tx = database.begin().await.unwrap();
    assert_eq!(inbox::record_all(&mut tx, "g", vec![elsewhere], now).await.unwrap(), HashSet::from([elsewhere]));
    assert_eq!(inbox::record_all(&mut tx, "g", Vec::new(), now).await.unwrap(), HashSet::new());
}

/// What can happen to one event: it is handled, or its record or a replay of it is dead-lettered.
#[derive(Clone, Copy)]
enum Step {
    Handle(u32),
    Bury(u32),
}
use Step::{Bury, Handle};

async fn take(database: &Database, event: EventId, step: Step) -> bool {
    let (mut tx, now) = (database.begin().await.unwrap(), Timestamp::now());
    let (Handle(replay) | Bury(replay)) = step;
    let known = inbox::seen(&mut tx, "g", event, replay).await.unwrap();
    let fate = match step {
        Handle(_) => Fate::Handled,
        Bury(_) => Fate::Dead,
    };
    let new = inbox::record(&mut tx, "g", event, replay, fate, now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(known, !new, "both must say the same");
    new
}

#[tokio::test]
async fn a_replay_gets_through_behind_earlier_dead_letters_only() {
    let test = TestDatabase::migrated().await;
    let database = test.connect();
    let histories: [&[(Step, bool)]; 6] = [
        // Dead-lettered, repeated, replayed, repeated.
        &[(Bury(0), true), (Bury(0), false), (Handle(0), false), (Handle(1), true), (Handle(1), false)],
        // The letter was written, its row was not, and the record was delivered again and handled.
        &[(Handle(0), true), (Bury(0), false), (Handle(1), false), (Handle(2), false)],
        // The same, but the replay was faster than the second delivery.
        &[(Handle(1), true), (Handle(0), false), (Bury(0), false), (Bury(1), false), (Handle(2), false)],
        // The replay fails as well; the letter before it is no longer worth a replay.
        &[
            (Bury(0), true),
            (Bury(1), true),
            (Handle(1), false),
            (Bury(0), false),
            (Handle(2), true),
            (Handle(3), false),
        ],
        // Not decodable, so without a row until the replay.
        &[(Bury(1), true), (Handle(0), false), (Handle(2), true)],
        &[(Bury(0), true), (Handle(2), true), (Handle(1), false)],
    ];
    for (number, history) in histories.iter().enumerate() {
        let event = EventId::new();
        for (index, (step, gets_through)) in history.iter().enumerate() {
            assert_eq!(take(&database, event, *step).await, *gets_through, "history {number}, step {index}");
        }
    }
}

/// Such rows do not say whether the event was handled or dead-lettered.
#[tokio::test]
async fn a_row_from_before_dead_letters_were_told_apart_lets_a_replay_through() {
    let test = TestDatabase::migrated().await;
    let (database, event) = (test.connect(), EventId::new());
    let mut tx = database.begin().await.unwrap();
    sqlx::query("INSERT INTO inbox (consumer_group, event_id, handled_at) VALUES ('g', $1, 1)")
        .bind(event.to_string())
        .execute(tx.conn())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    for (step, gets_through) in [(Handle(0), false), (Handle(1), true), (Handle(2), false)] {
        assert_eq!(take(&database, event, step).await, gets_through);
    }
}

#[tokio::test]
async fn what_is_forgotten_is_new_again_for_its_group_only_and_counted() {
    let test = TestDatabase::migrated().await;
    let (database, now) = (test.connect(), Timestamp::now());
    let [one, two, kept, unknown] = [(); 4].map(|()| EventId::new());
    for (group, event) in [("g", one), ("g", two), ("g", kept), ("other", one)] {
        record(&database, group, event, now).await;
    }
    assert_eq!(inbox::forget(&database, "g", &[one, unknown, two]).await.unwrap(), 2);
    let mut known = Vec::new();
    for (group, event) in [("g", one), ("g", two), ("g", kept), ("other", one)] {
        known.push(seen(&database, group, event).await);
    }
    assert_eq!(known, [false, false, true, true]);
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

/// Each batch is a transaction of its own, so that handlers get their turn in between and a failure undoes one batch only.
#[tokio::test]
async fn cleaning_goes_in_small_batches_from_the_oldest_on() {
    let test = TestDatabase::migrated().await;
    if !test.is_sqlite() {
        // Its trigger is written otherwise; the statement is the same.
        return;
    }
    let database = test.connect();
    let mut tx = database.begin().await.unwrap();
    for statement in [
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) \
         INSERT INTO inbox (consumer_group, event_id, handled_at) SELECT 'g', 'event-' || i, i FROM n",
        "CREATE TRIGGER kept BEFORE DELETE ON inbox WHEN old.event_id = 'event-2400' \
         BEGIN SELECT RAISE(ABORT, 'not this one'); END",
    ] {
        sqlx::query(statement).execute(tx.conn()).await.unwrap();
    }
    tx.commit().await.unwrap();

    inbox::clean(&database, Timestamp::now()).await.unwrap_err();
    let (left, oldest): (i64, i64) =
        sqlx::query_as("SELECT COUNT(*), MIN(handled_at) FROM inbox").fetch_one(database.pool()).await.unwrap();
    assert_eq!((left, oldest), (500, 2001), "two batches of a thousand are gone, the third is not");
}
