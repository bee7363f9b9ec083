//! Models of what several processes do at once: the crate's real code, run under every order of its steps.
//!
//! Tests with real processes see the orders that happen to come about, and a death where it happens to come. Here a few
//! processes with a few operations each are run under *all* orders of their steps (by [loom](https://docs.rs/loom)), for each
//! step once more with a process that dies right before it. It is no copy of the algorithms that is run but the functions of
//! `eventcount`, `wait`, `permit`, `event`, `condition`, `barrier`, `board`, `queue`, `connection::lane`, `table` and `objects`, on a real
//! session; only the atomics (`sys::atomic`), the robust mutex and the futex are the machine's (`machine`).
//!
//! Each model is also run with something broken (`Fault`, or a broken process), and must notice.
//!
//! For each algorithm there is at least one small case of two processes with one operation each (`..._in_every_order_...`)
//! that is explored wholly in each run of the tests, with deaths. What is too large for that is explored up to a
//! number of interruptions of a process by another (most errors need one or two). `MPHOST_MODELS=full` explores
//! everything, `MPHOST_MODELS=N` up to N interruptions.

pub(crate) mod atomic;
mod barrier;
mod condition;
mod eventcount;
mod lane;
pub(crate) mod machine;
mod permit;
mod queue;

use crate::position::Position;
use crate::session::Session;
use crate::table::{self, SlotId};
use machine::{Fault, Plan, Process, Start};
use std::rc::Rc;

const P: Position = Position::NONE;
/// The wait status of a process that was killed.
const KILLED: i32 = 9;

/// A session with some processes, which a model's are.
struct World {
    session: &'static Session,
    slots: Vec<SlotId>,
}

impl World {
    /// The processes hold references to what `make` makes.
    fn new<T>(processes: usize, make: impl FnOnce() -> T) -> (Self, T) {
        let session = Session::create().unwrap();
        crate::deadlock::disable();
        let made = make();
        let slots = (0..processes)
            .map(|index| {
                let slot = table::allocate("model", session.me(), false, 0).unwrap();
                table::grant_all(slot).unwrap();
                // No process has this number: there are fewer (proc(5), pid_max).
                assert!(table::set_live(slot, i32::MAX - 1 - index as i32));
                slot
            })
            .collect();
        (Self { session, slots }, made)
    }
}

/// A word that lives as long as the test.
fn word<T: Default>() -> &'static T {
    Box::leak(Box::default())
}

/// What the parent of a dead process does.
fn reap(slot: SlotId) {
    assert!(table::mark_dead(crate::session::session(), slot, KILLED));
}

/// [`reap`], and the slot is free for another.
fn reap_and_release(slot: SlotId) {
    reap(slot);
    table::release(slot);
}

/// Processes, and what is promised of them.
struct Model<'a> {
    name: &'static str,
    world: &'a World,
    bodies: Vec<Rc<dyn Fn()>>,
    reap: Rc<dyn Fn(SlotId)>,
    prepare: Rc<dyn Fn()>,
    check: Rc<dyn Fn()>,
    bound: Option<usize>,
    start: Start,
}

impl<'a> Model<'a> {
    /// Explored up to `bound` interruptions of a process, wholly if `None`.
    fn new(name: &'static str, world: &'a World, bound: Option<usize>) -> Self {
        Self {
            name,
            world,
            bodies: vec![],
            reap: Rc::new(reap),
            prepare: Rc::new(|| {}),
            check: Rc::new(|| {}),
            bound,
            start: Start::AtOnce,
        }
    }

    /// Explored from where all processes but the last one sleep, or are done.
    fn settled(mut self) -> Self {
        self.start = Start::LastOne;
        self
    }

    /// Explored from where one of its processes is about to sleep, the first time.
    fn begun_at_sleep(mut self) -> Self {
        self.start = Start::FirstSleep;
        self
    }

    /// Explored from where one of its processes says so: [`machine::begin`].
    fn begun(mut self) -> Self {
        self.start = Start::Told;
        self
    }

    /// One process more.
    fn process(mut self, body: impl Fn() + 'static) -> Self {
        self.bodies.push(Rc::new(body));
        self
    }

    /// What happens after a death, in the process's parent.
    fn reap(mut self, reap: impl Fn(SlotId) + 'static) -> Self {
        self.reap = Rc::new(reap);
        self
    }

    fn prepare(mut self, prepare: impl Fn() + 'static) -> Self {
        self.prepare = Rc::new(prepare);
        self
    }

    /// What is true when all are done.
    fn check(mut self, check: impl Fn() + 'static) -> Self {
        self.check = Rc::new(check);
        self
    }

    fn plan(&self, fault: Option<Fault>) -> Rc<Plan> {
        let parent = self.world.session.main_slot();
        let process = |(index, body): (usize, &Rc<dyn Fn()>)| {
            let (body, reap) = (Rc::clone(body), Rc::clone(&self.reap));
            Process {
                slot: self.world.slots[index],
                body: Box::new(move || body()),
                reap: Box::new(move |slot| reap(slot)),
                parent,
            }
        };
        let (prepare, check) = (Rc::clone(&self.prepare), Rc::clone(&self.check));
        let full = fault.is_none() && std::env::var("MPHOST_MODELS").is_ok_and(|how| how == "full");
        Rc::new(Plan {
            processes: self.bodies.iter().enumerate().map(process).collect(),
            prepare: Box::new(move || prepare()),
            check: Box::new(move || check()),
            bound: match std::env::var("MPHOST_MODELS").as_deref() {
                // What is broken is found soon, or not at all.
                _ if fault.is_some() => self.bound,
                Ok("full") => None,
                Ok(number) => Some(number.parse().unwrap()),
                Err(_) => self.bound,
            },
            fault,
            start: match self.start {
                // Everything is, then.
                Start::LastOne if full => Start::AtOnce,
                start => start,
            },
        })
    }

    fn run(&self, fault: Option<Fault>, victim: Option<usize>) -> Result<u64, String> {
        let plan = self.plan(fault);
        let Some(victim) = victim else {
            return machine::explore(&plan, None).map(|(runs, _)| runs);
        };
        let mut all = 0;
        for step in 1.. {
            let (runs, reached) = machine::explore(&plan, Some((victim, step)))
                .map_err(|e| format!("process {victim} dead before its step {step}: {e}"))?;
            all += runs;
            if !reached {
                println!(
                    "{}: {} deaths of process {victim}, {all} runs",
                    self.name,
                    step - 1
                );
                break;
            }
        }
        Ok(all)
    }

    /// Nothing goes wrong, in whatever order.
    #[track_caller]
    fn holds(&self) {
        match self.run(None, None) {
            Ok(runs) => println!("{}: {runs} runs", self.name),
            Err(e) => panic!("{}: {e}", self.name),
        }
    }

    /// Nothing goes wrong, in whatever order and wherever process `victim` dies.
    #[track_caller]
    fn holds_without(&self, victim: usize) {
        if let Err(e) = self.run(None, Some(victim)) {
            panic!("{}: {e}", self.name);
        }
    }

    /// Something goes wrong with this fault.
    #[track_caller]
    fn notices(&self, fault: Fault) {
        let found = self.run(Some(fault), None);
        let error = found.expect_err(&format!("{}: {fault:?} goes unnoticed", self.name));
        println!("{}: {fault:?}: {}", self.name, first_line(&error));
    }

    /// Something goes wrong with this fault when process `victim` dies.
    #[track_caller]
    fn notices_without(&self, fault: Fault, victim: usize) {
        let found = self.run(Some(fault), Some(victim));
        let error = found.expect_err(&format!("{}: {fault:?} goes unnoticed", self.name));
        println!("{}: {fault:?}: {}", self.name, first_line(&error));
    }

    /// Something goes wrong, for a process is made wrong.
    #[track_caller]
    fn fails(&self, victim: Option<usize>) {
        let found = self.run(None, victim);
        let error = found.expect_err(&format!("{}: goes unnoticed", self.name));
        println!("{}: {}", self.name, first_line(&error));
    }
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(100)
        .collect()
}
