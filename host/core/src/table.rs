//! The table of processes: who there is, how each ended, what each waits for.
//!
//! A slot is taken by the parent before the child starts, is live while the child runs, dead with
//! its wait status afterwards, and free again when the parent has taken note. Deaths, stuck
//! programs and `ps` are read from here.
//!
//! Invariants: generation and state of a slot change together by one store; a dead process is
//! buried (its references dropped, its permits marked as a dead owner's) before its slot is used
//! again; a parent is buried before its orphaned children's slots are.

mod deaths;

pub use deaths::{bury, release, sweep};
pub(crate) use deaths::{is_abandoned, mark_dead};

use crate::clock::{self, Deadline};
use crate::error::{CoreError, Result};
use crate::eventcount::EventCount;
use crate::position::Position;
use crate::session::layout::{NAME_LEN, Slot};
use crate::session::{RawHandle, Session, objects, session};
use crate::sys;
use crate::wait::{self, Edge, WaitInfo, WaitKind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

const FREE: u8 = 0;
const STARTING: u8 = 1;
const LIVE: u8 = 2;
const DEAD: u8 = 3;

const DAEMON: u32 = 1;
/// Does what other processes of the program ask it for, and nothing by itself.
const HELPER: u32 = 1 << 1;

/// Bits of `Slot::wait_flags`.
pub(crate) const WAIT_KIND: u32 = 0xff;
pub(crate) const WAIT_TIMED: u32 = 1 << 8;
pub(crate) const WAIT_POLL: u32 = 1 << 9;
/// … and looks at shared memory when somebody has died.
pub(crate) const WAIT_LOOK: u32 = 1 << 11;
/// Somebody outside of the program, or a timer, may end it.
pub(crate) const WAIT_OUTSIDE: u32 = 1 << 10;

/// A process of the session: the number of its slot, and which process of that slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotId {
    /// Which slot of the table.
    pub index: u32,
    /// Which of the processes that have lived there; 0 is nobody.
    pub generation: u32,
}

impl SlotId {
    /// Nobody.
    pub const NONE: Self = Self {
        index: 0,
        generation: 0,
    };

    /// Both numbers in one.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    /// What [`SlotId::to_u64`] gave.
    #[must_use]
    pub fn from_u64(bits: u64) -> Self {
        Self {
            index: (bits >> 32) as u32,
            generation: bits as u32,
        }
    }
}

/// How a process ended: the raw status of wait(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus(i32);

impl ExitStatus {
    /// From the raw status of wait(2).
    #[must_use]
    pub fn from_raw(raw: i32) -> Self {
        Self(raw)
    }

    /// The raw status of wait(2).
    #[must_use]
    pub fn raw(self) -> i32 {
        self.0
    }

    /// Python's exit code: what was passed to exit, or the negative number of the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        let signal = self.0 & 0x7f;
        if signal == 0 {
            (self.0 >> 8) & 0xff
        } else {
            -signal
        }
    }

    /// Whether it ended by a signal or with a code other than 0.
    #[must_use]
    pub fn abnormal(self) -> bool {
        self.code() != 0
    }
}

/// The state of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotStatus {
    /// Announced, not yet running.
    Starting,
    /// Running.
    Live,
    /// Ended, not yet released.
    Dead(ExitStatus),
    /// Released: the slot is free or another's.
    Gone,
}

/// What a process waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingInfo {
    /// On what kind of thing.
    pub kind: WaitKind,
    /// Which: a [`RawHandle`] or, for the end of a process, a [`SlotId`], as bits.
    pub object: u64,
    /// Where in the script.
    pub position: Position,
    /// Whether there is a deadline.
    pub timed: bool,
    /// Whether somebody outside of the program, or a timer, may end it.
    pub outside: bool,
    /// When it began ([`clock::now`]).
    pub since: u64,
    /// What would let it go on.
    pub edge: Edge,
    /// Changes with every wait.
    pub sequence: u64,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its slot.
    pub slot: SlotId,
    /// Its process id, 0 before it started.
    pub pid: i32,
    /// Who started it.
    pub parent: SlotId,
    /// Its name, cut to 64 bytes.
    pub name: String,
    /// Whether it ends with its parent.
    pub daemon: bool,
    /// Whether it does what other processes of the program ask it for, and nothing by itself.
    pub helper: bool,
    /// The number of its start method, as given to [`allocate`].
    pub start_method: u8,
    /// When it began to run ([`clock::now`]).
    pub start_time: u64,
    /// Its state.
    pub status: SlotStatus,
    /// What it waits for, if it waits.
    pub waiting: Option<WaitingInfo>,
}

fn pack(generation: u32, state: u8) -> u64 {
    u64::from(generation) << 32 | u64::from(state)
}

fn unpack(word: u64) -> (u32, u8) {
    ((word >> 32) as u32, word as u8)
}

pub(crate) fn status_of(slot: &Slot, generation: u32) -> SlotStatus {
    match unpack(slot.state.load(SeqCst)) {
        (g, _) if g != generation || generation == 0 => SlotStatus::Gone,
        (_, STARTING) => SlotStatus::Starting,
        (_, LIVE) => SlotStatus::Live,
        (_, DEAD) => SlotStatus::Dead(ExitStatus(slot.status.load(SeqCst))),
        _ => SlotStatus::Gone,
    }
}

/// How many slots there may be something in.
fn high(session: &Session) -> u32 {
    session
        .header()
        .slot_high
        .load(SeqCst)
        .min(session.layout().slots as u32)
}

/// Slots that are not free, for signal handlers too: no allocation.
pub(crate) fn slots(session: &'static Session) -> impl Iterator<Item = (SlotId, &'static Slot)> {
    (0..high(session)).filter_map(move |index| {
        let slot = session.slot(index)?;
        let (generation, state) = unpack(slot.state.load(SeqCst));
        (state != FREE).then_some((SlotId { index, generation }, slot))
    })
}

/// Announces a process: takes a slot for it.
///
/// # Errors
/// `ProcessTableFull`.
pub fn allocate(name: &str, parent: SlotId, daemon: bool, start_method: u8) -> Result<SlotId> {
    let session = session();
    sweep(session);
    let _guard = session.lock()?;
    let header = session.header();
    let high = high(session);
    let index = (0..high)
        .find(|i| {
            session
                .slot(*i)
                .is_some_and(|s| unpack(s.state.load(SeqCst)).1 == FREE)
        })
        .unwrap_or(high);
    let slot = session.slot(index).ok_or(CoreError::ProcessTableFull)?;
    let generation = unpack(slot.state.load(SeqCst)).0.wrapping_add(1).max(1);
    slot.status.store(0, Relaxed);
    slot.pid.store(0, Relaxed);
    slot.start_time.store(0, Relaxed);
    slot.parent.store(parent.to_u64(), Relaxed);
    slot.starter.store(session.me().to_u64(), Relaxed);
    slot.flags.store(
        (u32::from(daemon) * DAEMON) | (u32::from(start_method) << 8),
        Relaxed,
    );
    slot.held_high.store(0, Relaxed);
    slot.ended.reset();
    slot.local.reset();
    slot.waiting_on.store(0, Relaxed);
    slot.counted.store(0, Relaxed);
    slot.asleep.store(0, Relaxed);
    slot.kick.store(0, Relaxed);
    store_name(slot, name);
    if index == high {
        header.slot_high.store(high + 1, SeqCst);
    }
    slot.state.store(pack(generation, STARTING), SeqCst);
    Ok(SlotId { index, generation })
}

fn store_name(slot: &Slot, name: &str) {
    let end = (0..=NAME_LEN.min(name.len()))
        .rev()
        .find(|i| name.is_char_boundary(*i))
        .unwrap_or(0);
    let name = &name.as_bytes()[..end];
    for (i, byte) in slot.name.iter().enumerate() {
        byte.store(name.get(i).copied().unwrap_or(0), Relaxed);
    }
}

/// Names a process anew.
pub fn set_name(slot: SlotId, name: &str) {
    if let Some(s) = lookup(slot) {
        store_name(s, name);
    }
}

/// Notes that a process only serves others of its program: a program whose other processes are stuck isn't kept alive by it.
pub fn set_helper(slot: SlotId) {
    if let Some(s) = lookup(slot) {
        s.flags.fetch_or(HELPER, SeqCst);
    }
}

pub(crate) fn is_helper(slot: &Slot) -> bool {
    slot.flags.load(Relaxed) & HELPER != 0
}

/// The slot of a process that isn't gone.
pub(crate) fn lookup(id: SlotId) -> Option<&'static Slot> {
    let slot = session().slot(id.index)?;
    (status_of(slot, id.generation) != SlotStatus::Gone).then_some(slot)
}

/// Notes that the process runs, as `pid`. For the parent, with signals blocked since before the
/// fork ([`crate::signals::blocked`]), so that the child's death finds the pid. False if the slot is
/// another process's, or nobody's any more.
pub fn set_live(slot: SlotId, pid: i32) -> bool {
    let Some(s) = lookup(slot) else { return false };
    // The first of those who were started for one slot has it.
    if let Err(other) = s.pid.compare_exchange(0, pid, SeqCst, SeqCst)
        && other != pid
    {
        return false;
    }
    // Fails where the child itself was faster, or has died already.
    let _ = s.state.compare_exchange(
        pack(slot.generation, STARTING),
        pack(slot.generation, LIVE),
        SeqCst,
        SeqCst,
    );
    true
}

/// This process is `slot` from now on; false if that is another process.
pub(crate) fn begin_here(slot: SlotId) -> bool {
    if !set_live(slot, std::process::id() as i32) {
        return false;
    }
    if let Some(s) = lookup(slot) {
        s.start_time.store(clock::now(), SeqCst);
    }
    true
}

/// Gives the child, before it runs, references to these objects.
///
/// # Errors
/// `ObjectGone` for a stale handle.
pub fn grant(child: SlotId, handles: &[RawHandle]) -> Result<()> {
    handles
        .iter()
        .try_for_each(|h| objects::grant(session(), child.index, *h))
}

/// Gives the child, before it runs, references to everything that this process holds: what a
/// fork inherits then simply goes on working.
///
/// # Errors
/// None at present.
pub fn grant_all(child: SlotId) -> Result<()> {
    objects::grant_all(session(), child.index)
}

/// The state of a process.
#[must_use]
pub fn status(slot: SlotId) -> SlotStatus {
    session()
        .slot(slot.index)
        .map_or(SlotStatus::Gone, |s| status_of(s, slot.generation))
}

/// How a process ended, as far as that can still be told: by the table, even a while after it was released, or by the kernel as long as
/// nobody has reaped it. `pid` is its process id.
#[must_use]
pub fn last_status(id: SlotId, pid: i32) -> Option<ExitStatus> {
    let slot = session().slot(id.index)?;
    let noted = || match status_of(slot, id.generation) {
        SlotStatus::Dead(status) => Some(status),
        _ => {
            let status = slot.status.load(SeqCst);
            // While it is being taken for another process, 0 stands there.
            let free = slot.state.load(SeqCst) == pack(id.generation, FREE);
            (free && status != 0).then_some(ExitStatus(status))
        }
    };
    // Noted before it is reaped: so where the kernel doesn't know it any more, the table does.
    noted()
        .or_else(|| sys::process::zombie_status(pid).map(ExitStatus))
        .or_else(noted)
}

/// The process id, once it runs.
#[must_use]
pub fn pid(slot: SlotId) -> Option<i32> {
    lookup(slot)
        .map(|s| s.pid.load(SeqCst))
        .filter(|pid| *pid != 0)
}

/// Waits until a process has ended: true, or false at the deadline. One that is gone has ended.
///
/// # Errors
/// What the interrupt hook raises.
pub fn join(slot: SlotId, deadline: Deadline, position: Position) -> Result<bool> {
    let Some(s) = session().slot(slot.index) else {
        return Ok(true);
    };
    let info = WaitInfo::new(WaitKind::ProcessJoin, slot.to_u64(), position);
    let ended = wait::wait_until(&s.ended, info, deadline, || {
        Ok(matches!(
            status_of(s, slot.generation),
            SlotStatus::Dead(_) | SlotStatus::Gone
        )
        .then_some(()))
    })?;
    Ok(ended.is_some())
}

/// The eventcount that a process says it waits on.
fn published(session: &Session, slot: &Slot) -> Option<&'static EventCount> {
    let offset = usize::try_from(slot.waiting_on.load(SeqCst)).ok()?;
    let layout = session.layout();
    // Only within the tables: never write into pages.
    if offset < layout.slots_at || offset >= layout.used_at {
        return None;
    }
    session.region().at(offset)
}

/// The processes that `slot` started and that aren't released.
#[must_use]
pub fn children_of(slot: SlotId) -> Vec<SlotId> {
    let parent = slot.to_u64();
    slots(session())
        .filter(|(_, s)| s.parent.load(SeqCst) == parent)
        .map(|(id, _)| id)
        .collect()
}

/// All processes that aren't released.
#[must_use]
pub fn all() -> Vec<ProcessInfo> {
    slots(session()).filter_map(|(id, _)| info(id)).collect()
}

/// The row of one process, unless it is released.
#[must_use]
pub fn info(id: SlotId) -> Option<ProcessInfo> {
    let slot = session().slot(id.index)?;
    let status = status_of(slot, id.generation);
    if status == SlotStatus::Gone {
        return None;
    }
    let bytes: Vec<u8> = slot
        .name
        .iter()
        .map(|b| b.load(Relaxed))
        .take_while(|b| *b != 0)
        .collect();
    let flags = slot.flags.load(Relaxed);
    Some(ProcessInfo {
        slot: id,
        pid: slot.pid.load(SeqCst),
        parent: SlotId::from_u64(slot.parent.load(SeqCst)),
        name: String::from_utf8_lossy(&bytes).into_owned(),
        daemon: flags & DAEMON != 0,
        helper: flags & HELPER != 0,
        start_method: (flags >> 8) as u8,
        start_time: slot.start_time.load(SeqCst),
        status,
        waiting: if status == SlotStatus::Live {
            waiting(slot)
        } else {
            None
        },
    })
}

pub(crate) fn waiting(slot: &Slot) -> Option<WaitingInfo> {
    let sequence = slot.wait_seq.load(SeqCst);
    if slot.waiting_on.load(SeqCst) == 0 {
        return None;
    }
    let flags = slot.wait_flags.load(SeqCst);
    let kind = WaitKind::from_code(flags & WAIT_KIND);
    let info = WaitingInfo {
        kind,
        object: slot.wait_object.load(SeqCst),
        position: Position::from_bits(slot.wait_position.load(SeqCst)),
        timed: flags & WAIT_TIMED != 0,
        outside: flags & WAIT_OUTSIDE != 0,
        since: slot.wait_since.load(SeqCst),
        edge: kind.edge(),
        sequence,
    };
    // Only what was seen whole.
    (slot.wait_seq.load(SeqCst) == sequence).then_some(info)
}

/// Asks another process to run its interrupt hook soon, even if it waits. False if it isn't live.
pub fn kick(id: SlotId) -> bool {
    let session = session();
    let Some(slot) = session.slot(id.index) else {
        return false;
    };
    if status_of(slot, id.generation) != SlotStatus::Live {
        return false;
    }
    slot.kick.store(1, SeqCst);
    if slot.wait_flags.load(SeqCst) & WAIT_POLL != 0 && slot.waiting_on.load(SeqCst) != 0 {
        let pid = slot.pid.load(SeqCst);
        // Between this look and the signal the process may have ended; its parent, a process of
        // the session, may have reaped it; that the number is another's by then takes a whole
        // round of process ids.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGURG,
        );
    } else if let Some(event) = published(session, slot) {
        event.wake_bits(wait::bits_of(id));
    }
    true
}
