//! Value parsers: a value out of range is refused with what is allowed, before anything starts.

use std::{ops::RangeInclusive, time::Duration};

/// A span of time such as `500ms`, `10s`, `2m`; a bare number counts seconds.
///
/// # Errors
/// When the text is no span of time, in words for the command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => text.parse::<jiff::SignedDuration>().ok().and_then(|signed| Duration::try_from(signed).ok()),
    };
    parsed.ok_or_else(|| "write a time such as 500ms, 10s or 2m".to_owned())
}

/// A [`duration`] that is not zero: for timeouts.
///
/// # Errors
/// As [`duration`], and when it is zero.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be longer than 0".to_owned()),
        positive => Ok(positive),
    }
}

pub(super) fn concurrency(text: &str) -> Result<usize, String> {
    number_in(text, 1..=10_000)
}

pub(super) fn body_bytes(text: &str) -> Result<usize, String> {
    number_in(text, 1..=64 * 1024 * 1024)
}

pub(super) fn http_url(text: &str) -> Result<String, String> {
    match text {
        _ if text.starts_with("http://") => Ok(text.to_owned()),
        _ if text.starts_with("https://") && cfg!(feature = "tls") => Ok(text.to_owned()),
        _ if text.starts_with("https://") => Err("https needs TLS: rebuild with --features tls".to_owned()),
        _ => Err("write a URL that begins with http:// or https://".to_owned()),
    }
}

fn number_in(text: &str, allowed: RangeInclusive<usize>) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|number| allowed.contains(number))
        .ok_or_else(|| format!("must be a number from {} to {}", allowed.start(), allowed.end()))
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use test_support::fuzz::{assert_presentable, fuzz};

    use super::*;

    #[test]
    fn fuzzed_durations_are_refused_or_the_same_once_they_are_written_down() {
        let corpus =
            ["500ms", "10s", "2m", "1h", "1m 30s", "7", "18446744073709551615", "PT1H30M", "1.5h", "-5s", "01:30:00"];
        fuzz(&corpus.map(str::to_owned), &["ms", "s", "m", "h", "ns", "µs", "P", "T", " ago", "."], |text| {
            match (duration(text), positive_duration(text)) {
                (Ok(read), positive) => {
                    assert_eq!(positive.is_ok(), !read.is_zero());
                    // Longer ones have no form with a unit.
                    if let Ok(signed) = SignedDuration::try_from(read) {
                        assert_eq!(duration(&format!("{signed:#}")), Ok(read), "{signed:#}");
                    }
                    true
                }
                (Err(error), positive) => {
                    assert_presentable(&error);
                    assert_eq!(positive, Err(error));
                    false
                }
            }
        });
    }

    #[test]
    fn durations_have_units_and_bare_numbers_count_seconds() {
        let cases =
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("1m 30s", 90_000), ("7", 7_000)];
        for (text, milliseconds) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "soon", "-5s", "10 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
