//! What the machine itself needs for the work that a script's operations come down to: the limits, by name.
//!
//! A table of what operations cost says little without what they must cost: a process has to be forked and waited for, a sleeper has to be
//! woken, bytes have to be copied, whoever asks for it. These limits are that and nothing else, with the kernel's calls and no code of this
//! project in between. They depend on the machine and on its day, so whoever compares with one measures it in the same run.
//!
//! Invariant: each measurement is a process of its own, which this program starts from its own file with [`MODE`] and the limit's name.
//! What one leaves behind (memory, descriptors, a warm cache) can't be seen by the next. It ends within about a second, or an alarm ends
//! it, and its children with it.
//!
//! The benchmark of scripts (`versus_python`) includes this room and those beside it by their path.

mod children;
mod handoffs;
mod locks;
mod memory;
pub(crate) mod processes;
mod servers;

use std::process::Command;
use std::time::{Duration, Instant};

/// Microseconds for one operation, or MiB; or why there is no figure.
pub(crate) type Figure = Result<f64, String>;

/// The program's first argument that makes it measure; the second is the limit's name.
const MODE: &str = "--machine";

/// How long a measurement goes on.
const SPAN: Duration = Duration::from_millis(300);

/// After how many seconds a measurement is taken to hang.
const PATIENCE: u32 = 20;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Fork,
    Exec,
    HundredForks,
    HundredExecs,
    FutexHandoff,
    FutexRoundTrip,
    SocketRoundTrip,
    PipePackets,
    SocketPackets,
    SocketMebibyte,
    SharedMebibyte,
    Mutex,
    MutexByFour,
    IncrementByFour,
    BarrierOfFour,
    ArraySum,
    ArrayCopy,
    ServerStart,
    Request,
    RequestByFour,
    TcpConnect,
    TcpRoundTrip,
    IdleChild,
}

/// What is known of a limit.
struct Entry {
    limit: Limit,
    name: &'static str,
    what: &'static str,
    run: fn() -> Figure,
}

const fn entry(limit: Limit, name: &'static str, run: fn() -> Figure, what: &'static str) -> Entry {
    Entry {
        limit,
        name,
        what,
        run,
    }
}

/// All limits, in the order in which they are declared and printed.
#[rustfmt::skip]
const TABLE: &[Entry] = &[
    entry(Limit::Fork, "fork", processes::fork_and_wait, "fork, _exit and wait of a small process"),
    entry(Limit::Exec, "exec", processes::exec_and_wait, "posix_spawn and wait of /bin/true"),
    entry(Limit::HundredForks, "hundred-forks", processes::hundred_forks, "100 forks, then 100 waits"),
    entry(Limit::HundredExecs, "hundred-execs", processes::hundred_execs, "100 posix_spawns of /bin/true, then 100 waits"),
    entry(Limit::FutexHandoff, "futex-handoff", handoffs::futex_one_way, "a futex hand-off: half a round trip"),
    entry(Limit::FutexRoundTrip, "futex-round-trip", handoffs::futex_round_trip, "two futex hand-offs, there and back"),
    entry(Limit::SocketRoundTrip, "socket-round-trip", handoffs::socket_round_trip, "8 B there and back over a socket pair"),
    entry(Limit::PipePackets, "pipe-packets", handoffs::pipe_packets, "16 B one way through a pipe"),
    entry(Limit::SocketPackets, "socket-packets", handoffs::socket_packets, "16 B one way over a socket pair"),
    entry(Limit::SocketMebibyte, "socket-mebibyte", handoffs::socket_mebibyte, "1 MiB one way over a socket pair"),
    entry(Limit::SharedMebibyte, "shared-mebibyte", memory::shared_mebibyte, "1 MiB through shared memory, copied in and out"),
    entry(Limit::Mutex, "mutex", locks::alone, "a futex mutex: acquire and release, alone"),
    entry(Limit::MutexByFour, "mutex-by-four", locks::by_four, "the same by four processes"),
    entry(Limit::IncrementByFour, "increment-by-four", locks::increment_by_four, "the same with an increment in between"),
    entry(Limit::BarrierOfFour, "barrier-of-four", locks::barrier_of_four, "a pthread barrier of four processes, one round"),
    entry(Limit::ArraySum, "array-sum", memory::array_sum, "a million shared i32, summed one by one"),
    entry(Limit::ArrayCopy, "array-copy", memory::array_copy, "a million shared i32, copied"),
    entry(Limit::ServerStart, "server-start", servers::start, "fork of a server on a unix socket, to its first byte"),
    entry(Limit::Request, "request", servers::request, "32 B to a server and back, one client"),
    entry(Limit::RequestByFour, "request-by-four", servers::request_by_four, "32 B to a server and back, four clients (epoll)"),
    entry(Limit::TcpConnect, "tcp-connect", servers::tcp_connect, "TCP on this host: connect, to the first byte"),
    entry(Limit::TcpRoundTrip, "tcp-round-trip", servers::tcp_round_trip, "TCP on this host: 32 B there and back"),
    entry(Limit::IdleChild, "idle-child", processes::idle_child, "MiB of a forked child that does nothing (PSS)"),
];

// The place of a limit's entry is the limit's own number.
const _: () = {
    let mut place = 0;
    while place < TABLE.len() {
        assert!(TABLE[place].limit as usize == place);
        place += 1;
    }
};

impl Limit {
    fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// One measurement, in a new process; all of it on one CPU if `pinned`.
    ///
    /// # Errors
    /// Where it can't be done: the last thing that the process said.
    pub(crate) fn measure(self, pinned: bool) -> Figure {
        let this = std::env::current_exe().map_err(|e| format!("where is this program? {e}"))?;
        let mut command = if pinned {
            let mut command = Command::new("taskset");
            command.args(["-c", "0"]).arg(this);
            command
        } else {
            Command::new(this)
        };
        let output = command
            .args([MODE, self.entry().name])
            .output()
            .map_err(|e| format!("can't run: {e}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        said.trim().parse().map_err(|_| {
            let error = String::from_utf8_lossy(&output.stderr);
            let last = error.lines().last().unwrap_or("no output");
            format!("failed: {last}")
        })
    }
}

/// The names of all limits, and what they are.
#[allow(
    dead_code,
    reason = "who includes this room knows which limits it wants"
)]
pub(crate) fn all() -> impl Iterator<Item = (Limit, &'static str, &'static str)> {
    TABLE
        .iter()
        .map(|entry| (entry.limit, entry.name, entry.what))
}

/// If this process was started for a measurement, does it, prints the figure, and is true.
pub(crate) fn was_asked() -> bool {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(MODE) {
        return false;
    }
    let name = args.next().unwrap_or_default();
    nix::unistd::alarm::set(PATIENCE);
    let figure = match TABLE.iter().find(|entry| entry.name == name) {
        Some(entry) => (entry.run)(),
        None => Err(format!("there is no limit {name}")),
    };
    match figure {
        Ok(figure) => println!("{figure}"),
        Err(error) => eprintln!("{error}"),
    }
    true
}

/// Microseconds for one operation, as a mean; the clock is looked at once in so many. The first so many don't count.
fn mean(batch: u32, mut operation: impl FnMut() -> Result<(), String>) -> Figure {
    for _ in 0..batch {
        operation()?;
    }
    let (begin, mut count) = (Instant::now(), 0.0);
    loop {
        for _ in 0..batch {
            operation()?;
        }
        count += f64::from(batch);
        let elapsed = begin.elapsed();
        if elapsed >= SPAN {
            return Ok(elapsed.as_secs_f64() * 1e6 / count);
        }
    }
}

/// The same of operations that say themselves how long they took, because more than that has to be done for each.
fn mean_of(mut operation: impl FnMut() -> Result<Duration, String>) -> Figure {
    operation()?;
    let (begin, mut count, mut sum) = (Instant::now(), 0.0, Duration::ZERO);
    while begin.elapsed() < SPAN {
        sum += operation()?;
        count += 1.0;
    }
    Ok(sum.as_secs_f64() * 1e6 / count)
}

/// What failed, as text.
fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}
