//! What the kernel and the C library do in a model: futexes and robust mutexes.
//!
//! Invariant: comparing and lying down, or choosing whom to wake, is one step, as under the kernel's own lock.

use super::super::atomic::AtomicU32;
use super::{
    Fault, REAPERS, begin, fault, full_fence, is_over, is_running, kernel_word, note, step,
    switching, with,
};
use crate::table::SlotId;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::rc::Rc;

pub(super) struct Sleeper {
    slot: SlotId,
    address: usize,
    bits: u32,
    wake: Wake,
}

/// A robust mutex: one of loom's, and who has it. To lock it is a step, which can't come while another has it. To unlock
/// it is none: nobody notices that before he locks it, and who does so finds everything that the holder did inside.
#[derive(Default)]
pub(super) struct Mutex {
    lock: Rc<loom::sync::Mutex<()>>,
    guard: Option<Guard>,
    holder: Option<usize>,
    /// The last holder died inside.
    owner_dead: bool,
}

/// loom's guard, beside the mutex it belongs to.
type Guard = ManuallyDrop<loom::sync::MutexGuard<'static, ()>>;

/// Wakes a thread that sleeps in [`sleep`].
#[derive(Clone)]
struct Wake {
    thread: loom::thread::Thread,
    woken: Rc<Cell<bool>>,
}

impl Wake {
    fn new() -> Self {
        Self {
            thread: loom::thread::current(),
            woken: Rc::new(Cell::new(false)),
        }
    }

    fn wake(&self) {
        self.woken.set(true);
        self.thread.unpark();
    }
}

fn sleep(wake: &Wake) {
    while !wake.woken.get() {
        switching(loom::thread::park);
    }
}

/// The kernel's sleep; false outside of a model.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, bits: u32) -> bool {
    if !is_running() {
        return false;
    }
    if std::thread::panicking() {
        return true;
    }
    assert!(!is_over(), "who looks last waits");
    let (address, raw) = (word.as_ptr() as usize, word.raw());
    let word = with(|m| kernel_word(m, address, raw));
    if with(|m| m.begins_asleep.get()) {
        begin();
    }
    step();
    full_fence();
    // Comparing and lying down are one step, as under the kernel's lock.
    let now = word.newest();
    note("sleep", address, now);
    if now as u32 != expected && fault() != Some(Fault::NoFutexCompare) {
        return true;
    }
    let slot = with(|m| m.actor.get().expect("somebody acts").slot);
    if with(|m| take(&mut m.signals.borrow_mut(), slot)) {
        return true;
    }
    let wake = Wake::new();
    let sleeper = Sleeper {
        slot,
        address,
        bits,
        wake: wake.clone(),
    };
    with(|m| m.sleepers.borrow_mut().push(sleeper));
    sleep(&wake);
    true
}

/// The kernel's wake-up: how many were woken; `None` outside of a model.
pub(crate) fn futex_wake(word: &AtomicU32, count: u32, bits: u32) -> Option<usize> {
    if !is_running() {
        return None;
    }
    // Nobody sleeps any more when all is over.
    if std::thread::panicking() || is_over() {
        return Some(0);
    }
    let (address, raw) = (word.as_ptr() as usize, word.raw());
    let word = with(|m| kernel_word(m, address, raw));
    step();
    full_fence();
    let now = word.newest();
    note("wake", address, now);
    Some(wake_some(address, count, bits))
}

/// A packet sent to a socket, of which the word is the number of packets in it: those wake who sleep there. Who is killed has sent it or hasn't.
pub(crate) fn send_packet(packets: &AtomicU32) {
    if std::thread::panicking() {
        return;
    }
    let (address, raw) = (packets.as_ptr() as usize, packets.raw());
    let word = with(|m| kernel_word(m, address, raw));
    step();
    full_fence();
    word.add_one();
    wake_some(address, u32::MAX, u32::MAX);
}

/// A signal for a process that sleeps on a word, or is about to: it doesn't.
pub(crate) fn signal(word: &AtomicU32, slot: SlotId) {
    if std::thread::panicking() {
        return;
    }
    let (address, raw) = (word.as_ptr() as usize, word.raw());
    let word = with(|m| kernel_word(m, address, raw));
    step();
    full_fence();
    note("signal", address, word.newest());
    if is_a_lost_wake() {
        return;
    }
    let sleeper = with(|m| {
        let mut sleepers = m.sleepers.borrow_mut();
        let place = sleepers.iter().position(|sleeper| sleeper.slot == slot);
        if place.is_none() {
            m.signals.borrow_mut().push(slot);
        }
        place.map(|place| sleepers.remove(place).wake)
    });
    if let Some(wake) = sleeper {
        wake.wake();
    }
}

/// A signal that comes while its process doesn't sleep and won't.
pub(crate) fn forget_signals() {
    let _ = with(|m| {
        let slot = m.actor.get().expect("somebody acts").slot;
        take(&mut m.signals.borrow_mut(), slot)
    });
}

fn take(signals: &mut Vec<SlotId>, slot: SlotId) -> bool {
    let before = signals.len();
    signals.retain(|other| *other != slot);
    signals.len() < before
}

/// Whether who acts is one who notes a death, and has been made to wake nobody.
fn is_a_lost_wake() -> bool {
    with(|m| {
        let reaps = m.actor.get().is_some_and(|a| a.number >= REAPERS);
        reaps && m.fault.get() == Some(Fault::NoWakeAtDeath)
    })
}

/// Wakes those who sleep on a word: how many.
fn wake_some(address: usize, count: u32, bits: u32) -> usize {
    let chosen = with(|m| {
        m.kernel_calls.set(m.kernel_calls.get() + 1);
        if is_a_lost_wake() {
            return vec![];
        }
        let mut sleepers = m.sleepers.borrow_mut();
        let mut chosen = vec![];
        let mut left = vec![];
        for sleeper in sleepers.drain(..) {
            if sleeper.address == address
                && sleeper.bits & bits != 0
                && chosen.len() < count as usize
            {
                chosen.push(sleeper.wake);
            } else {
                left.push(sleeper);
            }
        }
        *sleepers = left;
        chosen
    });
    chosen.iter().for_each(Wake::wake);
    chosen.len()
}

/// Locks a mutex: whether its last owner died inside; `None` outside of a model.
pub(crate) fn lock(address: usize) -> Option<bool> {
    if !is_running() {
        return None;
    }
    if std::thread::panicking() {
        return Some(false);
    }
    if is_over() {
        return Some(taken_at_the_end(address));
    }
    step();
    let fault = fault();
    if fault != Some(Fault::NoExclusion) {
        let lock = with(|m| Rc::clone(&m.mutexes.borrow_mut().entry(address).or_default().lock));
        let guard = switching(|| lock.lock().expect("nobody panics who has it"));
        // SAFETY: the mutex stays where it is as long as the map has it, which is longer than the guard.
        let guard: loom::sync::MutexGuard<'static, ()> = unsafe { std::mem::transmute(guard) };
        with(|m| {
            let mut mutexes = m.mutexes.borrow_mut();
            mutexes.entry(address).or_default().guard = Some(ManuallyDrop::new(guard));
        });
    }
    note("lock", address, 0);
    with(|m| {
        let mut mutexes = m.mutexes.borrow_mut();
        let mutex = mutexes.entry(address).or_default();
        mutex.holder = Some(m.actor.get().expect("somebody acts").number);
        Some(std::mem::take(&mut mutex.owner_dead) && fault != Some(Fault::NoRepair))
    })
}

/// Whoever looks last locks a mutex, which is free: whether its last owner died inside.
fn taken_at_the_end(address: usize) -> bool {
    with(|m| {
        let mut mutexes = m.mutexes.borrow_mut();
        let mutex = mutexes.entry(address).or_default();
        assert!(mutex.holder.is_none(), "a mutex is left locked");
        std::mem::take(&mut mutex.owner_dead) && m.fault.get() != Some(Fault::NoRepair)
    })
}

/// Unlocks a mutex; false outside of a model.
pub(crate) fn unlock(address: usize) -> bool {
    if !is_running() {
        return false;
    }
    if !std::thread::panicking() && !is_over() {
        step();
        leave(address, false);
    }
    true
}

fn leave(address: usize, owner_dead: bool) {
    note("unlock", address, 0);
    let guard = with(|m| {
        let mut mutexes = m.mutexes.borrow_mut();
        let mutex = mutexes.entry(address).or_default();
        mutex.holder = None;
        mutex.owner_dead = owner_dead;
        mutex.guard.take()
    });
    if let Some(guard) = guard {
        drop(ManuallyDrop::into_inner(guard));
    }
}

/// What the kernel does for a process that has died: its mutexes become free (set_robust_list(2)).
pub(super) fn bury_by_kernel(number: usize) {
    let mut held: Vec<usize> = with(|m| {
        let mutexes = m.mutexes.borrow();
        let mine = mutexes
            .iter()
            .filter(|(_, mutex)| mutex.holder == Some(number));
        mine.map(|(address, _)| *address).collect()
    });
    held.sort_unstable();
    for address in held {
        leave(address, true);
    }
}
