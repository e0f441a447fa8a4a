//! Configuration as clap arguments, so that every value is a flag and an environment variable with one help text.
//!
//! `Debug` of a configuration is safe to log: passwords in URLs and librdkafka settings are replaced by `***`.

mod arguments;
pub mod discovery;
mod kafka;
mod redact;

use std::{fmt, net::SocketAddr, time::Duration};

pub use arguments::{duration, positive_duration};
pub use kafka::{ConfigError, KafkaConfig};
pub use redact::redact_url;

/// What every service is configured with.
#[derive(Clone, clap::Args)]
pub struct ServiceConfig {
    #[command(flatten)]
    /// How to reach Kafka.
    pub kafka: KafkaConfig,

    /// Where the service keeps its data: postgres://… or sqlite:…
    // The environment's value may hold a password, which `--help` would print.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: String,

    /// Where HTTP listens; port 0 takes a free one
    #[arg(long, env = "LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,

    /// How many records a consumer works on at the same time, 1 to 10000; 32 where the service does not say otherwise
    #[arg(long, env = "CONSUMER_CONCURRENCY", value_name = "N", value_parser = arguments::concurrency)]
    pub consumer_concurrency: Option<usize>,

    /// How long an HTTP request may take, such as 10s
    #[arg(long, env = "REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s",
        value_parser = positive_duration)]
    pub request_timeout: Duration,

    /// The largest HTTP request body, in bytes
    #[arg(long, env = "MAX_BODY_BYTES", value_name = "BYTES", default_value_t = DEFAULT_MAX_BODY_BYTES,
        value_parser = arguments::body_bytes)]
    pub max_body_bytes: usize,

    /// How long the work in hand may take to finish after SIGTERM or SIGINT, such as 20s
    #[arg(long, env = "SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "20s",
        value_parser = positive_duration)]
    pub shutdown_timeout: Duration,

    #[command(flatten)]
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

/// Where logs and traces go. For a whole process: services that share one share this.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TelemetryConfig {
    /// How log lines are written
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Where traces go (OTLP over HTTP), such as http://127.0.0.1:4318; nowhere unless set
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = arguments::http_url)]
    pub otlp_endpoint: Option<String>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: one line a state change, coloured on a terminal.
    #[default]
    Text,
    /// For machines: one flat JSON object a line.
    Json,
}

const DEFAULT_MAX_BODY_BYTES: usize = 64 * 1024;

impl ServiceConfig {
    /// The defaults, with the two values that have none: for tests and for processes that run several services.
    pub fn new(kafka: KafkaConfig, database_url: impl Into<String>) -> ServiceConfig {
        ServiceConfig {
            kafka,
            database_url: database_url.into(),
            listen: None,
            consumer_concurrency: None,
            request_timeout: Duration::from_secs(10),
            max_body_bytes: DEFAULT_MAX_BODY_BYTES,
            shutdown_timeout: Duration::from_secs(20),
            telemetry: TelemetryConfig::default(),
        }
    }

    /// The same, listening on `address`.
    pub fn listen(mut self, address: SocketAddr) -> ServiceConfig {
        self.listen = Some(address);
        self
    }
}

impl fmt::Debug for ServiceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceConfig")
            .field("kafka", &self.kafka)
            .field("database_url", &redact_url(&self.database_url))
            .field("listen", &self.listen)
            .field("consumer_concurrency", &self.consumer_concurrency)
            .field("request_timeout", &self.request_timeout)
            .field("max_body_bytes", &self.max_body_bytes)
            .field("shutdown_timeout", &self.shutdown_timeout)
            .field("telemetry", &self.telemetry)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        service: ServiceConfig,
    }

    fn parse(arguments: &[&str]) -> Result<ServiceConfig, String> {
        let line = ["service", "--database-url", "sqlite:x.db"].iter().chain(arguments);
        Command::try_parse_from(line).map(|command| command.service).map_err(|error| error.to_string())
    }

    #[test]
    fn new_has_the_defaults_of_the_command_line() {
        let parsed = parse(&[]).unwrap();
        let made = ServiceConfig::new(KafkaConfig::new(&parsed.kafka.brokers), "sqlite:x.db");
        assert_eq!(format!("{parsed:?}"), format!("{made:?}"));
    }

    #[test]
    fn values_out_of_range_are_refused_with_what_is_allowed() {
        let cases = [
            (["--consumer-concurrency", "0"], "1 to 10000"),
            (["--consumer-concurrency", "10001"], "1 to 10000"),
            (["--request-timeout", "0s"], "longer than 0"),
            (["--shutdown-timeout", "0"], "longer than 0"),
            (["--shutdown-timeout", "soon"], "such as 500ms, 10s or 2m"),
            (["--max-body-bytes", "0"], "1 to 67108864"),
            (["--listen", "8080"], "invalid socket address"),
            (["--log-format", "xml"], "text, json"),
            (["--otlp-endpoint", "localhost:4317"], "http://"),
        ];
        for (arguments, expected) in cases {
            let error = parse(&arguments).unwrap_err();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let mut config = ServiceConfig::new(KafkaConfig::new("broker:9092"), "postgres://shop:s3cret@db/orders");
        config.kafka.settings =
            vec!["sasl.password=s3cret".into(), "ssl.key.password=s3cret".into(), "sasl.username=shop".into()];
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("postgres://shop:***@db/orders"), "{shown}");
        assert!(shown.contains("sasl.username=shop"), "{shown}");
    }
}
