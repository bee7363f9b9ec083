//! A bench for objects: operations of several clients, without a server's loop.

use super::{Object, Outcome, Ticket, Turn, Verdict, Why};
use crate::error::Result;
use crate::managers::protocol::Op;
use crate::managers::server::Server;
use mphost_core::transport::Address;
use rhai::{Dynamic, Engine, NativeCallContext, Position};

use std::collections::HashMap;
use std::rc::Rc;

/// An object and the answers that it has given.
pub(in super::super) struct Bench<O> {
    pub(in super::super) object: O,
    server: Rc<Server>,
    engine: Engine,
    answers: Vec<(Ticket, Verdict)>,
}

/// What an operation has come to.
#[derive(Debug)]
pub(in super::super) enum Now {
    Done(Dynamic),
    Waits,
}

impl<O: Object> Bench<O> {
    pub(in super::super) fn new(object: O) -> Bench<O> {
        let address = Address::Abstract("bench".into());
        Bench {
            server: Server::new(address, true, HashMap::new()).expect("randomness"),
            object,
            engine: Engine::new(),
            answers: Vec::new(),
        }
    }

    fn turn<R>(&mut self, client: u64, act: impl FnOnce(&mut O, &mut Turn<'_>) -> R) -> R {
        self.server.introduce(client, pid(client), None);
        let global = self.engine.new_global_runtime_state();
        let script =
            NativeCallContext::new_with_all_fields(&self.engine, "", None, &global, Position::NONE);
        let mut turn = Turn {
            server: &self.server,
            client,
            ticket: ticket(client),
            out: None,
            answers: &mut self.answers,
            script: &script,
        };
        act(&mut self.object, &mut turn)
    }

    /// An operation of a client, which has one under way at a time.
    pub(in super::super) fn by(&mut self, client: u64, op: Op, args: Vec<Dynamic>) -> Result<Now> {
        let outcome = self.turn(client, |object, turn| {
            object.call(op, args.into_iter().collect(), turn)
        })?;
        Ok(match outcome {
            Outcome::Value(value) => Now::Done(value),
            Outcome::Written => unreachable!("nothing is written without a place for it"),
            Outcome::Wait(_) => Now::Waits,
        })
    }

    /// An operation that is done at once.
    pub(in super::super) fn call(&mut self, op: Op, args: Vec<Dynamic>) -> Result<Dynamic> {
        match self.by(1, op, args)? {
            Now::Done(value) => Ok(value),
            Now::Waits => panic!("{op:?} waits"),
        }
    }

    /// One that can't fail, either.
    pub(in super::super) fn ok(&mut self, op: Op, args: Vec<Dynamic>) -> Dynamic {
        self.call(op, args).expect("the operation is done")
    }

    /// The same, for what it does.
    pub(in super::super) fn act(&mut self, op: Op, args: Vec<Dynamic>) {
        drop(self.ok(op, args));
    }

    /// What an operation of a client has come to, as a text: `waits`, its result, or its error.
    pub(in super::super) fn says(&mut self, client: u64, op: Op, args: Vec<Dynamic>) -> String {
        match self.by(client, op, args) {
            Ok(Now::Done(value)) => value.to_string(),
            Ok(Now::Waits) => "waits".into(),
            Err(error) => error.to_string(),
        }
    }

    /// Ends the wait of a client's operation.
    pub(in super::super) fn expire(&mut self, client: u64, why: Why) {
        self.turn(client, |object, turn| {
            object.expire(ticket(client), why, turn)
        });
    }

    /// A client's process is found to have ended, well or badly.
    pub(in super::super) fn ends(&mut self, client: u64, well: bool) {
        let holder = self.server.holder(client);
        if well {
            holder.takes_leave();
        }
        holder.write_end();
        self.turn(0, |object, turn| object.poke(turn));
    }

    /// The answers since the last look, with the clients that got them: `2: true`.
    pub(in super::super) fn answers(&mut self) -> Vec<String> {
        let answers = std::mem::take(&mut self.answers);
        let text = |verdict| match verdict {
            Verdict::Done(value) => value.to_string(),
            Verdict::Thrown(error) => error.to_string(),
            Verdict::Cancelled => "cancelled".into(),
        };
        answers
            .into_iter()
            .map(|(ticket, verdict)| format!("{}: {}", ticket.request, text(verdict)))
            .collect()
    }
}

fn pid(client: u64) -> i32 {
    i32::try_from(client).expect("a small number") + 100
}

fn ticket(client: u64) -> Ticket {
    Ticket {
        peer: 0,
        request: client,
    }
}
