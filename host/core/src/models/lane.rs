//! Whoever sleeps at a pipe's socket is woken for what comes into its lane, whoever dies at whatever step.

use super::machine::{self, Fault};
use super::{Model, P, World, reap_and_release, word};
use crate::clock::Deadline;
use crate::connection::lane::{Found, Lane, Lanes, Put, Side};
use crate::connection::packet::BELL;
use crate::sys::atomic::{AtomicU32, Ordering::SeqCst};
use crate::sys::futex;
use crate::table::SlotId;
use nix::errno::Errno;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A socket that has nothing but bells in it; both of its sides.
struct Socket(&'static AtomicU32);

impl Side for Socket {
    fn ring(&self) {
        machine::send_packet(self.0);
    }

    fn peek(&self) -> Result<Option<u8>, Errno> {
        match self.0.load(SeqCst) {
            0 => Err(Errno::EAGAIN),
            _ => Ok(Some(BELL)),
        }
    }

    fn discard(&self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

struct Way {
    lanes: Lanes,
    socket: Socket,
    /// Whether each receiver sleeps, or is about to, as its slot says.
    published: [&'static AtomicU32; 2],
    /// What each has taken.
    taken: RefCell<Vec<(usize, u8)>>,
    /// Who is about to sleep doesn't look once more.
    is_careless: Cell<bool>,
}

impl Way {
    fn new() -> Rc<Self> {
        let object = Lanes::create(false, P).unwrap();
        let way = Self {
            lanes: Lanes::of(object, true).unwrap(),
            socket: Socket(word()),
            published: [word(), word()],
            taken: RefCell::default(),
            is_careless: Cell::default(),
        };
        // The first message makes room for all others.
        assert_eq!(
            way.lane()
                .put(&Silent, &[0].as_slice().into(), &[])
                .unwrap(),
            Put::Done
        );
        assert_eq!(way.lane().take(|_| ()).unwrap(), Some(()));
        Rc::new(way)
    }

    fn lane(&self) -> Lane {
        self.lanes.inward.unwrap()
    }

    fn send(&self, message: u8) {
        let put = self
            .lane()
            .put(&self.socket, &[message].as_slice().into(), &[]);
        assert_eq!(put.unwrap(), Put::Done);
    }

    /// What `pipe::receive` does.
    fn receive(&self, receiver: usize) {
        loop {
            if let Some(message) = self.lane().take(|payload| payload[0]).unwrap() {
                return self.taken.borrow_mut().push((receiver, message));
            }
            let found = self.lane().look(&self.socket, || Ok(None::<()>)).unwrap();
            if let Found::Nothing = found {
                self.sleep(receiver);
            }
        }
    }

    /// What `wait::sleep_until_ready_or` does, with the futex of the socket's packets for ppoll(2).
    fn sleep(&self, receiver: usize) {
        self.published[receiver].store(1, SeqCst);
        if self.is_careless.get() || !self.lane().seems_filled() {
            futex::wait(self.socket.0, 0, Deadline::NEVER, futex::ANYONE);
        }
        self.published[receiver].store(0, SeqCst);
        machine::forget_signals();
    }

    /// What a death does for those who sleep so.
    fn disturb(&self, receivers: &[(usize, SlotId)]) {
        for (receiver, slot) in receivers {
            if self.published[*receiver].load(SeqCst) != 0 {
                machine::signal(self.socket.0, *slot);
            }
        }
    }

    fn taken(&self) -> Vec<u8> {
        let mut all: Vec<u8> = self
            .taken
            .borrow()
            .iter()
            .map(|(_, message)| *message)
            .collect();
        all.sort_unstable();
        all
    }
}

/// A side that nobody hears.
struct Silent;

impl Side for Silent {
    fn ring(&self) {}

    fn peek(&self) -> Result<Option<u8>, Errno> {
        Err(Errno::EAGAIN)
    }

    fn discard(&self) {}
}

fn way(processes: usize) -> (World, Rc<Way>) {
    World::new(processes, Way::new)
}

fn model<'a>(
    name: &'static str,
    world: &'a World,
    way: &Rc<Way>,
    bound: Option<usize>,
) -> Model<'a> {
    let first = Rc::clone(way);
    Model::new(name, world, bound).prepare(move || first.taken.borrow_mut().clear())
}

fn sending(way: &Rc<Way>, messages: &'static [u8]) -> impl Fn() + 'static {
    let way = Rc::clone(way);
    move || messages.iter().for_each(|message| way.send(*message))
}

fn receiving(way: &Rc<Way>, receiver: usize, messages: usize) -> impl Fn() + 'static {
    let way = Rc::clone(way);
    move || (0..messages).for_each(|_| way.receive(receiver))
}

#[test]
fn messages_come_in_every_order() {
    let (world, way) = way(2);
    let last = Rc::clone(&way);
    let model = model("lane", &world, &way, None)
        .process(sending(&way, &[1]))
        .process(receiving(&way, 0, 1))
        .check(move || assert_eq!(last.taken(), [1]));
    model.holds();
    model.notices(Fault::NoFutexCompare);
    model.notices(Fault::NoWrite(way.lane().wanted()));
}

#[test]
fn two_messages_come_to_one_who_sleeps_twice() {
    let (world, way) = way(2);
    let last = Rc::clone(&way);
    model("lane, two messages", &world, &way, Some(3))
        .process(sending(&way, &[1, 2]))
        .process(receiving(&way, 0, 2))
        .check(move || assert_eq!(*last.taken.borrow(), [(0, 1), (0, 2)]))
        .holds();
}

#[test]
fn two_receivers_get_a_message_each() {
    let (world, way) = way(3);
    let last = Rc::clone(&way);
    model("lane, two receivers", &world, &way, Some(2))
        .process(sending(&way, &[1, 2]))
        .process(receiving(&way, 0, 1))
        .process(receiving(&way, 1, 1))
        .check(move || assert_eq!(last.taken(), [1, 2]))
        .holds();
}

#[test]
fn two_senders_are_heard() {
    let (world, way) = way(3);
    let last = Rc::clone(&way);
    let model = model("lane, two senders", &world, &way, Some(2))
        .process(sending(&way, &[1]))
        .process(sending(&way, &[2]))
        .process(receiving(&way, 0, 2))
        .check(move || assert_eq!(last.taken(), [1, 2]));
    model.holds();
    model.notices(Fault::NoExclusion);
}

/// A sender that may die, whose end others have too: so the socket tells nobody of its death. What it has committed is received; if it is nothing,
/// somebody else sends.
fn with_a_dying_sender<'a>(world: &'a World, way: &Rc<Way>) -> Model<'a> {
    let (next, receiver) = (Rc::clone(way), world.slots[1]);
    model("lane, a sender dies", world, way, None)
        .process(sending(way, &[1]))
        .process(receiving(way, 0, 1))
        .reap(move |slot| {
            reap_and_release(slot);
            next.disturb(&[(0, receiver)]);
            if !next.lane().seems_filled() && next.taken.borrow().is_empty() {
                next.send(2);
            }
        })
}

#[test]
fn what_a_dying_sender_has_committed_is_received() {
    let (world, way) = way(2);
    let model = with_a_dying_sender(&world, &way);
    model.holds_without(0);
    model.notices_without(Fault::NoWakeAtDeath, 0);
}

#[test]
fn two_receivers_get_what_a_dying_sender_has_committed() {
    let (world, way) = way(3);
    let (next, receivers) = (Rc::clone(&way), [(0, world.slots[1]), (1, world.slots[2])]);
    let before = way.lane().puts();
    model("lane, a sender to two dies", &world, &way, Some(1))
        .process(sending(&way, &[1, 2]))
        .process(receiving(&way, 0, 1))
        .process(receiving(&way, 1, 1))
        .reap(move |slot| {
            reap_and_release(slot);
            next.disturb(&receivers);
            while next.lane().puts() < before + 2 {
                next.send(3);
            }
        })
        .holds_without(0);
}

#[test]
fn who_is_about_to_sleep_looks_once_more_for_what_the_dead_have_left() {
    let (world, way) = way(2);
    way.is_careless.set(true);
    with_a_dying_sender(&world, &way).fails(Some(0));
}

#[test]
fn a_dying_receiver_leaves_the_bell_to_the_other() {
    let (world, way) = way(3);
    let (next, receivers) = (Rc::clone(&way), [(0, world.slots[0]), (1, world.slots[1])]);
    let receive_one_and_send = |receiver| {
        let way = Rc::clone(&way);
        move || {
            way.receive(receiver);
            way.send(2);
        }
    };
    let model = model("lane, a receiver dies", &world, &way, Some(1))
        .process(receive_one_and_send(0))
        .process(receive_one_and_send(1))
        .process(sending(&way, &[1]))
        .reap(move |slot| {
            reap_and_release(slot);
            next.disturb(&receivers);
            // What it took along is gone; what it left there is the other's, who has to be woken for it.
            if !next.lane().seems_filled() {
                next.send(2);
            }
        });
    model.holds_without(0);
}
