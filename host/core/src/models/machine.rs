//! The machine on which the models run: loom's threads as processes that can die, over the crate's real shared memory.
//!
//! A step is an operation on a word that more than one process uses and somebody writes, on a robust mutex, or of the
//! kernel's (futex(2)). loom explores the orders of steps, up to those that make no difference, and, for what isn't ordered
//! by a fence or by acquire and release, the older values that a load may see. Which words several processes use is
//! found out by running: the first use that shows it ends the run, and the exploration begins anew with what is known by then.
//! All other words are each process's own business, or written by several and read by nobody; they are no steps, and are put
//! back before the next run. The words of steps are loom's, begin with what lies in memory, and come back to it when all
//! processes are done: who looks at what they left has no steps, for nobody is there any more to come between.
//!
//! A process that is to die before its n-th step that others could notice unwinds, and from then on changes nothing: its
//! destructors run, as they must in a thread, but without any effect. Then the kernel frees its mutexes, and what the parent does
//! at a death follows, at any later time. Dying before a step that nobody notices is the same as dying before the next one
//! that somebody does.
//!
//! loom takes operations that are sequentially consistent for acquire and release. So each of them has a full fence before it here,
//! which is how a machine with weak memory does them.
//!
//! Invariant: nothing is borrowed across a step, since other processes run meanwhile.

mod explore;
mod kernel;

use crate::table::SlotId;
pub(crate) use explore::{Plan, Process, Start, begin, died, explore, kernel_calls};
use kernel::{Mutex, Sleeper};
pub(crate) use kernel::{
    forget_signals, futex_wait, futex_wake, lock, send_packet, signal, unlock,
};
use loom::sync::atomic::AtomicU64 as Atom;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{Location, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};

/// What is broken on purpose, to see that a model notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There are no fences, and sequentially consistent operations are none.
    NoFences,
    /// The kernel lets a waiter sleep without comparing the word.
    NoFutexCompare,
    /// A mutex keeps nobody out.
    NoExclusion,
    /// After a death inside a mutex nothing is repaired.
    NoRepair,
    /// Whoever notes a death wakes nobody.
    NoWakeAtDeath,
    /// Exchanges on the word at this address are a load and a store.
    SplitExchange(usize),
    /// Writes to the word at this address are lost.
    NoWrite(usize),
    /// All operations on the word at this address are relaxed.
    Relaxed(usize),
}

/// Who acts.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Actor {
    number: usize,
    slot: SlotId,
}

/// Looks when all others are done.
const EXAMINER: usize = 31;
/// The number of the process that reaps the first one, and so on.
const REAPERS: usize = 16;

/// What is done to a word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Load,
    Store,
    /// Both.
    Modify,
}

/// How the word at an address is used.
#[derive(Clone, Copy)]
enum Use {
    /// Read by these (bits), written by nobody.
    Constant(u32),
    /// Written by these (bits), read by nobody: whose store came last makes no difference to anybody.
    Written(u32),
    /// Used by one.
    Private(usize),
    /// Used by several: which of loom's.
    Shared(usize),
}

/// Addresses need no better one.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only addresses are hashed");
    }

    fn write_usize(&mut self, address: usize) {
        self.0 = (address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

struct Change {
    address: usize,
    size: usize,
    before: u64,
}

/// A word of steps.
struct Shared {
    address: usize,
    size: usize,
    first: u64,
    /// What was written last.
    last: Cell<u64>,
    /// Who has loaded it since, the latest one last.
    readers: RefCell<Vec<usize>>,
}

/// loom remembers only the last use of a word. If one process loads it, then another loads and writes it, loom doesn't see that
/// the write could have come before the first load, for in between is a load by the writer itself. So whoever loads a word goes
/// through a gate of his own, and whoever writes it through the gates of those of whose loads loom doesn't know any more.
///
/// To notify a condition variable at which nobody waits is a step that orders no memory.
type Gate = loom::sync::Condvar;

/// The run at hand; one for each thread of the test harness.
#[derive(Default)]
struct Machine {
    running: Cell<bool>,
    actor: Cell<Option<Actor>>,
    uses: RefCell<HashMap<usize, Use, BuildHasherDefault<AddressHasher>>>,
    shared: RefCell<Vec<Shared>>,
    atoms: RefCell<Rc<Vec<Atom>>>,
    /// For each word and reader.
    gates: RefCell<HashMap<(usize, usize), Rc<Gate>>>,
    changes: RefCell<Vec<Change>>,
    sleepers: RefCell<Vec<Sleeper>>,
    /// Who has a signal that is to keep it from sleeping.
    signals: RefCell<Vec<SlotId>>,
    mutexes: RefCell<HashMap<usize, Mutex, BuildHasherDefault<AddressHasher>>>,
    fault: Cell<Option<Fault>>,
    /// Who is to die, and before which of its steps.
    death: Cell<Option<(usize, u32)>>,
    /// Steps of the one that is to die.
    steps: Cell<u32>,
    died: Cell<bool>,
    /// All orders are explored from here on: see [`Start`].
    begun: Cell<bool>,
    begins_asleep: Cell<bool>,
    /// All processes are done: what they left lies in memory again.
    over: Cell<bool>,
    runs: Cell<u64>,
    /// Wake-ups that the kernel was asked for.
    kernel_calls: Cell<u32>,
    /// The steps of this run.
    trace: RefCell<Vec<Step>>,
}

/// A step that was made, as it is shown if the run goes wrong.
struct Step {
    actor: usize,
    what: &'static str,
    address: usize,
    value: u64,
    place: &'static Location<'static>,
}

#[track_caller]
fn note(what: &'static str, address: usize, value: u64) {
    let place = Location::caller();
    with(|m| {
        m.trace.borrow_mut().push(Step {
            actor: m.actor.get().expect("somebody acts").number,
            what,
            address,
            value,
            place,
        });
    });
}

/// The steps of the run that went wrong.
fn trace() -> String {
    with(|m| {
        let mut text = String::new();
        for step in m.trace.borrow().iter() {
            let who = match step.actor {
                EXAMINER => "examiner".to_string(),
                parent @ REAPERS.. => format!("parent of {}", parent - REAPERS),
                process => format!("process {process}"),
            };
            let (file, line) = (
                step.place.file().rsplit('/').next().unwrap_or_default(),
                step.place.line(),
            );
            text += &format!(
                "\n  {who}: {} {:x} {:x} at {file}:{line}",
                step.what,
                step.address & 0xff_ffff,
                step.value
            );
        }
        text
    })
}

thread_local! {
    static MACHINE: Machine = Machine::default();
}

fn with<R>(f: impl FnOnce(&Machine) -> R) -> R {
    MACHINE.with(f)
}

/// What unwinds a process that dies.
struct Death;
/// What unwinds a run that has found a word to be shared.
struct Restart;

/// How an operation on a word is done.
pub(super) enum Route {
    /// In memory.
    Plain,
    /// Not at all.
    Dead,
    /// As a step.
    Step(Word),
}

/// A word of steps.
pub(super) struct Word {
    atoms: Rc<Vec<Atom>>,
    index: usize,
    address: usize,
}

/// Whether a model runs.
pub(crate) fn is_running() -> bool {
    with(|m| m.running.get())
}

/// Whether all processes are done.
fn is_over() -> bool {
    with(|m| m.over.get())
}

/// The process that acts, in a model.
pub(crate) fn me() -> Option<SlotId> {
    with(|m| {
        m.running
            .get()
            .then(|| m.actor.get().map(|actor| actor.slot))
            .flatten()
    })
}

/// Ends the run: the word of `size` bytes at `address`, in which `raw` lies, is shared.
fn share(m: &Machine, address: usize, raw: u64, size: usize) -> ! {
    let index = {
        let changes = m.changes.borrow();
        let first = changes
            .iter()
            .find(|change| change.address == address)
            .map_or(raw, |change| change.before);
        let mut shared = m.shared.borrow_mut();
        shared.push(Shared {
            address,
            size,
            first,
            last: Cell::new(first),
            readers: RefCell::default(),
        });
        shared.len() - 1
    };
    m.uses.borrow_mut().insert(address, Use::Shared(index));
    resume_unwind(Box::new(Restart));
}

/// The use of a word by one more; `None` if it has to be shared.
fn used(known: Option<Use>, actor: usize, access: Access) -> Option<Use> {
    use {Access::*, Use::*};
    let me = 1 << actor;
    Some(match (known, access) {
        (None, Load) => Constant(me),
        (None, Store) => Written(me),
        (None, Modify) => Private(actor),
        (Some(Constant(readers)), Load) => Constant(readers | me),
        (Some(Written(writers)), Store) => Written(writers | me),
        (Some(Constant(by) | Written(by)), _) if by == me => Private(actor),
        (Some(Private(owner)), _) if owner == actor => Private(owner),
        _ => return None,
    })
}

/// How an operation on the word of `size` bytes at `address`, in which `raw` lies, is done.
pub(super) fn route(address: usize, raw: u64, size: usize, access: Access) -> Route {
    with(|m| {
        if !m.running.get() {
            return Route::Plain;
        }
        if std::thread::panicking() {
            return Route::Dead;
        }
        let actor = m.actor.get().expect("somebody acts").number;
        let known = m.uses.borrow().get(&address).copied();
        if let Some(Use::Shared(index)) = known
            && !m.over.get()
        {
            return Route::Step(Word {
                atoms: Rc::clone(&m.atoms.borrow()),
                index,
                address,
            });
        }
        // Who looks last takes part only in what a dead process may have left half done, and in what several have written.
        let examined = m.death.get().is_some()
            || matches!(known, Some(Use::Written(writers)) if !writers.is_power_of_two());
        if !m.over.get() || examined && !matches!(known, Some(Use::Shared(_))) {
            let Some(next) = used(known, actor, access) else {
                share(m, address, raw, size)
            };
            m.uses.borrow_mut().insert(address, next);
        }
        if access != Access::Load {
            m.changes.borrow_mut().push(Change {
                address,
                size,
                before: raw,
            });
        }
        Route::Plain
    })
}

/// The word of steps behind a futex.
fn kernel_word(m: &Machine, address: usize, raw: u32) -> Word {
    let known = m.uses.borrow().get(&address).copied();
    match known {
        Some(Use::Shared(index)) => Word {
            atoms: Rc::clone(&m.atoms.borrow()),
            index,
            address,
        },
        _ => share(m, address, u64::from(raw), size_of::<u32>()),
    }
}

/// Does what may let others run, and is this process again afterwards.
fn switching<R>(f: impl FnOnce() -> R) -> R {
    let actor = with(|m| m.actor.get());
    let result = f();
    with(|m| m.actor.set(actor));
    result
}

/// Before whatever others could notice: dies here if it is to.
fn step() {
    with(|m| {
        let Some((victim, at)) = m.death.get() else {
            return;
        };
        let actor = m.actor.get().expect("somebody acts");
        if actor.number == victim && m.begun.get() && !m.died.get() {
            m.steps.set(m.steps.get() + 1);
            if m.steps.get() == at {
                m.died.set(true);
                note("dies", 0, 0);
                resume_unwind(Box::new(Death));
            }
        }
    });
}

fn fault() -> Option<Fault> {
    with(|m| m.fault.get())
}

fn full_fence() {
    if fault() != Some(Fault::NoFences) {
        loom::sync::atomic::fence(SeqCst);
    }
}

/// A fence; false outside of a model.
pub(super) fn fence(order: Ordering) -> bool {
    if !is_running() {
        return false;
    }
    if !std::thread::panicking() && fault() != Some(Fault::NoFences) {
        loom::sync::atomic::fence(order);
    }
    true
}

/// No word has this value.
const NEVER: u64 = u64::MAX - 1;

impl Word {
    fn atom(&self) -> &Atom {
        &self.atoms[self.index]
    }

    /// Through the gate of one who loads.
    fn pass(&self, reader: usize) {
        let gate = with(|m| {
            let mut gates = m.gates.borrow_mut();
            Rc::clone(gates.entry((self.index, reader)).or_default())
        });
        switching(|| gate.notify_one());
    }

    /// Before a load.
    fn loads(&self) {
        let me = with(|m| m.actor.get().expect("somebody acts").number);
        self.pass(me);
    }

    /// After a load.
    fn has_loaded(&self) {
        with(|m| {
            let me = m.actor.get().expect("somebody acts").number;
            let shared = m.shared.borrow();
            let mut readers = shared[self.index].readers.borrow_mut();
            readers.retain(|reader| *reader != me);
            readers.push(me);
        });
    }

    /// Does what loom takes for a write.
    fn writing<R>(&self, f: impl FnOnce(&Atom) -> R) -> R {
        let forgotten: Vec<usize> = with(|m| {
            let me = m.actor.get().expect("somebody acts").number;
            let shared = m.shared.borrow();
            let readers = shared[self.index].readers.borrow();
            let (_, earlier) = readers.split_last().unwrap_or((&me, &[]));
            earlier
                .iter()
                .copied()
                .filter(|reader| *reader != me)
                .collect()
        });
        for reader in forgotten {
            self.pass(reader);
        }
        let result = switching(|| f(self.atom()));
        with(|m| m.shared.borrow()[self.index].readers.borrow_mut().clear());
        result
    }

    fn wrote(&self, value: u64) {
        with(|m| m.shared.borrow()[self.index].last.set(value));
    }

    fn order(&self, order: Ordering, strongest: Ordering) -> Ordering {
        if fault() == Some(Fault::Relaxed(self.address)) {
            return Relaxed;
        }
        if order != SeqCst {
            return order;
        }
        full_fence();
        strongest
    }

    #[track_caller]
    pub(super) fn load(&self, order: Ordering) -> u64 {
        let order = self.order(order, Acquire);
        self.loads();
        let value = switching(|| self.atom().load(order));
        self.has_loaded();
        note("load", self.address, value);
        value
    }

    #[track_caller]
    pub(super) fn store(&self, value: u64, order: Ordering) {
        step();
        if fault() == Some(Fault::NoWrite(self.address)) {
            return;
        }
        let order = self.order(order, Release);
        self.writing(|atom| atom.store(value, order));
        self.wrote(value);
        note("store", self.address, value);
    }

    #[track_caller]
    pub(super) fn modify(
        &self,
        order: Ordering,
        whole: impl FnOnce(&Atom, Ordering) -> u64,
        split: impl Fn(u64) -> u64,
    ) -> u64 {
        step();
        let order = self.order(order, AcqRel);
        let before = match fault() {
            Some(Fault::NoWrite(address)) if address == self.address => self.newest(),
            Some(Fault::SplitExchange(address)) if address == self.address => {
                let before = switching(|| self.atom().load(Acquire));
                switching(|| self.atom().store(split(before), Release));
                self.wrote(split(before));
                before
            }
            _ => {
                let before = self.writing(|atom| whole(atom, order));
                self.wrote(split(before));
                before
            }
        };
        note("modify", self.address, before);
        before
    }

    #[track_caller]
    pub(super) fn compare_exchange(
        &self,
        current: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        step();
        let success = self.order(success, AcqRel);
        let failure = self.order(failure, Acquire);
        if fault() == Some(Fault::SplitExchange(self.address)) {
            let before = switching(|| self.atom().load(Acquire));
            if before != current {
                return Err(before);
            }
            switching(|| self.atom().store(new, Release));
            self.wrote(new);
            return Ok(before);
        }
        if fault() == Some(Fault::NoWrite(self.address)) {
            return Ok(current);
        }
        let result = self.writing(|atom| atom.compare_exchange(current, new, success, failure));
        match result {
            Ok(_) => {
                self.wrote(new);
                note("exchange for", self.address, new);
            }
            Err(now) => note("no exchange of", self.address, now),
        }
        result
    }

    /// One more, by the kernel: no step of its own.
    fn add_one(&self) {
        let before = self.writing(|atom| atom.fetch_add(1, AcqRel));
        self.wrote(before + 1);
        note("packet", self.address, before);
    }

    /// The value as the kernel sees it, under its own lock.
    fn newest(&self) -> u64 {
        let value = self.writing(|atom| atom.compare_exchange(NEVER, 0, Relaxed, Relaxed));
        value.expect_err("no word has this value")
    }
}
