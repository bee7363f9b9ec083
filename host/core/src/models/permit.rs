//! Nobody is where another is, no permit is lost or there twice: Lock, RLock, BoundedSemaphore and Semaphore.

use super::machine::{self, Fault};
use super::{KILLED, Model, P, World, reap, reap_and_release, word};
use crate::clock::Deadline;
use crate::condition::AnyLock;
use crate::error::{CoreError, Result};
use crate::permit::{BoundedSemaphore, Lock, RLock, Semaphore};
use crate::session::ObjRef;
use crate::sys::atomic::{AtomicU64, Ordering::Relaxed};
use crate::table::SlotId;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What has permits with holders.
pub(super) trait Holders: Clone + 'static {
    fn acquire(&self, deadline: Deadline) -> Result<bool>;
    fn release(&self);
    fn recover(&self) -> bool;
    fn value(&self) -> u64;
    fn object(&self) -> &ObjRef;
}

macro_rules! holders {
    ($($type:ty),*) => {$(
        impl Holders for $type {
            fn acquire(&self, deadline: Deadline) -> Result<bool> {
                <$type>::acquire(self, deadline, P)
            }
            fn release(&self) {
                <$type>::release(self).unwrap();
            }
            fn recover(&self) -> bool {
                <$type>::recover(self).unwrap()
            }
            fn value(&self) -> u64 {
                self.get_value().unwrap()
            }
            fn object(&self) -> &ObjRef {
                self.obj()
            }
        }
    )*};
}
holders!(Lock, RLock, BoundedSemaphore);

/// Takes a permit, whoever has died with it: whether it was a dead one's.
pub(super) fn acquire(lock: &impl Holders, victim: &Cell<Option<SlotId>>) -> bool {
    let mut recovered = false;
    loop {
        match lock.acquire(Deadline::NEVER) {
            Ok(taken) => {
                assert!(taken);
                return recovered;
            }
            Err(CoreError::OwnerDied { pid, exitcode, .. }) => {
                assert_eq!((Some(pid), exitcode), (victim.get().map(pid_of), -KILLED));
                recovered |= lock.recover();
            }
            Err(e) => panic!("{e}"),
        }
    }
}

/// [`World::new`] gave it this process id.
fn pid_of(slot: SlotId) -> i32 {
    // The main process has slot 0.
    i32::MAX - slot.index as i32
}

/// [`acquire`] for a lock of either kind.
pub(super) fn acquire_any(lock: &AnyLock, victim: &Cell<Option<SlotId>>) -> bool {
    match lock {
        AnyLock::Lock(lock) => acquire(lock, victim),
        AnyLock::RLock(lock) => acquire(lock, victim),
    }
}

/// What is guarded.
struct Room<L> {
    lock: L,
    /// Raised by whoever is inside, not atomically.
    data: &'static AtomicU64,
    /// How often it was raised.
    raised: Cell<u64>,
    inside: RefCell<Vec<SlotId>>,
    permits: usize,
    victim: Cell<Option<SlotId>>,
}

impl<L: Holders> Room<L> {
    fn new(lock: L, permits: usize) -> Rc<Self> {
        Rc::new(Self {
            lock,
            data: word(),
            raised: Cell::default(),
            inside: RefCell::default(),
            permits,
            victim: Cell::default(),
        })
    }

    fn enter(&self, times: u32) {
        for _ in 0..times {
            acquire(&self.lock, &self.victim);
        }
        let me = machine::me().unwrap();
        self.inside.borrow_mut().push(me);
        assert!(
            self.inside.borrow().len() <= self.permits,
            "more are inside than may be"
        );
        if self.permits == 1 {
            let seen = self.data.load(Relaxed);
            self.data.store(seen + 1, Relaxed);
            self.raised.set(self.raised.get() + 1);
        }
        for time in 0..times {
            if time + 1 == times {
                self.inside.borrow_mut().retain(|slot| *slot != me);
            }
            self.lock.release();
        }
    }

    fn check(&self) {
        assert_eq!(
            self.data.load(Relaxed),
            self.raised.get(),
            "somebody's change is lost"
        );
        if self.lock.value() != self.permits as u64 {
            assert!(machine::died(), "a permit is lost");
            for _ in 0..self.lock.value() {
                assert!(self.lock.acquire(Deadline::NOW).unwrap());
            }
            assert!(matches!(
                self.lock.acquire(Deadline::NOW),
                Err(CoreError::OwnerDied { .. })
            ));
            assert!(self.lock.recover());
            assert_eq!(self.lock.value(), 1, "a permit is lost, or there twice");
            assert!(self.lock.acquire(Deadline::NOW).unwrap());
        }
    }

    /// Processes that each enter once.
    fn model<'a>(
        self: &Rc<Self>,
        name: &'static str,
        world: &'a World,
        times: u32,
        bound: Option<usize>,
        after: fn(SlotId),
    ) -> Model<'a> {
        let mut model = Model::new(name, world, bound);
        for _ in &world.slots {
            let room = Rc::clone(self);
            model = model.process(move || room.enter(times));
        }
        let (first, last, dead) = (Rc::clone(self), Rc::clone(self), Rc::clone(self));
        model
            .prepare(move || {
                first.raised.set(0);
                first.inside.borrow_mut().clear();
                first.victim.set(None);
            })
            .check(move || last.check())
            .reap(move |slot| {
                dead.inside.borrow_mut().retain(|inside| *inside != slot);
                dead.victim.set(Some(slot));
                after(slot);
            })
    }

    /// Where the word of its first permit lies.
    fn word(&self) -> usize {
        // The body begins with limit, run, depth and is_signal.
        std::ptr::from_ref(&self.lock.object().entry().unwrap().body[3]) as usize
    }
}

#[test]
fn one_at_a_time_holds_a_lock() {
    let (world, lock) = World::new(2, || Lock::create(P).unwrap());
    let room = Room::new(lock, 1);
    let model = room.model("lock", &world, 1, Some(3), reap);
    model.holds();
    model.notices(Fault::SplitExchange(room.word()));
    model.notices(Fault::Relaxed(room.word()));
}

#[test]
fn one_of_three_at_a_time_holds_a_lock() {
    let (world, lock) = World::new(3, || Lock::create(P).unwrap());
    Room::new(lock, 1)
        .model("lock, three processes", &world, 1, Some(1), reap)
        .holds();
}

#[test]
fn a_lock_whose_holder_dies_says_so_and_is_recovered() {
    let (world, lock) = World::new(2, || Lock::create(P).unwrap());
    let room = Room::new(lock, 1);
    let model = room.model("lock, a holder dies", &world, 1, Some(2), reap);
    model.holds_without(0);
    model.notices_without(Fault::NoWakeAtDeath, 0);
}

#[test]
fn a_lock_whose_holder_died_and_was_buried_says_so() {
    let (world, lock) = World::new(2, || Lock::create(P).unwrap());
    let room = Room::new(lock, 1);
    room.model(
        "lock, a holder is buried",
        &world,
        1,
        Some(2),
        reap_and_release,
    )
    .holds_without(0);
    // The slot is free for another before the word says how its holder ended.
    let forgetful = |slot| {
        reap(slot);
        let state = &crate::session::session().slot(slot.index).unwrap().state;
        state.store(0, Relaxed);
    };
    room.model("lock, a holder is forgotten", &world, 1, Some(3), forgetful)
        .fails(Some(0));
}

#[test]
fn a_recursive_lock_is_free_when_given_back_as_often_as_taken() {
    let (world, lock) = World::new(2, || RLock::create(P).unwrap());
    let room = Room::new(lock, 1);
    let model = room.model("recursive lock", &world, 2, Some(2), reap_and_release);
    model.holds();
    model.holds_without(0);
}

#[test]
fn as_many_as_permits_hold_a_bounded_semaphore() {
    let (world, semaphore) = World::new(3, || BoundedSemaphore::create(2, P).unwrap());
    let room = Room::new(semaphore, 2);
    let model = room.model("bounded semaphore", &world, 1, Some(1), reap_and_release);
    model.holds();
    model.holds_without(0);
    model.notices(Fault::SplitExchange(room.word()));
}

/// Two that take a permit of a semaphore, one that gives two.
struct Signal {
    semaphore: Semaphore,
    given: Cell<u32>,
    taken: Cell<u32>,
}

fn give_two(signal: &Signal) {
    for _ in 0..2 {
        signal.semaphore.release().unwrap();
        signal.given.set(signal.given.get() + 1);
    }
}

#[test]
fn no_permit_of_a_semaphore_is_lost() {
    let (world, semaphore) = World::new(3, || Semaphore::create(0, P).unwrap());
    let count = std::ptr::from_ref(&semaphore.obj().entry().unwrap().body[0]) as usize;
    let signal = Rc::new(Signal {
        semaphore,
        given: Cell::default(),
        taken: Cell::default(),
    });
    let take = |signal: &Rc<Signal>| {
        let signal = Rc::clone(signal);
        move || {
            assert!(signal.semaphore.acquire(Deadline::NEVER, P).unwrap());
            signal.taken.set(signal.taken.get() + 1);
        }
    };
    let give = |signal: &Rc<Signal>| {
        let signal = Rc::clone(signal);
        move || give_two(&signal)
    };
    let (first, last, parents) = (Rc::clone(&signal), Rc::clone(&signal), Rc::clone(&signal));
    let giver = world.slots[2];
    let model = Model::new("semaphore", &world, Some(1))
        .process(take(&signal))
        .process(take(&signal))
        .process(give(&signal))
        .prepare(move || {
            first.given.set(0);
            first.taken.set(0);
        })
        .reap(move |slot| {
            reap_and_release(slot);
            if slot == giver {
                give_two(&parents);
            }
        })
        .check(move || {
            let left = last.semaphore.get_value().unwrap();
            let (given, taken) = (u64::from(last.given.get()), u64::from(last.taken.get()));
            let total = left + taken;
            if machine::died() {
                // The dead one may have given one more, or taken one along.
                assert!(
                    (given - 1..=given + 1).contains(&total),
                    "{given} given, {total} there"
                );
            } else {
                assert_eq!((given, total, taken), (2, 2, 2));
            }
        });
    model.holds();
    model.holds_without(0);
    model.holds_without(2);
    model.notices(Fault::SplitExchange(count));
}

impl Room<Lock> {
    /// A lock that goes from one who has it at first to another.
    fn handed_over<'a>(self: &Rc<Self>, name: &'static str, world: &'a World) -> Model<'a> {
        let (giving, taking) = (Rc::clone(self), Rc::clone(self));
        let (first, last, dead) = (Rc::clone(self), Rc::clone(self), Rc::clone(self));
        let taker = world.slots[1];
        Model::new(name, world, Some(2))
            .begun()
            .process(move || {
                let room = &giving;
                acquire(&room.lock, &room.victim);
                machine::begin();
                room.data.store(1, Relaxed);
                room.lock.release().unwrap();
            })
            .process(move || {
                let room = &taking;
                acquire(&room.lock, &room.victim);
                assert!(
                    room.data.load(Relaxed) == 1 || machine::died(),
                    "what was done inside isn't seen"
                );
            })
            .prepare(move || first.victim.set(None))
            .reap(move |slot| {
                dead.victim.set(Some(slot));
                reap(slot);
            })
            .check(move || {
                let lock = &last.lock;
                if last.victim.get() == Some(taker) && lock.value() == 0 {
                    assert!(lock.acquire(Deadline::NOW, P).is_err(), "the dead has it");
                    assert!(lock.recover().unwrap());
                    assert_eq!(lock.value(), 1);
                } else if last.victim.get() != Some(taker) {
                    assert_eq!(lock.value(), 0, "two could have it");
                }
            })
    }
}

#[test]
fn a_lock_is_handed_over_whoever_dies() {
    let (world, lock) = World::new(2, || Lock::create(P).unwrap());
    let room = Room::new(lock, 1);
    let word = room.word();
    let model = room.handed_over("lock, handed over", &world);
    model.holds();
    model.holds_without(0);
    model.holds_without(1);
    model.notices(Fault::NoFences);
    model.notices(Fault::Relaxed(word));
    model.notices_without(Fault::NoWakeAtDeath, 0);
}

#[test]
fn one_of_two_gets_a_lock_in_every_order_whoever_dies() {
    let (world, lock) = World::new(2, || Lock::create(P).unwrap());
    let room = Room::new(lock, 1);
    let word = room.word();
    let mut model = Model::new("lock, two tries", &world, None);
    for _ in 0..2 {
        let room = Rc::clone(&room);
        model = model.process(move || {
            if matches!(room.lock.acquire(Deadline::NOW, P), Ok(true)) {
                room.inside.borrow_mut().push(machine::me().unwrap());
            }
        });
    }
    let (first, last, dead) = (Rc::clone(&room), Rc::clone(&room), Rc::clone(&room));
    let model = model
        .prepare(move || {
            first.inside.borrow_mut().clear();
        })
        .reap(move |slot| {
            dead.inside.borrow_mut().retain(|inside| *inside != slot);
            reap_and_release(slot);
        })
        .check(move || {
            assert_eq!(last.lock.value(), 0, "nobody has it");
            let inside = last.inside.borrow().len();
            assert!(inside <= 1, "two have it");
            if inside == 0 {
                // The dead one has.
                assert!(machine::died());
                assert!(last.lock.recover().unwrap());
                assert_eq!(last.lock.value(), 1);
            }
        });
    model.holds();
    model.holds_without(0);
    model.holds_without(1);
    model.notices(Fault::SplitExchange(word));
}

#[test]
fn a_permit_of_a_semaphore_comes_in_every_order() {
    let (world, semaphore) = World::new(2, || Semaphore::create(0, P).unwrap());
    let given = Rc::new(Cell::new(false));
    let (giving, taking, last) = (semaphore.clone(), semaphore.clone(), semaphore.clone());
    let (gave, first, parents) = (Rc::clone(&given), Rc::clone(&given), semaphore);
    let giver = world.slots[0];
    let mut model = Model::new("semaphore, one permit", &world, None)
        .process(move || {
            giving.release().unwrap();
            gave.set(true);
        })
        .process(move || assert!(taking.acquire(Deadline::NEVER, P).unwrap()))
        .prepare(move || first.set(false))
        .reap(move |slot| {
            reap(slot);
            if slot == giver && !given.get() {
                // It may have given it.
                parents.release().unwrap();
            }
        })
        .check(move || {
            let left = last.get_value().unwrap();
            assert!(
                left == 0 || machine::died() && left == 1,
                "{left} permits are left"
            );
        });
    model.holds();
    model.holds_without(1);
    model.notices(Fault::NoFences);
    // Wholly, the giver's deaths take 80,000 runs.
    model.bound = Some(2);
    model.holds_without(0);
    model.notices_without(Fault::NoWakeAtDeath, 0);
}
