//! No wake-up is lost: the eventcount, the one way to wait, and Event.

use super::machine::{self, Fault};
use super::{Model, P, World, reap_and_release, word};
use crate::clock::Deadline;
use crate::event::Event;
use crate::eventcount::EventCount;
use crate::sys::atomic::{AtomicU32, Ordering::Relaxed};
use crate::wait::{WaitInfo, WaitKind, wait_until};
use std::cell::Cell;
use std::rc::Rc;

const INFO: WaitInfo = WaitInfo {
    kind: WaitKind::Event,
    object: 0,
    position: P,
};

/// A flag, and who waits for it.
#[derive(Clone)]
struct Flag {
    /// An object's, so that a death finds those who wait on it.
    event: Event,
    set: &'static AtomicU32,
    /// How often somebody looked.
    looks: Rc<Cell<u32>>,
}

impl Flag {
    fn new() -> Self {
        Self {
            event: Event::create(P).unwrap(),
            set: word(),
            looks: Rc::default(),
        }
    }

    fn count(&self) -> &'static EventCount {
        &self.event.obj().entry().unwrap().events[0]
    }

    fn wait(&self) {
        let look = || {
            self.looks.set(self.looks.get() + 1);
            Ok((self.set.load(Relaxed) != 0).then_some(()))
        };
        wait_until(self.count(), INFO, Deadline::NEVER, look)
            .unwrap()
            .unwrap();
    }

    /// Waits, but forgets to look again when it has said that it waits.
    fn wait_without_a_second_look(&self) {
        let mut calls = 0;
        let look = || {
            calls += 1;
            Ok((calls != 2 && self.set.load(Relaxed) != 0).then_some(()))
        };
        wait_until(self.count(), INFO, Deadline::NEVER, look)
            .unwrap()
            .unwrap();
    }

    fn set(&self) {
        self.set.store(1, Relaxed);
        self.count().wake_all();
    }
}

fn world(processes: usize) -> (World, Flag) {
    World::new(processes, Flag::new)
}

/// Processes that wait and one that wakes them all.
fn model<'a>(
    name: &'static str,
    world: &'a World,
    flag: &Flag,
    waiters: usize,
    bound: Option<usize>,
) -> Model<'a> {
    let (waking, checked) = (flag.clone(), flag.clone());
    let mut model = Model::new(name, world, bound).process(move || waking.set());
    for _ in 0..waiters {
        let flag = flag.clone();
        model = model.process(move || flag.wait());
    }
    let reset = Rc::clone(&flag.looks);
    model.prepare(move || reset.set(0)).check(move || {
        // Each found the flag set at its first look: nobody was counted.
        if checked.looks.get() as usize == waiters && !machine::died() {
            assert_eq!(machine::kernel_calls(), 0, "a wake-up for nobody");
        }
    })
}

#[test]
fn a_waiter_is_woken() {
    let (world, flag) = world(2);
    let model = model("eventcount", &world, &flag, 1, None);
    model.holds();
    model.notices(Fault::NoFences);
    model.notices(Fault::NoFutexCompare);
    model.reap(reap_and_release).holds_without(1);
}

#[test]
fn a_waiter_that_does_not_look_again_sleeps_for_ever() {
    let (world, flag) = world(2);
    let waking = flag.clone();
    Model::new("eventcount without a second look", &world, None)
        .process(move || waking.set())
        .process(move || flag.wait_without_a_second_look())
        .fails(None);
}

#[test]
fn all_waiters_are_woken() {
    let (world, flag) = world(3);
    model("eventcount, two waiters", &world, &flag, 2, Some(3)).holds();
}

#[test]
fn a_waiter_is_woken_by_one_of_several() {
    let (world, flag) = world(3);
    let other = flag.clone();
    let model =
        model("eventcount, two wakers", &world, &flag, 1, Some(3)).process(move || other.set());
    model.holds();
    // One that is never counted is woken by nobody.
    let waiters = std::ptr::from_ref(flag.count()) as usize + size_of::<AtomicU32>();
    model.notices(Fault::NoWrite(waiters));
}

#[test]
fn a_waiter_that_dies_takes_no_wake_up_along() {
    let (world, flag) = world(3);
    let model =
        model("eventcount, a waiter dies", &world, &flag, 2, Some(2)).reap(reap_and_release);
    model.holds_without(1);
}

#[test]
fn a_waker_that_dies_is_stood_in_for_by_its_parent() {
    let (world, flag) = world(2);
    let parents = flag.clone();
    let model = model("eventcount, the waker dies", &world, &flag, 1, None).reap(move |slot| {
        reap_and_release(slot);
        // It had nothing to wake anybody for.
        if parents.set.load(Relaxed) == 0 {
            parents.set();
        }
    });
    model.holds_without(0);
    model.notices_without(Fault::NoWakeAtDeath, 0);
}

#[test]
fn who_waits_for_an_event_goes_on_when_it_was_set() {
    let (world, event) = World::new(3, || Event::create(P).unwrap());
    let (setting, waiting) = (event.clone(), event.clone());
    let model = Model::new("event", &world, Some(3))
        .process(move || {
            setting.set().unwrap();
            setting.clear().unwrap();
            setting.set().unwrap();
        })
        .process(move || assert!(waiting.wait(Deadline::NEVER, P).unwrap()));
    model.holds();
    let count = std::ptr::from_ref(&event.obj().entry().unwrap().events[0]) as usize;
    model.notices(Fault::NoWrite(count));
}
