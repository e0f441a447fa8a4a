//! What has to be done from time to time while a service runs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Clock, Database, assignments, error::Chain, inbox};

const EVERY: Duration = Duration::from_secs(60 * 60);

/// Forgets handled events, and records that ended the process, once no topic can deliver them again; `retention` is
/// that of the topic that keeps records longest.
pub(super) async fn run(database: Database, clock: Clock, retention: Duration, stop: CancellationToken) {
    let keep = inbox::kept_for(retention);
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Ok(before) = clock.now().checked_sub(keep) else { continue };
        match inbox::clean(&database, before).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "forgot events that were handled long ago"),
            // It is tried again; handlers report a database that is away.
            Err(error) => tracing::debug!(error = %Chain(&error), "the inbox was not cleaned"),
        }
        if let Err(error) = assignments::clean(&database, before).await {
            tracing::debug!(error = %Chain(&error), "crashes were not cleaned");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use shared_events::EventId;

    use super::*;
    use crate::inbox::{Fate, record, seen};

    /// Retention is the least that a broker keeps, so an event may come again for a while after it.
    #[tokio::test]
    async fn an_event_is_remembered_for_twice_the_retention_of_its_topic() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::connect_lazy(&format!("sqlite:{}/test.db", folder.path().display())).unwrap();
        database.migrate(&[]).await.unwrap();
        let (retention, now) = (Duration::from_secs(7 * 24 * 60 * 60), Clock::system().now());
        let (old, young) = (EventId::new(), EventId::new());
        let fortnight = SignedDuration::from_hours(14 * 24);
        let mut tx = database.begin().await.unwrap();
        for (event, age) in
            [(old, fortnight + SignedDuration::from_mins(1)), (young, fortnight - SignedDuration::from_mins(1))]
        {
            assert!(record(&mut tx, "g", event, 0, Fate::Handled, now - age).await.unwrap());
        }
        tx.commit().await.unwrap();

        let stop = CancellationToken::new();
        let work = tokio::spawn(run(database.clone(), Clock::from_fn(move || now), retention, stop.clone()));
        let remembers = async |event| seen(&mut database.begin().await.unwrap(), "g", event, 0).await.unwrap();
        let forgotten = async {
            while remembers(old).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), forgotten).await.expect("forgotten at the start already");
        assert!(remembers(young).await);
        stop.cancel();
        work.await.unwrap();
    }
}
