//! The inbox of a group as the simulation has it, and that it answers as the real one does.

use std::collections::HashMap;

use event_runtime::{inbox, inbox::Fate};
use jiff::Timestamp;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use shared_events::EventId;

use crate::stage::TestDatabase;

/// Which replay of an event was dead-lettered last, or that it was handled: one row an event.
#[derive(Default)]
pub struct Inbox(HashMap<u32, Option<u32>>);

impl Inbox {
    /// As [`inbox::seen`].
    pub fn seen(&self, event: u32, replay: u32) -> bool {
        self.0.get(&event).is_some_and(|dead| dead.is_none_or(|dead| dead >= replay))
    }

    /// As [`inbox::record`], and, for [`Fate::Handled`] without a replay, as [`inbox::record_all`].
    pub fn record(&mut self, event: u32, replay: u32, fate: Fate) -> bool {
        let new = !self.seen(event, replay);
        if new {
            self.0.insert(event, (fate == Fate::Dead).then_some(replay));
        }
        new
    }

    /// What became of an event.
    pub fn fate(&self, event: u32) -> Option<Fate> {
        self.0.get(&event).map(|dead| if dead.is_some() { Fate::Dead } else { Fate::Handled })
    }
}

#[tokio::test]
async fn the_simulated_inbox_answers_as_the_real_one() {
    let test = TestDatabase::migrated().await;
    let (database, now) = (test.connect(), Timestamp::now());
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let events: Vec<_> = (0..40).map(|_| EventId::new()).collect();
    let mut simulated = Inbox::default();
    for step in 0..400 {
        let event = random.random_range(0..events.len());
        let (id, number, replay) = (events[event], event as u32, random.random_range(0..3));
        let mut tx = database.begin().await.unwrap();
        let (real, expected) = match random.random_range(0..4) {
            0 => (inbox::seen(&mut tx, "g", id, replay).await.unwrap(), simulated.seen(number, replay)),
            1 => {
                let new = inbox::record_all(&mut tx, "g", vec![id], now).await.unwrap();
                (new.contains(&id), simulated.record(number, 0, Fate::Handled))
            }
            kind => {
                let fate = if kind == 2 { Fate::Handled } else { Fate::Dead };
                let real = inbox::record(&mut tx, "g", id, replay, fate, now).await.unwrap();
                (real, simulated.record(number, replay, fate))
            }
        };
        tx.commit().await.unwrap();
        assert_eq!(real, expected, "step {step} of seed {seed}");
    }
}
