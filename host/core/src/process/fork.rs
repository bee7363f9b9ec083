//! `fork`: the child is a copy of this process at this moment.
//!
//! In the child everything that belongs to the parent alone is dropped: its descriptors are closed but for the job's own, its
//! references to shared objects are not the child's (only granted ones are).

use super::{Enter, Job, StartMethod, child};
use crate::error::{CoreError, Result};
use crate::table;
use crate::{session, signals};
use nix::unistd::{ForkResult, getpid};

pub(super) struct Fork;

impl StartMethod for Fork {
    fn start(&self, job: Job<'_>, enter: Enter<'_>) -> Result<i32> {
        let parent = getpid().as_raw();
        let forked = signals::blocked(|| match crate::sys::process::fork() {
            Ok(ForkResult::Child) => {
                // Its parent has the slot: nobody else can be it.
                session::after_fork(job.slot);
                Ok(None)
            }
            Ok(ForkResult::Parent { child }) => {
                table::set_live(job.slot, child.as_raw());
                Ok(Some(child.as_raw()))
            }
            Err(errno) => Err(CoreError::os("fork", errno as i32)),
        })?;
        let Some(pid) = forked else {
            child::guard_parent(parent);
            child::run_copy(&job, enter);
        };
        Ok(pid)
    }
}
