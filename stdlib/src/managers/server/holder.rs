//! Clients as holders of locks and permits: who they are, and how they ended.
//!
//! A managed lock keeps a [`Grip`] of the client that holds it. When a client's last connection ends, the loop finds out what became of
//! the process and writes it down in its [`Holder`], which all its grips share. Nobody searches for what the dead one held: whoever
//! asks for a lock looks at its grip, and those who wait are told to look again.
//!
//! How it is known that a holder is dead. A process of this very program may have closed its connections for another reason, so
//! the kernel is asked (a pidfd), and the table of processes says how it ended. Of others no more can be known than that their connections have ended:
//! who isn't there can't give anything back. Who ends with exit code 0 says so ([`Op::Leave`]): it merely never gave the
//! lock back, as with a lock in shared memory. That makes an RLock free all the same, since nobody else could.
//!
//! [`Op::Leave`]: super::super::protocol::Op::Leave

use super::ClientId;
use crate::error::{Kind, Result, ScriptError};
use mphost_core::position::Position;
use mphost_core::table::{self, SlotId, SlotStatus};
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// How a client ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// With exit code 0.
    Left,
    /// Any other way: the exit code, if that is known.
    Died(Option<i32>),
}

/// A client, as those know it who have something of its.
#[derive(Debug, Default)]
pub(in super::super) struct Holder {
    id: ClientId,
    pid: i32,
    /// Which process of this program it is, if it is one.
    slot: Option<SlotId>,
    took_leave: Cell<bool>,
    end: Cell<Option<End>>,
}

impl Holder {
    /// A client that has just come; `slot`: it is a process of this program.
    pub(in super::super) fn new(id: ClientId, pid: i32, slot: Option<SlotId>) -> Rc<Holder> {
        Rc::new(Holder {
            id,
            pid,
            slot,
            ..Holder::default()
        })
    }

    pub(super) fn id(&self) -> ClientId {
        self.id
    }

    /// It says that it ends with exit code 0.
    pub(in super::super) fn takes_leave(&self) {
        self.took_leave.set(true);
    }

    /// A descriptor that is ready when the process has ended; `None` where there is nothing to wait for.
    pub(super) fn watch(&self) -> Option<OwnedFd> {
        let slot = self.slot?;
        let runs = || matches!(table::status(slot), SlotStatus::Live);
        let fd = runs().then(|| mphost_core::process::sentinel(Some(self.pid)).ok())??;
        // Its status is noted before its number can be another's: so this is the right one's.
        runs().then_some(fd)
    }

    /// Writes down how it ended, now that it has.
    pub(in super::super) fn write_end(&self) {
        let code = self
            .slot
            .and_then(|slot| table::last_status(slot, self.pid))
            .map(|status| status.code());
        let left = self.took_leave.get() || code == Some(0);
        self.end
            .set(Some(if left { End::Left } else { End::Died(code) }));
    }
}

/// A lock or permit in a client's hand.
#[derive(Clone, Debug)]
pub(in super::super) struct Grip {
    holder: Rc<Holder>,
    taken_at: Position,
}

impl Grip {
    /// A grip that `holder` takes at this place of its script.
    pub(in super::super) fn new(holder: Rc<Holder>, taken_at: Position) -> Grip {
        // Numbers of files mean something within one program only.
        let taken_at = if holder.slot.is_some() {
            taken_at
        } else {
            Position::NONE
        };
        Grip { holder, taken_at }
    }

    /// The same client's grip, at the place where `other` was taken.
    pub(in super::super) fn since(mut self, other: &Grip) -> Grip {
        self.taken_at = other.taken_at;
        self
    }

    /// Whether it is this client's.
    pub(in super::super) fn is_of(&self, client: ClientId) -> bool {
        self.holder.id == client
    }

    /// Whether it is that of a client that is dead, and doesn't come back; `alone`: nobody else can give back what it holds.
    pub(in super::super) fn is_dead(&self, alone: bool) -> bool {
        match self.holder.end.get() {
            None => false,
            Some(End::Left) => alone,
            Some(End::Died(_)) => true,
        }
    }

    /// Nothing, unless it is a dead client's.
    ///
    /// # Errors
    /// `OwnerDiedError`.
    pub(in super::super) fn check(&self, alone: bool) -> Result<()> {
        if !self.is_dead(alone) {
            return Ok(());
        }
        let pid = self.holder.pid;
        let code = match self.holder.end.get() {
            Some(End::Died(code)) => code,
            _ => Some(0),
        };
        let how = match code {
            Some(0) => format!("ended without giving it back (pid {pid}, exit code 0)"),
            Some(code) => format!("died while holding it (pid {pid}, exit code {code})"),
            None => format!("died while holding it (pid {pid})"),
        };
        let text =
            format!("the process that held this {how}; release() or recover() makes it free");
        Err(ScriptError::new(Kind::OwnerDiedError, text)
            .with_field("pid", i64::from(pid))
            .with_field(
                "exitcode",
                code.map_or(rhai::Dynamic::UNIT, |code| i64::from(code).into()),
            )
            .with_field("acquired_at", crate::places::describe(self.taken_at))
            .into())
    }
}
