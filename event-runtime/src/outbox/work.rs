//! What a relay has in hand, and when it looks at what. The time comes in: `at` on the machine's clock, `now` on the rows'.

use std::time::{Duration, Instant};

use futures_util::{future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;

use super::{
    bucket::Buckets,
    lanes::Lanes,
    row::StoredRow,
    table::{Done, Fate},
    wake::Bell,
};

/// An acknowledgement that takes longer is an outage, long before the producer gives up.
const SLOW: Duration = Duration::from_secs(3);
/// How often leases are extended, and those of others looked at.
const LOOK_AT_LEASES: Duration = Duration::from_secs(1);
const LOOK_AT_DEPTH: Duration = Duration::from_secs(5);
/// After a count that failed: publishing waits for it, for as long as the relay's patience lasts.
const LOOK_AT_DEPTH_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Work<'a> {
    pub lanes: Lanes,
    pub sending: FuturesUnordered<BoxFuture<'a, (StoredRow, Option<Fate>)>>,
    /// Arrived, and still in the table.
    pub done: Vec<Done>,
    /// There may be rows that were not read yet.
    pub look: bool,
    /// When the next delayed row is due.
    pub next_due: Option<Timestamp>,
    /// When the leases were last extended; none if they are to be looked at now.
    pub leases_seen: Option<Instant>,
    /// When Kafka last acknowledged something, or nothing was on its way.
    progress: Instant,
    /// When the depth is next counted.
    count_at: Option<Instant>,
}

impl Work<'_> {
    pub fn new(at: Instant) -> Self {
        Work {
            lanes: Lanes::default(),
            sending: FuturesUnordered::new(),
            done: Vec::new(),
            look: true,
            next_due: None,
            leases_seen: None,
            progress: at,
            count_at: None,
        }
    }

    /// Whether there may be rows to read, and room for them.
    pub fn wants_rows(&self) -> bool {
        self.look && self.lanes.has_room()
    }

    /// For how long there is nothing to do unless something happens; `most` at most.
    pub fn nap(&self, most: Duration, now: Timestamp, at: Instant) -> Duration {
        let until_due = self.next_due.map_or(most, |due| due.duration_since(now).try_into().unwrap_or_default());
        most.min(until_due).min(self.until_leases(at))
    }

    pub fn are_leases_due(&self, at: Instant) -> bool {
        self.until_leases(at).is_zero()
    }

    fn until_leases(&self, at: Instant) -> Duration {
        self.leases_seen.map_or(Duration::ZERO, |seen| LOOK_AT_LEASES.saturating_sub(at.duration_since(seen)))
    }

    /// A bell rang, and the buckets in `open` are the ones to read.
    pub fn heard(&mut self, bell: Bell, open: Buckets) {
        match bell {
            Bell::Here(buckets) => self.look |= !buckets.and(open).is_empty(),
            Bell::Rows => self.look = true,
            Bell::Free => self.leases_seen = None,
        }
    }

    /// `row` is no longer on its way.
    pub fn arrived(&mut self, row: &StoredRow, fate: Fate, at: Instant) {
        self.progress = at;
        self.done.push(Done { seq: row.seq, bucket: row.bucket, fence: row.fence, fate });
    }

    /// Whether something is on its way, and Kafka has acknowledged nothing for long.
    pub fn is_stuck(&mut self, at: Instant) -> bool {
        if self.sending.is_empty() {
            self.progress = at;
        }
        at.duration_since(self.progress) > SLOW
    }

    pub fn is_count_due(&self, at: Instant) -> bool {
        self.count_at.is_none_or(|due| due <= at)
    }

    /// What waits was counted, or that failed.
    pub fn counted(&mut self, well: bool, at: Instant) {
        self.count_at = Some(at + if well { LOOK_AT_DEPTH } else { LOOK_AT_DEPTH_AGAIN });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use jiff::SignedDuration;

    use super::*;
    use crate::outbox::bucket::Bucket;

    const MOMENT: Duration = Duration::from_nanos(1);
    const MOST: Duration = Duration::from_millis(500);

    #[test]
    fn rows_are_read_while_there_may_be_some_and_there_is_room_for_them() {
        let mut work = Work::new(Instant::now());
        assert!(work.wants_rows());
        work.look = false;
        assert!(!work.wants_rows());
        work.look = true;
        assert!(work.lanes.hold(1, Bucket::FIRST, usize::MAX));
        assert!(!work.wants_rows());
    }

    #[test]
    fn leases_are_looked_at_once_a_second() {
        let begin = Instant::now();
        let mut work = Work::new(begin);
        assert!(work.are_leases_due(begin));
        work.leases_seen = Some(begin);
        assert!(!work.are_leases_due(begin + LOOK_AT_LEASES - MOMENT));
        assert!(work.are_leases_due(begin + LOOK_AT_LEASES));
    }

    #[test]
    fn a_nap_ends_when_a_row_is_due_or_leases_are() {
        let (begin, now) = (Instant::now(), Timestamp::UNIX_EPOCH);
        let mut work = Work::new(begin);
        assert_eq!(work.nap(MOST, now, begin), Duration::ZERO, "no lease was taken yet");
        work.leases_seen = Some(begin);
        assert_eq!(work.nap(MOST, now, begin), MOST);
        let millis = Duration::from_millis;
        assert_eq!(work.nap(MOST, now, begin + millis(800)), millis(200));
        work.next_due = Some(now + SignedDuration::from_millis(300));
        assert_eq!(work.nap(MOST, now, begin), millis(300));
        assert_eq!(work.nap(MOST, now + SignedDuration::from_millis(301), begin), Duration::ZERO, "it is late");
        work.next_due = Some(now + SignedDuration::from_hours(1));
        assert_eq!(work.nap(MOST, now, begin), MOST);
    }

    #[test]
    fn a_bell_has_the_relay_look_where_it_may_find_something() {
        let [ours, others] = [1, 2].map(|number| Buckets::from(Bucket::numbered(number).unwrap()));
        let begin = Instant::now();
        for (bell, rows, leases) in [
            (Bell::Here(ours), true, false),
            (Bell::Here(others), false, false),
            (Bell::Here(ours | others), true, false),
            (Bell::Rows, true, false),
            (Bell::Free, false, true),
        ] {
            let mut work = Work::new(begin);
            (work.look, work.leases_seen) = (false, Some(begin));
            work.heard(bell, ours);
            assert_eq!((work.look, work.are_leases_due(begin)), (rows, leases), "{bell:?}");
        }
        let mut work = Work::new(begin);
        work.heard(Bell::Here(others), ours);
        assert!(work.look, "it was to look already");
    }

    #[test]
    fn what_is_on_its_way_for_long_is_stuck_until_something_arrives() {
        let begin = Instant::now();
        let mut work = Work::new(begin);
        let late = begin + SLOW * 2;
        assert!(!work.is_stuck(late), "nothing is on its way");
        work.sending.push(std::future::pending().boxed());
        assert!(!work.is_stuck(late + SLOW));
        assert!(work.is_stuck(late + SLOW + MOMENT));
        let row = StoredRow::sample(7, "k");
        work.arrived(&row, Fate::Poison("too large".to_owned()), late + SLOW);
        assert!(!work.is_stuck(late + SLOW + MOMENT));
        let [done] = &work.done[..] else { panic!("one row arrived") };
        assert_eq!((done.seq, done.bucket, done.fence), (7, row.bucket, row.fence));
    }

    #[test]
    fn what_waits_is_counted_now_and_then_and_seldom_where_that_fails() {
        let begin = Instant::now();
        let mut work = Work::new(begin);
        assert!(work.is_count_due(begin));
        for (well, pause) in [(true, LOOK_AT_DEPTH), (false, LOOK_AT_DEPTH_AGAIN)] {
            work.counted(well, begin);
            assert!(!work.is_count_due(begin + pause - MOMENT));
            assert!(work.is_count_due(begin + pause));
        }
    }
}
