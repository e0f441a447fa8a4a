//! Which records there are.

use std::ops::RangeInclusive;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use crate::topics::Work;

/// How keys are drawn. At random in any case: keys that come in turn hide a scheduler that runs two records of one side by
/// side.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// Each of so many as likely as any other.
    Uniform(u32),
    /// The k-th of so many as likely as 1/k to this power.
    Zipf(u32, f64),
}

/// Key and sleep (µs) of each record.
pub struct Load {
    keys: Vec<u32>,
    sleeps: Vec<u32>,
}

impl Load {
    pub fn drawn(seed: u64, records: u64, keys: &Keys, sleeps_us: RangeInclusive<u32>) -> Load {
        let mut random = StdRng::seed_from_u64(seed);
        let up_to = keys.weights_up_to();
        let all = *up_to.last().expect("there is a key");
        let draw = |random: &mut StdRng| {
            let point = random.random::<f64>() * all;
            up_to.partition_point(|sum| *sum <= point).min(up_to.len() - 1) as u32
        };
        let keys = (0..records).map(|_| draw(&mut random)).collect();
        let sleeps = (0..records).map(|_| random.random_range(sleeps_us.clone())).collect();
        Load { keys, sleeps }
    }

    pub fn records(&self) -> usize {
        self.keys.len()
    }

    /// The key of each record.
    pub fn keys(&self) -> &[u32] {
        &self.keys
    }

    pub fn work<const TOPIC: usize>(&self) -> impl Iterator<Item = Work<TOPIC>> {
        let records = self.keys.iter().zip(&self.sleeps).zip(0..);
        records.map(|((&key, &sleep_us), number)| Work { number, key, sleep_us })
    }
}

impl Keys {
    /// The sum of the weights of each key and those before it.
    fn weights_up_to(&self) -> Vec<f64> {
        let (keys, exponent) = match *self {
            Keys::Uniform(keys) => (keys, 0.0),
            Keys::Zipf(keys, exponent) => (keys, exponent),
        };
        let mut sum = 0.0;
        let add = |rank: u32| {
            sum += f64::from(rank).powf(-exponent);
            sum
        };
        (1..=keys).map(add).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn counts(keys: Keys) -> HashMap<u32, usize> {
        let mut counts = HashMap::new();
        for key in Load::drawn(3, 20_000, &keys, 0..=5000).keys() {
            *counts.entry(*key).or_default() += 1;
        }
        counts
    }

    #[test]
    fn a_seed_makes_the_same_records_again() {
        let [one, again, other] = [1, 1, 2].map(|seed| Load::drawn(seed, 100, &Keys::Uniform(10), 0..=5000));
        assert_eq!((&one.keys, &one.sleeps), (&again.keys, &again.sleeps));
        assert_ne!(one.keys, other.keys);
        assert!(one.sleeps.iter().all(|sleep| *sleep <= 5000));
    }

    #[test]
    fn uniform_keys_are_as_likely_as_each_other() {
        let counts = counts(Keys::Uniform(50));
        assert_eq!(counts.len(), 50);
        assert!(counts.values().all(|count| (300..500).contains(count)), "{counts:?}");
    }

    #[test]
    fn zipfs_first_keys_have_their_shares() {
        let counts = counts(Keys::Zipf(1000, 1.1));
        // 1/k^1.1 of 5.57 in all: 18 %, 8.4 %, 5.4 %.
        let shares = [0, 1, 2].map(|key| counts[&key] as f64 / 20_000.0);
        for (share, due) in shares.iter().zip([0.180, 0.084, 0.054]) {
            assert!((share - due).abs() < 0.01, "{shares:?}");
        }
    }
}
