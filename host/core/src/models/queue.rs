//! Each item of a queue is taken once, in its putter's order, whoever dies at whichever store.

use super::machine::{self, Fault};
use super::{Model, P, World, reap, reap_and_release};
use crate::clock::Deadline;
use crate::queue::Queue;
use crate::session::{ObjectKind, session};
use crate::sys::atomic::{AtomicU64, Ordering::Relaxed};
use crate::table::SlotId;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// An item that says that no more come.
const END: u64 = u64::MAX;
/// So large that the first chunk holds one; see [`Line::begin`].
const LARGE: usize = 14_000;
/// The word of a queue's body that says how many puts there were.
const PUTS: usize = 16;
/// Pages of the first two chunks.
const TWO_CHUNKS: usize = 4 + 64;

struct Line {
    queue: Queue,
    /// Bytes of an item.
    len: usize,
    /// What each consumer took.
    taken: RefCell<Vec<(usize, u64)>>,
    /// What was put for certain.
    put: RefCell<Vec<u64>>,
    takers_die: Cell<bool>,
}

impl Line {
    fn new(maxsize: u64, len: usize) -> Rc<Self> {
        Rc::new(Self {
            queue: Queue::create(ObjectKind::Queue, maxsize, P).unwrap(),
            len,
            taken: RefCell::default(),
            put: RefCell::default(),
            takers_die: Cell::default(),
        })
    }

    /// The first chunk is one for small items.
    fn begin(self: Rc<Self>) -> Rc<Self> {
        self.queue.put(b"small", &[], 0, Deadline::NOW, P).unwrap();
        self.queue.get(Deadline::NOW, P, |_| ()).unwrap();
        self
    }

    /// Writes through a word of the model: whoever takes an item must see what was written before it was committed.
    fn put(&self, item: u64) {
        let fill = |room: &mut [u8]| word_at(room.as_ptr()).store(item, Relaxed);
        self.queue
            .put_with(self.len, &[], 0, Deadline::NEVER, P, fill)
            .unwrap();
        if item != END {
            self.put.borrow_mut().push(item);
        }
    }

    fn get(&self, consumer: usize) -> u64 {
        let read = |item: crate::queue::Item<'_>| {
            assert_eq!(item.payload.len(), self.len, "a torn item");
            word_at(item.payload.as_ptr()).load(Relaxed)
        };
        let item = self.queue.get(Deadline::NEVER, P, read).unwrap();
        if item != END {
            self.taken.borrow_mut().push((consumer, item));
        }
        item
    }

    fn get_all(&self, consumer: usize) {
        while self.get(consumer) != END {}
    }

    fn taken(&self) -> Vec<u64> {
        self.taken.borrow().iter().map(|(_, item)| *item).collect()
    }

    /// Pages that the queue has.
    fn pages(&self) -> usize {
        let mine = self.queue.obj().index() + 1;
        let owners = &session().owners()[..2 * TWO_CHUNKS];
        owners
            .iter()
            .filter(|owner| owner.load(Relaxed) == mine)
            .count()
    }

    /// Where one of the body's words lies.
    fn word(&self, index: usize) -> usize {
        std::ptr::from_ref(&self.queue.obj().entry().unwrap().body[index]) as usize
    }

    /// No item twice, those of a putter (hundreds) in their order for each consumer, and none lost but what a dead one had in
    /// its hand; no chunk lost.
    fn check(&self) {
        while let Ok(item) = self.queue.get(Deadline::NOW, P, |item| {
            word_at(item.payload.as_ptr()).load(Relaxed)
        }) {
            if item != END {
                self.taken.borrow_mut().push((usize::MAX, item));
            }
        }
        let taken = self.taken.borrow();
        for (i, (consumer, item)) in taken.iter().enumerate() {
            for (other, earlier) in &taken[..i] {
                assert_ne!(item, earlier, "taken twice");
                if consumer == other && item / 100 == earlier / 100 {
                    assert!(earlier < item, "out of order: {taken:?}");
                }
            }
        }
        let lost = self
            .put
            .borrow()
            .iter()
            .filter(|put| taken.iter().all(|(_, item)| item != *put))
            .count();
        assert!(lost <= usize::from(self.taker_died()), "{lost} lost");
        assert!(self.pages() <= TWO_CHUNKS, "{} pages", self.pages());
    }

    fn taker_died(&self) -> bool {
        machine::died() && self.takers_die.get()
    }
}

/// The first bytes of an item as the model's word.
fn word_at(bytes: *const u8) -> &'static AtomicU64 {
    assert!(bytes.cast::<AtomicU64>().is_aligned());
    // SAFETY: it lies in the session's memory, which is never unmapped, is aligned, and an atomic takes any bytes.
    unsafe { &*bytes.cast::<AtomicU64>() }
}

fn line(processes: usize, maxsize: u64, len: usize) -> (World, Rc<Line>) {
    World::new(processes, || Line::new(maxsize, len).begin())
}

fn model<'a>(
    name: &'static str,
    world: &'a World,
    line: &Rc<Line>,
    bound: Option<usize>,
) -> Model<'a> {
    let (first, last) = (Rc::clone(line), Rc::clone(line));
    Model::new(name, world, bound)
        .prepare(move || {
            first.taken.borrow_mut().clear();
            first.put.borrow_mut().clear();
        })
        .check(move || last.check())
}

fn putting(line: &Rc<Line>, items: &'static [u64]) -> impl Fn() + 'static {
    let line = Rc::clone(line);
    move || items.iter().for_each(|item| line.put(*item))
}

fn taking(line: &Rc<Line>, consumer: usize) -> impl Fn() + 'static {
    let line = Rc::clone(line);
    move || line.get_all(consumer)
}

#[test]
fn items_come_whole_and_in_order() {
    let (world, line) = line(2, 0, 8);
    let last = Rc::clone(&line);
    let model = model("queue", &world, &line, Some(3))
        .process(putting(&line, &[1, 2, END]))
        .process(taking(&line, 0))
        .check(move || assert_eq!(last.taken(), [1, 2]));
    model.holds();
    model.notices(Fault::NoFutexCompare);
    // The commit of a put: the item isn't seen with it.
    model.notices(Fault::Relaxed(line.word(PUTS)));
}

#[test]
fn a_full_queue_lets_its_putter_wait() {
    let (world, line) = line(2, 1, 8);
    let last = Rc::clone(&line);
    let model = model("queue, bounded", &world, &line, Some(3))
        .process(putting(&line, &[1, 2, END]))
        .process(taking(&line, 0))
        .check(move || assert_eq!(last.taken(), [1, 2]));
    model.holds();
    let entry = line.queue.obj().entry().unwrap();
    let putters = std::ptr::from_ref(&entry.events[1]) as usize;
    model.notices(Fault::NoWrite(putters));
}

#[test]
fn items_of_two_putters_come_once() {
    let (world, line) = line(3, 0, 8);
    let model = model("queue, two putters", &world, &line, Some(1))
        .process(putting(&line, &[101, 102]))
        .process(putting(&line, &[201, END]))
        .process(taking(&line, 0));
    model.holds();
    model.notices(Fault::NoExclusion);
}

#[test]
fn two_takers_get_each_item_once() {
    let (world, line) = line(3, 0, 8);
    let model = model("queue, two takers", &world, &line, Some(1))
        .process(putting(&line, &[1, 2, END, END]))
        .process(taking(&line, 0))
        .process(taking(&line, 1));
    model.holds();
    model.notices(Fault::NoExclusion);
}

#[test]
fn large_items_go_from_chunk_to_chunk() {
    let (world, line) = line(2, 0, LARGE);
    let last = Rc::clone(&line);
    model("queue, large items", &world, &line, Some(2))
        .process(putting(&line, &[1, 2, END]))
        .process(taking(&line, 0))
        .check(move || {
            assert_eq!(last.taken(), [1, 2]);
            assert!(last.pages() <= TWO_CHUNKS, "{} pages", last.pages());
        })
        .holds();
}

/// A putter that may die, and a taker.
fn with_a_dying_putter<'a>(
    name: &'static str,
    world: &'a World,
    line: &Rc<Line>,
    bound: usize,
) -> Model<'a> {
    let next = Rc::clone(line);
    model(name, world, line, Some(bound))
        .process(putting(line, &[1, 2, END]))
        .process(taking(line, 0))
        .reap(move |slot| {
            reap_and_release(slot);
            next.put(END);
        })
}

#[test]
fn a_putter_that_dies_leaves_the_queue_whole() {
    let (world, line) = line(2, 0, 8);
    with_a_dying_putter("queue, a putter dies", &world, &line, 1).holds_without(0);
}

#[test]
fn a_putter_that_dies_with_a_chunk_leaves_it_to_the_next() {
    let (world, line) = line(2, 0, LARGE);
    let model = with_a_dying_putter("queue, a putter of large items dies", &world, &line, 0);
    model.holds_without(0);
    model.notices_without(Fault::NoRepair, 0);
}

#[test]
fn a_taker_that_dies_takes_along_what_it_has_in_its_hand() {
    let (world, line) = line(3, 0, 8);
    line.takers_die.set(true);
    let next = Rc::clone(&line);
    let take_one_and_go_on = |consumer| {
        let line = Rc::clone(&line);
        move || {
            line.get(consumer);
            line.put(END);
        }
    };
    let model = model("queue, a taker dies", &world, &line, Some(1))
        .process(take_one_and_go_on(0))
        .process(take_one_and_go_on(1))
        .process(putting(&line, &[1]))
        .reap(move |slot| {
            reap_and_release(slot);
            // What the dead one took along. What it left there is the other's, who has to be woken for it.
            if next.queue.empty().unwrap() {
                next.put(END);
            }
        });
    model.holds_without(0);
    model.notices_without(Fault::NoWakeAtDeath, 0);
}

/// One who puts an item, and one who takes it.
fn one_item<'a>(
    name: &'static str,
    world: &'a World,
    line: &Rc<Line>,
    bound: Option<usize>,
    putter: usize,
    after: fn(SlotId),
) -> Model<'a> {
    line.takers_die.set(true);
    let (taking, next) = (Rc::clone(line), Rc::clone(line));
    let dies = world.slots[putter];
    let put = putting(line, &[1]);
    let take = move || {
        taking.get(0);
    };
    let model = model(name, world, line, bound).reap(move |slot| {
        after(slot);
        if slot == dies {
            next.put(END);
        }
    });
    if putter == 0 {
        model.process(put).process(take)
    } else {
        model.process(take).process(put)
    }
}

#[test]
fn an_item_comes_in_every_order_whoever_dies() {
    let (world, line) = line(2, 0, 8);
    let model = one_item("queue, one item", &world, &line, None, 0, reap_and_release);
    model.holds();
    model.holds_without(1);
    model.notices(Fault::NoFences);
    model.notices(Fault::Relaxed(line.word(PUTS)));
    // The putter's deaths, from where the taker is about to sleep.
    let model = one_item("queue, one sleeps", &world, &line, None, 1, reap).begun_at_sleep();
    model.holds();
    model.holds_without(1);
    model.notices(Fault::NoFutexCompare);
    model.notices_without(Fault::NoWakeAtDeath, 1);
}

#[test]
fn an_item_comes_though_its_putter_dies() {
    let (world, line) = line(2, 0, 8);
    let name = "queue, the putter of one item dies";
    let model = one_item(name, &world, &line, Some(2), 0, reap_and_release);
    model.holds_without(0);
    model.notices_without(Fault::NoWakeAtDeath, 0);
}
