//! `AsyncResult`: what `apply_async`, `map_async` and `starmap_async` give.

use super::inner::{self, Inner};
use super::job::Job;
use crate::api::Registry;
use crate::error::{Kind, raise};
use crate::{handle, places};
use rhai::Dynamic;
use std::rc::Rc;

/// The result of a job that may not be there yet. Copies are the same result.
#[derive(Clone)]
pub(super) struct AsyncResult {
    pub(super) pool: Rc<Inner>,
    pub(super) job: Rc<Job>,
}

/// Registers the type.
pub(super) fn register(registry: &mut Registry) {
    registry
        .class::<AsyncResult>("AsyncResult")
        .method(
            "get(timeout: seconds = ())",
            "The result, once it is there; raises what the task threw.\n\n\
             Waits at most `timeout` seconds: `TimeoutError`, and a later `get` may still succeed. A callback has ended when `get` \
             returns. `WorkerLostError`: the task's worker died. `BrokenProcessPool`: the pool was terminated or can't work.\n\n\
             ```rhai\nfn square(x) { x * x }\nlet pool = Pool(2);\nlet res = pool.apply_async(square, [12]);\nprint(res.get(10));\npool.terminate();\n```",
            |call| {
                let AsyncResult { pool, job } = call.this();
                if !pool.wait_for(&job, handle::timeout(call, 0), places::of_call(call.ctx))? {
                    return Err(raise(Kind::TimeoutError, "the result is not ready"));
                }
                inner::unwrap(job.outcome())
            },
        )
        .method(
            "wait(timeout: seconds = ())",
            "Waits until the result is there, or `timeout` seconds; returns `()` either way.",
            |call| {
                let AsyncResult { pool, job } = call.this();
                pool.wait_for(&job, handle::timeout(call, 0), places::of_call(call.ctx))?;
                Ok(Dynamic::UNIT)
            },
        )
        .method("ready()", "Whether the result is there.", |call| {
            let AsyncResult { pool, job } = call.this();
            pool.check_own()?;
            pool.look(false)?;
            Ok(job.is_done().into())
        })
        .method(
            "successful()",
            "Whether the task ended without an error. A `ValueError` while the result isn't there.",
            |call| {
                let AsyncResult { pool, job } = call.this();
                pool.check_own()?;
                pool.look(false)?;
                if !job.is_done() {
                    return Err(raise(Kind::ValueError, "the result is not ready"));
                }
                Ok(job.is_success().into())
            },
        )
        .method(
            "cancel()",
            "Cancels the task: if it waits it is never run, if it runs its worker is ended and replaced.\n\n\
             Gives true, and `get()` raises `CancelledError` from then on; false if the result was there already. Neither callback is called.",
            |call| {
                let AsyncResult { pool, job } = call.this();
                Ok(pool.cancel(&job)?.into())
            },
        )
        .display(|result| {
            let state = if result.job.is_done() { "ready" } else { "not ready" };
            format!("<AsyncResult {state}>")
        })
        .equality(|a, b| Rc::ptr_eq(&a.job, &b.job));
}
