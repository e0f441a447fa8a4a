//! Asks about an order until it has ended.

use std::{io, time::Duration};

use serde_json::Value;
use shared_events::OrderId;
use tokio::time::{Instant, sleep};

use super::{
    api::{Api, ApiError, Order},
    timeline::is_settled,
};

/// How long what follows an order's end (mail, stock, refund) is awaited.
const SETTLE_WITHIN: Duration = Duration::from_millis(1000);

/// How often an order is asked about: at first, and at most; the pause grows by half.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub first: Duration,
    pub longest: Duration,
}

impl Pace {
    /// For somebody who looks on.
    pub const LIVE: Pace = Pace { first: Duration::from_millis(60), longest: Duration::from_millis(60) };
}

/// How following an order came to an end.
pub enum Followed {
    /// The order ended. Its last answer, taken apart and as it came.
    Ended(Order, Value),
    /// Time was up; the trouble is why the last question got no answer.
    TimedOut { trouble: Option<ApiError> },
}

/// Asks about order `id` until it has ended or `until` has come; `seen` is told every answer, and whether it is the last.
///
/// # Errors
/// When order-service says that asking again will not help. That it is away for a while is no error.
pub async fn follow(
    api: &Api,
    id: OrderId,
    until: Option<Instant>,
    pace: Pace,
    mut seen: impl FnMut(&Order, bool) -> io::Result<()>,
) -> anyhow::Result<Followed> {
    let mut pause = pace.first;
    let mut settle_until = None;
    loop {
        let trouble = match api.order(id).await {
            Ok((order, value)) if order.has_ended() => {
                let last = is_settled(&order)
                    || Instant::now() >= *settle_until.get_or_insert_with(|| Instant::now() + SETTLE_WITHIN);
                seen(&order, last)?;
                if last {
                    return Ok(Followed::Ended(order, value));
                }
                None
            }
            Ok((order, _)) => {
                seen(&order, false)?;
                None
            }
            Err(error) if error.is_transient() => Some(error),
            Err(error) => return Err(error.into()),
        };
        let time_is_up = until.is_some_and(|until| Instant::now() >= until);
        if time_is_up && settle_until.is_none() {
            return Ok(Followed::TimedOut { trouble });
        }
        sleep(pause).await;
        pause = (pause + pause / 2).min(pace.longest);
    }
}
