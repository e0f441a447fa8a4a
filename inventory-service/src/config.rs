use event_runtime::config::ServiceConfig;

/// How inventory-service is configured.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub service: ServiceConfig,
}
