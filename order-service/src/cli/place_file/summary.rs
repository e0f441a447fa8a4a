//! What became of a file of orders, in figures.

use std::collections::BTreeMap;

use event_runtime::cli::exit;
use serde_json::{Value, json};

use super::{Ending, Outcome};

/// How many reasons for cancellation are listed.
const REASONS: usize = 10;

/// Counts outcomes.
#[derive(Debug, Default)]
pub struct Summary {
    counts: BTreeMap<Ending, u64>,
    reasons: BTreeMap<String, u64>,
    answers: Vec<f64>,
    ends: Vec<f64>,
}

impl Summary {
    pub fn add(&mut self, outcome: &Outcome) {
        *self.counts.entry(outcome.outcome).or_default() += 1;
        if outcome.outcome == Ending::Cancelled {
            let reason = outcome.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
            *self.reasons.entry(reason).or_default() += 1;
        }
        self.answers.extend(outcome.answer_ms);
        self.ends.extend(outcome.end_ms);
    }

    /// 1 when some were refused, else 124 when some did not end, else 0.
    pub fn exit_code(&self) -> u8 {
        match (self.count(Ending::Refused), self.count(Ending::Unfinished)) {
            (0, 0) => exit::OK,
            (0, _) => exit::TIMED_OUT,
            _ => exit::FAILURE,
        }
    }

    pub fn in_short(&self) -> String {
        format!(
            "{} completed, {} cancelled, {} refused",
            self.count(Ending::Completed),
            self.count(Ending::Cancelled),
            self.count(Ending::Refused)
        )
    }

    pub fn lines(&self) -> Vec<String> {
        let line = |name: &str, count: u64| format!("{name:<15} {count:>7}");
        let mut lines = vec![line("placed", self.placed())];
        // Nobody waited: nothing is known of how the orders ended.
        if self.placed() > 0 && self.placed() == self.count(Ending::Placed) {
            lines.push(line("refused", self.count(Ending::Refused)));
            lines.extend(spread("time to answer", &self.answers));
            return lines;
        }
        lines.push(line("completed", self.count(Ending::Completed)));
        lines.push(line("cancelled", self.count(Ending::Cancelled)));
        let mut reasons: Vec<(&String, &u64)> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        lines.extend(reasons.iter().take(REASONS).map(|(reason, count)| format!("{:<15} {count:>7}  {reason}", "")));
        if reasons.len() > REASONS {
            lines.push(format!(
                "{:<15} {:>7}  other reasons",
                "",
                reasons[REASONS..].iter().map(|(_, n)| **n).sum::<u64>()
            ));
        }
        lines.push(line("refused", self.count(Ending::Refused)));
        lines.push(line("unfinished", self.count(Ending::Unfinished)));
        lines.extend(spread("time to answer", &self.answers));
        lines.extend(spread("time to end", &self.ends));
        lines
    }

    pub fn figures(&self) -> Value {
        json!({
            "placed": self.placed(),
            "completed": self.count(Ending::Completed),
            "cancelled": self.count(Ending::Cancelled),
            "cancelledByReason": self.reasons,
            "refused": self.count(Ending::Refused),
            "unfinished": self.count(Ending::Unfinished),
            "answerMs": { "p50": percentile(&self.answers, 50), "p99": percentile(&self.answers, 99) },
            "endMs": { "p50": percentile(&self.ends, 50), "p99": percentile(&self.ends, 99) },
        })
    }

    fn count(&self, ending: Ending) -> u64 {
        self.counts.get(&ending).copied().unwrap_or_default()
    }

    fn placed(&self) -> u64 {
        self.counts.iter().filter(|(ending, _)| **ending != Ending::Refused).map(|(_, count)| count).sum()
    }
}

fn spread(name: &str, times: &[f64]) -> Option<String> {
    let (p50, p99) = (percentile(times, 50)?, percentile(times, 99)?);
    Some(format!("{name:<15} p50 {p50:.1} ms, p99 {p99:.1} ms"))
}

/// Nearest rank: the smallest value that `percent` of all values do not exceed.
fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(endings: &[(Ending, Option<&str>)]) -> Summary {
        let mut summary = Summary::default();
        for (number, (ending, reason)) in endings.iter().enumerate() {
            let mut outcome = Outcome::new(number, *ending);
            outcome.reason = reason.map(str::to_owned);
            outcome.answer_ms = (*ending != Ending::Refused).then_some(number as f64);
            summary.add(&outcome);
        }
        summary
    }

    #[test]
    fn the_exit_code_tells_refused_from_unfinished() {
        let completed = (Ending::Completed, None);
        let table = [
            (vec![], 0),
            (vec![completed, (Ending::Cancelled, None), (Ending::Placed, None)], 0),
            (vec![completed, (Ending::Unfinished, None)], 124),
            (vec![completed, (Ending::Refused, None)], 1),
            (vec![(Ending::Unfinished, None), (Ending::Refused, None)], 1),
        ];
        for (endings, expected) in table {
            assert_eq!(outcomes(&endings).exit_code(), expected, "{endings:?}");
        }
    }

    #[test]
    fn cancellations_are_counted_by_reason() {
        let declined = (Ending::Cancelled, Some("card declined"));
        let summary =
            outcomes(&[declined, (Ending::Cancelled, Some("out of stock")), declined, (Ending::Refused, None)]);
        let lines: Vec<String> =
            summary.lines().iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "placed 3",
                "completed 0",
                "cancelled 3",
                "2 card declined",
                "1 out of stock",
                "refused 1",
                "unfinished 0",
                "time to answer p50 1.0 ms, p99 2.0 ms",
            ]
        );
    }

    #[test]
    fn a_percentile_is_a_value_that_occurred() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), Some(50.0));
        assert_eq!(percentile(&hundred, 99), Some(99.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
