//! How much waits, for the lines of the log: as far as it is known without asking the database, which may be what is away.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(super) struct Waiting {
    /// One more than the rows that were counted last; 0 if another relay counts them.
    rows: AtomicU64,
    in_hand: AtomicU64,
}

impl Waiting {
    /// The rows of the whole outbox when they were last counted, by the one relay that does so.
    pub fn rows(&self) -> Option<u64> {
        self.rows.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The rows that this relay has read and not yet removed.
    pub fn in_hand(&self) -> u64 {
        self.in_hand.load(Ordering::Relaxed)
    }

    pub fn counted(&self, rows: Option<u64>) {
        self.rows.store(rows.map_or(0, |rows| rows.saturating_add(1)), Ordering::Relaxed);
    }

    pub fn holds(&self, rows: usize) {
        self.in_hand.store(u64::try_from(rows).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_last_is_known_unless_another_relay_counts() {
        let waiting = Waiting::default();
        assert_eq!((waiting.rows(), waiting.in_hand()), (None, 0));
        waiting.holds(7);
        for rows in [Some(0), Some(3), None] {
            waiting.counted(rows);
            assert_eq!((waiting.rows(), waiting.in_hand()), (rows, 7));
        }
    }
}
