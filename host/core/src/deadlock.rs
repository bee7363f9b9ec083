//! Programs, and parts of programs, that can never go on.
//!
//! Two things are found. **Everything is stuck**: each live process waits, without a time limit, for something that only another
//! process of the program could do. **A cycle**: some processes wait for each other around a circle of locks, each held by the
//! next, and joins. The first is the main process's to report, the second that process's which closed the circle.
//!
//! How: whoever sleeps without a time limit looks once, a fifth of a second later, whether it can ever be woken; and again after each
//! disturbance (a signal, a child's death, a kick). So the last one to fall asleep finds all others asleep, and nobody has to count
//! anybody, which no death could be trusted to leave right. One that finds the program stuck and isn't the one to report it kicks
//! the one that is. Only where a look can't tell, because somebody is stopped or just on its way, it is repeated.
//!
//! Why a report is never wrong: the table of processes says who waits for what, but a process there may have been woken a moment
//! ago. So the kernel is asked as well (/proc/PID/status, proc(5)): one that is asleep, whose published wait has the same number, and
//! that the scheduler has switched as often as at the look before, has slept from the one look to the other. Two looks at all of
//! them, one after the other, with the waiter's own operation tried in between, prove a moment at which all were asleep and none on
//! its way; from such a moment on nothing inside the program happens any more. What could happen from outside is excluded
//! beforehand: waits on descriptors, time limits, timers, signals that the script handles.
//!
//! A recursive lock is its holder's alone to free. A plain one may be freed by anybody who has a handle to it, so that "it waits for the
//! holder" needs an argument:
//! - Once somebody else than its holder has freed it, it is a signal between processes, and no edge.
//! - In a circle with a join in it, it is an edge only if all handles to it are in the circle, or with processes that wait for the circle.
//!   (Programs that take turns by locks begin so: one process has taken them all and joins the others, who free them for each other.)
//! - In a circle of locks alone it is one by rule, whoever else has handles: usually that is the process that made the locks, and still
//!   runs. Two processes that hold and wait for each other's lock, both meant as signals of a third: nobody writes that.
//!
//! Invariant: nothing is written but this process's own state, and nobody's lock is taken.

use crate::clock::{self, Deadline};
use crate::error::CoreError;
use crate::permit;
use crate::session::layout::Slot;
use crate::session::{RawHandle, Session, objects, session};
use crate::snapshot::Snapshot;
use crate::table::{self, SlotId, SlotStatus, WaitingInfo};
use crate::wait::{Edge, WaitKind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64};

/// After how many nanoseconds a waiter looks whether it can ever go on, and looks again if that can't be told yet.
const LOOK: u64 = 200_000_000;
/// How soon it looks after a disturbance: those who made it need the time to fall asleep.
const SOON: u64 = 50_000_000;
/// How often the main process leaves the report to a process that has closed a cycle.
const DEFERRALS: u32 = 3;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The processes that wait for each other in a circle, each for the next; empty if it is the whole program that is stuck.
    pub cycle: Vec<SlotId>,
    /// The program as it was.
    pub snapshot: Snapshot,
}

/// Makes the error of a report, having told whoever must know.
pub type ReportHook = fn(&Report) -> CoreError;

static HOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Installs what makes a report an error.
pub fn set_report_hook(hook: ReportHook) {
    HOOK.store(hook as *mut (), SeqCst);
}

pub(crate) fn raise(report: &Report) -> CoreError {
    let hook = HOOK.load(SeqCst);
    if hook.is_null() {
        return CoreError::Deadlock("none of the waiting processes can ever go on".into());
    }
    // SAFETY: only `set_report_hook` writes this, a function of this type.
    let hook: ReportHook = unsafe { std::mem::transmute(hook) };
    hook(report)
}

/// Switches the search for deadlocks off, for the whole session.
pub fn disable() {
    session().header().no_deadlocks.store(1, SeqCst);
}

/// Who may end this process's waits from outside of the program.
static SIGNALS: AtomicBool = AtomicBool::new(false);
static TIMERS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Which of a process's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The one of [`crate::alarm`].
    Own = 0,
    /// The system's, by alarm(2).
    System = 1,
}

/// Says whether signals mean something to this process's script: then somebody outside may end any of its waits.
pub fn expect_signals(on: bool) {
    SIGNALS.store(on, SeqCst);
}

/// Says when a timer of this process ends: until then its waits have an end.
pub fn expect_timer(timer: Timer, deadline: Deadline) {
    let left = deadline
        .remaining()
        .map_or(0, |left| left.as_nanos() as u64);
    let at = if left == 0 { 0 } else { clock::now() + left };
    TIMERS[timer as usize].store(at, SeqCst);
}

pub(crate) fn is_awaiting_outsiders() -> bool {
    SIGNALS.load(Relaxed)
        || TIMERS.iter().any(|timer| {
            let at = timer.load(Relaxed);
            at != 0 && clock::now() < at
        })
}

/// A forked child has its parent's handlers, and no timers.
pub(crate) fn after_fork() {
    for timer in &TIMERS {
        timer.store(0, SeqCst);
    }
}

/// What a waiter does after a look.
pub(crate) enum Look {
    Sleep,
    /// Try the operation once more and look again, at once.
    TryAgain,
    Stuck(Box<Report>),
}

/// When a waiter looks next, and what it saw last.
pub(crate) struct Watch {
    on: bool,
    due: Option<u64>,
    seen: Option<Evidence>,
    deferrals: u32,
}

/// That these processes sleep, and why each of them can only be woken by another of them.
#[derive(PartialEq, Eq)]
struct Evidence {
    cycle: Vec<SlotId>,
    sleepers: Vec<Sleeper>,
}

#[derive(PartialEq, Eq)]
struct Sleeper {
    id: SlotId,
    /// The number of its wait.
    sequence: u64,
    /// The lock's word, where it waits for a lock.
    word: u64,
    /// How often it was switched; for the process that looks 0.
    switches: u64,
}

/// Who waits, and for what.
type Waiter = (SlotId, WaitingInfo);

/// Processes around a circle, each waiting for the next.
struct Circle {
    members: Vec<Waiter>,
    /// Others who can't go on before the circle does, and whose standing still is part of the proof.
    bystanders: Vec<Waiter>,
}

enum Finding {
    /// Somebody can go on.
    Alive,
    Unclear,
    Stuck(Evidence),
}

impl Watch {
    pub(crate) fn new(session: &Session, kind: WaitKind, deadline: Deadline, since: u64) -> Self {
        let on = deadline.is_never()
            && kind.edge() != Edge::Never
            && session.header().no_deadlocks.load(Relaxed) == 0;
        Self {
            on,
            due: on.then_some(since + LOOK),
            seen: None,
            deferrals: 0,
        }
    }

    /// Until when to sleep.
    pub(crate) fn until(&self, deadline: Deadline) -> Deadline {
        self.due.map_or(deadline, Deadline::at)
    }

    /// Something has happened that may have left the others stuck.
    pub(crate) fn disturbed(&mut self) {
        if self.on {
            let soon = clock::now() + SOON;
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
            self.seen = None;
        }
    }

    /// Looks, if it is time to; the operation has just been tried in vain.
    #[inline]
    pub(crate) fn look(&mut self, session: &'static Session) -> Look {
        match self.due {
            Some(due) if clock::now() >= due => self.look_now(session),
            _ => Look::Sleep,
        }
    }

    #[cold]
    fn look_now(&mut self, session: &'static Session) -> Look {
        match (find(session, &mut self.deferrals), self.seen.take()) {
            (Finding::Alive, _) => {
                self.due = None;
                Look::Sleep
            }
            (Finding::Stuck(now), Some(before)) if now == before => {
                self.due = None;
                Look::Stuck(Box::new(Report {
                    cycle: now.cycle,
                    snapshot: Snapshot::take(),
                }))
            }
            (Finding::Stuck(now), None) => {
                self.seen = Some(now);
                Look::TryAgain
            }
            (Finding::Unclear | Finding::Stuck(_), _) => {
                self.due = Some(clock::now() + LOOK);
                Look::Sleep
            }
        }
    }
}

/// The one process that a waiter waits for, and the word that says so: where it waits for a lock or a process's end.
fn waits_for(session: &'static Session, wait: &WaitingInfo) -> Option<(SlotId, u64)> {
    match wait.kind {
        WaitKind::ProcessJoin => Some((SlotId::from_u64(wait.object), 0)),
        WaitKind::Lock | WaitKind::RLock => {
            let handle = RawHandle::from_u64(wait.object);
            let entry = session.entry(handle.index)?;
            if entry.generation.load(SeqCst) != handle.generation {
                return None;
            }
            permit::sole_releaser(entry)
        }
        _ => None,
    }
}

/// A live process with what it waits for, if nothing but another process of the program can end that wait.
fn stuck(slot: &Slot) -> Option<WaitingInfo> {
    table::waiting(slot).filter(|w| !w.timed && !w.outside && w.edge != Edge::Never)
}

fn live(session: &'static Session, id: SlotId) -> Option<&'static Slot> {
    let slot = session.slot(id.index)?;
    (table::status_of(slot, id.generation) == SlotStatus::Live).then_some(slot)
}

/// The circle of locks and joins that process `start` is part of: who waits, each for the next.
fn circle_of(session: &'static Session, start: SlotId) -> Option<Vec<Waiter>> {
    let mut chain: Vec<Waiter> = vec![];
    let mut at = start;
    loop {
        let wait = stuck(live(session, at)?)?;
        chain.push((at, wait));
        at = waits_for(session, &wait)?.0;
        if at == start {
            // Who waits for itself may be waiting for a signal.
            return (chain.len() > 1).then_some(chain);
        }
        if chain.iter().any(|(id, _)| *id == at) {
            return None;
        }
    }
}

/// The circle that `start` is part of, if nobody else can open it.
fn closed_circle_of(session: &'static Session, start: SlotId) -> Option<Circle> {
    let members = circle_of(session, start)?;
    let joins = members
        .iter()
        .any(|(_, wait)| wait.kind == WaitKind::ProcessJoin);
    let mut bystanders = vec![];
    if joins {
        for (_, wait) in members.iter().filter(|(_, w)| w.kind == WaitKind::Lock) {
            add_bystanders(session, wait.object, &members, &mut bystanders)?;
        }
    }
    Some(Circle {
        members,
        bystanders,
    })
}

/// Adds those outside of a circle who have a handle to one of its plain locks; `None` if one of them may go on, and free it.
///
/// An object's count is never lower than the number of references to it. So where it is the number of those that were found, there
/// are no others: none in a message, none with a process that is just starting.
fn add_bystanders(
    session: &'static Session,
    lock: u64,
    members: &[Waiter],
    bystanders: &mut Vec<Waiter>,
) -> Option<()> {
    let lock = RawHandle::from_u64(lock);
    let count = objects::count_of(session, lock)?;
    let mut found = 0;
    for (id, slot) in table::slots(session) {
        if !objects::is_marked(session, id.index, lock.index) {
            continue;
        }
        found += 1;
        let known = |all: &[Waiter]| all.iter().any(|(other, _)| *other == id);
        match table::status_of(slot, id.generation) {
            SlotStatus::Dead(_) => {}
            _ if known(members) || known(bystanders) => {}
            _ => bystanders.push((id, waits_for_one_of(session, id, members)?)),
        }
    }
    (found == count).then_some(())
}

/// What a process waits for, if that is the end of one of these or a lock that one of these waits for too, or holds and nobody else can free.
fn waits_for_one_of(
    session: &'static Session,
    id: SlotId,
    members: &[Waiter],
) -> Option<WaitingInfo> {
    let wait = stuck(live(session, id)?)?;
    let (next, _) = waits_for(session, &wait)?;
    let same_lock = || members.iter().any(|(_, w)| w.object == wait.object);
    let sound = wait.kind != WaitKind::Lock || same_lock();
    (sound && members.iter().any(|(member, _)| *member == next)).then_some(wait)
}

/// The one of a circle whose wait began last.
fn closer(members: &[Waiter]) -> Option<SlotId> {
    let last = members
        .iter()
        .max_by_key(|(id, wait)| (wait.since, id.index))?;
    Some(last.0)
}

/// Everybody's state, as far as it matters.
enum Everybody {
    /// Somebody can go on.
    Alive,
    /// All wait for each other, but for helpers that are at work.
    Working,
    /// All wait for each other; helpers wait for them.
    Stuck(Vec<Waiter>),
}

fn everybody(session: &'static Session) -> Everybody {
    let mut members = vec![];
    let mut working = false;
    for (id, slot) in table::slots(session) {
        match table::status_of(slot, id.generation) {
            SlotStatus::Dead(_) | SlotStatus::Gone => continue,
            SlotStatus::Starting if table::is_abandoned(slot) => continue,
            SlotStatus::Starting => return Everybody::Alive,
            SlotStatus::Live => {}
        }
        let helper = table::is_helper(slot);
        let idle = |w: &WaitingInfo| w.kind == WaitKind::Descriptors && !w.timed && !w.outside;
        match stuck(slot).or_else(|| table::waiting(slot).filter(|w| helper && idle(w))) {
            Some(wait) => members.push((id, wait)),
            None if helper => working = true,
            None => return Everybody::Alive,
        }
    }
    if working {
        Everybody::Working
    } else {
        Everybody::Stuck(members)
    }
}

fn find(session: &'static Session, deferrals: &mut u32) -> Finding {
    let me = session.me();
    let main = session.main_slot();
    let everybody = everybody(session);
    let all_stuck = matches!(everybody, Everybody::Stuck(_));
    if let Some(circle) = closed_circle_of(session, me) {
        // Where the main process is stuck in it together with everybody else, the report is the main process's.
        let mains = all_stuck && circle.members.iter().any(|(id, _)| *id == main);
        let reporter = if mains {
            Some(main)
        } else {
            closer(&circle.members)
        };
        match reporter {
            Some(id) if id != me => {
                table::kick(id);
                return Finding::Alive;
            }
            _ if mains => {}
            _ => return gather(session, &circle.members, &circle.bystanders),
        }
    }
    match everybody {
        // Closed, the circle would be as soon as somebody outside of it ends, or falls asleep: of that it isn't told.
        Everybody::Alive if circle_of(session, me).is_some() => Finding::Unclear,
        Everybody::Alive => Finding::Alive,
        _ if me != main => {
            table::kick(main);
            Finding::Alive
        }
        Everybody::Working => Finding::Unclear,
        Everybody::Stuck(members) => {
            // Who has closed a circle goes on with an error, and so do others then.
            let others_circle = members.iter().any(|(id, _)| {
                closed_circle_of(session, *id)
                    .is_some_and(|circle| circle.members.iter().all(|(id, _)| *id != main))
            });
            if others_circle && *deferrals < DEFERRALS {
                *deferrals += 1;
                return Finding::Unclear;
            }
            gather(session, &[], &members)
        }
    }
}

/// What proves that all of these sleep; unclear if one doesn't.
fn gather(session: &'static Session, circle: &[Waiter], others: &[Waiter]) -> Finding {
    let sleepers: Option<Vec<Sleeper>> = circle
        .iter()
        .chain(others)
        .map(|(id, wait)| sleeper(session, *id, wait))
        .collect();
    match sleepers {
        Some(sleepers) => Finding::Stuck(Evidence {
            cycle: circle.iter().map(|(id, _)| *id).collect(),
            sleepers,
        }),
        None => Finding::Unclear,
    }
}

fn sleeper(session: &'static Session, id: SlotId, wait: &WaitingInfo) -> Option<Sleeper> {
    let slot = live(session, id)?;
    let switches = if id == session.me() {
        0
    } else if slot.asleep.load(SeqCst) == 1 {
        switches_of_sleeping(slot.pid.load(SeqCst))?
    } else {
        return None;
    };
    // Still the same wait.
    if table::waiting(slot)?.sequence != wait.sequence {
        return None;
    }
    Some(Sleeper {
        id,
        sequence: wait.sequence,
        word: waits_for(session, wait).map_or(0, |(_, word)| word),
        switches,
    })
}

/// How often the scheduler has switched to a process that sleeps; `None` if it doesn't, or can't be looked at.
fn switches_of_sleeping(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    switches_in(&status)
}

fn switches_in(status: &str) -> Option<u64> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    if !field("State")?.starts_with('S') {
        return None;
    }
    let voluntary: u64 = field("voluntary_ctxt_switches")?.parse().ok()?;
    let other: u64 = field("nonvoluntary_ctxt_switches")?.parse().ok()?;
    Some(voluntary + other)
}

#[cfg(test)]
mod tests {
    use super::switches_in;

    #[test]
    fn only_a_sleeping_process_counts() {
        let status = |state: &str| {
            format!(
                "Name:\tx\nState:\t{state}\nPid:\t1\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n"
            )
        };
        assert_eq!(switches_in(&status("S (sleeping)")), Some(42));
        for state in ["R (running)", "T (stopped)", "Z (zombie)", "D (disk sleep)"] {
            assert_eq!(switches_in(&status(state)), None, "{state}");
        }
        assert_eq!(switches_in(""), None);
    }

    #[test]
    fn this_process_runs() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert_eq!(switches_in(&status), None);
    }
}
