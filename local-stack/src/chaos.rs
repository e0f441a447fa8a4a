//! `--chaos`: faults on purpose while the stack runs. What is broken, and what it means to the services: here; how: `going_on`.

mod crash;
mod going_on;
mod report;

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use event_runtime::config::positive_duration;
use eventctl::chaos::{gateway::rate, poison};

pub use crash::KILLED;
pub use going_on::Chaos;

/// What `--chaos` takes: faults, separated by commas, each with a value or without.
pub const HELP: &str = "\
Break things on purpose while the stack runs, for tests and demos: faults separated by commas

duplicates[=N]          each N-th event is delivered twice, under the same event id [1: every event]
gateway-failures[=RATE] the payment gateway fails this share of charges and refunds [0.3]; every other one of them
                        has been carried out all the same
poison[=N]              N records that nobody can read are written to the topic orders [3]
delays[=TIME]           each answer of a broker, and each charge or refund, takes so long [200ms]
drop-connection[=TIME]  again and again after so long, the brokers drop all their connections [3s]
broker-pause[=TIME]     every ten seconds all brokers are away for so long [2s]
crash                   payment-service, then a process of its own, is killed after a charge and before it can commit
                        that, and comes back";

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Each so many events, one is delivered twice.
    Duplicates(u64),
    /// This share of charges and refunds fails.
    GatewayFailures(f64),
    /// So many records that nobody can read.
    Poison(u64),
    /// Each answer of a broker and of the gateway takes so long.
    Delays(Duration),
    /// After so long the brokers drop all connections, again and again.
    DropConnection(Duration),
    /// Every ten seconds all brokers are away for so long.
    BrokerPause(Duration),
    /// payment-service is killed after a charge and before its commit.
    Crash,
}

/// Above this, payments fail for good: all four attempts can fail in a row.
const MOST_GATEWAY_FAILURES: f64 = 0.7;
/// Above this a charge, with its way through the topics, takes longer than the gateway's caller waits.
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// Brokers that are away for longer make orders miss their deadline.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// More often, and nothing would get through.
const SHORTEST_BETWEEN_DROPS: Duration = Duration::from_secs(1);

impl Fault {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Duplicates(_) => "duplicates",
            Fault::GatewayFailures(_) => "gateway-failures",
            Fault::Poison(_) => "poison",
            Fault::Delays(_) => "delays",
            Fault::DropConnection(_) => "drop-connection",
            Fault::BrokerPause(_) => "broker-pause",
            Fault::Crash => "crash",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Duplicates(1) => write!(f, "every event is delivered twice, under the same event id"),
            Fault::Duplicates(every) => write!(f, "one in {every} events is delivered twice, under the same event id"),
            Fault::GatewayFailures(rate) => {
                write!(f, "the payment gateway fails a share of {rate} of charges and refunds")
            }
            Fault::Poison(number) => write!(f, "{number} records that nobody can read are written to the topic orders"),
            Fault::Delays(delay) => write!(f, "each answer of a broker, and each charge or refund, takes {delay:?}"),
            Fault::DropConnection(every) => write!(f, "every {every:?} the brokers drop all their connections"),
            Fault::BrokerPause(pause) => write!(f, "every ten seconds all brokers are away for {pause:?}"),
            Fault::Crash => write!(f, "payment-service is killed after a charge and before its commit, and comes back"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        if let ("crash", Some(value)) = (name, value) {
            return Err(format!("crash: takes no value, not {value:?}"));
        }
        let value = |default| value.unwrap_or(default);
        let wrong = |reason: &dyn fmt::Display| format!("{name}: {reason}");
        let number = |default, most: u64| {
            let number = value(default).parse().ok().filter(|number| (1..=most).contains(number));
            number.ok_or_else(|| wrong(&format_args!("a number from 1 to {most}, such as {name}={default}")))
        };
        let time = |default, shortest: Duration, longest: Duration| {
            let time = positive_duration(value(default)).map_err(|reason| wrong(&reason))?;
            match (shortest..=longest).contains(&time) {
                true => Ok(time),
                false => Err(wrong(&format_args!("a time from {shortest:?} to {longest:?}, such as {name}={default}"))),
            }
        };
        const TINY: Duration = Duration::from_millis(1);
        match name {
            "duplicates" => number("1", 1_000_000).map(Fault::Duplicates),
            "gateway-failures" => {
                let rate = rate(value("0.3")).map_err(|reason| wrong(&reason))?;
                match rate <= MOST_GATEWAY_FAILURES {
                    true => Ok(Fault::GatewayFailures(rate)),
                    false => Err(wrong(&format_args!(
                        "up to {MOST_GATEWAY_FAILURES} here, so that one of an order's four attempts gets through and the \
                         sample orders end as they should; more, up to 1, takes `eventctl chaos gateway-failures`"
                    ))),
                }
            }
            "poison" => number("3", poison::MOST).map(Fault::Poison),
            "delays" => time("200ms", TINY, LONGEST_DELAY).map(Fault::Delays),
            "drop-connection" => {
                time("3s", SHORTEST_BETWEEN_DROPS, Duration::from_secs(3600)).map(Fault::DropConnection)
            }
            "broker-pause" => time("2s", TINY, LONGEST_PAUSE).map(Fault::BrokerPause),
            "crash" => Ok(Fault::Crash),
            _ => Err(format!(
                "there is no fault {name:?}; there are duplicates, gateway-failures, poison, delays, drop-connection, \
                 broker-pause and crash"
            )),
        }
    }
}

/// What `--chaos` was given: each fault once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Whether payment-service is to be killed, and so to be a process of its own.
    pub fn crash(&self) -> bool {
        self.0.contains(&Fault::Crash)
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Faults, String> {
        let faults = text.split(',').map(str::trim).map(Fault::from_str).collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        match faults.iter().find(|fault| !names.insert(fault.name())) {
            Some(twice) => Err(format!("{} is named twice", twice.name())),
            None => Ok(Faults(faults)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_with_and_without_a_value() {
        let text = "duplicates,gateway-failures=0.5, poison=4,delays=50ms,drop-connection=2s,broker-pause,crash";
        let faults = [
            Fault::Duplicates(1),
            Fault::GatewayFailures(0.5),
            Fault::Poison(4),
            Fault::Delays(Duration::from_millis(50)),
            Fault::DropConnection(Duration::from_secs(2)),
            Fault::BrokerPause(Duration::from_secs(2)),
            Fault::Crash,
        ];
        assert_eq!(text.parse(), Ok(Faults(faults.to_vec())));
        for fault in faults {
            assert!(HELP.contains(&format!("\n{}", fault.name())), "the help lacks {fault:?}");
        }
    }

    #[test]
    fn what_is_no_fault_is_refused_with_what_there_is() {
        let table = [
            ("", "there is no fault \"\"; there are duplicates, gateway-failures"),
            ("duplicate", "there is no fault \"duplicate\""),
            ("duplicates,", "there is no fault \"\""),
            ("duplicates=0", "duplicates: a number from 1 to 1000000"),
            ("duplicates=-1", "duplicates: a number from 1"),
            ("duplicates,duplicates=2", "duplicates is named twice"),
            ("gateway-failures=1.5", "gateway-failures: a rate is a number from 0 to 1"),
            ("gateway-failures=0.9", "gateway-failures: up to 0.7 here"),
            ("gateway-failures=NaN", "gateway-failures: a rate is a number from 0 to 1"),
            ("poison=51", "poison: a number from 1 to 50"),
            ("delays=soon", "delays: write a time such as 500ms"),
            ("delays=2s", "delays: a time from 1ms to 1s"),
            ("drop-connection=10ms", "drop-connection: a time from 1s"),
            ("crash=now", "crash: takes no value"),
            ("broker-pause=1m", "broker-pause: a time from 1ms to 5s"),
        ];
        for (text, expected) in table {
            let error = text.parse::<Faults>().expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
