//! What `imap` and `imap_unordered` give: an iterator over results, whose input is drawn as they are taken.

use super::inner::{self, Inner};
use super::job::Job;
use crate::api::Registry;
use crate::error::{Kind, Result, raise};
use crate::{handle, places};
use mphost_core::clock::Deadline;
use mphost_core::position::Position;
use rhai::Dynamic;
use std::rc::Rc;

/// An iterator over results. Copies are the same iterator.
#[derive(Clone)]
pub(super) struct ResultIterator {
    pub(super) pool: Rc<Inner>,
    pub(super) job: Rc<Job>,
}

impl ResultIterator {
    /// The next result; `None` after the last.
    ///
    /// # Errors
    /// What its task threw; `TimeoutError` at the deadline.
    fn following(&self, deadline: Deadline, position: Position) -> Result<Option<Dynamic>> {
        let Self { pool, job } = self;
        pool.check_own()?;
        loop {
            if let Some(outcome) = job.with_stream(|stream| stream.pop()).flatten() {
                pool.feed(job, pool.window())?;
                return inner::unwrap(Some(outcome)).map(Some);
            }
            let state = || {
                job.with_stream(|stream| (stream.has_next(), stream.is_exhausted()))
                    .unwrap_or((false, true))
            };
            match state() {
                (true, _) => continue,
                (_, true) => return Ok(None),
                _ => {}
            }
            let done = || matches!(state(), (true, _) | (_, true));
            if !pool.wait(&done, &|| 1, deadline, position)? {
                return Err(raise(Kind::TimeoutError, "the next result is not ready"));
            }
        }
    }
}

impl Iterator for ResultIterator {
    type Item = std::result::Result<Dynamic, Box<rhai::EvalAltResult>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.following(Deadline::NEVER, Position::default())
            .map_err(|error| error.into_rhai(None, rhai::Position::NONE))
            .transpose()
    }
}

/// Registers the type.
pub(super) fn register(registry: &mut Registry) {
    registry
        .class::<ResultIterator>("IMapIterator")
        .method(
            "next(timeout: seconds = ())",
            "The next result; raises what its task threw, and goes on behind it.\n\n\
             `StopIteration` after the last one, for ever. `TimeoutError` if it isn't there within `timeout` seconds.",
            |call| {
                let results: ResultIterator = call.this();
                let next = results.following(handle::timeout(call, 0), places::of_call(call.ctx))?;
                next.ok_or_else(|| raise(Kind::StopIteration, ""))
            },
        )
        .iterate(|results| results)
        .display(|_| "<IMapIterator>".to_owned())
        .equality(|a, b| Rc::ptr_eq(&a.job, &b.job));
}
