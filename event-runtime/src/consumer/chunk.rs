//! Several attempts in one task, as long as their handlers answer at once: a task of its own costs more than such a handler.
//!
//! ```text
//!  attempt 1 ── answered ──▶ outcome
//!  attempt 2 ── waits ─────▶ handed back, and goes on in a task of its own
//!  attempt 3 ── answered ──▶ outcome
//!       ⋮      chunk's time is up: the rest is handed back unbegun
//! ```
//!
//! None waits for another that waits. One that blocks its thread holds up the rest of its chunk as well: that is why a
//! chunk begins with one attempt, and grows only while all of them answer at once.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

use crate::scheduler::Outcome;

/// An attempt that runs.
pub(super) type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// How long a chunk should take at most.
const TARGET: Duration = Duration::from_micros(200);
/// How many attempts are in one at most: all of them are in one thread's hands, and others may have nothing to do.
const MOST: usize = 32;

/// How an attempt stands at the end of its chunk.
pub(super) enum Polled {
    Ended(Outcome),
    /// It waits, or was not begun.
    Runs(Running),
}

/// A chunk at its end.
pub(super) struct ChunkEnded {
    /// Each in its place.
    pub(super) attempts: Vec<Polled>,
    /// What they took, if all of them answered at once.
    pub(super) at_once: Option<Duration>,
}

/// Runs an attempt to its end; what that took, if it answered at once.
pub(super) async fn run_one(attempt: impl Future<Output = Outcome>) -> (Outcome, Option<Duration>) {
    let begun = Instant::now();
    let mut attempt = pin!(attempt);
    match poll_once(attempt.as_mut()).await {
        Poll::Ready(outcome) => (outcome, Some(begun.elapsed())),
        Poll::Pending => (attempt.await, None),
    }
}

/// Lets each attempt run until it waits.
pub(super) async fn run_chunk(attempts: Vec<impl Future<Output = Outcome> + Send + 'static>) -> ChunkEnded {
    let begun = Instant::now();
    let mut polled = Vec::with_capacity(attempts.len());
    for attempt in attempts {
        let mut attempt: Running = Box::pin(attempt);
        // What is not begun can still be given up, should its partition be taken away while another blocks the thread.
        let answer = match polled.is_empty() || begun.elapsed() < TARGET {
            true => poll_once(attempt.as_mut()).await,
            false => Poll::Pending,
        };
        polled.push(match answer {
            Poll::Ready(outcome) => Polled::Ended(outcome),
            Poll::Pending => Polled::Runs(attempt),
        });
    }
    let all_answered = polled.iter().all(|attempt| matches!(attempt, Polled::Ended(_)));
    ChunkEnded { attempts: polled, at_once: all_answered.then(|| begun.elapsed()) }
}

async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// How many attempts to put into one task.
#[derive(Debug)]
pub(super) struct ChunkSize(usize);

impl ChunkSize {
    pub(super) fn new() -> ChunkSize {
        ChunkSize(1)
    }

    pub(super) fn get(&self) -> usize {
        self.0
    }

    /// Learns from so many attempts in one task; what they took, if all of them answered at once.
    pub(super) fn ended(&mut self, attempts: usize, at_once: Option<Duration>) {
        if at_once.is_none_or(|took| took >= TARGET) {
            self.0 = (self.0 / 2).max(1);
        } else if attempts >= self.0 {
            self.0 = (self.0 * 2).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, thread};

    use super::*;

    const HANDLED: Outcome = Outcome::Handled { proves_dependency: true };

    fn is_handled(outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::Handled { proves_dependency: true })
    }

    fn boxed(attempt: impl Future<Output = Outcome> + Send + 'static) -> Running {
        Box::pin(attempt)
    }

    fn ended(chunk: &ChunkEnded) -> Vec<bool> {
        chunk.attempts.iter().map(|polled| matches!(polled, Polled::Ended(_))).collect()
    }

    #[tokio::test]
    async fn what_waits_holds_up_nobody_and_is_handed_back() {
        let (answer, question) = tokio::sync::oneshot::channel();
        let waits = async move {
            question.await.unwrap();
            HANDLED
        };
        let chunk = run_chunk(vec![boxed(ready(HANDLED)), boxed(waits), boxed(ready(HANDLED))]).await;
        assert_eq!(ended(&chunk), [true, false, true]);
        let Polled::Runs(waiting) = chunk.attempts.into_iter().nth(1).unwrap() else { panic!("it has waited") };
        answer.send(()).unwrap();
        assert!(is_handled(&tokio::spawn(waiting).await.unwrap()));
    }

    #[tokio::test]
    async fn behind_one_that_takes_long_nothing_is_begun() {
        let slow = async {
            thread::sleep(TARGET);
            HANDLED
        };
        let never = async { panic!("not to be begun") };
        let chunk = run_chunk(vec![boxed(slow), boxed(never)]).await;
        assert_eq!(ended(&chunk), [true, false]);
        assert_eq!(chunk.at_once, None);
    }

    #[tokio::test]
    async fn whether_an_attempt_answered_at_once_is_told() {
        let (outcome, at_once) = run_one(ready(HANDLED)).await;
        assert!(is_handled(&outcome) && at_once.is_some());
        let waits = async {
            tokio::task::yield_now().await;
            HANDLED
        };
        let (outcome, at_once) = run_one(waits).await;
        assert!(is_handled(&outcome) && at_once.is_none());
    }

    #[test]
    fn chunks_grow_while_all_answer_at_once_and_shrink_otherwise() {
        let (mut size, quick) = (ChunkSize::new(), Some(TARGET / 10));
        size.ended(1, quick);
        size.ended(2, quick);
        assert_eq!(size.get(), 4);
        size.ended(3, quick);
        assert_eq!(size.get(), 4, "it was not full");
        size.ended(4, None);
        assert_eq!(size.get(), 2);
        size.ended(2, Some(TARGET));
        size.ended(1, Some(TARGET));
        assert_eq!(size.get(), 1);
        for _ in 0..20 {
            size.ended(size.get(), quick);
        }
        assert_eq!(size.get(), MOST);
    }
}
