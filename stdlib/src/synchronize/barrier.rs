//! Barrier: a place where a fixed number of processes wait for each other.
//!
//! The action travels with the handle, so that whichever party comes last can run it.

use crate::api::{Call, Registry};
use crate::convert::{Decoder, Encoder};
use crate::error::{Error, Kind, Result, raise};
use crate::handle::{self, Handle};
use crate::places;
use mphost_core::barrier;
use mphost_core::clock::Deadline;
use mphost_core::error::CoreError;
use mphost_core::session::ObjRef;
use mphost_core::value::HandleKind;
use rhai::{Dynamic, FnPtr};
use std::rc::Rc;

/// A place where a fixed number of processes wait for each other.
#[derive(Clone)]
pub struct Barrier(Rc<BarrierParts>);

struct BarrierParts {
    core: barrier::Barrier,
    action: Option<FnPtr>,
    timeout: Option<f64>,
}

impl Handle for Barrier {
    const KIND: HandleKind = HandleKind::Barrier;
    const ATTRIBUTES: usize = 2;

    fn object(&self) -> &ObjRef {
        self.0.core.obj()
    }

    fn attributes(&self, encoder: &mut Encoder) -> Result<()> {
        encoder.value(&self.0.action.clone().map_or(Dynamic::UNIT, Dynamic::from))?;
        encoder.value(&self.0.timeout.map_or(Dynamic::UNIT, Dynamic::from))
    }

    fn rebuild(object: ObjRef, decoder: &mut Decoder<'_>) -> Result<Self> {
        let core = barrier::Barrier::from_ref(object)?;
        let action = decoder.value()?.try_cast::<FnPtr>();
        let timeout = decoder.value()?.as_float().ok();
        Ok(Self(Rc::new(BarrierParts {
            core,
            action,
            timeout,
        })))
    }
}

impl Barrier {
    fn wait(&self, call: &Call<'_>) -> Result {
        let deadline = Deadline::from_timeout(true, call.seconds(0).or(self.0.timeout));
        let mut thrown = None;
        let result = self.0.core.wait(deadline, places::of_call(call.ctx), || {
            let Some(action) = &self.0.action else {
                return Ok(());
            };
            action
                .call_within_context::<Dynamic>(call.ctx, ())
                .map(drop)
                .map_err(|error| {
                    thrown = Some(error);
                    CoreError::BrokenBarrier
                })
        });
        match thrown {
            Some(error) => Err(Error::Rhai(error)),
            None => Ok(Dynamic::from(i64::from(result?))),
        }
    }
}

/// Registers it.
pub(super) fn register(registry: &mut Registry) {
    registry.constructor(
        "Barrier(parties: int, action: callable = (), timeout: seconds = ())",
        "A barrier: `parties` processes wait for each other. When the last one comes, one of them runs `action`, then all go on. \
         `timeout` is what `wait` uses if it is given none.\n\n```rhai\nlet b = Barrier(1, || print(\"all are here\"));\nprint(b.wait());\n```",
        |call| {
            let parties = u32::try_from(call.int(0).unwrap_or(0)).ok().filter(|n| *n > 0);
            let parties = parties.ok_or_else(|| raise(Kind::ValueError, "parties must be >= 1"))?;
            let core = barrier::Barrier::create(parties, places::of_call(call.ctx))?;
            let timeout = call.seconds(2);
            Ok(Dynamic::from(Barrier(Rc::new(BarrierParts { core, action: call.callable(1), timeout }))))
        },
    );
    let mut class = registry.class::<Barrier>("Barrier");
    handle::register(&mut class);
    class
        .display(|barrier| {
            let core = &barrier.0.core;
            let state = match (core.broken(), core.n_waiting(), core.parties()) {
                (Ok(true), ..) => "broken".into(),
                (Ok(false), Ok(waiting), Ok(parties)) => format!("waiters={waiting}/{parties}"),
                _ => "unknown".into(),
            };
            format!("<Barrier at {:#x}: {state}>", handle::identity(barrier.object()))
        })
        .method(
            "wait(timeout: seconds = ())",
            "Waits until all parties have come. Gives each of them another number from 0 to parties - 1. A time that is up breaks the \
             barrier: everybody gets a `BrokenBarrierError`.",
            |call| call.this::<Barrier>().wait(call),
        )
        .method("reset()", "Empties the barrier; whoever waits gets a `BrokenBarrierError`.", |call| {
            call.this::<Barrier>().0.core.reset()?;
            Ok(Dynamic::UNIT)
        })
        .method("abort()", "Breaks the barrier, for those who wait and those who come, until it is reset.", |call| {
            call.this::<Barrier>().0.core.abort()?;
            Ok(Dynamic::UNIT)
        })
        .getter("parties", "How many processes the barrier waits for.", |call| {
            Ok(Dynamic::from(i64::from(call.this::<Barrier>().0.core.parties()?)))
        })
        .getter("n_waiting", "How many processes are waiting.", |call| {
            Ok(Dynamic::from(i64::from(call.this::<Barrier>().0.core.n_waiting()?)))
        })
        .getter("broken", "Whether the barrier is broken.", |call| {
            Ok(Dynamic::from(call.this::<Barrier>().0.core.broken()?))
        });
}
