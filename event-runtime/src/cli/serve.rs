use anyhow::Context;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use tokio::runtime::Runtime;

use super::{AuditArgs, OutboxArgs, exit};
use crate::{
    config::TelemetryConfig,
    telemetry::{self, LogOptions},
};

/// The command line of a service: its configuration, which runs it, or what is done beside it.
#[derive(Clone, Debug)]
pub enum ServiceCommand<C> {
    /// Run the service.
    Serve(C),
    /// Export what its database says.
    Audit(AuditArgs),
    /// See to the events that its relay set aside.
    Outbox(OutboxArgs),
}

const AUDIT: &str = "audit";
const OUTBOX: &str = "outbox";

// By hand: what clap derives cannot make a flattened, required configuration give way to a subcommand.
impl<C: Args> Args for ServiceCommand<C> {
    fn augment_args(command: Command) -> Command {
        // After its arguments, whose doc comment would take its place.
        let audit = AuditArgs::augment_args(Command::new(AUDIT))
            .about("Export what the database says, one JSON object a line, for `eventctl verify`");
        let outbox = OutboxArgs::augment_args(Command::new(OUTBOX))
            .about("List the events that could not be published, and put them back");
        let command = C::augment_args(command).subcommand(audit).subcommand(outbox);
        command.args_conflicts_with_subcommands(true).subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C: FromArgMatches> FromArgMatches for ServiceCommand<C> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        match matches.subcommand() {
            Some((AUDIT, audit)) => AuditArgs::from_arg_matches(audit).map(Self::Audit),
            Some((OUTBOX, outbox)) => OutboxArgs::from_arg_matches(outbox).map(Self::Outbox),
            _ => C::from_arg_matches(matches).map(Self::Serve),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs a command on a runtime of its own, as all that its process does. What still runs when the command is done ends with
/// the process: a handler that blocks its thread would be waited for without end.
///
/// # Errors
/// When the command fails, or no thread can be started. [`finish`](super::finish) turns the result into an exit code.
pub fn run(command: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    let runtime = Runtime::new().context("the threads of the process cannot be started")?;
    let ended = runtime.block_on(command);
    runtime.shutdown_background();
    ended
}

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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::ServiceConfig;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        command: ServiceCommand<ServiceConfig>,
    }

    #[test]
    fn a_service_is_run_by_its_configuration_and_exports_beside_it() {
        let line = Line::try_parse_from(["service", "--database-url", "sqlite:x.db", "--listen", "127.0.0.1:0"]);
        assert!(matches!(line.unwrap().command, ServiceCommand::Serve(config) if config.listen.is_some()));
        let line = Line::try_parse_from(["service", "audit", "--database-url", "sqlite:x.db"]);
        assert!(matches!(line.unwrap().command, ServiceCommand::Audit(_)));
        let line = Line::try_parse_from(["service", "outbox", "requeue", "--all", "--database-url", "sqlite:x.db"]);
        assert!(matches!(line.unwrap().command, ServiceCommand::Outbox(_)));
        let line = Line::try_parse_from(["service", "outbox", "requeue", "--database-url", "sqlite:x.db"]);
        let error = line.unwrap_err().to_string();
        assert!(error.contains("--event") && error.contains("--all"), "{error}");
        let line = Line::try_parse_from(["service", "--database-url", "sqlite:x.db", "--listen", "nowhere"]);
        let error = line.unwrap_err().to_string();
        assert!(error.contains("--listen"), "{error}");
    }
}
