//! Configuration as clap arguments, so that every value is a flag and an environment variable with one help text.

use std::net::SocketAddr;

/// How to reach Kafka.
#[derive(Clone, Debug, clap::Args)]
pub struct KafkaConfig {
    /// Kafka bootstrap servers, separated by commas
    #[arg(short = 'b', long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092", value_name = "HOST:PORT,…")]
    pub brokers: String,

    /// A librdkafka setting, repeatable
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// What every service is configured with.
#[derive(Clone, Debug, clap::Args)]
pub struct ServiceConfig {
    #[command(flatten)]
    /// How to reach Kafka.
    pub kafka: KafkaConfig,

    /// Where the service keeps its data: postgres://… or sqlite:…
    #[arg(long, env = "DATABASE_URL", value_name = "URL")]
    pub database_url: String,

    /// Where HTTP listens; port 0 takes a free one
    #[arg(long, env = "LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not of the form `key=value`.
    #[error("-X takes KEY=VALUE, such as -X security.protocol=SSL, not {0:?}")]
    NoKeyValue(String),
}

impl KafkaConfig {
    /// A librdkafka configuration with the brokers and the `-X` settings, to which each client adds its own.
    ///
    /// # Errors
    /// When a setting is malformed.
    pub fn client(&self) -> Result<rdkafka::ClientConfig, ConfigError> {
        let mut client = rdkafka::ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        for setting in &self.settings {
            let (key, value) = setting.split_once('=').ok_or_else(|| ConfigError::NoKeyValue(setting.clone()))?;
            client.set(key.trim(), value.trim());
        }
        Ok(client)
    }
}
