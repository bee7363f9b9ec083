//! What core's primitives cost without a script: `cargo bench -p mphost-core`.
//!
//! One operation alone, and where it matters against others who want the same. The figures bound what a script can reach:
//! what is missing between them and `versus_python` is the interpreter.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;

use common::{P, finish_well, long, start};
use criterion::{Criterion, criterion_group};
use mphost_core::event::Event;
use mphost_core::permit::{Lock, RLock, Semaphore};
use mphost_core::queue::Queue;
use mphost_core::reap;
use mphost_core::session::{ObjectKind, Session};
use mphost_core::shared::Block;
use mphost_core::value::Value;
use mphost_core::wire;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn alone(c: &mut Criterion) {
    let lock = Lock::create(P).unwrap();
    c.bench_function("Lock, acquire and release", |b| {
        b.iter(|| {
            lock.acquire(long(), P).unwrap();
            lock.release().unwrap();
        });
    });
    let rlock = RLock::create(P).unwrap();
    c.bench_function("RLock, acquire and release", |b| {
        b.iter(|| {
            rlock.acquire(long(), P).unwrap();
            rlock.release().unwrap();
        });
    });
    let semaphore = Semaphore::create(4, P).unwrap();
    c.bench_function("Semaphore, acquire and release", |b| {
        b.iter(|| {
            semaphore.acquire(long(), P).unwrap();
            semaphore.release().unwrap();
        });
    });
    let event = Event::create(P).unwrap();
    c.bench_function("Event, set and clear", |b| {
        b.iter(|| {
            event.set().unwrap();
            event.clear().unwrap();
        });
    });
    for (name, size) in [("8 B", 8), ("100 B", 100), ("1 MiB", 1 << 20)] {
        let queue = Queue::create(ObjectKind::Queue, 0, P).unwrap();
        let item = vec![7_u8; size];
        c.bench_function(&format!("Queue, put and get of {name}"), |b| {
            b.iter(|| {
                queue.put(&item, &[], 0, long(), P).unwrap();
                queue.get(long(), P, |item| item.payload.len()).unwrap()
            });
        });
    }
}

fn codec(c: &mut Criterion) {
    let text = Value::from("x".repeat(100).as_str());
    for (name, value) in [("an integer", Value::Int(7)), ("100 B of text", text)] {
        c.bench_function(&format!("encode {name}"), |b| {
            b.iter(|| wire::encode(black_box(&value)).unwrap());
        });
        let message = wire::encode(&value).unwrap();
        c.bench_function(&format!("decode {name}"), |b| {
            b.iter(|| wire::decode(black_box(&message)).unwrap());
        });
    }
}

/// The time that `rounds` operations take, shared out among `parties` processes.
fn together(parties: u64, rounds: u64, operation: impl Fn(u64)) -> Duration {
    let begin = Instant::now();
    let all: Vec<_> = (0..parties)
        .map(|_| start("contender", || operation(rounds.div_ceil(parties))))
        .collect();
    all.into_iter().for_each(finish_well);
    begin.elapsed()
}

fn contended(c: &mut Criterion) {
    let mut group = c.benchmark_group("four contend");
    group.sample_size(10);
    let lock = Lock::create(P).unwrap();
    let block = Block::create(8, P).unwrap();
    group.bench_function("Lock, acquire and release", |b| {
        b.iter_custom(|rounds| {
            // Starting processes is not what is measured: so many rounds that it doesn't count.
            let rounds = rounds * 1000;
            together(4, rounds, |n| {
                for _ in 0..n {
                    lock.acquire(long(), P).unwrap();
                    block.set(0, block.get::<u64>(0).unwrap() + 1).unwrap();
                    lock.release().unwrap();
                }
            }) / 1000
        });
    });
    group.finish();
}

fn handed_over(c: &mut Criterion) {
    let (there, back) = (
        Queue::create(ObjectKind::Queue, 0, P).unwrap(),
        Queue::create(ObjectKind::Queue, 0, P).unwrap(),
    );
    let echo = start("echo", || {
        while let Ok(true) = there.get(long(), P, |item| {
            back.put(item.payload, &[], 0, long(), P).unwrap();
            !item.payload.is_empty()
        }) {}
    });
    c.bench_function("Queue, round trip", |b| {
        b.iter(|| {
            there.put(b"x", &[], 0, long(), P).unwrap();
            back.get(long(), P, |_| ()).unwrap();
        });
    });
    there.put(b"", &[], 0, long(), P).unwrap();
    finish_well(echo);
}

criterion_group!(benches, alone, codec, contended, handed_over);

fn main() {
    Session::create().unwrap();
    reap::install().unwrap();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
