//! `forkserver`: one clean server a program, which has compiled the script and forks a child for each request.
//!
//! Requests go through one socket pair that every process of the session has from the start, both ends of it: so any process
//! can ask, however it was started, and a server that was killed can be replaced by anybody; requests that it hadn't read yet wait in the
//! socket for the next one, and one that it had read is sent again. The answer is the process table: the server stores the child's pid there and wakes who waits for it.
//!
//! Who ends whom: the children are the server's in the kernel's eyes, but belong to those who asked for them. Whoever reaps a
//! process that was killed ends that process's children too (see the reap room), and a guard signal ends what outlives the main process.

use super::exec::{self, Head};
use super::{Enter, FORKSERVER_COMMAND, Job, StartMethod, child};
use crate::clock::Deadline;
use crate::connection::Connection;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::{self, session};
use crate::signals;
use crate::table::{self, SlotId, SlotStatus};
use crate::wait::{self, WaitInfo, WaitKind};
use crate::wire;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{ForkResult, getpid};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// What the process table says of a server where it says the start method of others.
const SERVER: u8 = 4;
const SERVER_NAME: &str = "ForkServer";
/// The most that a request may hold: its head is a few dozen bytes.
const REQUEST_LIMIT: usize = 1 << 12;

static CONTROL: OnceLock<[OwnedFd; 2]> = OnceLock::new();

pub(super) struct Forkserver;

thread_local! {
    static BOOTSTRAP: Cell<fn() -> Vec<u8>> = const { Cell::new(Vec::new) };
}

/// Makes the request socket (in the main process), and says what a server is told when one is started: the program.
///
/// # Errors
/// Where no descriptors are left.
pub fn prepare(bootstrap: fn() -> Vec<u8>) -> Result<()> {
    BOOTSTRAP.set(bootstrap);
    if CONTROL.get().is_none() {
        let (requests, server) = super::packet_pair()?;
        attach(requests, server);
    }
    Ok(())
}

/// Takes over the request socket that this process was started with.
pub(super) fn attach(requests: OwnedFd, server: OwnedFd) {
    let _ = CONTROL.set([requests, server]);
}

/// Both ends of the request socket.
pub(super) fn control() -> impl Iterator<Item = BorrowedFd<'static>> {
    CONTROL.get().into_iter().flatten().map(AsFd::as_fd)
}

fn end(index: usize) -> Result<Connection> {
    let fd = control().nth(index).ok_or(CoreError::NoSession)?;
    let fd = fd
        .try_clone_to_owned()
        .map_err(|e| child::io("fcntl(F_DUPFD_CLOEXEC)", &e))?;
    Ok(Connection::from_packet_fd(fd, true, true))
}

/// The pid of the program's forkserver, if one is alive.
#[must_use]
pub fn server_pid() -> Option<i32> {
    server().and_then(table::pid)
}

fn server() -> Option<SlotId> {
    table::all()
        .into_iter()
        .find(|process| process.start_method == SERVER && is_there(process.slot))
        .map(|process| process.slot)
}

/// Whether a server is live or about to be.
fn is_there(server: SlotId) -> bool {
    match table::status(server) {
        SlotStatus::Live => true,
        SlotStatus::Starting => table::lookup(server).is_some_and(|s| !table::is_abandoned(s)),
        SlotStatus::Dead(_) | SlotStatus::Gone => false,
    }
}

fn start_server() -> Result<()> {
    let slot = table::allocate(SERVER_NAME, session().main_slot(), true, SERVER)?;
    table::set_helper(slot);
    let bootstrap = BOOTSTRAP.get()();
    let job = Job {
        slot,
        bootstrap: &[&bootstrap],
        fds: &[],
        kept: 0,
    };
    exec::execute(FORKSERVER_COMMAND, job).inspect_err(|_| table::release(slot))?;
    Ok(())
}

impl StartMethod for Forkserver {
    fn start(&self, job: Job<'_>, _enter: Enter<'_>) -> Result<i32> {
        let head = exec::deposit(&job)?;
        let message = wire::encode_control(&head).map_err(|e| CoreError::Runtime(e.to_string()))?;
        loop {
            if server().is_none() {
                start_server()?;
            }
            let asked = server();
            end(0)?.send(&message, job.fds, Position::default())?;
            match wait_started(job.slot, asked)? {
                // The server died, with the request read or unread: the next one is asked again. Of two processes that come of it
                // one is the child.
                SlotStatus::Starting => {}
                SlotStatus::Gone => return Err(CoreError::ObjectGone),
                _ => return table::pid(job.slot).ok_or(CoreError::ObjectGone),
            }
        }
    }
}

/// Waits until the process has begun, or the server that was asked is no more: then it may still be `Starting`.
fn wait_started(id: SlotId, asked: Option<SlotId>) -> Result<SlotStatus> {
    let Some(slot) = table::lookup(id) else {
        return Ok(SlotStatus::Gone);
    };
    let info = WaitInfo::new(WaitKind::ProcessStart, id.to_u64(), Position::default());
    let status = wait::wait_until(&slot.ended, info, Deadline::NEVER, || {
        let status = table::status(id);
        let server_is_there = || asked.is_some_and(is_there);
        Ok((status != SlotStatus::Starting || !server_is_there()).then_some(status))
    })?;
    Ok(status.unwrap_or(SlotStatus::Gone))
}

static DEATHS_SEEN: AtomicU32 = AtomicU32::new(0);

/// Sees to it, after deaths, that no request lies unread: the descriptors in it would keep pipes open whose processes are no more. For
/// the interrupt hook.
///
/// # Errors
/// Where no server can be started.
pub fn tidy() -> Result<()> {
    let deaths = session().header().deaths.load(SeqCst);
    if DEATHS_SEEN.swap(deaths, SeqCst) == deaths || server().is_some() {
        return Ok(());
    }
    let Some(requests) = control().nth(1) else {
        return Ok(());
    };
    let mut polled = [PollFd::new(requests, PollFlags::POLLIN)];
    // An error says that there is nothing to read.
    if poll(&mut polled, PollTimeout::ZERO).unwrap_or(0) > 0 {
        start_server()?;
    }
    Ok(())
}

/// Serves requests until the program ends: what a forkserver's process does. `run` is called in each child with its bootstrap and
/// descriptors, and returns the exit code.
///
/// # Errors
/// Where the request socket is unusable.
pub fn serve(run: &mut dyn FnMut(Vec<u8>, Vec<OwnedFd>) -> i32) -> Result<()> {
    let requests = end(1)?;
    let mut message = Vec::new();
    loop {
        let fds = match requests.recv(&mut message, Some(REQUEST_LIMIT), Position::default()) {
            Ok(fds) => fds,
            // Ctrl-C and its like are for the main process, which ends this one.
            Err(CoreError::Interrupted(_)) => continue,
            Err(error) => return Err(error),
        };
        let Ok(head) = wire::decode_control::<Head>(&message, REQUEST_LIMIT) else {
            continue;
        };
        if table::status(head.slot()) != SlotStatus::Starting || !child::is_alive(head.requester())
        {
            // It was asked for twice, or nobody waits for it any more.
            continue;
        }
        let server = getpid().as_raw();
        let mut fds = Some(fds);
        let forked = signals::blocked(|| match crate::sys::process::fork() {
            Ok(ForkResult::Child) => {
                if !session::after_fork(head.slot()) {
                    // The server before this one had it started after all.
                    child::exit_now(child::START_FAILED);
                }
                None
            }
            Ok(ForkResult::Parent { child }) => {
                // Before anybody can learn of the child's end: its ends of pipes and its sockets are no longer open then.
                drop(fds.take());
                table::set_live(head.slot(), child.as_raw());
                if let Some(slot) = table::lookup(head.slot()) {
                    slot.ended.wake_all();
                }
                Some(())
            }
            Err(_) => {
                // The requester sees a process that ended before it began.
                crate::reap::mark_dead(head.slot(), START_FAILED);
                Some(())
            }
        });
        if forked.is_none() {
            debug_assert_ne!(server, getpid().as_raw());
            child::guard_main(head.requester());
            let mut bootstrap = head.collect().ok();
            let fds = fds.unwrap_or_default();
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let job = Job {
                slot: head.slot(),
                bootstrap: &[],
                fds: &borrowed,
                kept: 0,
            };
            child::run_copy(&job, &mut |own| match bootstrap.take() {
                Some(bootstrap) => run(bootstrap, own),
                None => 1,
            });
        }
    }
}

/// The raw wait status of a child that couldn't be forked: exit code 1.
const START_FAILED: i32 = 1 << 8;
