//! Single-stepping a victim through an operation, and killing it there: what the tests of `stepping` and `stepping_tables` share.
//!
//! An operation has thousands of instructions, and each number needs a victim of its own: so only some are tried, others in each run.
//! `MPHOST_STEPS=all` tries all of them, `MPHOST_STEPS=N` about N for each operation.

use super::*;
use mphost_core::CoreError;
use mphost_core::clock;
use mphost_core::condition::AnyLock;
use mphost_core::queue::Queue;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// How many numbers of instructions are tried for each operation, unless told otherwise; fewer for the longest ones.
pub const TRIES: u64 = 20;
/// About how many single steps one operation may take for all its tries.
const BUDGET: u64 = 400_000;

pub fn request(what: libc::c_uint, pid: Pid, signal: i32) {
    // SAFETY: the request is one of those that take numbers, on a child that is stopped.
    let result = unsafe { libc::ptrace(what, pid.as_raw(), 0, signal) };
    assert_eq!(result, 0, "ptrace: {}", std::io::Error::last_os_error());
}

/// Runs `ready`, then `steps` instructions of `operation`, in a process that is killed then; or all of it: true.
pub fn kill_after(steps: u64, ready: &dyn Fn(), operation: &dyn Fn()) -> (bool, u64) {
    let mut victim = SlotId::NONE;
    let mut taken = 0;
    // Deaths are noticed afterwards: a victim that is stopped must not be mistaken for one.
    let finished = signals::blocked(|| {
        victim = start("victim", || {
            // SAFETY: it takes no arguments.
            assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) }, 0);
            ready();
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            operation();
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            unreachable!("it is killed");
        });
        let pid = Pid::from_raw(table::pid(victim).unwrap());
        let next = || match waitpid(pid, None).unwrap() {
            WaitStatus::Stopped(_, signal) => signal,
            other => panic!("the victim failed: {other:?}"),
        };
        let mut signal = next();
        while signal != Signal::SIGSTOP {
            request(libc::PTRACE_CONT, pid, signal as i32);
            signal = next();
        }
        let mut pass = 0;
        let mut finished = false;
        while taken < steps && !finished {
            request(libc::PTRACE_SINGLESTEP, pid, pass);
            taken += 1;
            pass = 0;
            match next() {
                Signal::SIGTRAP => {}
                Signal::SIGSTOP => finished = true,
                other => pass = other as i32,
            }
        }
        kill(victim);
        finished
    });
    assert_eq!(finish(victim).code(), -9);
    (finished, taken)
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
    prepare();
    let (finished, length) = kill_after(u64::MAX, ready, operation);
    assert!(finished);
    check(true);
    let tries = match std::env::var("MPHOST_STEPS").as_deref() {
        Ok("all") => length,
        Ok(number) => number.parse().unwrap(),
        Err(_) => TRIES.min(2 * BUDGET / length),
    };
    let stride = (length / tries.max(1)).max(1);
    let mut steps = clock::now() / 1000 % stride;
    let mut tried = 0;
    while steps < length {
        prepare();
        let (finished, _) = kill_after(steps, ready, operation);
        // Should the check fail or hang, this is what says where.
        SETTING.set(format!(
            "{name} killed after {steps} of {length} instructions"
        ));
        check(finished);
        steps += stride;
        tried += 1;
    }
    println!("{name}: {tried} kills in {length} instructions");
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
                let recovered = match lock {
                    AnyLock::Lock(lock) => lock.recover(),
                    AnyLock::RLock(lock) => lock.recover(),
                };
                assert!(recovered.unwrap(), "{}", setting());
            }
            Err(e) => panic!("{e}: {}", setting()),
        }
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
