//! Runs a plan under every order of its steps.

use super::kernel::bury_by_kernel;
use super::{Actor, Change, Death, EXAMINER, Fault, Machine, REAPERS, Restart, step, trace, with};
use crate::table::SlotId;
use loom::sync::atomic::AtomicU64 as Atom;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

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

/// From where all orders are explored. Up to there the processes run one after the other, each until it sleeps or is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    AtOnce,
    /// The last one begins.
    LastOne,
    /// A process calls [`begin`]. Nobody dies earlier.
    Told,
    /// The first one is about to fall asleep. Nobody dies earlier.
    FirstSleep,
}

/// From here on all orders are explored, and processes may die.
pub(crate) fn begin() {
    if with(|m| !m.begun.replace(true)) {
        loom::explore();
    }
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
    pub(crate) start: Start,
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
        unsafe { write(change.address, change.size, change.before) };
    }
}

/// # Safety
/// A word of `size` bytes lies at `address`, in memory that may be written.
unsafe fn write(address: usize, size: usize, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        match size {
            1 => *(address as *mut u8) = value as u8,
            4 => *(address as *mut u32) = value as u32,
            _ => *(address as *mut u64) = value,
        }
    }
}

/// Words enough for this crate's deepest calls, built for tests.
const STACK: usize = 0x8000;

fn run(plan: &Rc<Plan>) {
    with(|m| {
        undo(m);
        m.sleepers.borrow_mut().clear();
        m.signals.borrow_mut().clear();
        m.mutexes.borrow_mut().clear();
        m.gates.borrow_mut().clear();
        m.steps.set(0);
        m.died.set(false);
        m.begun
            .set(matches!(plan.start, Start::AtOnce | Start::LastOne));
        m.begins_asleep.set(plan.start == Start::FirstSleep);
        m.kernel_calls.set(0);
        m.trace.borrow_mut().clear();
        m.runs.set(m.runs.get() + 1);
        let atoms = m
            .shared
            .borrow()
            .iter()
            .map(|shared| {
                shared.last.set(shared.first);
                shared.readers.borrow_mut().clear();
                Atom::new(shared.first)
            })
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
    // Nobody joins a thread: that one ended would be a step that others could come before, and loom would try all those orders.
    let main = loom::thread::current();
    let left = Rc::new(Cell::new(plan.processes.len()));
    let until = |count| {
        while left.get() != count {
            loom::thread::park();
        }
    };
    let ends = |count| {
        let (main, left) = (main.clone(), Rc::clone(&left));
        move || {
            left.set(left.get() - 1);
            if left.get() == count {
                main.unpark();
            }
        }
    };
    for number in 0..plan.processes.len() {
        let (plan, ends) = (Rc::clone(plan), ends(0));
        spawn(Box::new(move || {
            if plan.start == Start::LastOne && number + 1 == plan.processes.len() {
                loom::explore();
            }
            run_process(number, &plan.processes[number]);
            ends();
        }));
    }
    until(0);
    // On a stack that is large enough.
    left.set(2);
    let (plan, ends) = (Rc::clone(plan), ends(1));
    spawn(Box::new(move || {
        examine(&plan);
        ends();
    }));
    until(1);
    with(|m| m.running.set(false));
}

/// Looks at what the processes have left, in memory.
fn examine(plan: &Plan) {
    with(|m| {
        for shared in m.shared.borrow().iter() {
            m.changes.borrow_mut().push(Change {
                address: shared.address,
                size: shared.size,
                before: shared.first,
            });
            // SAFETY: as in `undo`.
            unsafe { write(shared.address, shared.size, shared.last.get()) };
        }
        m.over.set(true);
    });
    be(Actor {
        number: EXAMINER,
        slot: plan.processes[0].parent,
    });
    (plan.check)();
    with(|m| m.over.set(false));
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
        builder.expect_explicit_explore = plan.start != Start::AtOnce;
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
            m.over.set(false);
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
