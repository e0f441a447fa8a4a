//! What the relay asks the database, and for how long it waits for an answer.
//!
//! On PostgreSQL the relay has connections of its own. The server ends on them what takes too long: a statement, a wait for
//! a lock (the one at a commit as well, which `statement_timeout` leaves out), a transaction whose client says nothing more.
//! So a statement that was given up does not hold locks against the next attempt. Where not even that answer arrives, since
//! the network is gone, say, the relay stops waiting by itself.
//!
//! A future of sqlx that is dropped in the middle of a query does not close its connection: the pool first waits for the
//! rest of the answer (`return_to_pool` of sqlx-core 0.9, which pings), for ever if need be, and counts the connection
//! until then. Only in a closed pool is it closed. So the pool is closed before the future is dropped, and the relay goes on
//! with a new one; nothing that was left in an unknown state is used again. (A connection that hangs while it is given back
//! after its work was done stays open until the system gives the network up, out of use.)
//!
//! What was given up may still take effect, up to a commit that hung: it takes it whole, and under locks on the rows of
//! `outbox_bucket` that make whatever is tried next wait for it. Rows that were removed are those that Kafka has; leases
//! that were taken or given back show at the next look; what was noted by [`OnPublished`](super::OnPublished) may be noted
//! twice, as it always may.

use std::{
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::time::{Instant, timeout};

use super::waiting::Waiting;
use crate::{Database, database::Dialect};

pub(super) struct Session {
    of: Database,
    service: &'static str,
    /// How long the database is given at first.
    patience: Duration,
    now: Mutex<Now>,
    pub timeouts: Counter,
    waiting: Arc<Waiting>,
}

/// What the relay asks at the moment, and how long that may take.
struct Now {
    database: Database,
    patience: Duration,
}

impl Now {
    fn new(of: &Database, patience: Duration) -> Now {
        Now { database: of.apart(patience.mul_f64(SERVERS_PART)), patience }
    }
}

/// The server ends a statement before the relay does: its answer leaves the connection in a known state.
const SERVERS_PART: f64 = 0.8;
/// The patience doubles each time it ends, up to so many times the first one: work that takes long, and not for ever, gets done.
const MOST_PATIENT: u32 = 8;

/// For any piece of the relay's work, of a few short statements each. Longer than what may be in order: 5 s for a
/// connection on PostgreSQL; on SQLite 10 s for the connection that writes and 10 s for the lock of another process. There is
/// no hurry either: where only one relay is held up, another has its buckets after 5 s.
fn patience(dialect: Dialect) -> Duration {
    match dialect {
        Dialect::Postgres => Duration::from_secs(10),
        Dialect::Sqlite => Duration::from_secs(25),
    }
}

impl Session {
    pub fn new(of: Database, service: &'static str, waiting: Arc<Waiting>) -> Session {
        let patience = patience(of.dialect());
        let now = Mutex::new(Now::new(&of, patience));
        Session { of, service, patience, now, timeouts: Counter::default(), waiting }
    }

    pub fn with_patience(mut self, patience: Duration) -> Session {
        self.patience = patience;
        self.now = Mutex::new(Now::new(&self.of, patience));
        self
    }

    /// What to ask [`within`](Session::within) the time there is.
    pub fn database(&self) -> Database {
        self.now().database.clone()
    }

    /// Waits for the answer to `ask`, which is `what`. One that does not come is an error like any other.
    pub async fn within<T>(
        &self,
        what: &'static str,
        ask: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let (began, patience) = (Instant::now(), self.now().patience);
        let mut ask = pin!(ask);
        let error = match timeout(patience, ask.as_mut()).await {
            Ok(Err(error)) if ended_by_server(&error) => error,
            Ok(answer) => return answer,
            Err(_) => sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer to {what}"))),
        };
        // Here, before `ask` is dropped.
        self.renew((patience * 2).min(self.patience * MOST_PATIENT));
        self.timeouts.inc();
        let (seconds, error_text) = (began.elapsed().as_secs_f64(), error.to_string());
        tracing::warn!(
            service = self.service,
            waited_for = what,
            seconds,
            error = error_text,
            rows = self.waiting.rows(),
            in_hand = self.waiting.in_hand(),
            "the database does not answer the relay; events wait in the outbox, and it goes on with a new connection"
        );
        Err(error)
    }

    /// All that was asked was answered.
    pub fn answered(&self) {
        if self.now().patience != self.patience {
            self.renew(self.patience);
        }
    }

    fn renew(&self, patience: Duration) {
        let former = std::mem::replace(&mut *self.now(), Now::new(&self.of, patience));
        former.database.abandon();
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.now().database.abandon();
    }
}

/// `query_canceled`, `lock_not_available`, `idle_in_transaction_session_timeout`.
fn ended_by_server(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("57014" | "55P03" | "25P03"))
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn what_takes_longer_than_the_patience_gets_done_when_it_is_tried_again() {
        let database = Database::connect_lazy("sqlite::memory:").unwrap();
        let session = Session::new(database, "test", Arc::default()).with_patience(Duration::from_millis(10));
        // Not what only takes a little too long: on a busy machine that is there when the patience is looked at.
        let never =
            async || session.within::<()>("a long answer", std::future::pending()).await.unwrap_err().to_string();
        for _ in 0..3 {
            assert_eq!(never().await, "error communicating with database: no answer to a long answer");
        }
        let slow = async {
            sleep(Duration::from_millis(50)).await;
            Ok(())
        };
        session.within("a long answer", slow).await.unwrap();
        assert_eq!((session.timeouts.get(), session.now().patience), (3, Duration::from_millis(80)));

        // And then it is as strict again as it was.
        session.answered();
        assert_eq!(session.now().patience, Duration::from_millis(10));
        for _ in 0..5 {
            never().await;
        }
        assert_eq!(session.now().patience, Duration::from_millis(80), "there is a limit to it");
    }

    #[tokio::test]
    async fn an_error_is_an_answer() {
        let database = Database::connect_lazy("sqlite::memory:").unwrap();
        let session = Session::new(database, "test", Arc::default());
        let answer = session.within("nothing", async { Err::<(), _>(sqlx::Error::RowNotFound) }).await;
        assert!(matches!(answer, Err(sqlx::Error::RowNotFound)), "{answer:?}");
        assert_eq!((session.timeouts.get(), session.now().patience), (0, session.patience));
    }

    /// Needs PostgreSQL: on SQLite the connections are everybody's.
    #[tokio::test]
    async fn a_session_that_ends_leaves_no_connection_behind() {
        let Ok(url) = std::env::var("TEST_DATABASE_URL") else { return };
        let database = Database::connect_lazy(&url).unwrap();
        let session = Session::new(database.clone(), "test", Arc::default());
        let apart = session.database();
        assert!(!apart.pool().is_closed());
        drop(session);
        assert!(apart.pool().is_closed() && !database.pool().is_closed());
    }
}
