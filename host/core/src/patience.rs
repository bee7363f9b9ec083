//! How long a waiter looks before it goes to sleep.
//!
//! To put a process to sleep and wake it costs some microseconds, and tens of them where its processor went idle meanwhile (a
//! virtual one is given back to its host then). Whoever waits for something that comes sooner than that had better go on looking,
//! if nobody else needs the processor; whoever waits longer, or on a loaded machine, had better sleep at once. Nobody knows
//! beforehand which it is, so the last waits of the same kind are asked, as virtual machines do it with idle processors
//! (Linux, Documentation/virt/kvm/halt-polling.rst).
//!
//! Everybody has a short look, of about two microseconds, where there is more than one processor. A long look, of up to [`LONG`],
//! gives the processor away between any two of its looks (sched_yield(2)), so that those who are to do what is awaited can do it
//! even here. But if somebody takes it to compute, it comes back milliseconds later, which is much worse than to sleep and be
//! woken. So a long look is had where
//! - the last sleep of this kind was over soon ([`SOON`]);
//! - long looks of this kind were worth it: after each that found nothing, or took too long, twice as many waits go by without;
//! - the machine isn't loaded: at least one processor has nothing to do for anybody but this program.
//!
//! Invariant: looking changes nothing but the cost. What is missed is found by the sleep that follows.

use crate::clock::{self, Deadline};
use crate::error::Result;
use crate::session::{Session, session};
use crate::signals;
use crate::table::{self, SlotStatus};
use crate::wait::WaitKind;
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

/// How many looks are about two microseconds.
const SHORT: u32 = 40;
/// The longest look, in nanoseconds: twice what the slowest wake-up takes.
const LONG: u64 = 100_000;
/// A sleep of fewer nanoseconds might have been a look instead: the other side had been woken, and then this one.
const SOON: u64 = 200_000;
/// After this many waits at the latest another long look is tried.
const MOST_SKIPPED: u16 = 1024;
/// For how many nanoseconds it is believed how loaded the machine is.
const LOAD_IS_NEWS: u64 = 4_000_000;
/// More than there are kinds of waits.
const KINDS: usize = 32;

/// What the last waits of a kind were like.
#[derive(Clone, Copy, Default)]
struct Record {
    /// The last sleep was a short one.
    soon: bool,
    /// How many waits go by until the next long look.
    skip: u16,
    /// How many will after the next one that is in vain.
    penalty: u16,
}

thread_local! {
    static RECORDS: [Cell<Record>; KINDS] =
        const { [const { Cell::new(Record { soon: false, skip: 0, penalty: 0 }) }; KINDS] };
    /// When it was last asked how loaded the machine is, and whether there was a processor for everybody.
    static ROOM: Cell<(u64, bool)> = const { Cell::new((0, false)) };
}

fn with_record<R>(kind: WaitKind, f: impl FnOnce(&Cell<Record>) -> R) -> R {
    RECORDS.with(|records| f(&records[kind as usize % KINDS]))
}

/// Looks until `look` finds something, for as long as it makes sense: what it has found.
///
/// # Errors
/// What `look` raises.
#[inline]
pub(crate) fn look_around<T>(
    kind: WaitKind,
    deadline: Deadline,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    if is_modelled() {
        return Ok(None);
    }
    if processors() > 1 {
        for _ in 0..SHORT {
            std::hint::spin_loop();
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
        }
    }
    look_longer(kind, deadline, &mut look)
}

/// The long look alone, for whom looks are system calls.
///
/// # Errors
/// What `look` raises.
pub(crate) fn look_longer<T>(
    kind: WaitKind,
    deadline: Deadline,
    look: &mut dyn FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    if is_modelled() || !with_record(kind, is_worthwhile) {
        return Ok(None);
    }
    let begin = clock::now();
    if !has_room(begin) {
        return Ok(None);
    }
    let until = deadline.min(Deadline::at(begin + LONG));
    loop {
        std::thread::yield_now();
        let found = look()?;
        let late = until.has_passed();
        if found.is_some() || late || signals::attention() {
            with_record(kind, |record| learn(record, found.is_some() && !late));
            return Ok(found);
        }
    }
}

/// Whether a long look is to be tried, this time.
fn is_worthwhile(record: &Cell<Record>) -> bool {
    let mut now = record.get();
    if !now.soon {
        return false;
    }
    let worthwhile = now.skip == 0;
    now.skip = now.skip.saturating_sub(1);
    record.set(now);
    worthwhile
}

/// Notes whether a long look was worth it.
fn learn(record: &Cell<Record>, worth: bool) {
    let mut now = record.get();
    if worth {
        now.penalty = now.penalty.saturating_sub(1);
    } else {
        now.penalty = (2 * now.penalty).clamp(1, MOST_SKIPPED);
        now.skip = now.penalty;
    }
    record.set(now);
}

/// Notes a wait that has found what it waited for after so many nanoseconds, asleep.
pub(crate) fn slept(kind: WaitKind, nanos: u64) {
    with_record(kind, |record| {
        record.set(Record {
            soon: nanos < SOON,
            ..record.get()
        });
    });
}

/// Whether there was a processor, of late, that nobody else needed.
fn has_room(now: u64) -> bool {
    let (asked, room) = ROOM.get();
    if now - asked < LOAD_IS_NEWS {
        return room;
    }
    // Where nobody says, what becomes of the looks has to do.
    let room = runnable()
        .is_none_or(|running| running.saturating_sub(awake(session())) < processors_online());
    ROOM.set((now, room));
    room
}

/// How many processes can run at the moment, this one included (proc(5), loadavg).
fn runnable() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let (running, _) = text.split(' ').nth(3)?.split_once('/')?;
    running.parse().ok()
}

/// How many of the program's processes don't sleep, this one included.
fn awake(session: &'static Session) -> usize {
    table::slots(session)
        .filter(|(id, slot)| {
            slot.asleep.load(Relaxed) == 0
                && table::status_of(slot, id.generation) == SlotStatus::Live
        })
        .count()
}

/// To look again is nothing new to a model.
fn is_modelled() -> bool {
    #[cfg(test)]
    return crate::models::machine::is_running();
    #[cfg(not(test))]
    false
}

/// How many processors this process may run on: one system call, where the standard library reads a dozen files of control groups as well.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| {
        sched_getaffinity(Pid::from_raw(0)).map_or(1, |set| {
            (0..CpuSet::count())
                .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
                .count()
        })
    })
}

/// How many processors the machine has (sysconf(3)).
fn processors_online() -> usize {
    static ONLINE: OnceLock<usize> = OnceLock::new();
    *ONLINE.get_or_init(|| {
        let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
        online
            .ok()
            .flatten()
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: WaitKind = WaitKind::Other;

    /// Which of the next waits would have a long look, each being worth it or not.
    fn looks(waits: usize, worth: bool) -> Vec<usize> {
        let has_look = |_: &usize| {
            with_record(KIND, |record| {
                let has = is_worthwhile(record);
                if has {
                    learn(record, worth);
                }
                has
            })
        };
        (0..waits).filter(has_look).collect()
    }

    #[test]
    fn only_short_sleeps_make_for_long_looks() {
        assert_eq!(looks(3, true), []);
        slept(KIND, SOON);
        assert_eq!(looks(3, true), []);
        slept(KIND, SOON - 1);
        assert_eq!(looks(3, true), [0, 1, 2]);
        slept(KIND, u64::MAX);
        assert_eq!(looks(3, true), []);
    }

    #[test]
    fn looks_in_vain_become_rare() {
        slept(KIND, 0);
        assert_eq!(looks(32, false), [0, 2, 5, 10, 19]);
        let many = 100 * usize::from(MOST_SKIPPED);
        let tried = looks(many, false).len();
        assert!((95..=110).contains(&tried), "{tried}");
        // Each that isn't in vain makes the pause after the next one that is shorter.
        let first = looks(2 * usize::from(MOST_SKIPPED), true);
        assert_eq!(first.last(), Some(&(2 * usize::from(MOST_SKIPPED) - 1)));
        looks(2 * usize::from(MOST_SKIPPED), true);
        assert_eq!(looks(8, false), [0, 2, 5]);
    }

    #[test]
    fn a_loaded_machine_is_known_by_its_processes() {
        let session = Session::create().unwrap();
        let running = runnable().expect("this system has /proc");
        assert!(running >= 1, "this test runs");
        assert_eq!(awake(session), 1);
        let asleep = &session.my_slot().asleep;
        asleep.store(1, Relaxed);
        assert_eq!(awake(session), 0);
        asleep.store(0, Relaxed);
        ROOM.set((5, false));
        assert!(!has_room(5 + LOAD_IS_NEWS - 1));
        ROOM.set((5, true));
        assert!(has_room(5 + LOAD_IS_NEWS - 1));
    }
}
