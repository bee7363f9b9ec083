//! The machine on which the models run: loom's threads as processes that can die, over the crate's real shared memory.
//!
//! A step is an operation on a word that more than one process uses and somebody writes, on a robust mutex, or of the
//! kernel's (futex(2)). loom explores the orders of steps, up to those that make no difference, and, for what isn't ordered
//! by a fence or by acquire and release, the older values that a load may see. Which words several processes use is
//! found out by running: the first use that shows it ends the run, and the exploration begins anew with what is known by then.
//! All other words are each process's own business, are no steps, and are put back before the next run; the words of steps
//! are loom's, begin with what lies in memory, and never come back to it.
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

use super::atomic::AtomicU32;
use crate::table::SlotId;
use loom::sync::atomic::AtomicU64 as Atom;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
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

/// How the word at an address is used.
#[derive(Clone, Copy)]
enum Use {
    /// Read by these (bits), written by nobody.
    Constant(u32),
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

struct Sleeper {
    address: usize,
    bits: u32,
    wake: Wake,
}

#[derive(Default)]
struct Mutex {
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

/// The run at hand; one for each thread of the test harness.
#[derive(Default)]
struct Machine {
    running: Cell<bool>,
    actor: Cell<Option<Actor>>,
    uses: RefCell<HashMap<usize, Use, BuildHasherDefault<AddressHasher>>>,
    /// Addresses of the words of steps, and what they are at first.
    shared: RefCell<Vec<(usize, u64)>>,
    atoms: RefCell<Rc<Vec<Atom>>>,
    changes: RefCell<Vec<Change>>,
    sleepers: RefCell<Vec<Sleeper>>,
    mutexes: RefCell<HashMap<usize, Mutex, BuildHasherDefault<AddressHasher>>>,
    fault: Cell<Option<Fault>>,
    /// Who is to die, and before which of its steps.
    death: Cell<Option<(usize, u32)>>,
    /// Steps of the one that is to die.
    steps: Cell<u32>,
    died: Cell<bool>,
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

/// The process that acts, in a model.
pub(crate) fn me() -> Option<SlotId> {
    with(|m| {
        m.running
            .get()
            .then(|| m.actor.get().map(|actor| actor.slot))
            .flatten()
    })
}

/// Ends the run: the word at `address`, in which `raw` lies, is shared.
fn share(m: &Machine, address: usize, raw: u64) -> ! {
    let index = {
        let changes = m.changes.borrow();
        let first = changes
            .iter()
            .find(|change| change.address == address)
            .map_or(raw, |change| change.before);
        let mut shared = m.shared.borrow_mut();
        shared.push((address, first));
        shared.len() - 1
    };
    m.uses.borrow_mut().insert(address, Use::Shared(index));
    resume_unwind(Box::new(Restart));
}

/// How an operation on the word of `size` bytes at `address`, in which `raw` lies, is done.
pub(super) fn route(address: usize, raw: u64, size: usize, writes: bool) -> Route {
    with(|m| {
        if !m.running.get() {
            return Route::Plain;
        }
        if std::thread::panicking() {
            return Route::Dead;
        }
        let actor = m.actor.get().expect("somebody acts").number;
        let known = m.uses.borrow().get(&address).copied();
        if let Some(Use::Shared(index)) = known {
            return Route::Step(Word {
                atoms: Rc::clone(&m.atoms.borrow()),
                index,
                address,
            });
        }
        // Who looks last takes part only in what a dead process may have left half done.
        if actor != EXAMINER || m.death.get().is_some() {
            let next = match (known, writes) {
                (None, false) => Use::Constant(1 << actor),
                (None, true) => Use::Private(actor),
                (Some(Use::Constant(readers)), false) => Use::Constant(readers | 1 << actor),
                (Some(Use::Constant(readers)), true) if readers & !(1 << actor) == 0 => {
                    Use::Private(actor)
                }
                (Some(Use::Private(owner)), _) if owner == actor => Use::Private(owner),
                _ => share(m, address, raw),
            };
            m.uses.borrow_mut().insert(address, next);
        }
        if writes {
            m.changes.borrow_mut().push(Change {
                address,
                size,
                before: raw,
            });
        }
        Route::Plain
    })
}

/// The word of steps behind a mutex or a futex.
fn kernel_word(m: &Machine, address: usize, raw: u64) -> Word {
    let known = m.uses.borrow().get(&address).copied();
    match known {
        Some(Use::Shared(index)) => Word {
            atoms: Rc::clone(&m.atoms.borrow()),
            index,
            address,
        },
        _ => share(m, address, raw),
    }
}

/// Does what may let others run, and is this process again afterwards.
fn switching<R>(f: impl FnOnce() -> R) -> R {
    let actor = with(|m| m.actor.get());
    let result = f();
    with(|m| m.actor.set(actor));
    result
}

fn sleep(wake: &Wake) {
    while !wake.woken.get() {
        switching(loom::thread::park);
    }
}

/// Before whatever others could notice: dies here if it is to.
fn step() {
    with(|m| {
        let Some((victim, at)) = m.death.get() else {
            return;
        };
        let actor = m.actor.get().expect("somebody acts");
        if actor.number == victim && !m.died.get() {
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
        let value = switching(|| self.atom().load(order));
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
        switching(|| self.atom().store(value, order));
        note("store", self.address, value);
    }

    #[track_caller]
    pub(super) fn modify(
        &self,
        order: Ordering,
        whole: impl FnOnce(&Atom, Ordering) -> u64,
        split: impl FnOnce(u64) -> u64,
    ) -> u64 {
        step();
        let order = self.order(order, AcqRel);
        let before = match fault() {
            Some(Fault::NoWrite(address)) if address == self.address => self.newest(),
            Some(Fault::SplitExchange(address)) if address == self.address => {
                let before = switching(|| self.atom().load(Acquire));
                switching(|| self.atom().store(split(before), Release));
                before
            }
            _ => switching(|| whole(self.atom(), order)),
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
            return Ok(before);
        }
        if fault() == Some(Fault::NoWrite(self.address)) {
            return Ok(current);
        }
        let result = switching(|| self.atom().compare_exchange(current, new, success, failure));
        match result {
            Ok(_) => note("exchange for", self.address, new),
            Err(now) => note("no exchange of", self.address, now),
        }
        result
    }

    /// The value as the kernel sees it, under its own lock.
    fn newest(&self) -> u64 {
        let value = switching(|| self.atom().compare_exchange(NEVER, 0, Relaxed, Relaxed));
        value.expect_err("no word has this value")
    }

    /// A step of a mutex: ordered after all earlier ones.
    fn pass(&self, what: &'static str) {
        switching(|| self.atom().fetch_add(1, AcqRel));
        note(what, self.address, 0);
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
fn bury_by_kernel(number: usize) {
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

/// A thing that stays on one thread of the harness, which loom doesn't know.
struct Single<T>(T);
// SAFETY: all of loom's threads are run by one thread.
unsafe impl<T> Send for Single<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Single<T> {}

impl<T> Single<T> {
    fn get(&self) -> &T {
        &self.0
    }
}

/// A process of a model.
pub(crate) struct Process {
    pub(crate) slot: SlotId,
    pub(crate) body: Box<dyn Fn()>,
    /// What its parent does once it is dead.
    pub(crate) reap: Box<dyn Fn(SlotId)>,
    /// The process that does so.
    pub(crate) parent: SlotId,
}

/// What is explored.
pub(crate) struct Plan {
    pub(crate) processes: Vec<Process>,
    /// Before each run, in memory.
    pub(crate) prepare: Box<dyn Fn()>,
    /// After each run that nobody got stuck in.
    pub(crate) check: Box<dyn Fn()>,
    /// How often a process is interrupted in a run at most; `None` explores all.
    pub(crate) bound: Option<usize>,
    pub(crate) fault: Option<Fault>,
    /// The processes run one after the other until each sleeps; what is explored begins with the last one.
    pub(crate) settled: bool,
}

/// How often the kernel was asked to wake somebody in this run.
pub(crate) fn kernel_calls() -> u32 {
    with(|m| m.kernel_calls.get())
}

/// Whether somebody died in this run.
pub(crate) fn died() -> bool {
    with(|m| m.died.get())
}

fn be(actor: Actor) {
    with(|m| m.actor.set(Some(actor)));
}

fn run_process(number: usize, process: &Process) {
    be(Actor {
        number,
        slot: process.slot,
    });
    let ended = catch_unwind(AssertUnwindSafe(|| {
        (process.body)();
        step();
    }));
    match ended {
        Ok(()) => {}
        Err(payload) if payload.is::<Death>() => {
            bury_by_kernel(number);
            be(Actor {
                number: number + REAPERS,
                slot: process.parent,
            });
            (process.reap)(process.slot);
        }
        Err(payload) => resume_unwind(payload),
    }
}

fn undo(m: &Machine) {
    for change in m.changes.borrow_mut().drain(..).rev() {
        // SAFETY: the word was written through a reference to it during the run before, and what models use stays where it is.
        unsafe {
            match change.size {
                1 => *(change.address as *mut u8) = change.before as u8,
                4 => *(change.address as *mut u32) = change.before as u32,
                _ => *(change.address as *mut u64) = change.before,
            }
        }
    }
}

/// Words enough for this crate's deepest calls, built for tests.
const STACK: usize = 0x8000;

fn run(plan: &Rc<Plan>) {
    with(|m| {
        undo(m);
        m.sleepers.borrow_mut().clear();
        m.mutexes.borrow_mut().clear();
        m.steps.set(0);
        m.died.set(false);
        m.kernel_calls.set(0);
        m.trace.borrow_mut().clear();
        m.runs.set(m.runs.get() + 1);
        let atoms = m
            .shared
            .borrow()
            .iter()
            .map(|(_, first)| Atom::new(*first))
            .collect();
        *m.atoms.borrow_mut() = Rc::new(atoms);
    });
    (plan.prepare)();
    with(|m| m.running.set(true));
    let spawn = |body: Box<dyn Fn()>| {
        let body = Single(body);
        loom::thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || (body.get())())
            .expect("a model has few processes")
    };
    let threads: Vec<_> = (0..plan.processes.len())
        .map(|number| {
            let plan = Rc::clone(plan);
            spawn(Box::new(move || {
                if plan.settled && number + 1 == plan.processes.len() {
                    loom::explore();
                }
                run_process(number, &plan.processes[number]);
            }))
        })
        .collect();
    for thread in threads {
        thread.join().expect("loom passes panics on");
    }
    let plan = Rc::clone(plan);
    let examiner = spawn(Box::new(move || {
        be(Actor {
            number: EXAMINER,
            slot: plan.processes[0].parent,
        });
        (plan.check)();
    }));
    examiner.join().expect("loom passes panics on");
    with(|m| m.running.set(false));
}

/// Explores all runs of a plan in which process `death.0` dies before its step `death.1`, if somebody is to die: how many there
/// were, and whether it came to that step in any. An error is what went wrong in one of them.
pub(crate) fn explore(plan: &Rc<Plan>, death: Option<(usize, u32)>) -> Result<(u64, bool), String> {
    with(|m| {
        m.uses.borrow_mut().clear();
        m.shared.borrow_mut().clear();
        m.death.set(death);
        m.fault.set(plan.fault);
    });
    loop {
        with(|m| m.runs.set(0));
        let reached = Rc::new(Cell::new(false));
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = plan.bound;
        builder.max_branches = 20_000;
        builder.expect_explicit_explore = plan.settled;
        let closure = Single((Rc::clone(plan), Rc::clone(&reached)));
        let result = catch_unwind(AssertUnwindSafe(|| {
            builder.check(move || {
                let (plan, reached) = closure.get();
                run(plan);
                reached.set(reached.get() | died());
            });
        }));
        with(|m| {
            m.running.set(false);
            undo(m);
        });
        match result {
            Ok(()) => return Ok((with(|m| m.runs.get()), reached.get())),
            Err(payload) if payload.is::<Restart>() => {}
            Err(payload) => {
                let text = payload
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
                    .unwrap_or_default();
                return Err(text + &trace());
            }
        }
    }
}
