//! What makes a relay look into the outbox: a commit in this process, a commit elsewhere, or the clock.

use std::{sync::Arc, time::Duration};

use sqlx::postgres::PgListener;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::{Database, database::Dialect};

const CHANNEL: &str = "event_runtime_outbox";

/// The bells of one relay.
pub(super) struct Wake {
    database: Database,
    committed: watch::Receiver<u64>,
    elsewhere: Arc<Notify>,
    /// Listens on a connection of its own; ends with this.
    _listener: JoinSet<()>,
}

/// Which bell rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bell {
    /// A transaction of this process put rows into the outbox.
    Here,
    /// Another process says that there are rows, or that the lease is free.
    Elsewhere,
}

impl Wake {
    pub fn new(database: &Database) -> Wake {
        let elsewhere = Arc::new(Notify::new());
        let mut listener = JoinSet::new();
        if database.dialect() == Dialect::Postgres {
            listener.spawn(listen(database.clone(), Arc::clone(&elsewhere)));
        }
        Wake { database: database.clone(), committed: database.commits(), elsewhere, _listener: listener }
    }

    /// Waits for a bell. May be dropped at any time without losing one.
    pub async fn rung(&mut self) -> Bell {
        tokio::select! {
            // The sender lives in `database`, so there is one.
            _ = self.committed.changed() => Bell::Here,
            () = self.elsewhere.notified() => Bell::Elsewhere,
        }
    }

    /// How long to wait for a bell at most. On SQLite nothing tells of other processes' commits; on PostgreSQL this only
    /// covers a notification that got lost.
    pub fn poll_interval(&self) -> Duration {
        match self.database.dialect() {
            Dialect::Sqlite => Duration::from_millis(100),
            Dialect::Postgres => Duration::from_millis(500),
        }
    }

    /// Rings the bell of the relays in other processes.
    ///
    /// The writers themselves do not notify: NOTIFY inside a transaction makes PostgreSQL commit all such transactions
    /// one after the other. A relay that does not publish passes the bell on, once for any number of commits.
    pub async fn ring_elsewhere(&self) -> Result<(), sqlx::Error> {
        if self.database.dialect() == Dialect::Postgres {
            sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(self.database.pool()).await?;
        }
        Ok(())
    }
}

async fn listen(database: Database, bell: Arc<Notify>) {
    loop {
        if let Err(error) = listen_once(&database, &bell).await {
            tracing::debug!(%error, "not listening for notifications; polling meanwhile");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn listen_once(database: &Database, bell: &Notify) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect(database.connection_url()).await?;
    listener.listen(CHANNEL).await?;
    loop {
        // A notification, or a connection that was lost and made again: in both cases there may be something.
        listener.try_recv().await?;
        bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use shared_events::{CorrelationId, OrderDeadlineReached, OrderId};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::{Clock, Outbox};

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_commit_with_events_rings_the_bells_of_all_relays_of_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
        database.migrate(&[]).await.unwrap();
        let (mut one, mut other) = (Wake::new(&database), Wake::new(&database));

        let mut outbox = Outbox::root("test", CorrelationId::new(), Clock::system().now());
        outbox.publish(&OrderDeadlineReached { order_id: OrderId::new() }).unwrap();
        // The commit comes first and the wait later: a bell is never missed.
        database.commit(database.begin().await.unwrap(), outbox).await.unwrap();
        assert_eq!(timeout(PATIENCE, one.rung()).await.unwrap(), Bell::Here);
        assert_eq!(timeout(PATIENCE, other.rung()).await.unwrap(), Bell::Here);

        let nothing = Outbox::root("test", CorrelationId::new(), Clock::system().now());
        database.commit(database.begin().await.unwrap(), nothing).await.unwrap();
        assert!(one.rung().now_or_never().is_none(), "rung for a commit without events");
    }

    /// Needs PostgreSQL: SQLite has no way to tell another process.
    #[tokio::test]
    async fn a_bell_rung_in_another_process_is_heard() {
        let Ok(url) = std::env::var("TEST_DATABASE_URL") else { return };
        let (here, elsewhere) = (Database::connect_lazy(&url).unwrap(), Database::connect_lazy(&url).unwrap());
        let (mut listening, ringing) = (Wake::new(&here), Wake::new(&elsewhere));
        let ring_until_heard = async {
            loop {
                // Again and again, because the listener connects in its own time.
                ringing.ring_elsewhere().await.unwrap();
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            bell = timeout(PATIENCE, listening.rung()) => assert_eq!(bell.unwrap(), Bell::Elsewhere),
            () = ring_until_heard => {}
        }
    }
}
