//! What makes a relay look into the outbox: a commit in this process, a commit elsewhere, or the clock.

use std::{sync::Arc, time::Duration};

use sqlx::{AnyConnection, Connection as _, Executor as _, postgres::PgListener};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::bucket::{BUCKETS, Bucket, Buckets};
use crate::{
    Database,
    database::{Dialect, limits},
};

const CHANNEL: &str = "event_runtime_outbox";

/// How many transactions of this process put rows into each bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Commits([u64; BUCKETS as usize]);

impl Commits {
    pub fn add(&mut self, buckets: Buckets) {
        for bucket in buckets.iter() {
            self.0[bucket.index()] += 1;
        }
    }

    /// The buckets that were added to since `earlier`.
    fn since(&self, earlier: &Commits) -> Buckets {
        let grown = |bucket: &Bucket| self.0[bucket.index()] != earlier.0[bucket.index()];
        Buckets::all().iter().filter(grown).collect()
    }
}

/// The bells of one relay.
pub(super) struct Wake {
    database: Database,
    /// Whose bells these are.
    name: String,
    committed: watch::Receiver<Commits>,
    heard: Commits,
    /// Rung in other processes.
    elsewhere: Arc<Elsewhere>,
    /// To be rung in other processes.
    passed_on: Arc<Elsewhere>,
    /// One listens, one rings, each on a connection of its own; they end with this.
    _helpers: JoinSet<()>,
}

/// The bells between processes.
#[derive(Default)]
struct Elsewhere {
    rows: Notify,
    free: Notify,
}

/// Which bell rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bell {
    /// Transactions of this process put rows into these buckets.
    Here(Buckets),
    /// Another process says that there are rows.
    Rows,
    /// Another process says that there are buckets to be had.
    Free,
}

/// What is told to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Rows,
    Free,
}

impl News {
    /// In the words in which the relay of that `name` tells it.
    fn words(self, name: &str) -> String {
        match self {
            News::Rows => format!("rows {name}"),
            News::Free => format!("free {name}"),
        }
    }

    /// What `words` say to the relay of that `name`: nothing if they are its own.
    fn heard(words: &str, name: &str) -> Option<News> {
        match words.split_once(' ') {
            Some((_, ringer)) if ringer == name => None,
            Some(("free", _)) => Some(News::Free),
            // Of another version, say: there is no harm in a look.
            _ => Some(News::Rows),
        }
    }
}

impl Wake {
    /// For the relay of that `name`, which does not hear what it rings itself.
    pub fn new(database: &Database, name: &str) -> Wake {
        let (elsewhere, passed_on) = <(Arc<Elsewhere>, Arc<Elsewhere>)>::default();
        let mut helpers = JoinSet::new();
        if database.dialect() == Dialect::Postgres {
            helpers.spawn(listen(database.clone(), name.to_owned(), Arc::clone(&elsewhere)));
            helpers.spawn(pass_on(database.clone(), name.to_owned(), Arc::clone(&passed_on)));
        }
        let committed = database.commits();
        let heard = *committed.borrow();
        let (database, name) = (database.clone(), name.to_owned());
        Wake { database, name, committed, heard, elsewhere, passed_on, _helpers: helpers }
    }

    /// Waits for a bell. May be dropped at any time without losing one.
    pub async fn rung(&mut self) -> Bell {
        tokio::select! {
            // The sender lives in `database`, so there is one.
            _ = self.committed.changed() => {
                let now = *self.committed.borrow_and_update();
                let buckets = now.since(&self.heard);
                self.heard = now;
                Bell::Here(buckets)
            }
            () = self.elsewhere.rows.notified() => Bell::Rows,
            () = self.elsewhere.free.notified() => Bell::Free,
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

    /// Tells the relays in other processes of rows in `buckets`, unless all of those are `ours`.
    pub fn pass_on(&self, buckets: Buckets, ours: Buckets) {
        if !buckets.without(ours).is_empty() {
            self.ring_elsewhere(News::Rows);
        }
    }

    /// Rings the bell of the relays in other processes, soon: nothing waits for it.
    ///
    /// The writers themselves do not notify: NOTIFY inside a transaction makes PostgreSQL commit all such transactions
    /// one after the other. The relay of their process passes on what is not for itself, once for any number of commits.
    pub fn ring_elsewhere(&self, news: News) {
        match news {
            News::Rows => self.passed_on.rows.notify_one(),
            News::Free => self.passed_on.free.notify_one(),
        }
    }

    /// As [`Wake::ring_elsewhere`], and waits until it is rung: for the last time.
    pub async fn ring_last(&self, news: News) {
        if self.database.dialect() == Dialect::Postgres {
            ring(&mut None, &self.database, &news.words(&self.name)).await;
        }
    }
}

/// How long a bell may take. Whoever does not hear it looks by itself soon after.
const RINGING: Duration = Duration::from_secs(1);

/// Rings what is to be rung, once for any number of times that it was asked for meanwhile. A NOTIFY waits at its commit for
/// one lock of the whole server, so that anybody's NOTIFY can hold it up.
async fn pass_on(database: Database, name: String, bells: Arc<Elsewhere>) {
    let mut connection = None;
    loop {
        let news = tokio::select! {
            () = bells.rows.notified() => News::Rows,
            () = bells.free.notified() => News::Free,
        };
        if !ring(&mut connection, &database, &news.words(&name)).await {
            sleep(RINGING).await;
        }
    }
}

/// Whether it rang. A connection that did not answer is closed, and the server ends what it was at.
async fn ring(connection: &mut Option<AnyConnection>, database: &Database, words: &str) -> bool {
    let taken = connection.take();
    let rung = async {
        let mut ringing = match taken {
            Some(ringing) => ringing,
            None => {
                let mut new = AnyConnection::connect(database.connection_url()).await?;
                new.execute(limits(RINGING)).await?;
                new
            }
        };
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(words).execute(&mut ringing).await?;
        Ok::<_, sqlx::Error>(ringing)
    };
    match timeout(RINGING, rung).await {
        Ok(Ok(ringing)) => *connection = Some(ringing),
        Ok(Err(error)) => tracing::debug!(%error, "the other relays were not told and will notice by polling"),
        Err(_) => tracing::debug!("the other relays were not told within {RINGING:?} and will notice by polling"),
    }
    connection.is_some()
}

async fn listen(database: Database, name: String, bells: Arc<Elsewhere>) {
    loop {
        if let Err(error) = listen_once(&database, &name, &bells).await {
            tracing::debug!(%error, "not listening for notifications; polling meanwhile");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn listen_once(database: &Database, name: &str, bells: &Elsewhere) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect(database.connection_url()).await?;
    listener.listen(CHANNEL).await?;
    loop {
        let Some(notification) = listener.try_recv().await? else {
            // The connection was lost and made again: there may be something.
            bells.rows.notify_one();
            bells.free.notify_one();
            continue;
        };
        match News::heard(notification.payload(), name) {
            Some(News::Rows) => bells.rows.notify_one(),
            Some(News::Free) => bells.free.notify_one(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use shared_events::{CorrelationId, OrderDeadlineReached, OrderId};

    use super::*;
    use crate::{Clock, Outbox};

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_commit_with_events_rings_the_bells_of_all_relays_of_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
        database.migrate(&[]).await.unwrap();
        let (mut one, mut other) = (Wake::new(&database, "one"), Wake::new(&database, "other"));

        let mut outbox = Outbox::root("test", CorrelationId::new(), Clock::system().now());
        let order_id = OrderId::new();
        outbox.publish(&OrderDeadlineReached { order_id }).unwrap();
        let bell = Bell::Here([Bucket::of(order_id.to_string().as_bytes())].into_iter().collect());
        // The commit comes first and the wait later: a bell is never missed.
        database.commit(database.begin().await.unwrap(), outbox).await.unwrap();
        assert_eq!(timeout(PATIENCE, one.rung()).await.unwrap(), bell);
        assert_eq!(timeout(PATIENCE, other.rung()).await.unwrap(), bell);

        let nothing = Outbox::root("test", CorrelationId::new(), Clock::system().now());
        database.commit(database.begin().await.unwrap(), nothing).await.unwrap();
        assert!(one.rung().now_or_never().is_none(), "rung for a commit without events");
    }

    /// Needs PostgreSQL: SQLite has no way to tell another process.
    #[tokio::test]
    async fn a_bell_rung_in_another_process_is_heard() {
        let Ok(url) = std::env::var("TEST_DATABASE_URL") else { return };
        let (here, elsewhere) = (Database::connect_lazy(&url).unwrap(), Database::connect_lazy(&url).unwrap());
        let (mut listening, ringing) = (Wake::new(&here, "here"), Wake::new(&elsewhere, "elsewhere"));
        // Again and again, because the listener connects in its own time.
        let ring_until_heard = async {
            loop {
                ringing.ring_last(News::Free).await;
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            heard = timeout(PATIENCE, listening.rung()) => assert_eq!(heard.unwrap(), Bell::Free),
            () = ring_until_heard => {}
        }
        // From now on each is heard at once, and the next does not wait for long: a second each would be too much.
        let turns = async {
            for (news, expected) in [(News::Rows, Bell::Rows), (News::Free, Bell::Free)].repeat(10) {
                ringing.ring_elsewhere(news);
                while listening.rung().await != expected {}
            }
        };
        timeout(PATIENCE / 2, turns).await.unwrap();
    }

    #[tokio::test]
    async fn a_relay_that_hears_nothing_looks_a_few_times_a_second() {
        let wake = Wake::new(&Database::connect_lazy("sqlite::memory:").unwrap(), "one");
        assert!((Duration::from_millis(50)..Duration::from_secs(1)).contains(&wake.poll_interval()));
    }

    #[tokio::test]
    async fn other_processes_are_told_of_rows_that_are_not_for_this_one() {
        let database = Database::connect_lazy("sqlite::memory:").unwrap();
        let wake = Wake::new(&database, "one");
        let [ours, others] = [1, 2].map(|number| Buckets::from(Bucket::numbered(number).unwrap()));
        for (buckets, told) in [(ours, false), (others, true), (ours | others, true), (Buckets::default(), false)] {
            wake.pass_on(buckets, ours);
            assert_eq!(wake.passed_on.rows.notified().now_or_never().is_some(), told, "{buckets:?}");
        }
        wake.ring_elsewhere(News::Free);
        assert!(wake.passed_on.free.notified().now_or_never().is_some());
    }

    #[test]
    fn a_relay_does_not_hear_what_it_rings_itself() {
        for news in [News::Rows, News::Free] {
            assert_eq!(News::heard(&news.words("one"), "one"), None);
            assert_eq!(News::heard(&news.words("one"), "other"), Some(news));
        }
        assert_eq!(News::heard("", "one"), Some(News::Rows));
    }
}
