use super::exit;
use crate::{
    config::TelemetryConfig,
    telemetry::{self, LogOptions},
};

/// Runs a service's `work` as a process of its own: logs and traces begin before it and are sent before it ends.
/// [`finish`](super::finish) turns the result into an exit code: never a backtrace, even where `RUST_BACKTRACE` asks for
/// one, since what fails here is a setting or a server.
///
/// # Errors
/// When logging cannot begin, or the work fails.
pub async fn serve(
    name: &'static str,
    telemetry: &TelemetryConfig,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<u8> {
    let telemetry = telemetry::init(&LogOptions::new(name, telemetry))?;
    let ended = work.await;
    telemetry.shutdown().await;
    ended.map(|()| exit::OK)
}
