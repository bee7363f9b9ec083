//! Runs a test in a process of its own that is the main process of a session.
//!
//! The test harness has several threads, and a session is a process's: so each test forks,
//! and works, panics and dies in the child. A watchdog prints the table of processes of a test
//! that hangs: who waits for what.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "not every test uses every helper"
)]

pub mod connections;
#[cfg(target_arch = "x86_64")]
pub mod stepping;

use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use mphost_core::session::{self, Session, session};
use mphost_core::table::{self, ExitStatus, SlotId, SlotStatus};
use mphost_core::{reap, signals};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// No place in a script.
pub const P: Position = Position::NONE;
/// Far more than any step of a test takes.
pub const LONG: Duration = Duration::from_secs(60);

pub fn long() -> Deadline {
    Deadline::after(LONG)
}

pub fn secs(s: f64) -> Deadline {
    Deadline::after_secs(s)
}

/// Ends this process on the spot, without the exit handlers of the harness.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: it takes any number, and nothing of this process is used again.
    unsafe { libc::_exit(code) }
}

/// Whether this process was forked by a test.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Says how forked processes panic: the harness would keep the message in their copies of its buffer. Once, before any is forked, which would
/// inherit the hook's lock from a thread that panics at that moment.
fn prepare_to_fork() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !FORKED.load(Relaxed) {
                return usual(info);
            }
            let text = format!("process {}: {info}\n", std::process::id());
            let _ = nix::unistd::write(std::io::stderr(), text.as_bytes());
        }));
    });
}

fn run_and_exit(f: impl FnOnce()) -> ! {
    FORKED.store(true, Relaxed);
    let code = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(()) => 0,
        Err(_) => 101,
    };
    exit_at_once(code)
}

/// Runs `f` in the main process of a new session.
#[track_caller]
pub fn in_session(f: impl FnOnce()) {
    prepare_to_fork();
    // SAFETY: the child uses nothing that another thread may hold, but the allocator, which the
    // C library makes usable in a forked child.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => run_and_exit(|| {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
            Session::create().unwrap();
            reap::install().unwrap();
            reap::become_subreaper().unwrap();
            // Stepping through every instruction takes its time.
            let long_run = std::env::var_os("MPHOST_STEPS").is_some();
            watchdog(Duration::from_secs(if long_run { 86_400 } else { 240 }));
            f();
        }),
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).unwrap();
            assert_eq!(
                status,
                WaitStatus::Exited(child, 0),
                "the test's process failed, see above"
            );
        }
    }
}

/// A process beside the test that explains and ends it if it takes too long.
fn watchdog(limit: Duration) {
    let main = nix::unistd::getpid();
    let slot = table::allocate("watchdog", session().me(), true, 0).unwrap();
    // SAFETY: the process has one thread.
    signals::blocked(|| match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            session::after_fork(slot);
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
            if nix::unistd::getppid() != main {
                std::process::exit(0);
            }
            std::thread::sleep(limit);
            dump();
            let _ = nix::sys::signal::kill(main, nix::sys::signal::Signal::SIGKILL);
            std::process::exit(1);
        }
        ForkResult::Parent { child } => table::set_live(slot, child.as_raw()),
    });
}

/// Prints who waits for what.
pub fn dump() {
    for row in table::all() {
        eprintln!(
            "{:?} pid {} {} {:?} waits for {:?}",
            row.slot, row.pid, row.name, row.status, row.waiting
        );
    }
}

/// Starts a process that runs `f`; it inherits all handles.
pub fn start(name: &str, f: impl FnOnce()) -> SlotId {
    let slot = table::allocate(name, session().me(), false, 0).unwrap();
    table::grant_all(slot).unwrap();
    let parent = nix::unistd::getpid();
    signals::blocked(|| {
        // SAFETY: the process has one thread.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                session::after_fork(slot);
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
                // It may have died before that.
                if nix::unistd::getppid() != parent {
                    std::process::abort();
                }
                nix::sys::signal::sigprocmask(
                    nix::sys::signal::SigmaskHow::SIG_SETMASK,
                    Some(&nix::sys::signal::SigSet::empty()),
                    None,
                )
                .unwrap();
                run_and_exit(f)
            }
            ForkResult::Parent { child } => table::set_live(slot, child.as_raw()),
        }
    });
    slot
}

/// Waits for the end of a process, takes its status and frees its slot.
pub fn finish(slot: SlotId) -> ExitStatus {
    assert!(
        table::join(slot, long(), P).unwrap(),
        "a process doesn't end"
    );
    let SlotStatus::Dead(status) = table::status(slot) else {
        panic!("joined, but not dead")
    };
    table::release(slot);
    status
}

/// [`finish`] for one that must have gone well.
#[track_caller]
pub fn finish_well(slot: SlotId) {
    assert_eq!(finish(slot).code(), 0);
}

pub fn kill(slot: SlotId) {
    let pid = table::pid(slot).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
}

/// Waits until `slot` is asleep on something.
pub fn until_waiting(slot: SlotId) {
    let deadline = long();
    while table::info(slot).is_none_or(|i| i.waiting.is_none()) {
        assert!(!deadline.has_passed(), "it never waits");
        std::thread::yield_now();
    }
}
