//! From rounds to figures: median, extremes, and the ratio to what was written by hand.

use std::collections::BTreeMap;

use event_runtime::cli::Output;
use serde::Serialize;
use serde_json::{Value, json};

/// Who did the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    EventRuntime,
    HandWritten,
}

/// One way to do a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub who: Who,
    pub variant: String,
}

impl Subject {
    pub fn runtime(variant: impl Into<String>) -> Subject {
        Subject { who: Who::EventRuntime, variant: variant.into() }
    }

    pub fn by_hand(variant: impl Into<String>) -> Subject {
        Subject { who: Who::HandWritten, variant: variant.into() }
    }
}

/// What came of one round of a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Round {
    pub value: f64,
    /// CPU time of this process, µs a record.
    pub cpu: Option<f64>,
    /// CPU time of the broker, µs a record.
    pub broker_cpu: Option<f64>,
    /// The most memory this process had, MiB.
    pub peak_memory: Option<f64>,
}

/// The rounds of one measurement. What was written by hand and is added first is what ratios refer to.
#[derive(Debug)]
pub struct Results {
    workload: String,
    unit: &'static str,
    settings: Value,
    subjects: Vec<(Subject, Vec<Round>)>,
}

impl Results {
    /// `settings` is a JSON object: what somebody needs to know to get the same.
    pub fn new(workload: impl Into<String>, unit: &'static str, settings: Value) -> Results {
        Results { workload: workload.into(), unit, settings, subjects: Vec::new() }
    }

    pub fn add(&mut self, subject: &Subject, round: Round) {
        match self.subjects.iter_mut().find(|(known, _)| known == subject) {
            Some((_, rounds)) => rounds.push(round),
            None => self.subjects.push((subject.clone(), vec![round])),
        }
    }

    fn by_hand(&self) -> impl Iterator<Item = &(Subject, Vec<Round>)> {
        self.subjects.iter().filter(|(subject, _)| subject.who == Who::HandWritten)
    }

    fn figures(&self) -> impl Iterator<Item = Figure<'_>> {
        self.subjects.iter().map(|(subject, rounds)| {
            let values: Vec<f64> = rounds.iter().map(|round| round.value).collect();
            let of = |part: fn(&Round) -> Option<f64>| {
                let parts: Vec<f64> = rounds.iter().filter_map(part).collect();
                (!parts.is_empty()).then(|| rounded(median(&parts)))
            };
            let to_each: Vec<(&str, f64)> =
                self.by_hand().map(|(other, theirs)| (other.variant.as_str(), ratio(rounds, theirs))).collect();
            Figure {
                workload: &self.workload,
                subject: subject.who,
                variant: &subject.variant,
                unit: self.unit,
                median: rounded(median(&values)),
                min: rounded(values.iter().copied().fold(f64::INFINITY, f64::min)),
                max: rounded(values.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
                rounds: rounds.len(),
                ratio_to_hand_written: to_each.first().map(|(_, ratio)| rounded(*ratio)),
                ratios: to_each.into_iter().map(|(variant, ratio)| (variant, rounded(ratio))).collect(),
                cpu_us_per_record: of(|round| round.cpu),
                broker_cpu_us_per_record: of(|round| round.broker_cpu),
                peak_memory_mib: of(|round| round.peak_memory),
                versions: versions(),
                settings: &self.settings,
            }
        })
    }
}

/// Writes figures: as a table for people, else one JSON object a figure.
///
/// # Errors
/// When stdout cannot be written.
pub fn write(output: &Output, results: &[Results]) -> anyhow::Result<()> {
    let figures: Vec<Figure<'_>> = results.iter().flat_map(Results::figures).collect();
    if !output.is_table() {
        return Ok(output.rows(&figures)?);
    }
    let header =
        ["workload", "subject", "variant", "unit", "median", "min", "max", "ratio", "CPU µs", "broker µs", "peak MiB"];
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), shown);
    let rows: Vec<_> = figures
        .iter()
        .map(|figure| {
            let who = match figure.subject {
                Who::EventRuntime => "event-runtime",
                Who::HandWritten => "hand-written",
            };
            let row = vec![
                figure.workload.to_owned(),
                who.to_owned(),
                figure.variant.to_owned(),
                figure.unit.to_owned(),
                shown(figure.median),
                shown(figure.min),
                shown(figure.max),
                optional(figure.ratio_to_hand_written),
                optional(figure.cpu_us_per_record),
                optional(figure.broker_cpu_us_per_record),
                optional(figure.peak_memory_mib),
            ];
            (None, row)
        })
        .collect();
    Ok(output.table(&header, &rows)?)
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Figure<'a> {
    workload: &'a str,
    subject: Who,
    variant: &'a str,
    unit: &'a str,
    median: f64,
    min: f64,
    max: f64,
    rounds: usize,
    /// To the first of what was written by hand.
    ratio_to_hand_written: Option<f64>,
    /// To each of what was written by hand.
    ratios: BTreeMap<&'a str, f64>,
    cpu_us_per_record: Option<f64>,
    broker_cpu_us_per_record: Option<f64>,
    peak_memory_mib: Option<f64>,
    versions: Value,
    settings: &'a Value,
}

/// Round by round where both have as many, because the rounds of a turn had the same noise; the median of that.
fn ratio(ours: &[Round], theirs: &[Round]) -> f64 {
    let value = |round: &Round| round.value;
    if ours.len() == theirs.len() {
        let each: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours.value / theirs.value).collect();
        return median(&each);
    }
    let all = |rounds: &[Round]| median(&rounds.iter().map(value).collect::<Vec<_>>());
    all(ours) / all(theirs)
}

/// The middle value, or the mean of the two in the middle; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() / 2, sorted.len() % 2) {
        (_, _) if sorted.is_empty() => f64::NAN,
        (middle, 1) => sorted[middle],
        (middle, _) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Nearest rank: the smallest value that so many per cent of all values do not exceed; NaN of none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * percent / 100.0).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// Four significant digits: more would only pretend.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

fn shown(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn versions() -> Value {
    json!({
        "event-runtime": env!("CARGO_PKG_VERSION"),
        "librdkafka": rdkafka::util::get_rdkafka_version().1,
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(values: &[f64]) -> Vec<Round> {
        values.iter().map(|value| Round { value: *value, ..Round::default() }).collect()
    }

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_percentile_is_a_value_that_occurred() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), 100.0);
        assert_eq!(percentile(&values, 99.0), 198.0);
        assert_eq!(percentile(&values, 99.9), 200.0);
        assert_eq!(percentile(&[5.0], 1.0), 5.0);
        assert!(percentile(&[], 50.0).is_nan());
    }

    #[test]
    fn a_ratio_is_taken_turn_by_turn() {
        // Two quiet turns and one in which the machine was busy: for both.
        assert_eq!(ratio(&rounds(&[10.0, 20.0, 20.0]), &rounds(&[5.0, 10.0, 10.0])), 2.0);
        assert_eq!(ratio(&rounds(&[10.0, 90.0, 20.0]), &rounds(&[10.0, 30.0, 10.0])), 2.0);
        assert_eq!(ratio(&rounds(&[20.0]), &rounds(&[10.0, 40.0, 5.0])), 2.0, "medians where the counts differ");
    }

    #[test]
    fn figures_refer_to_what_was_written_by_hand_first() {
        let mut results = Results::new("w", "records/s", json!({"records": 1}));
        for _ in 0..3 {
            results.add(&Subject::by_hand("loop"), Round { value: 100.0, cpu: Some(1.0), ..Round::default() });
            results.add(&Subject::by_hand("limit"), Round { value: 400.0, ..Round::default() });
            results.add(&Subject::runtime("plain"), Round { value: 50.0, cpu: Some(3.0), ..Round::default() });
        }
        let figures: Vec<Value> = results.figures().map(|figure| serde_json::to_value(figure).unwrap()).collect();
        assert_eq!(figures.len(), 3);
        let ours = &figures[2];
        assert_eq!(ours["subject"], "event-runtime");
        assert_eq!(figures[0]["subject"], "hand-written");
        assert_eq!((&ours["median"], &ours["rounds"]), (&json!(50.0), &json!(3)));
        assert_eq!(ours["ratio_to_hand_written"], 0.5);
        assert_eq!(ours["ratios"], json!({"loop": 0.5, "limit": 0.125}));
        assert_eq!(ours["cpu_us_per_record"], 3.0);
        assert_eq!(figures[1]["cpu_us_per_record"], Value::Null);
    }

    #[test]
    fn figures_have_four_digits() {
        assert_eq!([745_123.4, 1.234_56, 0.012_345_6, 0.0].map(rounded), [745_100.0, 1.235, 0.012_35, 0.0]);
        assert_eq!([745_100.0, 1.235].map(shown), ["745100", "1.24"]);
    }
}
