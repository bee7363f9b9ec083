//! What the kernel and the C library do in a model: futexes and robust mutexes.
//!
//! Invariant: comparing and lying down, or choosing whom to wake, is one step, as under the kernel's own lock.

use super::super::atomic::AtomicU32;
use super::{
    Fault, REAPERS, Word, fault, full_fence, is_running, kernel_word, note, step, switching, with,
};
use std::cell::Cell;
use std::rc::Rc;

pub(super) struct Sleeper {
    address: usize,
    bits: u32,
    wake: Wake,
}

#[derive(Default)]
pub(super) struct Mutex {
    holder: Option<usize>,
    /// The last holder died inside.
    owner_dead: bool,
    waiters: Vec<Wake>,
}

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
    let (address, raw) = (word.as_ptr() as usize, word.raw());
    let word = with(|m| kernel_word(m, address, u64::from(raw)));
    step();
    full_fence();
    // Comparing and lying down are one step, as under the kernel's lock.
    let now = word.newest();
    note("sleep", address, now);
    if now as u32 != expected && fault() != Some(Fault::NoFutexCompare) {
        return true;
    }
    let wake = Wake::new();
    let sleeper = Sleeper {
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
    if std::thread::panicking() {
        return Some(0);
    }
    let (address, raw) = (word.as_ptr() as usize, word.raw());
    let word = with(|m| kernel_word(m, address, u64::from(raw)));
    step();
    full_fence();
    let now = word.newest();
    note("wake", address, now);
    let chosen = with(|m| {
        m.kernel_calls.set(m.kernel_calls.get() + 1);
        let reaps = m.actor.get().is_some_and(|a| a.number >= REAPERS);
        if reaps && m.fault.get() == Some(Fault::NoWakeAtDeath) {
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
    Some(chosen.len())
}

/// Locks a mutex: whether its last owner died inside; `None` outside of a model.
pub(crate) fn lock(address: usize) -> Option<bool> {
    if !is_running() {
        return None;
    }
    if std::thread::panicking() {
        return Some(false);
    }
    let word = with(|m| kernel_word(m, address, 0));
    loop {
        step();
        word.pass("lock");
        let (number, fault) =
            with(|m| (m.actor.get().expect("somebody acts").number, m.fault.get()));
        let taken = with(|m| {
            let mut mutexes = m.mutexes.borrow_mut();
            let mutex = mutexes.entry(address).or_default();
            if mutex.holder.is_none() || fault == Some(Fault::NoExclusion) {
                mutex.holder = Some(number);
                Ok(std::mem::take(&mut mutex.owner_dead) && fault != Some(Fault::NoRepair))
            } else {
                let wake = Wake::new();
                mutex.waiters.push(wake.clone());
                Err(wake)
            }
        });
        match taken {
            Ok(owner_dead) => return Some(owner_dead),
            Err(wake) => sleep(&wake),
        }
    }
}

/// Unlocks a mutex; false outside of a model.
pub(crate) fn unlock(address: usize) -> bool {
    if !is_running() {
        return false;
    }
    if !std::thread::panicking() {
        let word = with(|m| kernel_word(m, address, 0));
        step();
        leave(address, &word, false);
    }
    true
}

fn leave(address: usize, word: &Word, owner_dead: bool) {
    word.pass("unlock");
    let next = with(|m| {
        let mut mutexes = m.mutexes.borrow_mut();
        let mutex = mutexes.entry(address).or_default();
        mutex.holder = None;
        mutex.owner_dead = owner_dead;
        (!mutex.waiters.is_empty()).then(|| mutex.waiters.remove(0))
    });
    if let Some(wake) = next {
        wake.wake();
    }
}

/// What the kernel does for a process that has died: its mutexes become free, and one that it was woken for is another's to
/// take (set_robust_list(2)).
pub(super) fn bury_by_kernel(number: usize) {
    let held = with(|m| {
        let mut held: Vec<usize> = m
            .mutexes
            .borrow()
            .iter()
            .filter(|(_, mutex)| {
                mutex.holder == Some(number) || mutex.holder.is_none() && !mutex.waiters.is_empty()
            })
            .map(|(address, _)| *address)
            .collect();
        held.sort_unstable();
        held
    });
    for address in held {
        let word = with(|m| kernel_word(m, address, 0));
        let mine = with(|m| m.mutexes.borrow()[&address].holder == Some(number));
        let others = with(|m| m.mutexes.borrow()[&address].holder.is_some());
        if mine || !others {
            let dead = mine || with(|m| m.mutexes.borrow()[&address].owner_dead);
            leave(address, &word, dead);
        }
    }
}
