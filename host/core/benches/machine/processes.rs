//! What processes cost: to begin and end, one or a hundred of them, and to have.
//!
//! The program that is executed is /bin/true: the smallest that every machine has. It is linked to the C library like most, so its start
//! includes the loader's work; a program without a loader starts faster.
//!
//! Invariant: whatever is started is waited for within the time that is measured.

use super::children::{Child, fork, leave, wait};
use super::{Figure, failed, mean};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, pause};
use std::ffi::CStr;
use std::time::Duration;

const PROGRAM: &CStr = c"/bin/true";

pub(super) fn fork_and_wait() -> Figure {
    let mut start = forks();
    mean(1, || start().and_then(end_well))
}

pub(super) fn exec_and_wait() -> Figure {
    let mut start = execs()?;
    mean(1, || start().and_then(end_well))
}

pub(super) fn hundred_forks() -> Figure {
    hundred(forks())
}

pub(super) fn hundred_execs() -> Figure {
    hundred(execs()?)
}

/// Starts processes that end at once.
fn forks() -> impl FnMut() -> Result<Pid, String> {
    || fork()?.map_or_else(|| leave(0), Ok)
}

/// Starts processes that execute the program.
fn execs() -> Result<impl FnMut() -> Result<Pid, String>, String> {
    let actions = PosixSpawnFileActions::init().map_err(failed("posix_spawn"))?;
    let attributes = PosixSpawnAttr::init().map_err(failed("posix_spawn"))?;
    Ok(move || {
        let environment: &[&CStr] = &[];
        posix_spawn(PROGRAM, &actions, &attributes, &[PROGRAM], environment)
            .map_err(failed("posix_spawn of /bin/true"))
    })
}

fn hundred(mut start: impl FnMut() -> Result<Pid, String>) -> Figure {
    let mut pids = Vec::with_capacity(100);
    mean(1, || {
        for _ in 0..100 {
            pids.push(start()?);
        }
        pids.drain(..).try_for_each(end_well)
    })
}

fn end_well(pid: Pid) -> Result<(), String> {
    match wait(pid)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        status => Err(format!("a process failed: {status:?}")),
    }
}

/// MiB that a forked child has of its own (its proportional set size) when it does nothing.
pub(super) fn idle_child() -> Figure {
    let child = Child::start(|| {
        loop {
            pause();
        }
    })?;
    // What has just begun still touches pages.
    let mut before = f64::NAN;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        let now = proportional_set_size(child.pid().as_raw())?;
        if now == before {
            break;
        }
        before = now;
    }
    Ok(before)
}

/// MiB of one process (smaps_rollup, proc_pid_smaps(5)).
pub(crate) fn proportional_set_size(pid: i32) -> Figure {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<f64>().ok())
        .map(|kib| kib / 1024.0)
        .ok_or_else(|| format!("{path} has no Pss"))
}
