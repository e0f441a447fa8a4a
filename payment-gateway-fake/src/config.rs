use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// What the gateway is configured with.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// Where HTTP listens; port 0 takes a free one
    #[arg(long, env = "LISTEN", default_value_t = Config::default().listen, value_name = "HOST:PORT")]
    pub listen: SocketAddr,

    /// The file that keeps charges and refunds (one JSON line each); without it they are forgotten at exit
    #[arg(long, env = "GATEWAY_LEDGER", value_name = "FILE")]
    pub ledger: Option<PathBuf>,

    /// Charges and refunds a second; what comes above gets 429 with Retry-After
    #[arg(long, env = "GATEWAY_MAX_RPS", value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub max_rps: Option<u32>,

    /// How long a charge or refund takes, such as 300ms
    #[arg(long, env = "GATEWAY_DELAY", value_parser = duration, value_name = "TIME")]
    pub delay: Option<Duration>,
}

impl Default for Config {
    /// Port 8090 of this machine, a ledger in memory, no faults.
    fn default() -> Config {
        Config { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8090)), ledger: None, max_rps: None, delay: None }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| "write a number and a unit, such as 300ms or 2s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read_with_their_unit() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        for bad in ["", "300", "-1s", "soon"] {
            assert!(duration(bad).is_err(), "{bad:?} was taken for a duration");
        }
    }
}
