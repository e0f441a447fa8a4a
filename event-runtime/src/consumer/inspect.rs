//! What a consumer has in hand, for people who ask why an order is stuck.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::router::Job;
use crate::{
    error::Chain,
    scheduler::{InHand, State},
};

/// A record in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InFlight {
    /// The consumer group.
    pub group: &'static str,
    /// The event's type.
    pub event: String,
    /// The event's id.
    pub event_id: String,
    /// Where it stands: topic.
    pub topic: String,
    /// Where it stands: partition.
    pub partition: i32,
    /// Where it stands: offset.
    pub offset: i64,
    /// The attempt that runs, or is next.
    pub attempt: u32,
    /// What it is doing.
    pub state: InFlightState,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// When the next attempt is due.
    pub next_retry_at: Option<Timestamp>,
}

/// What a record in hand is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InFlightState {
    /// An attempt runs.
    Running,
    /// It waits for its next attempt.
    Waiting,
    /// It waits for its turn, or for an earlier record of its key.
    Queued,
    /// It waits for a dependency that is away.
    Paused,
}

impl InFlight {
    /// `now` and `wall` are the same moment, by the scheduler's time and by the clock.
    pub(super) fn new(group: &'static str, in_hand: &InHand<Arc<Job>>, now: Duration, wall: Timestamp) -> InFlight {
        let job = &in_hand.payload;
        let (state, next_retry_at) = match in_hand.state {
            State::Running => (InFlightState::Running, None),
            State::Queued => (InFlightState::Queued, None),
            State::Paused => (InFlightState::Paused, None),
            State::Waiting(until) => {
                let pause = SignedDuration::try_from(until.saturating_sub(now)).unwrap_or(SignedDuration::ZERO);
                (InFlightState::Waiting, wall.checked_add(pause).ok())
            }
        };
        let origin = &job.record.origin;
        InFlight {
            group,
            event: job.event_type().to_owned(),
            event_id: job.event_id(),
            topic: origin.topic.to_string(),
            partition: origin.partition,
            offset: origin.offset,
            attempt: in_hand.attempt,
            state,
            last_error: in_hand.last_error.as_ref().map(|error| Chain(error.source_error().as_ref()).to_string()),
            next_retry_at,
        }
    }
}
