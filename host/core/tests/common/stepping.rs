//! Killing a victim at each instruction of an operation: what the tests of `stepping` and `stepping_tables` share.
//!
//! One victim is single-stepped through the operation (ptrace(2)), and its way written down. Each of the others then runs to one place of that way
//! by a breakpoint, and is killed there. Victims are forked, so that for all of them everything lies at the same address.
//!
//! An operation has thousands of instructions, and each place needs a victim of its own: so only some are tried, others in each run.
//! `MPHOST_STEPS=all` tries all of them, `MPHOST_STEPS=N` about N for each operation.

use super::*;
use mphost_core::CoreError;
use mphost_core::clock;
use mphost_core::condition::AnyLock;
use mphost_core::permit::Semaphore;
use mphost_core::queue::Queue;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::collections::HashMap;

/// How many places are tried in each operation, unless told otherwise.
pub const TRIES: usize = 30;
/// x86-64's instruction of one byte for breakpoints (int3).
const BREAKPOINT: i64 = 0xcc;

/// Right before an instruction, and how often the victim had been there before.
#[derive(Debug, Clone, Copy)]
struct Place {
    address: u64,
    before: u64,
}

/// How a victim stopped.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// Where it was to.
    Here,
    /// At the end of its operation.
    Finished,
}

/// A process that is stopped before an operation, until it is told to go on.
struct Victim {
    slot: SlotId,
    pid: Pid,
}

impl Victim {
    /// Runs `ready` in a new process, and stops it before `operation`.
    fn start(ready: &dyn Fn(), operation: &dyn Fn()) -> Self {
        let slot = start("victim", || {
            // SAFETY: it takes no arguments.
            assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }, 0);
            ready();
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            operation();
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            unreachable!("it is killed");
        });
        let pid = Pid::from_raw(table::pid(slot).unwrap());
        let victim = Self { slot, pid };
        let mut signal = victim.stopped();
        while signal != Signal::SIGSTOP {
            victim.request(libc::PTRACE_CONT, 0, signal as i64);
            signal = victim.stopped();
        }
        victim
    }

    /// One of the requests that take and give numbers.
    fn request(&self, what: libc::c_uint, address: u64, data: i64) -> i64 {
        nix::errno::Errno::clear();
        // SAFETY: these requests take numbers (addresses are the victim's), on a child that is stopped.
        let result = unsafe { libc::ptrace(what, self.pid.as_raw(), address, data) };
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(0), "ptrace {what}: {error}");
        result
    }

    fn registers(&self) -> libc::user_regs_struct {
        let mut registers = std::mem::MaybeUninit::uninit();
        // SAFETY: the request fills in the registers of a child that is stopped, and says so.
        unsafe {
            let to = registers.as_mut_ptr();
            let result = libc::ptrace(libc::PTRACE_GETREGS, self.pid.as_raw(), 0, to);
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            registers.assume_init()
        }
    }

    fn go_to(&self, address: u64) {
        let mut registers = self.registers();
        registers.rip = address;
        // SAFETY: the request reads registers, for a child that is stopped.
        let result = unsafe {
            let from = &raw const registers;
            libc::ptrace(libc::PTRACE_SETREGS, self.pid.as_raw(), 0, from)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    fn stopped(&self) -> Signal {
        match waitpid(self.pid, None).unwrap() {
            WaitStatus::Stopped(_, signal) => signal,
            other => panic!("the victim failed: {other:?}"),
        }
    }

    /// Goes on by `how`, through all signals that come, until it stops by itself.
    fn go_on(&self, how: libc::c_uint) -> Stop {
        let mut signal = 0;
        loop {
            self.request(how, 0, signal);
            match self.stopped() {
                Signal::SIGTRAP => return Stop::Here,
                Signal::SIGSTOP => return Stop::Finished,
                other => signal = other as i64,
            }
        }
    }

    /// Its way to the end of its operation.
    fn way(&self) -> Vec<Place> {
        let mut way: Vec<Place> = vec![];
        let mut visits = HashMap::new();
        loop {
            let address = self.registers().rip;
            // An instruction that repeats itself (rep movsb) is stepped through byte by byte, and is one all the same.
            if way.last().is_none_or(|last| last.address != address) {
                let count: &mut u64 = visits.entry(address).or_default();
                let before = *count;
                way.push(Place { address, before });
                *count += 1;
            }
            if self.go_on(libc::PTRACE_SINGLESTEP) == Stop::Finished {
                return way;
            }
        }
    }

    /// Runs to `place`, or to the end of the operation if its way doesn't lead there this time.
    fn run_to(&self, place: Place) -> Stop {
        let address = place.address;
        // It may be there from the start.
        let mut before = place.before;
        if self.registers().rip == address {
            if before == 0 {
                return Stop::Here;
            }
            before -= 1;
            if self.step_off(address) == Stop::Finished {
                return Stop::Finished;
            }
        }
        let code = self.request(libc::PTRACE_PEEKTEXT, address, 0);
        loop {
            self.request(libc::PTRACE_POKETEXT, address, code & !0xff | BREAKPOINT);
            let stop = self.go_on(libc::PTRACE_CONT);
            self.request(libc::PTRACE_POKETEXT, address, code);
            if stop == Stop::Finished {
                return stop;
            }
            assert_eq!(self.registers().rip, address + 1, "another trap");
            self.go_to(address);
            if before == 0 {
                return Stop::Here;
            }
            before -= 1;
            if self.step_off(address) == Stop::Finished {
                return Stop::Finished;
            }
        }
    }

    /// Runs one instruction, all its repetitions included.
    fn step_off(&self, address: u64) -> Stop {
        while self.registers().rip == address {
            if self.go_on(libc::PTRACE_SINGLESTEP) == Stop::Finished {
                return Stop::Finished;
            }
        }
        Stop::Here
    }
}

/// Runs `ready` and, to a certain point, `operation` in a process that is killed then; what `run` says.
fn kill_in<T>(ready: &dyn Fn(), operation: &dyn Fn(), run: impl FnOnce(&Victim) -> T) -> T {
    // Deaths are noticed afterwards: a victim that is stopped must not be mistaken for one.
    let (slot, result) = signals::blocked(|| {
        let victim = Victim::start(ready, operation);
        let result = run(&victim);
        kill(victim.slot);
        (victim.slot, result)
    });
    assert_eq!(finish(slot).code(), -9);
    result
}

/// Kills victims all over an operation. `prepare` comes before each and `check` after each, here; `check` is told whether the victim had
/// come to its operation's end.
pub fn step_through(
    name: &str,
    prepare: &dyn Fn(),
    ready: &dyn Fn(),
    operation: &dyn Fn(),
    check: &dyn Fn(bool),
) {
    let record = || {
        prepare();
        let way = kill_in(ready, operation, Victim::way);
        check(true);
        way
    };
    // What is set up by the first one is there for all others.
    record();
    let way = record();
    let tries = match std::env::var("MPHOST_STEPS").as_deref() {
        Ok("all") => way.len(),
        Ok(number) => number.parse().unwrap(),
        Err(_) => TRIES,
    };
    let stride = (way.len() / tries.max(1)).max(1);
    let first = clock::now() as usize / 1000 % stride;
    let (mut tried, mut elsewhere) = (0, 0);
    for (number, place) in way.iter().enumerate().skip(first).step_by(stride) {
        prepare();
        let stop = kill_in(ready, operation, |victim| victim.run_to(*place));
        // Should the check fail or hang, this is what says where.
        SETTING.set(format!(
            "{name} killed before instruction {number} of {}, at {:x}",
            way.len(),
            place.address
        ));
        check(stop == Stop::Finished);
        tried += 1;
        elsewhere += usize::from(stop == Stop::Finished);
    }
    println!(
        "{name}: {tried} kills in {} instructions, {elsewhere} of them at the end of another way",
        way.len()
    );
}

thread_local! {
    static SETTING: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

pub fn setting() -> String {
    SETTING.with_borrow(Clone::clone)
}

/// A lock of this process's, whoever died with it.
pub fn acquire(lock: &AnyLock) {
    loop {
        match lock.acquire(long(), P) {
            Ok(taken) => return assert!(taken, "{}", setting()),
            Err(CoreError::OwnerDied { exitcode: -9, .. }) => {
                // It says whether it was this process's doing: another one may have been first.
                let recovered = match lock {
                    AnyLock::Lock(lock) => lock.recover(),
                    AnyLock::RLock(lock) => lock.recover(),
                };
                recovered.unwrap();
            }
            Err(e) => panic!("{e}: {}", setting()),
        }
    }
}

/// A process that waits each time it is told to, and says when it went on.
pub struct Waiter {
    slot: SlotId,
    go: Semaphore,
    done: Semaphore,
}

impl Waiter {
    pub fn start(wait: impl Fn()) -> Self {
        let go = Semaphore::create(0, P).unwrap();
        let done = Semaphore::create(0, P).unwrap();
        let slot = start("waiter", || {
            loop {
                assert!(go.acquire(Deadline::NEVER, P).unwrap());
                wait();
                done.release().unwrap();
            }
        });
        Self { slot, go, done }
    }

    /// Has it go on to its wait.
    pub fn go(&self) {
        self.go.release().unwrap();
    }

    /// Has it wait; it sleeps on `kind` when this returns.
    pub fn send(&self, kind: mphost_core::wait::WaitKind) {
        self.go();
        let deadline = long();
        while table::info(self.slot)
            .and_then(|info| info.waiting)
            .is_none_or(|waiting| waiting.kind != kind)
        {
            assert!(!deadline.has_passed(), "it doesn't wait: {}", setting());
            std::thread::yield_now();
        }
    }

    pub fn went_on(&self, deadline: Deadline) -> bool {
        self.done.acquire(deadline, P).unwrap()
    }

    pub fn end(self) {
        kill(self.slot);
        finish(self.slot);
    }
}

pub fn items(queue: &Queue) -> Vec<Vec<u8>> {
    let mut all = vec![];
    loop {
        match queue.get(Deadline::NOW, P, |item| item.payload.to_vec()) {
            Ok(item) => all.push(item),
            Err(CoreError::Empty) => return all,
            Err(e) => panic!("{e}: {}", setting()),
        }
    }
}

pub fn put(queue: &Queue, item: &[u8]) {
    queue.put(item, &[], 0, long(), P).unwrap();
}
