use std::{ops::RangeInclusive, time::Duration};

use event_runtime::config::{ServiceConfig, duration};

/// How order-service is configured.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub service: ServiceConfig,

    /// An order that is not complete after this long is cancelled: 30s, 5m, 1h
    #[arg(long, env = "ORDER_DEADLINE", default_value = "30s", value_name = "DURATION", value_parser = parse_deadline)]
    pub order_deadline: Duration,
}

/// Long enough for a round of events, shorter than the topics' retention.
const DEADLINES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);

fn parse_deadline(text: &str) -> Result<Duration, String> {
    let wanted = "write it as 30s, 5m or 1h, between 100ms and 24h";
    let deadline = duration(text.trim()).map_err(|_| format!("that is no duration; {wanted}"))?;
    match DEADLINES.contains(&deadline) {
        true => Ok(deadline),
        false => Err(format!("the deadline is out of range; {wanted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_in_the_units_people_write() {
        for (text, expected) in
            [("30s", 30_000), ("100ms", 100), ("5m", 300_000), ("1h", 3_600_000), ("45", 45_000), ("24h", 86_400_000)]
        {
            assert_eq!(parse_deadline(text), Ok(Duration::from_millis(expected)), "{text}");
        }
    }

    #[test]
    fn a_deadline_out_of_range_says_how_to_write_it() {
        for text in ["0s", "99ms", "25h", "-30s", "soon", ""] {
            let message = parse_deadline(text).expect_err(text);
            assert!(message.contains("between 100ms and 24h"), "{text}: {message}");
        }
    }
}
