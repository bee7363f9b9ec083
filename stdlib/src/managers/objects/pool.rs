//! A managed pool: a `Pool` of the server's own, its results and its iterators.
//!
//! The pool itself waits for nobody here: what would wait is submitted as its `…_async` kind, and the client's operation is parked until the
//! pool has called back. [`Object::poke`] is how the server hands that on.
//!
//! Source: CPython's `managers.PoolProxy`.

use super::{
    Args, Object, Outcome, SharedObject, Ticket, Turn, Verdict, Why, malformed, seconds, take,
    unsupported,
};
use crate::convert;
use crate::error::{Error, Kind, Result, raise};
use crate::managers::protocol::{Op, Tag};
use mphost_core::clock::Deadline;
use rhai::{Array, Dynamic, Map, NativeCallContext};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// The full name of the function that does nothing: a job with a callback is attended to as soon as it is done.
pub(in super::super) const DONE: &str = "mp__managers____done";

/// Calls a method of the server's own pool, or of one of its results.
fn call_own(
    script: &NativeCallContext<'_>,
    method: &str,
    this: &mut Dynamic,
    args: &mut [Dynamic],
) -> Result<Dynamic> {
    let mut all: Vec<&mut Dynamic> = vec![this];
    all.extend(args.iter_mut());
    Ok(script.call_native_fn_raw(method, true, &mut all)?)
}

fn is_ready(script: &NativeCallContext<'_>, result: &mut Dynamic) -> bool {
    // What can't even be asked is as good as done: getting it says why.
    call_own(script, "ready", result, &mut []).map_or(true, |ready| ready.as_bool().unwrap_or(true))
}

fn outcome(script: &NativeCallContext<'_>, result: &mut Dynamic) -> Verdict {
    match call_own(script, "get", result, &mut []) {
        Ok(value) => Verdict::Done(value),
        Err(error) => Verdict::Thrown(error),
    }
}

/// Submits a call to a pool, in a way that the server notices when it is done.
fn submit(
    script: &NativeCallContext<'_>,
    pool: &mut Dynamic,
    method: &str,
    func: Dynamic,
    args: Dynamic,
    mut options: Map,
) -> Result<Dynamic> {
    for callback in ["callback", "error_callback"] {
        if !options.contains_key(callback)
            && let Some(done) = convert::native_named(DONE)
        {
            options.insert(callback.into(), done.into());
        }
    }
    call_own(
        script,
        method,
        pool,
        &mut [func, args, Dynamic::from_map(options)],
    )
}

/// See the module.
pub(super) struct Pool {
    pool: Dynamic,
    /// Clients that wait for a result.
    waiting: Vec<(Ticket, Dynamic)>,
    /// What was submitted and perhaps isn't done.
    open: Vec<Dynamic>,
    joiners: Vec<Ticket>,
    closed: bool,
}

impl Pool {
    /// A pool made with the arguments of Python's constructor.
    pub(super) fn new(mut args: Args, script: &NativeCallContext<'_>) -> Result<Pool> {
        let mut all: Vec<&mut Dynamic> = args.iter_mut().collect();
        let pool = script.call_native_fn_raw("Pool", false, &mut all)?;
        Ok(Pool {
            pool,
            waiting: Vec::new(),
            open: Vec::new(),
            joiners: Vec::new(),
            closed: false,
        })
    }

    /// What `name` submits: its asynchronous method, and whether the client waits for the result itself.
    fn method(name: &str) -> Option<(&'static str, bool)> {
        Some(match name {
            "apply" => ("apply_async", true),
            "map" => ("map_async", true),
            "starmap" => ("starmap_async", true),
            "apply_async" => ("apply_async", false),
            "map_async" => ("map_async", false),
            "starmap_async" => ("starmap_async", false),
            _ => return None,
        })
    }

    fn run(&mut self, name: &str, args: &mut Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let (func, given) = (take(args, 1), take(args, 2));
        let options = take(args, 3).try_cast::<Map>().unwrap_or_default();
        self.open
            .retain_mut(|result| !is_ready(turn.script, result));
        if let "imap" | "imap_unordered" = name {
            return self.iterate(name == "imap", &func, given, &options, turn);
        }
        let (method, waits) = Pool::method(name).ok_or_else(|| unsupported(Op::Call))?;
        let result = submit(turn.script, &mut self.pool, method, func, given, options)?;
        self.open.push(result.clone());
        if waits {
            self.waiting.push((turn.ticket, result));
            return Ok(Outcome::Wait(Deadline::NEVER));
        }
        let object = Rc::new(RefCell::new(PoolResult {
            result,
            waiting: Vec::new(),
        }));
        Ok(Outcome::Value(turn.adopt(object, Tag::AsyncResult)))
    }

    fn iterate(
        &mut self,
        ordered: bool,
        func: &Dynamic,
        items: Dynamic,
        options: &Map,
        turn: &mut Turn<'_>,
    ) -> Result<Outcome> {
        let mut results = VecDeque::new();
        let mut options = options.clone();
        options.remove("chunksize");
        for item in items.try_cast::<Array>().ok_or_else(malformed)? {
            let args = Dynamic::from_array(vec![item]);
            let result = submit(
                turn.script,
                &mut self.pool,
                "apply_async",
                func.clone(),
                args,
                options.clone(),
            )?;
            self.open.push(result.clone());
            results.push_back(result);
        }
        let object = Rc::new(RefCell::new(PoolIterator {
            results,
            ordered,
            waiting: None,
        }));
        Ok(Outcome::Value(turn.adopt(object, Tag::Iterator)))
    }

    fn join(&mut self, turn: &mut Turn<'_>) -> Result<Outcome> {
        if !self.closed {
            return Err(raise(Kind::ValueError, "Pool is still running"));
        }
        self.open
            .retain_mut(|result| !is_ready(turn.script, result));
        if !self.open.is_empty() {
            self.joiners.push(turn.ticket);
            return Ok(Outcome::Wait(Deadline::NEVER));
        }
        // Its workers have nothing left to do: this takes no longer than their ends.
        call_own(turn.script, "join", &mut self.pool, &mut []).map(Outcome::Value)
    }
}

impl Object for Pool {
    fn call(&mut self, op: Op, mut args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        if op != Op::Call {
            return Err(unsupported(op));
        }
        let name = take(&mut args, 0)
            .into_immutable_string()
            .map_err(|_| malformed())?;
        match name.as_str() {
            "join" => self.join(turn),
            "close" | "terminate" => {
                self.closed = true;
                let done = call_own(turn.script, &name, &mut self.pool, &mut [])?;
                // Whoever waits for a result that won't come any more shall hear of it.
                self.poke(turn);
                Ok(Outcome::Value(done))
            }
            _ => self.run(&name, &mut args, turn),
        }
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        self.waiting.retain(|(waiter, _)| *waiter != ticket);
        self.joiners.retain(|waiter| *waiter != ticket);
        if let Some(verdict) = why.verdict(|| Verdict::Done(Dynamic::UNIT)) {
            turn.answer(ticket, verdict);
        }
    }

    fn poke(&mut self, turn: &mut Turn<'_>) {
        for index in (0..self.waiting.len()).rev() {
            if is_ready(turn.script, &mut self.waiting[index].1) {
                let (ticket, mut result) = self.waiting.swap_remove(index);
                let verdict = outcome(turn.script, &mut result);
                turn.answer(ticket, verdict);
            }
        }
        if !self.joiners.is_empty() {
            self.open
                .retain_mut(|result| !is_ready(turn.script, result));
            if self.open.is_empty() {
                let joined = call_own(turn.script, "join", &mut self.pool, &mut []);
                for joiner in self.joiners.drain(..) {
                    let verdict = match &joined {
                        Ok(_) => Verdict::Done(Dynamic::UNIT),
                        Err(error) => Verdict::Thrown(raise(Kind::RuntimeError, error.to_string())),
                    };
                    turn.answer(joiner, verdict);
                }
            }
        }
    }

    fn is_poked(&self) -> bool {
        true
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.closed {
            super::super::with_context(|script| {
                // It has no owner any more; an error has no reader.
                let _ = call_own(script, "terminate", &mut self.pool, &mut []);
            });
        }
    }
}

/// What `apply_async` gives.
struct PoolResult {
    result: Dynamic,
    /// Who waits; whether for the value itself.
    waiting: Vec<(Ticket, bool)>,
}

impl Object for PoolResult {
    fn call(&mut self, op: Op, args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        let name = args
            .first()
            .and_then(|name| name.clone().into_immutable_string().ok());
        match (op, name.as_deref()) {
            (Op::Call, Some(name @ ("ready" | "successful" | "cancel"))) => {
                call_own(turn.script, name, &mut self.result, &mut []).map(Outcome::Value)
            }
            (Op::Get | Op::Wait, _) => {
                let value = op == Op::Get;
                if is_ready(turn.script, &mut self.result) {
                    return match outcome(turn.script, &mut self.result) {
                        Verdict::Thrown(error) if value => Err(error),
                        Verdict::Done(result) if value => Ok(Outcome::Value(result)),
                        _ => Ok(Outcome::Value(Dynamic::UNIT)),
                    };
                }
                self.waiting.push((turn.ticket, value));
                Ok(Outcome::Wait(Deadline::from_timeout(
                    true,
                    seconds(&args, 0),
                )))
            }
            _ => Err(unsupported(op)),
        }
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        let Some(at) = self
            .waiting
            .iter()
            .position(|(waiter, _)| *waiter == ticket)
        else {
            return;
        };
        let (_, value) = self.waiting.swap_remove(at);
        let late = || {
            if value {
                Verdict::Thrown(not_ready())
            } else {
                Verdict::Done(Dynamic::UNIT)
            }
        };
        if let Some(verdict) = why.verdict(late) {
            turn.answer(ticket, verdict);
        }
    }

    fn poke(&mut self, turn: &mut Turn<'_>) {
        if self.waiting.is_empty() || !is_ready(turn.script, &mut self.result) {
            return;
        }
        for (ticket, value) in self.waiting.drain(..) {
            let verdict = outcome(turn.script, &mut self.result);
            turn.answer(
                ticket,
                if value {
                    verdict
                } else {
                    Verdict::Done(Dynamic::UNIT)
                },
            );
        }
    }

    fn is_poked(&self) -> bool {
        true
    }
}

fn not_ready() -> Error {
    raise(Kind::TimeoutError, "the result is not ready")
}

/// What `imap` gives.
struct PoolIterator {
    results: VecDeque<Dynamic>,
    ordered: bool,
    waiting: Option<Ticket>,
}

impl PoolIterator {
    /// The next result that can be given; `None`: it isn't there yet.
    fn next(&mut self, script: &NativeCallContext<'_>) -> Option<Verdict> {
        let among = if self.ordered { 1 } else { self.results.len() };
        let at = self
            .results
            .iter_mut()
            .take(among)
            .position(|result| is_ready(script, result));
        match at.and_then(|at| self.results.remove(at)) {
            Some(mut result) => Some(outcome(script, &mut result)),
            None if self.results.is_empty() => {
                Some(Verdict::Thrown(raise(Kind::StopIteration, "")))
            }
            None => None,
        }
    }
}

impl Object for PoolIterator {
    fn call(&mut self, op: Op, args: Args, turn: &mut Turn<'_>) -> Result<Outcome> {
        if op != Op::Get {
            return Err(unsupported(op));
        }
        match self.next(turn.script) {
            Some(Verdict::Done(value)) => Ok(Outcome::Value(value)),
            Some(Verdict::Thrown(error)) => Err(error),
            Some(Verdict::Cancelled) | None if self.waiting.is_some() => Err(raise(
                Kind::RuntimeError,
                "another process waits for the next result already",
            )),
            Some(Verdict::Cancelled) | None => {
                self.waiting = Some(turn.ticket);
                Ok(Outcome::Wait(Deadline::from_timeout(
                    true,
                    seconds(&args, 0),
                )))
            }
        }
    }

    fn expire(&mut self, ticket: Ticket, why: Why, turn: &mut Turn<'_>) {
        if self.waiting.take_if(|waiter| *waiter == ticket).is_some()
            && let Some(verdict) = why.verdict(|| Verdict::Thrown(not_ready()))
        {
            turn.answer(ticket, verdict);
        }
    }

    fn poke(&mut self, turn: &mut Turn<'_>) {
        if self.waiting.is_some()
            && let Some(verdict) = self.next(turn.script)
            && let Some(ticket) = self.waiting.take()
        {
            turn.answer(ticket, verdict);
        }
    }

    fn is_poked(&self) -> bool {
        true
    }
}

/// A managed pool, as an object of the server.
///
/// # Errors
/// What Python's constructor throws for such arguments.
pub(super) fn create(args: Args, script: &NativeCallContext<'_>) -> Result<SharedObject> {
    Ok(Rc::new(RefCell::new(Pool::new(args, script)?)))
}
