//! How rows are shared out among relays: by their key, into a fixed number of buckets.
//!
//! The number is part of the schema. Every writer stores a row's bucket with it, so all of them must agree: another number
//! means to stop every instance, set `bucket` to NULL in `outbox` and `outbox_delayed`, and bring the rows of
//! `outbox_bucket` to that number. A row without a bucket (from before there were any, or from a writer of that version) is
//! given one by a relay, and nothing that came after it is published before that.
//!
//! An event without a key does not exist ([`Event::key`](shared_events::Event::key)); an empty one is a key like any other.

use std::{collections::BTreeMap, ops::BitOr};

/// As many relays can share the work; more of them stand by.
pub(crate) const BUCKETS: u8 = 16;

/// The rows of some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Bucket(u8);

/// The fencing number under which each bucket is held.
pub(super) type Fences = BTreeMap<Bucket, i64>;

impl Bucket {
    /// Whoever holds this one also does what only one relay may do.
    pub const FIRST: Bucket = Bucket(0);

    /// Where the rows of `key` are. Never to be changed: rows of one key in two buckets lose their order.
    pub fn of(key: &[u8]) -> Bucket {
        // FNV-1a, whose last bits the short keys share; the multiplication spreads them over the first bits.
        let hash = key
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let spread = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        Bucket((spread >> (64 - BUCKETS.ilog2())) as u8)
    }

    /// The bucket in a column, if there is such a one.
    pub fn numbered(number: i64) -> Option<Bucket> {
        u8::try_from(number).ok().filter(|number| *number < BUCKETS).map(Bucket)
    }

    pub fn number(self) -> i64 {
        i64::from(self.0)
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buckets(u16);

impl Buckets {
    pub fn all() -> Buckets {
        Buckets(u16::MAX)
    }

    pub fn contains(self, bucket: Bucket) -> bool {
        self.0 & (1 << bucket.0) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Those that are not in `others`.
    pub fn without(self, others: Buckets) -> Buckets {
        Buckets(self.0 & !others.0)
    }

    /// Those that are in both.
    pub fn and(self, others: Buckets) -> Buckets {
        Buckets(self.0 & others.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Bucket> {
        (0..BUCKETS).map(Bucket).filter(move |bucket| self.contains(*bucket))
    }

    /// As the list of an SQL `IN`; never an empty one, which SQL does not have.
    pub fn sql_list(self) -> String {
        let numbers: Vec<String> = self.iter().map(|bucket| bucket.number().to_string()).collect();
        if numbers.is_empty() { "NULL".to_owned() } else { numbers.join(",") }
    }
}

impl From<Bucket> for Buckets {
    fn from(bucket: Bucket) -> Buckets {
        Buckets(1 << bucket.0)
    }
}

impl FromIterator<Bucket> for Buckets {
    fn from_iter<T: IntoIterator<Item = Bucket>>(buckets: T) -> Self {
        Buckets(buckets.into_iter().fold(0, |bits, bucket| bits | 1 << bucket.0))
    }
}

impl BitOr for Buckets {
    type Output = Buckets;

    fn bitor(self, others: Buckets) -> Buckets {
        Buckets(self.0 | others.0)
    }
}

#[cfg(test)]
mod tests {
    use shared_events::OrderId;

    use super::*;

    /// Rows that were stored by one version are published by the next.
    #[test]
    fn the_bucket_of_a_key_never_changes() {
        let buckets =
            ["", "a", "b", "0191d8a0-0000-7000-8000-000000000001", "grüße"].map(|key| Bucket::of(key.as_bytes()).0);
        assert_eq!(buckets, [14, 14, 4, 3, 8]);
    }

    #[test]
    fn keys_are_spread_evenly() {
        let short = (0..16_000).map(|number| format!("k{number}"));
        let ids = (0..16_000).map(|_| OrderId::new().to_string());
        for keys in [short.collect::<Vec<_>>(), ids.collect()] {
            let mut counts = [0_u32; BUCKETS as usize];
            for key in keys {
                counts[usize::from(Bucket::of(key.as_bytes()).0)] += 1;
            }
            assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set = buckets(&[0, 3, 15, 3]);
        assert_eq!(set.iter().map(Bucket::number).collect::<Vec<_>>(), [0, 3, 15]);
        assert_eq!(set.iter().map(Bucket::index).collect::<Vec<_>>(), [0, 3, 15]);
        assert_eq!((set.len(), set.is_empty(), set.sql_list()), (3, false, "0,3,15".to_owned()));
        let empty = Buckets::default();
        assert_eq!((empty.len(), empty.is_empty(), empty.sql_list()), (0, true, "NULL".to_owned()));
        assert_eq!((Buckets::all().len(), Buckets::all().iter().count()), (16, 16));
        assert_eq!([Bucket::numbered(16), Bucket::numbered(-1)], [None, None]);
        assert!(Bucket::numbered(15).is_some_and(|last| set.contains(last) && Buckets::from(last).contains(last)));
    }

    #[test]
    fn sets_are_joined_and_cut() {
        let (left, right) = (buckets(&[0, 3, 15]), buckets(&[3, 4]));
        assert_eq!(left | right, buckets(&[0, 3, 4, 15]));
        assert_eq!(left.and(right), buckets(&[3]));
        assert_eq!(left.without(right), buckets(&[0, 15]));
    }

    fn buckets(numbers: &[i64]) -> Buckets {
        numbers.iter().map(|number| Bucket::numbered(*number).unwrap()).collect()
    }
}
