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
