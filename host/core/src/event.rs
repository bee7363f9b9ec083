//! Event: a flag that processes wait for.
//!
//! The word beside the flag counts how often it was set, so that whoever waited when it was
//! set goes on even if it was cleared again before that process ran.

use crate::clock::Deadline;
use crate::error::Result;
use crate::position::Position;
use crate::session::{ObjRef, ObjectKind, objects};
use crate::sys::atomic::{AtomicU64, Ordering::SeqCst};
use crate::wait::{WaitInfo, WaitKind, wait_until};

/// A flag to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event(ObjRef);

impl Event {
    /// A new event, not set.
    ///
    /// # Errors
    /// `ObjectTableFull`.
    pub fn create(position: Position) -> Result<Self> {
        Ok(Self(objects::create(ObjectKind::Event, position, |_| {})?))
    }

    /// This process's use of one that exists.
    ///
    /// # Errors
    /// `Type` if it is something else.
    pub fn from_ref(object: ObjRef) -> Result<Self> {
        object.expect(&[ObjectKind::Event])?;
        Ok(Self(object))
    }

    /// The shared object.
    #[must_use]
    pub fn obj(&self) -> &ObjRef {
        &self.0
    }

    /// Lowest bit: the flag. The others: how often it was set.
    fn word(&self) -> Result<&'static AtomicU64> {
        Ok(&self.0.entry()?.body[0])
    }

    /// Sets the flag; everybody who waits goes on.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn set(&self) -> Result<()> {
        let was_unset = self
            .word()?
            .fetch_update(SeqCst, SeqCst, |w| (w & 1 == 0).then_some(w + 3));
        if was_unset.is_ok() {
            self.0.entry()?.events[0].wake_after_rmw(u32::MAX);
        }
        Ok(())
    }

    /// Clears the flag.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn clear(&self) -> Result<()> {
        self.word()?.fetch_and(!1, SeqCst);
        Ok(())
    }

    /// The flag.
    ///
    /// # Errors
    /// `ObjectGone`.
    pub fn is_set(&self) -> Result<bool> {
        Ok(self.word()?.load(SeqCst) & 1 != 0)
    }

    /// Waits until the flag is set: true, or false at the deadline.
    ///
    /// # Errors
    /// What the interrupt hook raises.
    pub fn wait(&self, deadline: Deadline, position: Position) -> Result<bool> {
        let word = self.word()?;
        let sets = word.load(SeqCst) >> 1;
        let info = WaitInfo::new(WaitKind::Event, self.0.handle().to_u64(), position);
        let set = wait_until(&self.0.entry()?.events[0], info, deadline, || {
            let now = word.load(SeqCst);
            Ok((now & 1 != 0 || now >> 1 != sets).then_some(()))
        })?;
        Ok(set.is_some())
    }
}
