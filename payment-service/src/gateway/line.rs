//! Waiting in line when the gateway gets too many requests.
//!
//! As long as there is room, requests go side by side. A request that is told to come back later joins a line; whoever
//! comes while there is a line joins it at its end. Only the head of the line asks, so that nobody is overtaken again
//! and again until its handler runs out of time, and the gateway is not stormed whenever it has room for one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};

use super::GatewayError;

/// A gateway that turns a request away does it at once: a request out for longer was let in, and the next may go.
const LET_IN_AFTER: Duration = Duration::from_millis(20);

/// The line before the gateway; clones are the same line.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    /// Held by the head of the line. Tokio's mutex is fair: first come, first served.
    head: Mutex<()>,
}

impl Line {
    /// Makes `request`, repeating it while it is turned away, for up to `patience` and as long as `alive` holds.
    pub async fn pass<T, F>(
        &self,
        patience: Duration,
        alive: impl Fn() -> bool,
        request: impl Fn() -> F,
    ) -> Result<T, GatewayError>
    where
        F: Future<Output = Result<T, GatewayError>>,
    {
        let deadline = Instant::now() + patience;
        if !alive() {
            return Err(GatewayError::RateLimited(Duration::ZERO));
        }
        if self.0.waiting.load(Ordering::Relaxed) == 0 {
            match request().await {
                Err(GatewayError::RateLimited(_)) => {}
                answer => return answer,
            }
        }
        let _waiting = Waiting::count(&self.0.waiting);
        loop {
            match self.pass_in_line(deadline, &alive, &request).await {
                // Let in late, and turned away even later: to the end of the line.
                Err(GatewayError::RateLimited(wait)) if alive() && Instant::now() + wait < deadline => {}
                answer => return answer,
            }
        }
    }

    async fn pass_in_line<T, F>(
        &self,
        deadline: Instant,
        alive: &impl Fn() -> bool,
        request: &impl Fn() -> F,
    ) -> Result<T, GatewayError>
    where
        F: Future<Output = Result<T, GatewayError>>,
    {
        let too_long = |_| GatewayError::RateLimited(Duration::ZERO);
        let head = timeout_at(deadline, self.0.head.lock()).await.map_err(too_long)?;
        loop {
            if !alive() {
                return Err(GatewayError::RateLimited(Duration::ZERO));
            }
            let mut answer = std::pin::pin!(request());
            let turned_away = tokio::select! {
                answer = &mut answer => match answer {
                    Err(GatewayError::RateLimited(wait)) => wait,
                    answer => return answer,
                },
                () = sleep(LET_IN_AFTER) => {
                    drop(head);
                    return answer.await;
                }
            };
            if Instant::now() + turned_away >= deadline {
                return Err(GatewayError::RateLimited(turned_away));
            }
            sleep(turned_away).await;
        }
    }
}

/// Counts one more in line for as long as it lives, also when its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(waiting: &'a AtomicUsize) -> Waiting<'a> {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use futures_util::future::join_all;

    use super::*;

    const TURNED_AWAY: Duration = Duration::from_millis(10);
    const PATIENCE: Duration = Duration::from_secs(10);

    fn turned_away() -> GatewayError {
        GatewayError::RateLimited(TURNED_AWAY)
    }

    #[tokio::test]
    async fn with_room_requests_go_side_by_side() {
        let line = Line::default();
        let begun = Instant::now();
        let requests = (0..100).map(|_| {
            line.pass(
                PATIENCE,
                || true,
                || async {
                    sleep(Duration::from_millis(50)).await;
                    Ok(())
                },
            )
        });
        assert!(join_all(requests).await.iter().all(Result::is_ok));
        assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn who_was_turned_away_first_goes_first() {
        let line = Line::default();
        let (asked, served) = (AtomicU32::new(0), std::sync::Mutex::new(Vec::new()));
        let (asked, served) = (&asked, &served);
        // Everybody is turned away once before there is a line, and the head of the line twice.
        let requests = (0..10).map(|number| {
            line.pass(
                PATIENCE,
                || true,
                move || async move {
                    if asked.fetch_add(1, Ordering::Relaxed) < 12 {
                        return Err(turned_away());
                    }
                    served.lock().unwrap().push(number);
                    Ok(())
                },
            )
        });
        assert!(join_all(requests).await.iter().all(Result::is_ok));
        assert_eq!(*served.lock().unwrap(), (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_slow_answer_does_not_hold_the_line_up() {
        let line = Line::default();
        let asked = AtomicU32::new(0);
        let asked = &asked;
        let begun = Instant::now();
        let requests = (0..10).map(|_| {
            line.pass(
                PATIENCE,
                || true,
                move || async move {
                    if asked.fetch_add(1, Ordering::Relaxed) < 10 {
                        return Err(turned_away());
                    }
                    sleep(Duration::from_secs(1)).await;
                    Ok(())
                },
            )
        });
        assert!(join_all(requests).await.iter().all(Result::is_ok));
        assert!(begun.elapsed() < Duration::from_secs(4), "one after the other: {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn with_room_too_nobody_asks_who_is_no_longer_alive() {
        let asked = AtomicU32::new(0);
        let request = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let waited = Line::default().pass(PATIENCE, || false, request).await;
        assert!(matches!(waited, Err(GatewayError::RateLimited(_))));
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn patience_and_life_end_the_wait() {
        let line = Line::default();
        let waited = line.pass(TURNED_AWAY * 5, || true, || async { Err::<(), _>(turned_away()) }).await;
        assert!(matches!(waited, Err(GatewayError::RateLimited(_))));
        let asked = AtomicU32::new(0);
        let asked = &asked;
        let alive = || asked.load(Ordering::Relaxed) < 3;
        let waited = line
            .pass(PATIENCE, alive, move || async move {
                asked.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(turned_away())
            })
            .await;
        assert!(matches!(waited, Err(GatewayError::RateLimited(_))));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        assert_eq!(line.0.waiting.load(Ordering::Relaxed), 0, "nobody waits any more");
    }
}
