//! The rows of the table: which workload, what this project promises, what the machine itself needs.
//!
//! What the machine needs is measured, like the rest: a row names the limit ([`Limit`]) that its work comes down to. Where none
//! fits, or another row already says it, it names none.

use crate::figure::{Quantity, gigabytes, mebibytes, ms, ns, per_second, us};
use crate::limits::Limit;

/// What is measured.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// `workloads/STEM.rhai` and `.py` with these arguments.
    Script(&'static str, &'static [&'static str]),
    /// A Lock in core by so many processes, beside a script in Python with these arguments.
    CoreLock(usize, &'static str, &'static [&'static str]),
    /// A program that does nothing, as a whole.
    EmptyProgram,
    /// The memory of the process whose pid the workload prints, or of that and all its descendants.
    Memory {
        stem: &'static str,
        args: &'static [&'static str],
        tree: bool,
    },
}

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) quantity: Quantity,
    /// No more than this is what the project promises; none where only the ratio counts.
    pub(crate) aim: Option<f64>,
    /// The same work with nothing between it and the machine.
    pub(crate) machine: Option<Limit>,
    /// Both programs on one CPU: where the kernel places the two sides of a hand-off changes its cost several times over.
    pub(crate) pinned: bool,
}

impl Row {
    /// The name with where it runs.
    pub(crate) fn title(&self) -> String {
        let place = if self.pinned { ", one CPU" } else { "" };
        format!("{}{place}", self.name)
    }

    /// The stem of its files, which selects it too.
    pub(crate) fn stem(&self) -> &'static str {
        match self.work {
            Work::Script(stem, _) | Work::Memory { stem, .. } => stem,
            Work::CoreLock(..) => "core_lock",
            Work::EmptyProgram => "program",
        }
    }

    const fn aim(self, aim: f64) -> Row {
        Row {
            aim: Some(aim),
            ..self
        }
    }

    const fn machine(self, machine: Limit) -> Row {
        Row {
            machine: Some(machine),
            ..self
        }
    }

    const fn pinned(self) -> Row {
        Row {
            pinned: true,
            ..self
        }
    }
}

const fn row(name: &'static str, quantity: Quantity, work: Work) -> Row {
    Row {
        name,
        work,
        quantity,
        aim: None,
        machine: None,
        pinned: false,
    }
}

const fn time(name: &'static str, stem: &'static str, args: &'static [&'static str]) -> Row {
    row(name, Quantity::Time, Work::Script(stem, args))
}

const fn rate(name: &'static str, stem: &'static str, args: &'static [&'static str]) -> Row {
    row(name, Quantity::Rate, Work::Script(stem, args))
}

const fn bandwidth(name: &'static str, stem: &'static str, args: &'static [&'static str]) -> Row {
    row(name, Quantity::Bandwidth, Work::Script(stem, args))
}

const fn memory(
    name: &'static str,
    stem: &'static str,
    args: &'static [&'static str],
    tree: bool,
) -> Row {
    row(name, Quantity::Memory, Work::Memory { stem, args, tree })
}

/// All rows, in the order in which they are printed.
#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    time("start and join, fork", "start_join", &["fork"]).aim(ms(0.35)).machine(Limit::Fork),
    time("start and join, forkserver", "start_join", &["forkserver"]).aim(ms(0.6)).machine(Limit::Fork),
    time("start and join, spawn", "start_join", &["spawn"]).aim(ms(1.2)).machine(Limit::Exec),
    time("100 processes, fork", "hundred", &["fork"]).aim(ms(25.0)).machine(Limit::HundredForks),
    time("100 processes, spawn", "hundred", &["spawn"]).aim(ms(90.0)).machine(Limit::HundredExecs),
    row("an empty program", Quantity::Time, Work::EmptyProgram).aim(ms(2.0)).machine(Limit::Exec),

    rate("Queue, one to one, small integers", "queue_stream", &["int", "100000", "1", "1"]).aim(per_second(1.2e6)).machine(Limit::PipePackets),
    rate("Queue, one to one, small integers", "queue_stream", &["int", "100000", "1", "1"]).pinned(),
    rate("Queue, one to one, texts of 100 B", "queue_stream", &["text", "100000", "1", "1"]).aim(per_second(0.9e6)).machine(Limit::PipePackets),
    rate("Queue, four to four, small integers", "queue_stream", &["int", "100000", "4", "4"]).aim(per_second(0.8e6)).machine(Limit::PipePackets),
    bandwidth("Queue, blobs of 1 MiB", "queue_stream", &["1024", "600", "1", "1"]).aim(gigabytes(6.0)).machine(Limit::SharedMebibyte),
    bandwidth("Queue, blobs of 16 MiB", "queue_stream", &["16384", "48", "1", "1"]),
    time("Queue, round trip", "queue_pingpong", &[]).aim(us(13.0)).machine(Limit::FutexRoundTrip),
    time("Queue, round trip", "queue_pingpong", &[]).pinned().aim(us(7.0)).machine(Limit::FutexRoundTrip),
    rate("JoinableQueue: put, get, task_done, join", "joinable", &[]).aim(per_second(0.7e6)).machine(Limit::PipePackets),

    time("Pipe, round trip", "pipe", &[]).aim(us(14.0)).machine(Limit::SocketRoundTrip),
    time("Pipe, round trip", "pipe", &[]).pinned().aim(us(7.0)).machine(Limit::SocketRoundTrip),
    rate("Pipe, one way, small integers", "pipe_oneway", &["int", "100000"]).aim(per_second(0.7e6)).machine(Limit::SocketPackets),
    bandwidth("Pipe, one way, blobs of 64 KiB", "pipe_oneway", &["64", "8000"]),
    bandwidth("Pipe, one way, blobs of 1 MiB", "pipe_oneway", &["1024", "600"]).aim(gigabytes(3.5)).machine(Limit::SocketMebibyte),
    bandwidth("Pipe, one way, blobs of 16 MiB", "pipe_oneway", &["16384", "48"]),

    row("Lock in core: acquire and release", Quantity::Time, Work::CoreLock(1, "lock", &[])).aim(ns(35.0)).machine(Limit::Mutex),
    row("Lock in core, four contend", Quantity::Rate, Work::CoreLock(4, "lock_contended", &["4"])).aim(per_second(9e6)).machine(Limit::MutexByFour),
    time("Lock in a script: acquire and release", "lock", &[]).machine(Limit::Mutex),
    time("two empty calls in a script", "empty_calls", &[]),
    time("Event, hand-off", "event", &[]).aim(us(8.0)).machine(Limit::FutexHandoff),
    time("Event, hand-off", "event", &[]).pinned().machine(Limit::FutexHandoff),
    time("Condition, round trip", "condition", &[]).aim(us(14.0)).machine(Limit::FutexRoundTrip),
    time("Condition, round trip", "condition", &[]).pinned().machine(Limit::FutexRoundTrip),
    rate("Barrier of four, rounds", "barrier", &[]).aim(per_second(60e3)).machine(Limit::BarrierOfFour),

    rate("Value += 1 under its lock, four processes", "value", &[]).aim(per_second(1.5e6)).machine(Limit::IncrementByFour),
    time("Array of a million, sum by index", "array_read", &["index"]).aim(ms(350.0)).machine(Limit::ArraySum),
    time("Array of a million, read as a slice", "array_read", &["slice"]).aim(ms(10.0)).machine(Limit::ArrayCopy),

    time("Manager, start", "manager_start", &["start"]).aim(ms(1.0)).machine(Limit::ServerStart),
    time("Manager, start and shutdown", "manager_start", &["both"]).machine(Limit::ServerStart),
    rate("Manager dict, set, one client", "manager_dict", &["set", "1"]).aim(per_second(60e3)).machine(Limit::Request),
    rate("Manager dict, get, one client", "manager_dict", &["get", "1"]).aim(per_second(60e3)).machine(Limit::Request),
    rate("Manager dict, get, one client", "manager_dict", &["get", "1"]).pinned(),
    rate("Manager dict, set and get, four clients", "manager_dict", &["both", "4"]).aim(per_second(110e3)).machine(Limit::RequestByFour),
    time("TCP manager, connect", "manager_tcp", &["connect"]).aim(ms(0.5)).machine(Limit::TcpConnect),
    rate("TCP manager, queue put or get", "manager_tcp", &["queue"]).aim(per_second(40e3)).machine(Limit::TcpRoundTrip),
    rate("TCP manager, queue put or get", "manager_tcp", &["queue"]).pinned(),

    rate("Pool(4).map, chunks of 1", "pool", &["map"]).aim(per_second(300e3)),
    rate("Pool(4).map, chunks of 1", "pool", &["map"]).pinned(),
    rate("Pool(4).imap", "pool", &["imap"]).aim(per_second(250e3)),
    rate("Pool(4).apply_async and get", "pool", &["apply_async"]).aim(per_second(200e3)),
    time("Pool(4).apply, round trip", "pool", &["apply"]).aim(us(25.0)).machine(Limit::SocketRoundTrip),
    time("Pool(4).apply, round trip", "pool", &["apply"]).pinned().machine(Limit::SocketRoundTrip),
    time("Pool(4), start and terminate", "pool", &["start"]).aim(ms(2.0)),

    memory("an idle child, fork (PSS)", "memory_child", &[], false).aim(mebibytes(1.2)).machine(Limit::IdleChild),
    memory("Pool(8) and its parent, fork (PSS)", "memory_pool", &["fork"], true).aim(mebibytes(10.0)),
    memory("Pool(8) and its parent, spawn (PSS)", "memory_pool", &["spawn"], true),
];
