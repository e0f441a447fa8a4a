//! When each record was handled, and whether that was right.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Notes of the handlers. One entry a record, so that they do not wait for each other.
pub struct Journal {
    started: Instant,
    entries: Vec<Entry>,
}

#[derive(Default)]
struct Entry {
    begun: AtomicU64,
    ended: AtomicU64,
    runs: AtomicU32,
}

/// From when to when a record was handled, by a clock that began before all of them.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    begun: Duration,
    ended: Duration,
}

/// What the notes say about a run that was right.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// From the first beginning to the last end.
    pub elapsed: Duration,
    /// All records, one after the other.
    total: Duration,
    /// Those of the busiest key, one after the other.
    longest_key: Duration,
}

impl Verdict {
    /// Nothing that handles so many at once, and those of a key in order, is faster.
    pub fn bound(&self, concurrency: usize) -> Duration {
        self.longest_key.max(self.total / concurrency as u32)
    }
}

impl Journal {
    pub fn of(records: usize) -> Journal {
        Journal { started: Instant::now(), entries: (0..records).map(|_| Entry::default()).collect() }
    }

    pub fn begins(&self, number: u64) {
        self.entries[number as usize].begun.store(self.now(), Ordering::Relaxed);
    }

    pub fn ends(&self, number: u64) {
        let entry = &self.entries[number as usize];
        entry.ended.store(self.now(), Ordering::Relaxed);
        entry.runs.fetch_add(1, Ordering::Relaxed);
    }

    /// Judges the notes, once nothing is handled any more; `keys` has the key of each record.
    ///
    /// # Errors
    /// When a record was not handled once, or not after those before it of its key.
    pub fn verdict(&self, keys: &[u32]) -> anyhow::Result<Verdict> {
        let wrong = self.entries.iter().filter(|entry| entry.runs.load(Ordering::Relaxed) != 1).count();
        anyhow::ensure!(wrong == 0, "{wrong} of {} records were lost or repeated", keys.len());
        let time = |nanoseconds: &AtomicU64| Duration::from_nanos(nanoseconds.load(Ordering::Relaxed));
        let stretch = |entry: &Entry| Stretch { begun: time(&entry.begun), ended: time(&entry.ended) };
        judge(&self.entries.iter().map(stretch).collect::<Vec<_>>(), keys)
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}

/// `stretches` are in the order of the topic.
fn judge(stretches: &[Stretch], keys: &[u32]) -> anyhow::Result<Verdict> {
    let (mut last_of, mut overlaps, mut disorders) = (HashMap::<u32, Stretch>::new(), 0, 0);
    let (mut total, mut of_key) = (Duration::ZERO, HashMap::<u32, Duration>::new());
    for (stretch, key) in stretches.iter().zip(keys) {
        if let Some(before) = last_of.insert(*key, *stretch) {
            disorders += usize::from(stretch.begun < before.begun);
            overlaps += usize::from(stretch.begun < before.ended && before.begun < stretch.ended);
        }
        total += stretch.ended - stretch.begun;
        *of_key.entry(*key).or_default() += stretch.ended - stretch.begun;
    }
    anyhow::ensure!(
        overlaps == 0 && disorders == 0,
        "of {} records {overlaps} were handled beside the one before of their key, {disorders} before it",
        keys.len()
    );
    let first = stretches.iter().map(|stretch| stretch.begun).min().unwrap_or_default();
    let last = stretches.iter().map(|stretch| stretch.ended).max().unwrap_or_default();
    Ok(Verdict { elapsed: last - first, total, longest_key: of_key.into_values().max().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn stretches(times: &[(u64, u64)]) -> Vec<Stretch> {
        times.iter().map(|(begun, ended)| Stretch { begun: ms(*begun), ended: ms(*ended) }).collect()
    }

    #[test]
    fn the_bound_is_that_of_the_places_or_of_the_busiest_key() {
        let verdict = judge(&stretches(&[(1, 4), (1, 6), (4, 8)]), &[1, 2, 1]).unwrap();
        assert_eq!(verdict, Verdict { elapsed: ms(7), total: ms(12), longest_key: ms(7) });
        assert_eq!(verdict.bound(1), ms(12));
        assert_eq!(verdict.bound(2), ms(7), "key 1 alone takes longer than half of all");
    }

    #[test]
    fn records_of_a_key_that_overlap_are_found() {
        let error = judge(&stretches(&[(1, 5), (4, 6)]), &[1, 1]).unwrap_err().to_string();
        assert!(error.contains("1 were handled beside the one before of their key, 0 before it"), "{error}");
        assert!(judge(&stretches(&[(1, 5), (4, 6)]), &[1, 2]).is_ok(), "other keys may");
        assert!(judge(&stretches(&[(1, 5), (5, 6)]), &[1, 1]).is_ok(), "one after the other");
    }

    #[test]
    fn records_of_a_key_out_of_order_are_found() {
        let error = judge(&stretches(&[(5, 6), (1, 2)]), &[1, 1]).unwrap_err().to_string();
        assert!(error.contains("0 were handled beside the one before of their key, 1 before it"), "{error}");
    }

    #[test]
    fn a_record_that_was_handled_twice_or_not_at_all_is_found() {
        let journal = Journal::of(2);
        for number in [0, 0] {
            journal.begins(number);
            journal.ends(number);
        }
        assert_eq!(journal.verdict(&[1, 1]).unwrap_err().to_string(), "2 of 2 records were lost or repeated");
    }
}
