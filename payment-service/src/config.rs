use std::time::Duration;

use event_runtime::config::{ServiceConfig, positive_duration};

/// How payment-service is configured.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub service: ServiceConfig,

    /// The payment gateway
    #[arg(long, env = "PAYMENT_GATEWAY_URL", default_value = "http://127.0.0.1:8090", value_name = "URL",
          value_parser = gateway_url)]
    pub gateway_url: String,

    /// How long the gateway may take to answer before it is asked again, such as 2s
    #[arg(long, env = "PAYMENT_GATEWAY_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = positive_duration)]
    pub gateway_timeout: Duration,

    /// How long the gateway may still work on a charge whose answer nobody waited for: an order cancelled meanwhile is
    /// looked up until this has passed since the latest moment at which the gateway can have been asked
    #[arg(long, env = "PAYMENT_GATEWAY_SETTLES_AFTER", default_value = "30s", value_name = "DURATION",
          value_parser = positive_duration)]
    pub gateway_settles_after: Duration,
}

impl Config {
    /// The defaults for a gateway at `gateway_url`.
    pub fn new(service: ServiceConfig, gateway_url: String) -> Config {
        Config {
            service,
            gateway_url,
            gateway_timeout: Duration::from_secs(2),
            gateway_settles_after: Duration::from_secs(30),
        }
    }
}

fn gateway_url(text: &str) -> Result<String, String> {
    match text.parse::<reqwest::Url>() {
        Ok(url) if url.scheme() == "http" && url.has_host() => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("write it as http://HOST:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_an_http_address() {
        assert_eq!(gateway_url("http://127.0.0.1:8090/"), Ok("http://127.0.0.1:8090".to_owned()));
        for bad in ["", "127.0.0.1:8090", "https://127.0.0.1", "ftp://gateway"] {
            assert!(gateway_url(bad).is_err(), "{bad:?} was taken for an address");
        }
    }
}
