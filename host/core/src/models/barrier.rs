//! Parties of one round never mix with those of another, and one that dies gives up its place.

use super::machine::{self, Fault};
use super::{Model, P, World, reap, reap_and_release};
use crate::barrier::Barrier;
use crate::clock::Deadline;
use crate::error::{CoreError, Result};
use crate::table::SlotId;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

struct Meeting {
    barrier: Barrier,
    /// Actions that were run to their ends.
    rounds: Cell<u32>,
    /// Round and number of each who went on.
    went_on: RefCell<Vec<(u32, u32)>>,
    /// How many have come, and will wait or have waited.
    came: Cell<u32>,
    broken: Cell<u32>,
}

impl Meeting {
    fn begin(&self) {
        self.rounds.set(0);
        self.came.set(0);
        self.broken.set(0);
        self.went_on.borrow_mut().clear();
    }

    /// Each who went on, by round and place.
    fn all_who_went_on(&self) -> Vec<(u32, u32)> {
        let mut went_on = self.went_on.borrow().clone();
        went_on.sort_unstable();
        went_on
    }

    fn no_place_was_taken_twice(&self) {
        let went_on = self.all_who_went_on();
        for two in went_on.windows(2) {
            assert_ne!(two[0], two[1], "a place taken twice: {went_on:?}");
        }
    }

    fn arrive(&self, deadline: Deadline) -> Result<u32> {
        self.came.set(self.came.get() + 1);
        let met = self.barrier.wait(deadline, P, || {
            self.rounds.set(self.rounds.get() + 1);
            Ok(())
        });
        match met {
            Ok(number) => self.went_on.borrow_mut().push((self.rounds.get(), number)),
            Err(_) => self.broken.set(self.broken.get() + 1),
        }
        met
    }
}

fn meeting(processes: usize, parties: u32) -> (World, Rc<Meeting>) {
    World::new(processes, || {
        Rc::new(Meeting {
            barrier: Barrier::create(parties, P).unwrap(),
            rounds: Cell::default(),
            went_on: RefCell::default(),
            came: Cell::default(),
            broken: Cell::default(),
        })
    })
}

fn model<'a>(
    name: &'static str,
    world: &'a World,
    meeting: &Rc<Meeting>,
    bound: Option<usize>,
    party: fn(&Meeting),
) -> Model<'a> {
    let mut model = Model::new(name, world, bound);
    for _ in &world.slots {
        let meeting = Rc::clone(meeting);
        model = model.process(move || party(&meeting));
    }
    let first = Rc::clone(meeting);
    model.prepare(move || first.begin())
}

#[test]
fn rounds_do_not_mix() {
    let (world, meeting) = meeting(2, 2);
    let last = Rc::clone(&meeting);
    let model = model(
        "barrier, two rounds",
        &world,
        &meeting,
        Some(3),
        |meeting| {
            for _ in 0..2 {
                meeting.arrive(Deadline::NEVER).unwrap();
            }
        },
    )
    .check(move || {
        assert_eq!(last.all_who_went_on(), [(1, 0), (1, 1), (2, 0), (2, 1)]);
    });
    model.holds();
    model.notices(Fault::NoExclusion);
    let entry = meeting.barrier.obj().entry().unwrap();
    model.notices(Fault::NoWrite(std::ptr::from_ref(&entry.events[0]) as usize));
}

#[test]
fn all_of_three_parties_go_on() {
    let (world, meeting) = meeting(3, 3);
    let last = Rc::clone(&meeting);
    model(
        "barrier, three parties",
        &world,
        &meeting,
        Some(2),
        |meeting| {
            meeting.arrive(Deadline::NEVER).unwrap();
        },
    )
    .check(move || {
        assert_eq!(last.all_who_went_on(), [(1, 0), (1, 1), (1, 2)]);
    })
    .holds();
}

/// The other party, or one that comes in the dead one's place, meets nobody but the living, or is told that the barrier is
/// broken.
fn with_a_death<'a>(
    name: &'static str,
    world: &'a World,
    meeting: &Rc<Meeting>,
    after: fn(SlotId),
) -> Model<'a> {
    let (next, last) = (Rc::clone(meeting), Rc::clone(meeting));
    model(name, world, meeting, Some(2), |meeting| {
        match meeting.arrive(Deadline::NEVER) {
            Ok(_) => {}
            Err(CoreError::BrokenBarrier) => assert!(machine::died()),
            Err(e) => panic!("{e}"),
        }
    })
    .reap(move |slot| {
        after(slot);
        // Doesn't wait: if the other one isn't there yet, that one is to find the barrier broken.
        match next.arrive(Deadline::NOW) {
            Ok(_) => assert_eq!(next.came.get(), 3, "it has met one who is dead"),
            Err(CoreError::BrokenBarrier) => {}
            Err(e) => panic!("{e}"),
        }
    })
    .check(move || {
        last.no_place_was_taken_twice();
        assert!(
            last.went_on.borrow().len() + last.broken.get() as usize + usize::from(machine::died())
                >= 2
        );
    })
}

#[test]
fn a_party_that_dies_gives_up_its_place() {
    let (world, meeting) = meeting(2, 2);
    with_a_death("barrier, a party dies", &world, &meeting, reap_and_release).holds_without(0);
    // Nobody takes note of the death.
    with_a_death("barrier, a death unnoticed", &world, &meeting, |_| {}).fails(Some(0));
}

#[test]
fn two_parties_meet_in_every_order() {
    let (world, meeting) = meeting(2, 2);
    let last = Rc::clone(&meeting);
    let model = model("barrier, one round", &world, &meeting, None, |meeting| {
        meeting.arrive(Deadline::NEVER).unwrap();
    })
    .check(move || {
        assert_eq!(last.all_who_went_on(), [(1, 0), (1, 1)]);
    });
    model.holds();
    model.notices(Fault::NoFences);
    model.notices(Fault::NoExclusion);
}

/// One who is about to sleep until another comes, which doesn't wait itself.
fn visit<'a>(
    name: &'static str,
    world: &'a World,
    meeting: &Rc<Meeting>,
    after: fn(SlotId),
) -> Model<'a> {
    let (sleeping, visiting, dead) = (Rc::clone(meeting), Rc::clone(meeting), Rc::clone(meeting));
    let (first, last) = (Rc::clone(meeting), Rc::clone(meeting));
    let buried = Rc::new(Cell::new(false));
    let (unburied, bury) = (Rc::clone(&buried), Rc::clone(&buried));
    let visitor = world.slots[1];
    Model::new(name, world, None)
        .begun_at_sleep()
        .process(move || match sleeping.arrive(Deadline::NEVER) {
            Ok(_) => {}
            Err(e) => assert!(e == CoreError::BrokenBarrier && machine::died(), "{e}"),
        })
        .process(move || {
            let alone = buried.get();
            match visiting.arrive(Deadline::NOW) {
                Ok(_) => assert!(!alone, "it has met one who is dead"),
                Err(e) => assert!(e == CoreError::BrokenBarrier && machine::died(), "{e}"),
            }
        })
        .prepare(move || {
            first.begin();
            unburied.set(false);
        })
        .reap(move |slot| {
            after(slot);
            bury.set(true);
            if slot == visitor {
                // Comes in its place, or finds that it had been there, or broken.
                let _ = dead.arrive(Deadline::NOW);
            }
        })
        .check(move || {
            if !machine::died() {
                assert_eq!(last.went_on.borrow().len(), 2);
            }
            last.no_place_was_taken_twice();
        })
}

#[test]
fn one_who_waits_is_met_in_every_order_whoever_dies() {
    let (world, meeting) = meeting(2, 2);
    let model = visit("barrier, one waits", &world, &meeting, reap);
    model.holds();
    model.holds_without(0);
    model.holds_without(1);
    model.notices(Fault::NoFutexCompare);
    model.notices_without(Fault::NoWakeAtDeath, 1);
    visit("barrier, a death unnoticed", &world, &meeting, |_| {}).fails(Some(0));
}
