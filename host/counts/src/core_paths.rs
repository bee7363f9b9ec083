//! Core's hot paths, without a script: what an operation does, so many times.
//!
//! Invariant: each runs in one process and never waits.

use mphost_core::clock::Deadline;
use mphost_core::connection::Connection;
use mphost_core::event::Event;
use mphost_core::permit::{Lock, RLock};
use mphost_core::pool::Claims;
use mphost_core::position::Position;
use mphost_core::queue::Queue;
use mphost_core::reap;
use mphost_core::session::{ObjectKind, Session};
use mphost_core::shared::Block;
use mphost_core::value::Value;
use mphost_core::wire;
use mphost_core::{CoreError, Result};
use std::hint::black_box;

/// The first argument that makes this program run one of them: MODE NAME TIMES.
pub(crate) const MODE: &str = "--run";

/// All of them.
pub(crate) const NAMES: &[&str] = &[
    "lock",
    "rlock",
    "event",
    "value",
    "queue_8_bytes",
    "queue_1000_bytes",
    "queue_integer",
    "encode_integer",
    "connection",
    "pipe",
    "pool_claim",
];

const P: Position = Position::NONE;

/// Runs the path `name`.
pub(crate) fn run(name: &str, times: &str) -> std::result::Result<(), String> {
    let times: u64 = times
        .parse()
        .map_err(|e| format!("{times} is no number: {e}"))?;
    run_path(name, times).map_err(|e| format!("{name}: {e}"))
}

fn run_path(name: &str, times: u64) -> Result<()> {
    Session::create()?;
    reap::install()?;
    let repeat = |operation: &mut dyn FnMut(u64) -> Result<()>| (0..times).try_for_each(operation);
    match name {
        "lock" => {
            let lock = Lock::create(P)?;
            repeat(&mut |_| {
                lock.acquire(Deadline::NEVER, P)?;
                lock.release()
            })
        }
        "rlock" => {
            let lock = RLock::create(P)?;
            repeat(&mut |_| {
                lock.acquire(Deadline::NEVER, P)?;
                lock.release()
            })
        }
        "event" => {
            let event = Event::create(P)?;
            repeat(&mut |_| {
                event.set()?;
                black_box(event.is_set()?);
                event.clear()
            })
        }
        "value" => {
            let block = Block::create(8, P)?;
            repeat(&mut |_| {
                let value: i32 = black_box(block.get(0)?);
                block.set(0, value.wrapping_add(1))
            })
        }
        "queue_8_bytes" => queue(times, &[7; 8]),
        "queue_1000_bytes" => queue(times, &[7; 1000]),
        "queue_integer" => {
            let queue = Queue::create(ObjectKind::Queue, 0, P)?;
            repeat(&mut |number| {
                let message = encode(number)?;
                queue.put(&message, &[], 0, Deadline::NEVER, P)?;
                let taken = queue.get(Deadline::NEVER, P, |item| wire::decode(item.payload))?;
                black_box(taken.map_err(nonsense)?);
                Ok(())
            })
        }
        "encode_integer" => repeat(&mut |number| {
            let message = encode(number)?;
            black_box(wire::decode(&message).map_err(nonsense)?);
            Ok(())
        }),
        "connection" => messages(times, &Connection::pair(true)?),
        "pipe" => messages(times, &Connection::pipe(true, P)?),
        "pool_claim" => {
            let claims = Claims::create(4, P)?;
            repeat(&mut |number| {
                claims.claim(1, number, number)?;
                black_box(claims.finish(1, number)?);
                Ok(())
            })
        }
        _ => Err(CoreError::Value("there is no such path".into())),
    }
}

fn messages(times: u64, (here, there): &(Connection, Connection)) -> Result<()> {
    let mut received = Vec::new();
    for _ in 0..times {
        here.send(&[7; 8], &[], P)?;
        there.recv(&mut received, None, P)?;
    }
    Ok(())
}

fn encode(number: u64) -> Result<Vec<u8>> {
    wire::encode(black_box(&Value::Int(number.cast_signed()))).map_err(nonsense)
}

fn nonsense(error: wire::WireError) -> CoreError {
    CoreError::Value(error.to_string())
}

fn queue(times: u64, item: &[u8]) -> Result<()> {
    let queue = Queue::create(ObjectKind::Queue, 0, P)?;
    for _ in 0..times {
        queue.put(item, &[], 0, Deadline::NEVER, P)?;
        black_box(queue.get(Deadline::NEVER, P, |item| item.payload.len())?);
    }
    Ok(())
}
