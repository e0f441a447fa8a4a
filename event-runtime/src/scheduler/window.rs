//! The offsets of a partition that came in and are not all handled, and which is the lowest that is not.
//!
//! ```text
//!            first unfinished                last that came in
//!                  ▼                               ▼
//!   handled …      41   42 ✓   43   44 ✓   46 ✓   47
//! ```
//!
//! Constant time a record: each is put in once and taken out once, and found by its distance from the first, or, where the
//! log has holes, by a search.

use std::collections::VecDeque;

use jiff::Timestamp;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Ascending by offset. The first one is unfinished.
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    offset: i64,
    /// When its record was written.
    written: Option<Timestamp>,
    finished: bool,
}

impl Window {
    /// An offset came in: a higher one than those before.
    pub(super) fn begin(&mut self, offset: i64, written: Option<Timestamp>) {
        debug_assert!(self.slots.back().is_none_or(|last| last.offset < offset));
        self.slots.push_back(Slot { offset, written, finished: false });
    }

    /// An offset is handled, or nobody's concern.
    pub(super) fn finish(&mut self, offset: i64) {
        let Some(place) = self.place(offset) else { return };
        self.slots[place].finished = true;
        while self.slots.front().is_some_and(|first| first.finished) {
            self.slots.pop_front();
        }
    }

    /// The lowest that is not finished, with the time its record was written.
    pub(super) fn first(&self) -> Option<(i64, Option<Timestamp>)> {
        self.slots.front().map(|slot| (slot.offset, slot.written))
    }

    fn place(&self, offset: i64) -> Option<usize> {
        let distance = usize::try_from(offset.checked_sub(self.slots.front()?.offset)?).ok()?;
        // Without holes it stands as far from the first in the window as in the log.
        if self.slots.get(distance).is_some_and(|slot| slot.offset == offset) {
            return Some(distance);
        }
        self.slots.binary_search_by_key(&offset, |slot| slot.offset).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(window: &Window) -> Option<i64> {
        window.first().map(|(offset, _)| offset)
    }

    #[test]
    fn the_first_unfinished_offset_moves_over_what_is_finished_and_over_holes() {
        let mut window = Window::default();
        assert_eq!(first(&window), None);
        for offset in [41, 42, 43, 44, 46, 47] {
            window.begin(offset, Timestamp::from_second(offset).ok());
        }
        window.finish(42);
        window.finish(44);
        window.finish(46);
        assert_eq!(window.first(), Some((41, Timestamp::from_second(41).ok())));
        window.finish(41);
        assert_eq!(first(&window), Some(43));
        window.finish(43);
        assert_eq!(first(&window), Some(47));
        window.finish(47);
        assert_eq!(first(&window), None);
    }

    #[test]
    fn what_is_not_in_it_changes_nothing() {
        let mut window = Window::default();
        window.finish(5);
        window.begin(7, None);
        window.begin(9, None);
        for offset in [i64::MIN, 6, 8, 10] {
            window.finish(offset);
        }
        assert_eq!(first(&window), Some(7));
        window.finish(7);
        window.finish(7);
        assert_eq!(first(&window), Some(9));
    }
}
