//! Where reading begins: the grammar of `--from`, and what it means for one partition.

use std::{fmt, str::FromStr};

use jiff::{
    SignedDuration, Span, SpanRelativeTo, Timestamp,
    fmt::friendly::{Spacing, SpanPrinter},
};

use crate::error::excerpt;

/// How much of a text that is no position its error repeats. Characters.
const LONGEST_REPEATED: usize = 80;

/// From the first moment there is to the last, and as much as one unit can say. Longer is no other moment.
const LONGEST_AGO: SignedDuration = SignedDuration::from_hours(175_307_616);

/// Where reading begins in every partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// `start`: at the oldest record that is kept.
    Start,
    /// `end`: at what is written from now on.
    End,
    /// `N`: at this offset.
    Offset(i64),
    /// `-N`: at the last N records of each partition.
    Last(i64),
    /// `@-10m`: at the first record that is no older than this.
    Ago(SignedDuration),
    /// `@2026-01-31T12:00:00Z`: at the first record of this moment or later.
    At(Timestamp),
}

/// A text that names no position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Nothing of the grammar.
    #[error(
        "{0:?} is no position: use start, end, an offset such as 42, -10 for the last ten records of each partition, \
         @-10m for ten minutes ago, or a moment such as @2026-01-31T12:00:00Z"
    )]
    Unknown(String),
    /// `@-…` without a length of time.
    #[error("{0:?} is no length of time: write it as @-90s, @-10m or @-1h30m")]
    Duration(String),
    /// `@…` without a moment.
    #[error("{0:?} is no moment: write it as @2026-01-31T12:00:00Z, or @-10m for ten minutes ago")]
    Moment(String),
}

/// Where reading begins in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At this offset.
    Offset(i64),
    /// Where the broker says that records of this moment begin.
    LookUp(Timestamp),
}

impl Position {
    /// The moment before which records are passed over, if the position is one of time.
    pub fn since(&self, now: Timestamp) -> Option<Timestamp> {
        match *self {
            Position::Ago(ago) => Some(now.checked_sub(ago).unwrap_or(Timestamp::MIN)),
            Position::At(moment) => Some(moment),
            Position::Start | Position::End | Position::Offset(_) | Position::Last(_) => None,
        }
    }

    /// Where reading begins in a partition that holds the offsets from `low` up to, but not including, `high`.
    pub(super) fn begin(&self, low: i64, high: i64, now: Timestamp) -> Begin {
        match *self {
            Position::Start => Begin::Offset(low),
            Position::End => Begin::Offset(high),
            Position::Offset(offset) => Begin::Offset(offset.clamp(low, high)),
            Position::Last(count) => Begin::Offset(high.saturating_sub(count).max(low)),
            Position::Ago(_) | Position::At(_) => match self.since(now) {
                Some(moment) => Begin::LookUp(moment),
                None => Begin::Offset(low),
            },
        }
    }
}

impl fmt::Display for Position {
    /// As it is written on a command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COMPACT: SpanPrinter = SpanPrinter::new().spacing(Spacing::None);
        match self {
            Position::Start => f.write_str("start"),
            Position::End => f.write_str("end"),
            Position::Offset(offset) => write!(f, "{offset}"),
            Position::Last(count) => write!(f, "-{count}"),
            Position::Ago(ago) => write!(f, "@-{}", COMPACT.duration_to_string(ago)),
            Position::At(moment) => write!(f, "@{moment}"),
        }
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || PositionError::Unknown(excerpt(text, LONGEST_REPEATED));
        match text {
            "start" => return Ok(Position::Start),
            "end" => return Ok(Position::End),
            _ => {}
        }
        if let Some(moment) = text.strip_prefix('@') {
            return match moment.strip_prefix('-') {
                // A year before the first is written with a minus sign too.
                Some(ago) => parse_ago(ago)
                    .or_else(|| moment.parse().ok().map(Position::At))
                    .ok_or_else(|| PositionError::Duration(excerpt(text, LONGEST_REPEATED))),
                None => {
                    moment.parse().map(Position::At).map_err(|_| PositionError::Moment(excerpt(text, LONGEST_REPEATED)))
                }
            };
        }
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(unknown());
        }
        let number: i64 = digits.parse().map_err(|_| unknown())?;
        Ok(if text.starts_with('-') { Position::Last(number) } else { Position::Offset(number) })
    }
}

fn parse_ago(text: &str) -> Option<Position> {
    // A second sign or "ago" would turn the past into the future.
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let span: Span = text.parse().ok()?;
    let ago = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    (!ago.is_negative() && ago <= LONGEST_AGO).then_some(Position::Ago(ago))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use test_support::fuzz::{assert_presentable, fuzz};

    use super::*;

    #[test]
    fn positions_are_read_as_people_write_them() {
        let minutes = |minutes| Position::Ago(SignedDuration::from_mins(minutes));
        let table = [
            ("start", Position::Start),
            ("end", Position::End),
            ("0", Position::Offset(0)),
            ("42", Position::Offset(42)),
            ("-10", Position::Last(10)),
            ("-0", Position::Last(0)),
            ("@-10m", minutes(10)),
            ("@-1h30m", minutes(90)),
            ("@-2h", minutes(120)),
            ("@-1d", Position::Ago(SignedDuration::from_hours(24))),
            ("@-90s", Position::Ago(SignedDuration::from_secs(90))),
            ("@2026-01-31T12:00:00Z", Position::At("2026-01-31T12:00:00Z".parse().unwrap())),
            ("@2026-01-31T12:00:00+02:00", Position::At("2026-01-31T10:00:00Z".parse().unwrap())),
            ("@-000001-12-31T22:30:00Z", Position::At("-000001-12-31T22:30:00Z".parse().unwrap())),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_position_is_refused_with_an_example() {
        let table = [
            ("", "use start, end"),
            ("begin", "use start, end"),
            ("START", "use start, end"),
            ("-", "use start, end"),
            ("--5", "use start, end"),
            ("+5", "use start, end"),
            ("1.5", "use start, end"),
            ("99999999999999999999", "use start, end"),
            ("@", "is no moment"),
            ("@yesterday", "is no moment"),
            ("@2026-01-31", "is no moment"),
            ("@-", "is no length of time"),
            ("@-10", "is no length of time"),
            ("@--10m", "is no length of time"),
            ("@-ten minutes", "is no length of time"),
            ("@-175307616h1ns", "is no length of time"),
        ];
        for (text, expected) in table {
            let error = text.parse::<Position>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_position_begins_inside_what_the_partition_holds() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let table = [
            (Position::Start, Begin::Offset(10)),
            (Position::End, Begin::Offset(20)),
            (Position::Offset(15), Begin::Offset(15)),
            (Position::Offset(3), Begin::Offset(10)),
            (Position::Offset(99), Begin::Offset(20)),
            (Position::Last(4), Begin::Offset(16)),
            (Position::Last(99), Begin::Offset(10)),
            (Position::Last(0), Begin::Offset(20)),
            (Position::At(now), Begin::LookUp(now)),
            (Position::Ago(SignedDuration::from_mins(5)), Begin::LookUp("2026-01-31T11:55:00Z".parse().unwrap())),
            (Position::Ago(SignedDuration::MAX), Begin::LookUp(Timestamp::MIN)),
        ];
        for (position, expected) in table {
            assert_eq!(position.begin(10, 20, now), expected, "{position:?}");
        }
    }

    #[test]
    fn fuzzed_positions_are_refused_or_the_same_once_they_are_written_down() {
        // The last was written down as what could not be read, and so was the sum of the one before with little more.
        let corpus = [
            "start",
            "end",
            "0",
            "42",
            "-10",
            "9223372036854775807",
            "@-10m",
            "@-1h30m",
            "@-1d",
            "@-0.5s",
            "@-1w 2 hours",
            "@2026-01-31T12:00:00Z",
            "@2026-01-31T12:00:00.123456789+02:00",
            "@2026-01-31T12:00+01[Europe/Berlin]",
            "@-1043497w7304484d175307616h",
            "@0000-01-01T00:30:00+02:00",
        ]
        .map(str::to_owned);
        let words = [
            "@",
            "@-",
            "1y",
            "2mo",
            "7304484d",
            "175307616h",
            "1.5s",
            "µs",
            "ago",
            "T",
            "Z",
            "+23:59",
            "-0001",
            "[UTC]",
        ];
        fuzz(&corpus, &words, |text| match text.parse::<Position>() {
            Ok(position) => {
                assert_eq!(position.to_string().parse(), Ok(position), "{position}");
                if let Begin::Offset(offset) = position.begin(10, 20, Timestamp::UNIX_EPOCH) {
                    assert!((10..=20).contains(&offset), "{position}");
                }
                true
            }
            Err(error) => {
                assert_presentable(error);
                false
            }
        });
    }

    proptest! {
        #[test]
        fn any_text_is_a_position_or_an_error(text in any::<String>(), like in "[-@0-9a-zT:+. ]{0,12}") {
            for text in [text, format!("@{like}"), format!("@-{like}"), like] {
                let read = text.parse::<Position>();
                if let Ok(position) = read {
                    // Whatever was read lies in what the partition holds.
                    if let Begin::Offset(offset) = position.begin(10, 20, Timestamp::UNIX_EPOCH) {
                        prop_assert!((10..=20).contains(&offset), "{text}: {position:?}");
                    }
                }
            }
        }

        #[test]
        fn what_is_written_as_a_position_is_read_back(number in 0..=i64::MAX, seconds in 0..i64::from(i32::MAX)) {
            prop_assert_eq!(format!("{number}").parse(), Ok(Position::Offset(number)));
            prop_assert_eq!(format!("-{number}").parse(), Ok(Position::Last(number)));
            let ago = SignedDuration::from_secs(seconds);
            prop_assert_eq!(format!("@-{seconds}s").parse(), Ok(Position::Ago(ago)));
        }
    }
}
