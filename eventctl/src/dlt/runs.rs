//! Offsets, as runs without gaps: whoever writes that all of a partition is done says so in a few bytes.

use std::collections::BTreeMap;

/// A set of offsets. Its memory goes by the gaps between them, not by their number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// The last offset of each run by its first; two runs neither touch nor overlap.
    last_by_first: BTreeMap<i64, i64>,
}

impl Runs {
    /// Adds everything from `first` to `last`; nothing when they are in another order.
    pub fn insert(&mut self, mut first: i64, mut last: i64) {
        if first > last {
            return;
        }
        while let Some((begin, end)) = self.up_to(last.saturating_add(1)).filter(|run| run.1 >= first.saturating_sub(1))
        {
            self.last_by_first.remove(&begin);
            (first, last) = (first.min(begin), last.max(end));
        }
        self.last_by_first.insert(first, last);
    }

    pub fn contains(&self, offset: i64) -> bool {
        self.up_to(offset).is_some_and(|(_, last)| offset <= last)
    }

    /// The highest offset.
    pub fn last(&self) -> Option<i64> {
        self.last_by_first.last_key_value().map(|(_, last)| *last)
    }

    pub fn remove_below(&mut self, offset: i64) {
        let cut = self.up_to(offset).filter(|(_, last)| *last >= offset);
        self.last_by_first = self.last_by_first.split_off(&offset);
        self.last_by_first.extend(cut.map(|(_, last)| (offset, last)));
    }

    /// First and last offset of each run, from the lowest on.
    pub fn iter(&self) -> impl Iterator<Item = (i64, i64)> {
        self.last_by_first.iter().map(|(first, last)| (*first, *last))
    }

    /// The last run that begins at `offset` or before.
    fn up_to(&self, offset: i64) -> Option<(i64, i64)> {
        self.last_by_first.range(..=offset).next_back().map(|(first, last)| (*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use test_support::fuzz::fuzz;

    use super::*;

    /// Pairs of bytes are runs to insert; a byte above 250 removes below the next.
    #[test]
    fn fuzzed_runs_hold_what_a_set_of_offsets_holds() {
        let corpus =
            [b"".to_vec(), vec![1, 3, 5, 7, 4, 4], vec![9, 12, 1, 30, 255, 20], vec![2, 2, 4, 4, 6, 6, 255, 4]];
        fuzz(&corpus, &[], |bytes| {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for pair in bytes.chunks_exact(2) {
                let (one, two) = (i64::from(pair[0]), i64::from(pair[1]));
                if one > 250 {
                    runs.remove_below(two);
                    set.retain(|offset| *offset >= two);
                } else {
                    runs.insert(one, two);
                    set.extend(one..=two);
                }
            }
            let listed: BTreeSet<i64> = runs.iter().flat_map(|(first, last)| first..=last).collect();
            assert_eq!(listed, set);
            assert_eq!(runs.last(), set.last().copied());
            assert!((0..256).all(|offset| runs.contains(offset) == set.contains(&offset)));
            let apart = runs.iter().zip(runs.iter().skip(1)).all(|((_, last), (first, _))| last + 1 < first);
            assert!(apart, "{runs:?}");
            !set.is_empty()
        });
    }
}
