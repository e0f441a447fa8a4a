use std::fmt;

use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

use super::redact::is_secret;
use crate::error::excerpt;

/// How much of a setting, or of what librdkafka says of it, an error repeats. Characters.
const LONGEST_REPEATED: usize = 300;

/// How to reach Kafka.
#[derive(Clone, clap::Args)]
pub struct KafkaConfig {
    /// Kafka bootstrap servers, separated by commas
    #[arg(short = 'b', long, env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092", value_name = "HOST:PORT,…")]
    pub brokers: String,

    /// A librdkafka setting, repeatable
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not of the form `key=value`.
    #[error("-X takes KEY=VALUE, such as -X security.protocol=SSL, not {0:?}")]
    NoKeyValue(String),
    /// librdkafka refuses the setting.
    #[error("-X {key}: {reason}")]
    Refused {
        /// Which setting.
        key: String,
        /// librdkafka's own words.
        reason: String,
    },
    /// librdkafka accepts each setting, and refuses them together.
    #[error("the Kafka settings do not fit together: {0}")]
    Together(String),
    /// The program was built without OpenSSL.
    #[error("{0} needs TLS, which is not built in: rebuild with --features tls")]
    NeedsTls(String),
}

impl KafkaConfig {
    /// These brokers, and no further settings.
    pub fn new(brokers: impl Into<String>) -> KafkaConfig {
        KafkaConfig { brokers: brokers.into(), settings: Vec::new() }
    }

    /// The same with one librdkafka setting more.
    pub fn set(mut self, key: &str, value: &str) -> KafkaConfig {
        self.settings.push(format!("{key}={value}"));
        self
    }

    /// A librdkafka configuration with the brokers and the `-X` settings, to which each client adds its own.
    ///
    /// # Errors
    /// When a setting is malformed, unknown to librdkafka, or needs TLS in a build without it.
    pub fn client(&self) -> Result<ClientConfig, ConfigError> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        for setting in &self.settings {
            let pair = setting.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
            let Some((key, value)) = pair.filter(|(key, _)| !key.is_empty()) else {
                return Err(ConfigError::NoKeyValue(repeated(&shown(setting))));
            };
            needs_tls(key, value)?;
            client.set(key, value);
            if key == "debug" {
                // Otherwise rdkafka keeps back what librdkafka says below the level of a notice.
                client.set_log_level(RDKafkaLogLevel::Debug);
            }
        }
        client.create_native_config().map_err(|error| ConfigError::from_client(&error))?;
        Ok(client)
    }
}

impl ConfigError {
    /// What librdkafka says when it refuses to make a client. Its values are left out: they may be passwords.
    pub fn from_client(error: &KafkaError) -> ConfigError {
        match error {
            KafkaError::ClientConfig(_, reason, key, _) => {
                ConfigError::Refused { key: repeated(key), reason: repeated(reason) }
            }
            KafkaError::ClientCreation(reason) => ConfigError::Together(repeated(reason)),
            other => ConfigError::Together(repeated(&other.to_string())),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<String> = self.settings.iter().map(|setting| shown(setting)).collect();
        f.debug_struct("KafkaConfig").field("brokers", &self.brokers).field("settings", &settings).finish()
    }
}

fn shown(setting: &str) -> String {
    match setting.split_once('=') {
        Some((key, _)) if is_secret(key) => format!("{key}=***"),
        None if is_secret(setting) => "***".to_owned(),
        _ => setting.to_owned(),
    }
}

fn repeated(text: &str) -> String {
    excerpt(text, LONGEST_REPEATED)
}

/// Without OpenSSL librdkafka has neither SSL nor the SCRAM and OAUTHBEARER mechanisms, and its own complaint does not
/// say how to get them.
fn needs_tls(key: &str, value: &str) -> Result<(), ConfigError> {
    let encrypted = match key {
        "security.protocol" => value.to_ascii_lowercase().ends_with("ssl"),
        "sasl.mechanism" | "sasl.mechanisms" => {
            let mechanism = value.to_ascii_uppercase();
            mechanism.starts_with("SCRAM-") || mechanism == "OAUTHBEARER"
        }
        _ => key.starts_with("ssl."),
    };
    match encrypted && !cfg!(feature = "tls") {
        true => Err(ConfigError::NeedsTls(repeated(&shown(&format!("{key}={value}"))))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use test_support::fuzz::{assert_presentable, fuzz};

    use super::*;

    #[test]
    fn fuzzed_settings_are_refused_or_reach_the_client_and_no_secret_is_said() {
        const SECRET: &str = "s3cr3t";
        let corpus = [
            "security.protocol=PLAINTEXT",
            "fetch.wait.max.ms=10",
            " client.id = a=b ",
            "sasl.password=s3cr3t",
            "ssl.key.password = s3cr3t",
            "SASL.Password=s3cr3t",
            "debug=cgrp,topic",
            "compression.type=lz4",
            "linger",
        ]
        .map(str::to_owned);
        let words = [
            "=",
            "sasl.",
            "ssl.",
            "key",
            ".ms",
            "true",
            "SSL",
            "SCRAM-SHA-256",
            "all",
            "bootstrap.servers",
            "group.id",
        ];
        fuzz(&corpus, &words, |setting| {
            let config = KafkaConfig { settings: vec![setting.clone()], ..KafkaConfig::new("127.0.0.1:9092") };
            let client = config.client();
            let key = setting.split('=').next().unwrap_or_default().to_ascii_lowercase();
            if key.contains("password") && !key.contains(SECRET) {
                let said = format!("{config:?} {:?}", client.as_ref().map_err(ToString::to_string).err());
                assert!(!said.contains(SECRET), "{said}");
            }
            match client {
                Ok(client) => {
                    let (key, value) = setting.split_once('=').unwrap();
                    assert_eq!(client.get(key.trim()), Some(value.trim()));
                    true
                }
                Err(error) => {
                    assert_presentable(error);
                    false
                }
            }
        });
    }

    fn refusal(setting: &str) -> String {
        let config = KafkaConfig { settings: vec![setting.to_owned()], ..KafkaConfig::new("127.0.0.1:9092") };
        config.client().unwrap_err().to_string()
    }

    #[test]
    fn brokers_and_settings_reach_the_client() {
        let client = KafkaConfig::new("a:1,b:2").set("fetch.wait.max.ms", "10").client().unwrap();
        assert_eq!(client.get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(client.get("fetch.wait.max.ms"), Some("10"));
    }

    #[test]
    fn a_refused_setting_is_named_with_the_reason() {
        assert_eq!(refusal("linger"), "-X takes KEY=VALUE, such as -X security.protocol=SSL, not \"linger\"");
        assert_eq!(refusal("=5"), "-X takes KEY=VALUE, such as -X security.protocol=SSL, not \"=5\"");
        assert!(refusal("no.such.key=5").starts_with("-X no.such.key: No such configuration property"));
        assert!(
            refusal("fetch.wait.max.ms=soon").starts_with("-X fetch.wait.max.ms: Invalid value"),
            "{}",
            refusal("fetch.wait.max.ms=soon")
        );
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn settings_that_need_tls_name_the_feature() {
        for setting in [
            "security.protocol=SSL",
            "security.protocol=sasl_ssl",
            "sasl.mechanism=SCRAM-SHA-512",
            "sasl.mechanisms=OAUTHBEARER",
            "ssl.ca.location=ca.pem",
        ] {
            assert_eq!(
                refusal(setting),
                format!("{setting} needs TLS, which is not built in: rebuild with --features tls")
            );
        }
        assert!(!refusal("ssl.key.password=s3cret").contains("s3cret"));
    }
}
