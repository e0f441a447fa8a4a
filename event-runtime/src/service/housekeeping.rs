//! What has to be done from time to time while a service runs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{Clock, Database, assignments, error::Chain, inbox};

const EVERY: Duration = Duration::from_secs(60 * 60);

/// Forgets handled events, and records that ended the process, once no topic can deliver them again; `retention` is that of the topic that keeps records
/// longest.
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
