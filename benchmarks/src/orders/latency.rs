//! How long orders took, from when they were due.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// More counts as an hour.
const LONGEST: Duration = Duration::from_secs(3600);

/// An order that was accepted.
#[derive(Clone, Debug)]
pub struct Placed {
    /// When it was to be placed.
    pub due: Instant,
    pub order: String,
}

/// In µs; `ended` has the orders in the same places.
pub fn latencies(placed: &[Placed], ended: &[Instant]) -> anyhow::Result<Histogram<u64>> {
    let mut latencies = Histogram::new_with_bounds(1, LONGEST.as_micros() as u64, 3)?;
    for (placed, ended) in placed.iter().zip(ended) {
        latencies.saturating_record(ended.saturating_duration_since(placed.due).as_micros() as u64);
    }
    Ok(latencies)
}

/// How many had not ended when the last one was due, that one left out.
pub fn behind(placed: &[Placed], ended: &[Instant]) -> u64 {
    let Some(last) = placed.iter().map(|placed| placed.due).max() else { return 0 };
    let unfinished = placed.iter().zip(ended).filter(|(placed, ended)| placed.due < last && **ended > last);
    unfinished.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Orders due every 10 ms that took so many ms each.
    fn orders(took: &[u64]) -> (Vec<Placed>, Vec<Instant>) {
        let begin = Instant::now();
        let due = |number: usize| begin + Duration::from_millis(10 * number as u64);
        let placed = (0..took.len()).map(|number| Placed { due: due(number), order: number.to_string() }).collect();
        let ended = took.iter().enumerate().map(|(number, took)| due(number) + Duration::from_millis(*took)).collect();
        (placed, ended)
    }

    #[test]
    fn a_latency_counts_from_when_the_order_was_due() {
        let (placed, ended) = orders(&[5, 5, 5, 80]);
        let latencies = latencies(&placed, &ended).unwrap();
        assert_eq!(latencies.len(), 4);
        assert!((5_000..5_010).contains(&latencies.value_at_quantile(0.5)), "{}", latencies.value_at_quantile(0.5));
        assert!((80_000..80_100).contains(&latencies.max()), "{}", latencies.max());
    }

    #[test]
    fn what_is_unfinished_when_the_last_order_is_due_is_behind() {
        let (placed, ended) = orders(&[5, 5, 5, 5]);
        assert_eq!(behind(&placed, &ended), 0, "the last one has its own time");
        let (placed, ended) = orders(&[100, 5, 100, 5]);
        assert_eq!(behind(&placed, &ended), 2);
        assert_eq!(behind(&[], &[]), 0);
    }
}
