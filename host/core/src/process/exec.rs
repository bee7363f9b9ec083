//! `spawn`: this program executes itself anew, with one inherited descriptor that says what to do.
//!
//! The child is `/proc/self/exe` with a hidden first argument. That link leads to the running program's own file even when it was
//! replaced or deleted in the meantime. Descriptor 3 is a socket with exactly one message: the child's slot, the shared
//! block that holds its bootstrap, and, as SCM_RIGHTS, the session's descriptors and the job's. The message is in the socket before the
//! child is started, so nobody waits for anybody.

use super::{Enter, INHERITED, Job, StartMethod, child, forkserver};
use crate::connection::Connection;
use crate::error::{CoreError, Result};
use crate::position::Position;
use crate::session::{Session, session};
use crate::shared::Block;
use crate::signals;
use crate::sys;
use crate::table::{self, SlotId};
use crate::value::RawHandle;
use crate::wire;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// The hidden first argument of a child.
pub const CHILD_COMMAND: &str = "__child";
/// The hidden first argument of a forkserver.
pub const FORKSERVER_COMMAND: &str = "__forkserver";

/// The descriptor by which an executed child gets its message.
const MESSAGE_FD: i32 = 3;
const SELF: &CStr = c"/proc/self/exe";

pub(super) struct Spawn;

/// What a new child is told before its bootstrap.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    slot: u64,
    block: (u32, u32),
    length: u64,
    parent: i32,
    requester: u64,
}

/// How an executed process was started, with all that it was given.
#[derive(Debug)]
pub struct Entry {
    /// Whether it is a forkserver rather than a child with a job.
    pub forkserver: bool,
    /// The bootstrap message.
    pub bootstrap: Vec<u8>,
    /// The job's descriptors, in the bootstrap's order.
    pub fds: Vec<OwnedFd>,
}

impl StartMethod for Spawn {
    fn start(&self, job: Job<'_>, _enter: Enter<'_>) -> Result<i32> {
        execute(CHILD_COMMAND, job)
    }
}

/// Puts a bootstrap into a shared block that is granted to the child.
pub(super) fn deposit(job: &Job<'_>) -> Result<Head> {
    let length = job.bootstrap.iter().map(|part| part.len()).sum::<usize>();
    let block = Block::create(length.max(1), Position::default())?;
    let mut at = 0;
    for part in job.bootstrap {
        block.write(at, part)?;
        at += part.len();
    }
    let handle = block.obj().handle();
    table::grant(job.slot, &[handle])?;
    Ok(Head {
        slot: job.slot.to_u64(),
        block: (handle.index, handle.generation),
        length: length as u64,
        parent: nix::unistd::getpid().as_raw(),
        requester: session().me().to_u64(),
    })
}

impl Head {
    pub(super) fn slot(&self) -> SlotId {
        SlotId::from_u64(self.slot)
    }

    pub(super) fn requester(&self) -> SlotId {
        SlotId::from_u64(self.requester)
    }

    /// Takes the bootstrap out of its block, which is gone then.
    pub(super) fn collect(&self) -> Result<Vec<u8>> {
        let block = RawHandle {
            index: self.block.0,
            generation: self.block.1,
        };
        let block = Block::from_ref(session().adopt_granted(block)?)?;
        let length = usize::try_from(self.length)
            .unwrap_or(usize::MAX)
            .min(block.len());
        let mut bytes = vec![0; length];
        block.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// Executes this program anew with a hidden command.
pub(super) fn execute(command: &str, job: Job<'_>) -> Result<i32> {
    let head = deposit(&job)?;
    let (ours, theirs) = super::packet_pair()?;
    let ours = Connection::from_packet_fd(ours, true, true);
    let mut fds: Vec<BorrowedFd<'_>> = super::inherited();
    fds.extend_from_slice(job.fds);
    ours.send(
        &wire::encode_control(&head).map_err(|e| CoreError::Runtime(e.to_string()))?,
        &fds,
        Position::default(),
    )?;
    // posix_spawn's dup2 clears the close-on-exec flag only when source and target differ.
    let raw = theirs.as_raw_fd();
    if raw == MESSAGE_FD {
        child::set_cloexec(theirs.as_fd(), false)?;
    }
    let spawn = |errno: nix::errno::Errno| CoreError::os("posix_spawn", errno as i32);
    let mut actions = PosixSpawnFileActions::init().map_err(spawn)?;
    if raw != MESSAGE_FD {
        actions.add_dup2(raw, MESSAGE_FD).map_err(spawn)?;
    }
    let mut attributes = PosixSpawnAttr::init().map_err(spawn)?;
    attributes
        .set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)
        .map_err(spawn)?;
    // An interrupt that comes before the child has its handlers waits for them.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    attributes.set_sigmask(&mask).map_err(spawn)?;
    let mut defaults = SigSet::all();
    defaults.remove(Signal::SIGKILL);
    defaults.remove(Signal::SIGSTOP);
    attributes.set_sigdefault(&defaults).map_err(spawn)?;
    let name = std::env::args_os()
        .next()
        .unwrap_or_else(|| "mphost".into());
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| CoreError::Value("an argument holds a NUL".into()))
    };
    let argv = [text(name.as_bytes())?, text(command.as_bytes())?];
    let environment: Vec<CString> = std::env::vars_os()
        .map(|(key, value)| text(&[key.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<_>>()?;
    signals::blocked(|| {
        let pid = posix_spawn(SELF, &actions, &attributes, &argv, &environment).map_err(spawn)?;
        table::set_live(job.slot, pid.as_raw());
        Ok(pid.as_raw())
    })
}

/// What this process is to do, if it was executed by [`super::start`]: the very first call of such a program's `main`.
///
/// Attaches to the session and takes the first steps of a child. `None` for a program that was started by a person.
///
/// # Errors
/// Where the hidden command was given by hand, without its message.
pub fn entry() -> Result<Option<Entry>> {
    let command = std::env::args().nth(1).unwrap_or_default();
    let forkserver = command == FORKSERVER_COMMAND;
    if !forkserver && command != CHILD_COMMAND {
        return Ok(None);
    }
    let by_hand = || {
        CoreError::Value(format!(
            "'{command}' is how this program starts its own processes: it can't be used by hand"
        ))
    };
    if !sys::process::is_socket(MESSAGE_FD) {
        return Err(by_hand());
    }
    // What the main process was given by its own parent without the close-on-exec flag.
    sys::process::close_range(MESSAGE_FD.unsigned_abs() + 1, u32::MAX);
    let socket = sys::process::take_fd(MESSAGE_FD);
    child::set_cloexec(socket.as_fd(), true)?;
    let connection = Connection::from_packet_fd(socket, true, true);
    let mut message = Vec::new();
    let mut fds = connection
        .recv(&mut message, Some(1 << 16), Position::default())
        .map_err(|_| by_hand())?;
    let head: Head = wire::decode_control(&message, 1 << 16).map_err(|_| by_hand())?;
    let own = fds.split_off(INHERITED.min(fds.len()));
    let mut inherited = fds.into_iter();
    let mut next = || inherited.next();
    let (Some(memory), Some(requests), Some(server), Some(post_in), Some(post_out)) =
        (next(), next(), next(), next(), next())
    else {
        return Err(by_hand());
    };
    if !forkserver {
        child::guard_parent(head.parent);
    }
    match Session::attach(memory, head.slot()) {
        // Whoever started this process died at it, and it was given up.
        Err(CoreError::ObjectGone) => child::exit_now(1),
        attached => attached?,
    };
    crate::postoffice::attach([post_in, post_out]);
    forkserver::attach(requests, server);
    if forkserver {
        child::guard_main(head.slot());
    }
    child::settle()?;
    let bootstrap = head.collect()?;
    Ok(Some(Entry {
        forkserver,
        bootstrap,
        fds: own,
    }))
}
