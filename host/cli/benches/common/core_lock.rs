//! A Lock in core, without a script: acquire and release, alone or by several processes at once.
//!
//! A session belongs to a process, so each measurement runs in one of its own: the benchmark starts itself with
//! [`MODE`] and the number of processes, and that prints microseconds for both operations, and how often they were done.

use mphost_core::Result;
use mphost_core::barrier::Barrier;
use mphost_core::clock::{self, Deadline};
use mphost_core::permit::Lock;
use mphost_core::position::Position;
use mphost_core::process::{Job, Method};
use mphost_core::session::{Session, session};
use mphost_core::shared::Block;
use mphost_core::{process, reap, table};
use std::process::Command;

/// The benchmark's first argument that makes it do this; the second is how many processes contend.
pub(crate) const MODE: &str = "--core-lock";

const P: Position = Position::NONE;
/// How long the processes go on, in nanoseconds.
const SPAN: u64 = 500_000_000;
/// Operations between two looks at the clock.
const BATCH: u64 = 50;

/// If this process was started for that, does it and is true.
pub(crate) fn was_asked() -> bool {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() != Some(MODE) {
        return false;
    }
    let parties = args.next().and_then(|word| word.parse().ok()).unwrap_or(1);
    match measure(parties) {
        Ok((nanoseconds, count)) => println!("{} {count}", nanoseconds / 1000.0),
        Err(error) => eprintln!("{error}"),
    }
    true
}

/// The command that measures it among `parties` processes.
///
/// # Errors
/// Where this program's own file isn't known.
pub(crate) fn command(parties: usize) -> std::result::Result<Command, String> {
    let this = std::env::current_exe().map_err(|e| format!("where is this program? {e}"))?;
    let mut command = Command::new(this);
    command.arg(MODE).arg(parties.to_string());
    Ok(command)
}

/// Nanoseconds for acquire and release, and how many of them there were.
fn measure(parties: usize) -> Result<(f64, u64)> {
    Session::create()?;
    reap::install()?;
    let lock = Lock::create(P)?;
    let gate = Barrier::create(u32::try_from(parties).unwrap_or(u32::MAX), P)?;
    // When it began, when it ended and how often it was done, for each.
    let results = Block::create(parties * 24, P)?;
    let contend = |party: usize| -> Result<()> {
        gate.wait(Deadline::NEVER, P, || Ok(()))?;
        let start = clock::now();
        let mut count = 0_u64;
        while clock::now() - start < SPAN {
            for _ in 0..BATCH {
                lock.acquire(Deadline::NEVER, P)?;
                lock.release()?;
            }
            count += BATCH;
        }
        let end = clock::now();
        for (place, number) in [start, end, count].into_iter().enumerate() {
            results.set(party * 24 + place * 8, number)?;
        }
        Ok(())
    };
    let mut children = Vec::new();
    for party in 0..parties {
        let slot = table::allocate("contender", session().me(), false, 0)?;
        table::grant_all(slot)?;
        let job = Job {
            slot,
            bootstrap: &[],
            fds: &[],
            kept: 0,
        };
        process::start(Method::Fork, job, &mut |_| {
            i32::from(contend(party).is_err())
        })?;
        children.push(slot);
    }
    for slot in children {
        table::join(slot, Deadline::NEVER, P)?;
    }
    let (mut first, mut last, mut count) = (u64::MAX, 0_u64, 0_u64);
    for party in 0..parties {
        first = first.min(results.get(party * 24)?);
        last = last.max(results.get(party * 24 + 8)?);
        count += results.get::<u64>(party * 24 + 16)?;
    }
    Ok((
        last.saturating_sub(first) as f64 / count.max(1) as f64,
        count,
    ))
}
