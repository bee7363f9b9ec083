//! What the end of a process does: to the table, to those who wait, to what it held and to its children.
//!
//! Problem: a process may end at any instruction, be reaped by another one than its parent, and leave children whose parent is no more.
//!
//! Invariants: an end is noted once, in a signal handler if need be; those that wait are woken after it is written down; who is buried is
//! dead, or never began; burying twice does nothing.

use super::{
    DEAD, ExitStatus, FREE, LIVE, STARTING, SlotId, SlotStatus, WAIT_LOOK, kick, pack, published,
    slots, status, status_of, unpack,
};
use crate::eventcount::EventCount;
use crate::permit;
use crate::session::layout::Slot;
use crate::session::{Session, objects, session};
use crate::sys;
use std::sync::atomic::Ordering::SeqCst;

/// Notes how a process ended, and lets go on who waited for it; async-signal-safe. False if
/// it was noted before.
pub(crate) fn mark_dead(session: &'static Session, id: SlotId, raw_status: i32) -> bool {
    let Some(slot) = session.slot(id.index) else {
        return false;
    };
    let word = slot.state.load(SeqCst);
    let (generation, state) = unpack(word);
    if generation != id.generation || !matches!(state, STARTING | LIVE) {
        return false;
    }
    slot.status.store(raw_status, SeqCst);
    if slot
        .state
        .compare_exchange(word, pack(generation, DEAD), SeqCst, SeqCst)
        .is_err()
    {
        // The child called itself live just now.
        slot.state.store(pack(generation, DEAD), SeqCst);
    }
    session.header().deaths.fetch_add(1, SeqCst);
    slot.ended.wake_unconditionally();
    let parent = SlotId::from_u64(slot.parent.load(SeqCst));
    if parent != session.me() {
        // Reaped by another process (the forkserver): the parent has no SIGCHLD to tell it. Somebody has to look whether
        // those who are left can go on.
        if !kick(parent) {
            kick(session.main_slot());
        }
    }
    if ExitStatus(raw_status).abnormal() {
        wake_all_waiters(session);
        if raw_status & 0x7f != 0 {
            end_children(session, id);
        }
    }
    true
}

/// A process that died by a signal takes its children along: those that the kernel doesn't end for it (the forkserver's) and
/// all others too; async-signal-safe. Each of their deaths does the same for its own.
fn end_children(session: &'static Session, parent: SlotId) {
    let parent = parent.to_u64();
    for (_, slot) in slots(session) {
        let (_, state) = unpack(slot.state.load(SeqCst));
        let pid = slot.pid.load(SeqCst);
        if slot.parent.load(SeqCst) == parent && state == LIVE && pid > 1 {
            sys::process::kill(pid, libc::SIGKILL);
        }
    }
}

/// Lets every process that waits on shared state look again, at a futex or at descriptors; async-signal-safe. What the dead
/// one held, each finds out by itself.
///
/// Many wait for the same, a pool's workers for its tasks: all of them are woken once. Who begins to wait for it afterwards finds the dead
/// one dead already, since that was written before anybody was woken.
fn wake_all_waiters(session: &'static Session) {
    // As many as fit here; one that was forgotten is woken again, which does no harm.
    let mut woken = [std::ptr::null::<EventCount>(); 16];
    let mut next = 0;
    for (id, slot) in slots(session) {
        let Some(event) = published(session, slot) else {
            continue;
        };
        if slot.wait_flags.load(SeqCst) & WAIT_LOOK != 0 {
            // It sleeps at descriptors, for what lies in shared memory.
            kick(id);
            continue;
        }
        if !woken.contains(&std::ptr::from_ref(event)) {
            event.wake_unconditionally();
            woken[next % woken.len()] = event;
            next += 1;
        }
    }
}

/// The parent has taken note of the end (or the start failed): the slot is free.
pub fn release(id: SlotId) {
    bury(id);
    let session = session();
    let Some(slot) = session.slot(id.index) else {
        return;
    };
    let Ok(_guard) = session.lock() else { return };
    let (generation, state) = unpack(slot.state.load(SeqCst));
    if generation == id.generation && state != FREE && state != LIVE {
        slot.state.store(pack(generation, FREE), SeqCst);
    }
}

/// Drops what a dead process (or one that never started) held. Doing so again does nothing.
pub fn bury(id: SlotId) {
    let session = session();
    let Some(slot) = session.slot(id.index) else {
        return;
    };
    let status = match status_of(slot, id.generation) {
        SlotStatus::Dead(status) => Some(status),
        // Only its parent knows it, and gives it up.
        SlotStatus::Starting => None,
        SlotStatus::Live | SlotStatus::Gone => return,
    };
    // It waits no more. Only objects' eventcounts: those of slots may have been reset since.
    let offset = slot.waiting_on.load(SeqCst) as usize;
    if slot.counted.swap(0, SeqCst) == 1
        && offset >= session.layout().entries_at
        && let Some(event) = published(session, slot)
    {
        event.leave();
    }
    slot.waiting_on.store(0, SeqCst);
    if let Some(status) = status.filter(|s| s.abnormal()) {
        for index in objects::held_by(session, id.index) {
            permit::convert_dead(session, index, id, slot.pid.load(SeqCst), status);
        }
    }
    objects::drop_all(session, id.index);
    // It may have taken an item and died before it closed what came with it.
    let _ = crate::postoffice::sweep(session, None);
}

/// Whether a process that is being started never will be: its starter died at it. Should it have begun after all, it ends as soon as it looks
/// for its parent.
pub(crate) fn is_abandoned(slot: &Slot) -> bool {
    let starter = SlotId::from_u64(slot.starter.load(SeqCst));
    unpack(slot.state.load(SeqCst)).1 == STARTING
        && !matches!(status(starter), SlotStatus::Live | SlotStatus::Starting)
        // The main process is nobody's.
        && starter != SlotId::NONE
}

/// Buries and releases the dead whose parent is no more, and those that died before they were started: nobody else will.
pub fn sweep(session: &'static Session) {
    for (id, slot) in slots(session) {
        if is_abandoned(slot) {
            release(id);
            continue;
        }
        if !matches!(status_of(slot, id.generation), SlotStatus::Dead(_)) {
            continue;
        }
        let parent = SlotId::from_u64(slot.parent.load(SeqCst));
        let orphan = match status(parent) {
            SlotStatus::Gone => true,
            SlotStatus::Dead(_) => {
                bury(parent);
                true
            }
            SlotStatus::Starting | SlotStatus::Live => false,
        };
        if orphan {
            release(id);
        }
    }
}
