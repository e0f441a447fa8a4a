use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(10);

/// Asks `condition` until it answers `Ok`, and returns what it says. `Err` carries what was seen instead.
///
/// ```
/// # use std::time::Duration;
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut calls = 0;
/// let third = test_support::eventually(Duration::from_secs(5), "a third call", async || {
///     calls += 1;
///     if calls == 3 { Ok(calls) } else { Err(format!("{calls} calls")) }
/// });
/// assert_eq!(third.await, 3);
/// # });
/// ```
///
/// # Panics
/// When `deadline` passes first; the message says `what` was awaited and what was seen last. A condition that hangs is
/// cut off at the deadline too.
pub async fn eventually<T, S: Debug>(
    deadline: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let end = Instant::now() + deadline;
    let mut seen = None;
    loop {
        match tokio::time::timeout_at(end.into(), condition()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(state)) => seen = Some(state),
            Err(_) => {}
        }
        match (Instant::now() >= end, &seen) {
            (true, Some(state)) => panic!("no {what} within {deadline:?}; seen last: {state:?}"),
            (true, None) => panic!("no {what} within {deadline:?}; the condition did not answer in that time"),
            (false, _) => tokio::time::sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::eventually;
    use std::time::Duration;

    #[tokio::test]
    #[should_panic(expected = "no rain within 30ms; seen last: \"sun\"")]
    async fn a_condition_that_never_holds_says_what_was_seen() {
        eventually::<(), _>(Duration::from_millis(30), "rain", async || Err("sun")).await;
    }

    #[tokio::test]
    #[should_panic(expected = "the condition did not answer")]
    async fn a_condition_that_hangs_is_cut_off() {
        eventually::<(), ()>(Duration::from_millis(30), "answer", async || std::future::pending().await).await;
    }
}
