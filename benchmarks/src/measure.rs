//! Time, CPU time and memory of a stretch of work.

use std::{
    fs,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{UsageWho, getrusage},
    unistd::Pid,
};
use tokio::sync::Notify;

use crate::figure::Round;

/// Reads the clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    /// Where it is known.
    broker: Option<Process>,
}

/// A process, this one or another.
#[derive(Clone, Copy, Debug)]
pub struct Process(Pid);

/// A moment, and the CPU time used up to it.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    pub at: Instant,
    cpu: Duration,
    broker: Option<Duration>,
}

impl Meter {
    /// Also of the broker that `scripts/kafka.sh` started, where `KAFKA_DIR` says which that is.
    pub fn new(kafka_dir: Option<&str>) -> Meter {
        let pid = kafka_dir.and_then(|dir| fs::read_to_string(format!("{dir}/kafka.pid")).ok());
        Meter { broker: pid.and_then(|pid| pid.trim().parse().ok()).map(Process::numbered) }
    }

    pub fn mark(&self) -> Mark {
        let broker = self.broker.and_then(|broker| broker.cpu_time());
        Mark { at: Instant::now(), cpu: cpu_time(), broker }
    }
}

impl Process {
    pub fn numbered(pid: u32) -> Process {
        Process(Pid::from_raw(pid.cast_signed()))
    }

    /// Of all its threads, in user and kernel mode. Linux only.
    #[cfg(target_os = "linux")]
    pub fn cpu_time(self) -> Option<Duration> {
        let clock = nix::time::ClockId::pid_cpu_clock_id(self.0).ok()?;
        Some(clock.now().ok()?.into())
    }

    #[cfg(not(target_os = "linux"))]
    pub fn cpu_time(self) -> Option<Duration> {
        None
    }

    /// Also of its children, those that have ended included: of a server with a process a connection. Linux only.
    pub fn cpu_time_with_children(self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0)).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Process::numbered);
        let alive: Duration = children.filter_map(Process::cpu_time).sum();
        Some(self.cpu_time()? + ended_children(&stat)? + alive)
    }

    /// The most MiB it ever had. Linux only.
    pub fn peak_memory(self) -> Option<f64> {
        status(self.0, "VmHWM:")
    }

    /// MiB resident. Linux only.
    pub fn memory(self) -> Option<f64> {
        status(self.0, "VmRSS:")
    }
}

impl Mark {
    /// What `records` took from here to `end`: records/s, and CPU time of each.
    pub fn rate(&self, end: &Mark, records: u64) -> Round {
        let (records, took) = (records as f64, end.at - self.at);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / records;
        let broker = end.broker.zip(self.broker).map(|(end, begin)| each(end.saturating_sub(begin)));
        Round {
            value: records / took.as_secs_f64(),
            cpu: Some(each(end.cpu.saturating_sub(self.cpu))),
            broker_cpu: broker,
            peak_memory: peak_memory(),
        }
    }
}

/// What `/proc/PID/stat` says of children that were waited for: the 14th and 15th field after the name, in hundredths of
/// a second.
fn ended_children(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(13).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>().ok()?;
    Some(Duration::from_millis(10 * ticks))
}

/// Of all threads of this process, in user and kernel mode.
fn cpu_time() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process may ask for its own usage");
    [usage.user_time(), usage.system_time()]
        .map(|time| Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()).unsigned_abs()))
        .iter()
        .sum()
}

/// Forgets the peak, so that the next subject has its own. Only Linux can; elsewhere the peak is that of all so far.
pub fn forget_peak_memory() {
    // A kernel that refuses leaves a peak that is too high, which nobody takes for too good.
    fs::write("/proc/self/clear_refs", "5").ok();
}

/// MiB, of this process.
fn peak_memory() -> Option<f64> {
    Process(Pid::this()).peak_memory().or_else(|| {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        // KiB on Linux, bytes on Apple's systems.
        let unit = if cfg!(target_vendor = "apple") { 1024.0 * 1024.0 } else { 1024.0 };
        Some(usage.max_rss() as f64 / unit)
    })
}

/// A line of what Linux says of a process, in MiB.
fn status(pid: Pid, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}

/// Counts records, and takes the marks of the first and the last one: what comes before the first (joining a group) and
/// after the last (leaving it) is no throughput.
pub struct Count {
    meter: Meter,
    wanted: u64,
    so_far: AtomicU64,
    /// With how many were counted then: they came before it.
    first: OnceLock<(Mark, u64)>,
    last: OnceLock<Mark>,
    done: Notify,
}

impl Count {
    pub fn of(wanted: u64, meter: Meter) -> Count {
        forget_peak_memory();
        Count {
            meter,
            wanted,
            so_far: AtomicU64::new(0),
            first: OnceLock::new(),
            last: OnceLock::new(),
            done: Notify::new(),
        }
    }

    /// Work on the first records begins: for those who count many at once, when they are done.
    pub fn begin(&self) {
        self.first.get_or_init(|| (self.meter.mark(), 0));
    }

    /// One record is handled. Whether it was the last.
    pub fn one(&self) -> bool {
        self.some(1)
    }

    /// So many are.
    pub fn some(&self, records: u64) -> bool {
        if records == 0 {
            return false;
        }
        let before = self.so_far.fetch_add(records, Ordering::Relaxed);
        if before == 0 {
            self.first.get_or_init(|| (self.meter.mark(), records));
        }
        let last = before < self.wanted && before + records >= self.wanted;
        if last {
            self.last.get_or_init(|| self.meter.mark());
            self.done.notify_one();
        }
        last
    }

    pub fn so_far(&self) -> u64 {
        self.so_far.load(Ordering::Relaxed)
    }

    /// Resolves when all wanted were counted.
    ///
    /// # Errors
    /// When nothing was counted for `patience`.
    pub async fn all(&self, patience: Duration) -> anyhow::Result<Round> {
        let mut seen = 0;
        while tokio::time::timeout(patience, self.done.notified()).await.is_err() {
            let now = self.so_far();
            anyhow::ensure!(now > seen, "nothing came for {patience:?} after {now} of {} records", self.wanted);
            seen = now;
        }
        Ok(self.round())
    }

    /// The rate between the first and the last record.
    ///
    /// # Panics
    /// When not all were counted.
    pub fn round(&self) -> Round {
        let marks = self.first.get().zip(self.last.get());
        let ((first, before), last) = marks.expect("asked after the last record");
        first.rate(last, self.wanted.saturating_sub(*before).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_has_a_rate_a_cost_and_a_peak() {
        let meter = Meter::default();
        let begin = meter.mark();
        let mut sum = 0_u64;
        while begin.at.elapsed() < Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let round = begin.rate(&meter.mark(), 1000);
        assert!(round.value > 0.0 && round.value <= 1000.0 / 0.03, "{round:?}");
        assert!(round.cpu.is_some_and(|cpu| cpu > 0.0), "{round:?}");
        assert!(round.peak_memory.is_some_and(|mib| mib > 1.0), "{round:?}");
        assert_eq!(round.broker_cpu, None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_has_memory_and_used_some_time() {
        let this = Process::numbered(std::process::id());
        assert!(this.memory().is_some_and(|mib| mib > 1.0));
        assert!(this.cpu_time().is_some_and(|time| time > Duration::ZERO));
    }

    #[test]
    fn children_that_ended_are_counted_whatever_the_name() {
        let stat = "7 (post) (gres) S 1 7 7 0 -1 4194560 9 9 0 0 3 4 150 50 20 0 1 0 99 1000";
        assert_eq!(ended_children(stat), Some(Duration::from_secs(2)));
        assert_eq!(ended_children("nothing of it"), None);
    }

    #[tokio::test]
    async fn the_last_record_is_said_once() {
        let count = Count::of(3, Meter::default());
        assert_eq!([count.one(), count.some(0), count.some(2), count.one()], [false, false, true, false]);
        assert_eq!(count.so_far(), 4);
        assert!(count.all(Duration::from_secs(5)).await.is_ok());
    }

    #[test]
    fn what_was_counted_at_the_first_mark_is_no_part_of_the_rate() {
        let [begun, not] = [true, false].map(|begun| {
            let count = Count::of(100, Meter::default());
            if begun {
                count.begin();
            }
            std::thread::sleep(Duration::from_millis(20));
            count.some(99);
            count.one();
            count.round().value
        });
        assert!(begun < 100.0 / 0.02, "all 100 since the beginning: {begun}");
        assert!(not > 0.0, "one since the other 99: {not}");
    }

    #[tokio::test]
    async fn work_that_stands_still_is_an_error() {
        let count = Count::of(2, Meter::default());
        count.one();
        let error = count.all(Duration::from_millis(5)).await.unwrap_err().to_string();
        assert!(error.contains("after 1 of 2 records"), "{error}");
    }
}
