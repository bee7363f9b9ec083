//! Running many tests side by side.
//!
//! Worker threads take the tests in order, one at a time, and report to the thread that called; only that
//! one prints. A worker waits for what it started before it takes the next test, which the children rely on: they die with the
//! thread that started them.
//!
//! Invariant: every test is reported exactly once, but for those not yet begun when the run is cancelled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::cancel::Cancel;

/// What a worker reports.
#[derive(Debug)]
pub(crate) enum Event<R> {
    /// The test of this index has begun.
    Began(usize),
    /// It has ended.
    Ended(usize, R),
}

/// Does `work` for the indices `0..count`, `jobs` of them at a time, and tells `report` in the calling thread.
pub(crate) fn run<R: Send>(
    count: usize,
    jobs: usize,
    cancel: &Cancel,
    work: impl Fn(usize) -> R + Sync,
    mut report: impl FnMut(Event<R>),
) {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count.max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                while cancel.signal().is_none() {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    // The receiver lives as long as this scope.
                    let _ = sender.send(Event::Began(index));
                    let _ = sender.send(Event::Ended(index, work(index)));
                }
            });
        }
        drop(sender);
        receiver.iter().for_each(&mut report);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn all_are_done_side_by_side() {
        let together = Barrier::new(3);
        let mut done = Vec::new();
        run(
            6,
            3,
            &Cancel::new().unwrap(),
            |index| {
                // Would hang if they weren't three at a time.
                together.wait();
                index * 2
            },
            |event| {
                if let Event::Ended(index, value) = event {
                    done.push((index, value));
                }
            },
        );
        done.sort_unstable();
        assert_eq!(done, [(0, 0), (1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]);
    }

    #[test]
    fn a_cancelled_run_begins_nothing_new() {
        let cancel = Cancel::new().unwrap();
        let mut done = 0;
        run(
            100,
            1,
            &cancel,
            |_| cancel.cancel(2),
            |event| done += usize::from(matches!(event, Event::Ended(..))),
        );
        assert_eq!(done, 1);
        run(0, 4, &cancel, |_| (), |_| unreachable!());
    }
}
