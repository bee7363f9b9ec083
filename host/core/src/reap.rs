//! Deaths: who ended, how, and who must know.
//!
//! The SIGCHLD handler of the parent (or of the main process, which is the subreaper of all)
//! writes the status into the table and wakes those whom it concerns. The status is written
//! before the zombie is reaped: should the parent be killed in between, the main process finds the
//! zombie and nothing is lost. After an abnormal death everybody who waits on shared
//! state looks again, and finds out by itself what the dead one held.
//!
//! Invariant: the handler does nothing but atomics, waitid(2) and futex(2).

use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::{session, try_session};
use crate::signals;
use crate::sys::signal::{self, Disposition, SavedErrno};
use crate::table::{self, ExitStatus, SlotId};
use crate::wait::{self, WaitInfo, WaitKind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// Children that are no processes of the session, of which this process wants the status.
const FOREIGN: usize = 256;
/// pid in the upper half; below it the state, and a status in the lowest 16 bits.
static FOREIGN_CHILDREN: [AtomicU64; FOREIGN] = [const { AtomicU64::new(0) }; FOREIGN];
const FOREIGN_ENDED: u64 = 1 << 16;
/// The newest ends of children that nobody had registered, as in the table: in a program with other threads a child
/// may end, and one of them may handle it, before the starter has registered it.
static EARLY: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
static EARLY_NEXT: AtomicUsize = AtomicUsize::new(0);

/// Installs the SIGCHLD handler, and the one of kicks. Once in the main process and in each exec'ed child;
/// forked children inherit it. Every child of this process is reaped by it from then on,
/// known or not.
///
/// # Errors
/// `Os` from sigaction(2).
pub fn install() -> Result<()> {
    signals::install_kick()?;
    signal::set(libc::SIGCHLD, Disposition::Call(on_child))?;
    // Those who died before there was a handler.
    signals::blocked(reap_all);
    Ok(())
}

/// Makes this process the one that orphans of its descendants come to (prctl(2)).
///
/// # Errors
/// `Os` from prctl(2).
pub fn become_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| CoreError::os("prctl", e as i32))
}

/// Notes the end of a process that the caller has reaped or is about to reap itself.
pub fn mark_dead(slot: SlotId, raw_status: i32) {
    table::mark_dead(session(), slot, raw_status);
}

extern "C" fn on_child(_: libc::c_int) {
    let _errno = SavedErrno::new();
    reap_all();
}

fn reap_all() {
    let mut any = false;
    while let Some((pid, status)) = peek() {
        any = true;
        note(pid, status);
        take(pid);
    }
    if any {
        signals::request_attention();
    }
}

/// A child that has ended, still a zombie.
fn peek() -> Option<(i32, i32)> {
    // SAFETY: a zeroed siginfo is valid, and waitid writes no more than it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(
            libc::P_ALL,
            0,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
        );
        if result != 0 || info.si_pid() == 0 {
            return None;
        }
        let status = match info.si_code {
            libc::CLD_EXITED => (info.si_status() & 0xff) << 8,
            libc::CLD_DUMPED => info.si_status() & 0x7f | 0x80,
            _ => info.si_status() & 0x7f,
        };
        Some((info.si_pid(), status))
    }
}

fn take(pid: i32) {
    // SAFETY: as in `peek`.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(
            libc::P_PID,
            pid as libc::id_t,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG,
        );
    }
}

fn note(pid: i32, status: i32) {
    let Some(session) = try_session() else { return };
    for (id, slot) in table::slots(session) {
        // One process id is one process until it is reaped; older bearers of it are dead.
        if slot.pid.load(SeqCst) == pid && table::mark_dead(session, id, status) {
            return;
        }
    }
    // Left for whoever is about to register it, before the table is looked at: one of the two sees the other.
    let end = (pid as u64) << 32 | FOREIGN_ENDED | (status as u64 & 0xffff);
    EARLY[EARLY_NEXT.fetch_add(1, SeqCst) % EARLY.len()].store(end, SeqCst);
    note_foreign(end);
}

/// Records the end of a registered child: `end` is the word that says so.
fn note_foreign(end: u64) {
    for child in &FOREIGN_CHILDREN {
        let word = child.load(SeqCst);
        if word >> 32 == end >> 32 && word & FOREIGN_ENDED == 0 {
            child.store(end, SeqCst);
            session().my_slot().local.wake_unconditionally();
            return;
        }
    }
}

/// Begins a start: what ended before it has nothing to do with it, though it may have had the same process id.
pub(crate) fn expect_foreign() {
    for end in &EARLY {
        end.store(0, SeqCst);
    }
}

/// Asks for the status of a child that isn't of the session. Signals must be blocked
/// since before the fork ([`signals::blocked`]).
///
/// # Errors
/// `Runtime` if there are too many such children.
pub fn register_foreign(pid: i32) -> Result<()> {
    let word = (pid as u64) << 32;
    for child in &FOREIGN_CHILDREN {
        if child.compare_exchange(0, word, SeqCst, SeqCst).is_ok() {
            // Another thread may have handled its end already.
            for end in &EARLY {
                let end = end.load(SeqCst);
                if end >> 32 == pid as u64 {
                    note_foreign(end);
                }
            }
            return Ok(());
        }
    }
    Err(CoreError::Runtime(format!(
        "more than {FOREIGN} subprocesses at a time"
    )))
}

/// How a registered child ended, if it has.
#[must_use]
pub fn foreign_status(pid: i32) -> Option<ExitStatus> {
    FOREIGN_CHILDREN
        .iter()
        .map(|child| child.load(SeqCst))
        .find(|word| word >> 32 == pid as u64 && word & FOREIGN_ENDED != 0)
        .map(|word| ExitStatus::from_raw((word & 0xffff) as i32))
}

/// Waits until a registered child has ended; `None` at the deadline.
///
/// # Errors
/// What the interrupt hook raises.
pub fn wait_foreign(
    pid: i32,
    deadline: Deadline,
    position: Position,
) -> Result<Option<ExitStatus>> {
    let info = WaitInfo::new(WaitKind::Foreign, pid as u64, position);
    wait::wait_until(&session().my_slot().local, info, deadline, || {
        Ok(foreign_status(pid))
    })
}

/// The child's status isn't wanted any more.
pub fn forget_foreign(pid: i32) {
    for child in &FOREIGN_CHILDREN {
        let word = child.load(SeqCst);
        if word >> 32 == pid as u64 {
            let _ = child.compare_exchange(word, 0, SeqCst, SeqCst);
        }
    }
}

/// The parent's children aren't the child's.
pub(crate) fn after_fork() {
    for child in &FOREIGN_CHILDREN {
        child.store(0, SeqCst);
    }
}
