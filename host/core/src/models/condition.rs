//! A notification goes to one who waits and lives, whoever dies.

use super::machine::Fault;
use super::permit::acquire_any;
use super::{KILLED, Model, P, World, machine, reap, reap_and_release, word};
use crate::clock::Deadline;
use crate::condition::{AnyLock, Condition};
use crate::error::CoreError;
use crate::permit::Lock;
use crate::sys::atomic::{AtomicU32, Ordering::Relaxed};
use crate::table::SlotId;
use std::cell::Cell;
use std::rc::Rc;

/// Something to take, under a lock, and a condition that says when it is there.
struct Store {
    lock: AnyLock,
    condition: Condition,
    /// How much there is to take.
    there: &'static AtomicU32,
    /// Nothing more will come.
    closed: &'static AtomicU32,
    victim: Cell<Option<SlotId>>,
    taken: Cell<u32>,
}

impl Store {
    /// Whoever takes the lock over from a dead process lets all look at what that has left.
    fn acquire(&self) {
        if acquire_any(&self.lock, &self.victim) {
            self.condition.notify_all().unwrap();
        }
    }

    /// Waits for something to take. Whoever has it, closes.
    fn take(&self) {
        self.acquire();
        while self.there.load(Relaxed) == 0 && self.closed.load(Relaxed) == 0 {
            match self.condition.wait(&self.lock, Deadline::NEVER, P) {
                Ok(notified) => assert!(notified),
                Err(CoreError::OwnerDied { exitcode, .. }) => {
                    assert_eq!(exitcode, -KILLED);
                    self.acquire();
                }
                Err(e) => panic!("{e}"),
            }
        }
        let there = self.there.load(Relaxed);
        if there != 0 {
            self.there.store(there - 1, Relaxed);
            self.taken.set(self.taken.get() + 1);
            self.close();
        }
        self.lock.release().unwrap();
    }

    fn close(&self) {
        self.closed.store(1, Relaxed);
        self.condition.notify_all().unwrap();
    }

    fn put(&self) {
        self.acquire();
        self.there.store(self.there.load(Relaxed) + 1, Relaxed);
        self.condition.notify(1).unwrap();
        self.lock.release().unwrap();
    }

    fn reap(&self, slot: SlotId) {
        self.victim.set(Some(slot));
        reap_and_release(slot);
        self.acquire();
        // Of what the dead one took it can't tell any more, nor put what it has not put.
        if self.there.load(Relaxed) == 0 {
            self.close();
        }
        self.lock.release().unwrap();
    }
}

fn store(processes: usize) -> (World, Rc<Store>) {
    World::new(processes, || {
        Rc::new(Store {
            lock: AnyLock::Lock(Lock::create(P).unwrap()),
            condition: Condition::create(P).unwrap(),
            there: word(),
            closed: word(),
            victim: Cell::default(),
            taken: Cell::default(),
        })
    })
}

/// Some who take, and, last, one who puts.
fn model<'a>(
    name: &'static str,
    world: &'a World,
    store: &Rc<Store>,
    bound: Option<usize>,
) -> Model<'a> {
    let mut model = Model::new(name, world, bound);
    for _ in 1..world.slots.len() {
        let taking = Rc::clone(store);
        model = model.process(move || taking.take());
    }
    let putting = Rc::clone(store);
    model = model.process(move || putting.put());
    let (first, last, dead) = (Rc::clone(store), Rc::clone(store), Rc::clone(store));
    model
        .prepare(move || {
            first.victim.set(None);
            first.taken.set(0);
        })
        .reap(move |slot| dead.reap(slot))
        .check(move || {
            assert_eq!(last.condition.waiters().unwrap(), 0);
            assert!(last.taken.get() == 1 || machine::died());
            assert!(last.taken.get() <= 1, "taken twice");
        })
}

#[test]
fn who_waits_is_notified() {
    let (world, store) = store(2);
    let model = model("condition", &world, &store, Some(3));
    model.holds();
    let board = store.condition.obj().entry().unwrap();
    let count = std::ptr::from_ref(&board.events[0]) as usize;
    model.notices(Fault::NoWrite(count));
}

#[test]
fn one_who_dies_takes_no_notification_along() {
    let (world, store) = store(3);
    let model = model("condition, one who waits dies", &world, &store, Some(1)).settled();
    model.holds_without(0);
    model.notices_without(Fault::NoWakeAtDeath, 0);
}

#[test]
fn a_notifier_that_dies_leaves_nobody_waiting_for_what_is_there() {
    let (world, store) = store(2);
    model("condition, the notifier dies", &world, &store, Some(1)).holds_without(1);
}

/// A condition, its lock, and what is known of those who use it.
struct Call {
    lock: AnyLock,
    condition: Condition,
    victim: Cell<Option<SlotId>>,
    /// Somebody has notified for certain.
    called: Cell<bool>,
}

impl Call {
    fn acquire(&self) {
        acquire_any(&self.lock, &self.victim);
    }

    fn wait(&self) {
        self.acquire();
        match self.condition.wait(&self.lock, Deadline::NEVER, P) {
            Ok(notified) => assert!(notified),
            Err(CoreError::OwnerDied { .. }) => self.acquire(),
            Err(e) => panic!("{e}"),
        }
        self.lock.release().unwrap();
    }

    fn notify(&self) {
        self.condition.notify(1).unwrap();
        self.called.set(true);
    }
}

/// One who is about to sleep, and one who notifies him.
fn call<'a>(
    name: &'static str,
    world: &'a World,
    call: &Rc<Call>,
    bound: Option<usize>,
    notify: fn(&Call),
) -> Model<'a> {
    let (waiting, calling, dead) = (Rc::clone(call), Rc::clone(call), Rc::clone(call));
    let (first, last) = (Rc::clone(call), Rc::clone(call));
    let caller = world.slots[1];
    Model::new(name, world, bound)
        .begun_at_sleep()
        .process(move || waiting.wait())
        .process(move || notify(&calling))
        .prepare(move || {
            first.victim.set(None);
            first.called.set(false);
        })
        .reap(move |slot| {
            dead.victim.set(Some(slot));
            reap(slot);
            if slot == caller && !dead.called.get() {
                dead.notify();
            }
        })
        .check(move || {
            assert_eq!(last.condition.waiters().unwrap(), 0);
            assert!(last.called.get());
        })
}

fn new_call() -> (World, Rc<Call>) {
    World::new(2, || {
        Rc::new(Call {
            lock: AnyLock::Lock(Lock::create(P).unwrap()),
            condition: Condition::create(P).unwrap(),
            victim: Cell::default(),
            called: Cell::default(),
        })
    })
}

/// The lock is there for the waiter alone: what it does besides is the lock's own, and the next model's.
#[test]
fn one_who_waits_is_notified_in_every_order_whoever_dies() {
    let (world, store) = new_call();
    let model = call("condition, one call", &world, &store, None, Call::notify);
    model.holds();
    model.holds_without(0);
    model.holds_without(1);
    let board = store.condition.obj().entry().unwrap();
    model.notices(Fault::NoWrite(std::ptr::from_ref(&board.events[0]) as usize));
    model.notices_without(Fault::NoWakeAtDeath, 1);
}

#[test]
fn one_who_waits_is_notified_under_the_lock() {
    let (world, store) = new_call();
    let model = call(
        "condition, a call under the lock",
        &world,
        &store,
        Some(1),
        |call| {
            call.acquire();
            call.notify();
            call.lock.release().unwrap();
        },
    );
    model.holds();
    model.holds_without(0);
    model.holds_without(1);
    model.notices_without(Fault::NoWakeAtDeath, 1);
}
