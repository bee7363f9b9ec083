//! Counts the instructions of hot paths and compares them with the counts on record: a guard against slow creep.
//!
//! Problem: a path that takes 300 ns can't be watched by a clock on a machine that others use too. What valgrind counts hardly depends on the
//! machine, so a count that has grown by a tenth means that somebody made the path longer.
//!
//! `mphost-counts` compares, `mphost-counts --accept` rewrites the record (`counts.txt`), names select rows in both. It needs valgrind, and
//! `target/release/mphost` as it is built to be used: the paths of scripts are counted in that very program, those of core in this one,
//! whose profile is the same.
//!
//! How one operation is counted: the program does it N times and 2 N times; the difference of both runs over N is the count. That cancels
//! all that starts and ends a program, and the rest is the same with every run. Every path runs within one process and never waits, so nothing
//! depends on who runs when. Processors differ in what they can, and the C library and Rust crates choose code by it: valgrind shows them a
//! processor of its own making, and the C library's choice is bound on top of that (`GLIBC_TUNABLES`).
//!
//! Why not gungraun (iai-callgrind): it compares with the last run on the same machine, not with a record that is part of the
//! repository; it needs a runner of the same version to be installed; and as a bench it would build all that the tests depend on once
//! more, with link-time optimisation.

mod core_paths;
mod count;
mod record;

use count::{Counter, Path};
use record::Record;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The paths of scripts: the script's stem in `scripts`, which is the row's name.
const SCRIPTS: &[&str] = &[
    "empty_call",
    "function_call",
    "lock",
    "queue",
    "value_add",
    "array_index",
    "connection",
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // What valgrind runs: one of core's paths, so many times.
    if let [mode, name, times] = args.as_slice()
        && mode == core_paths::MODE
    {
        return match core_paths::run(name, times) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
    }
    match guard(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("mphost-counts: {error}");
    ExitCode::from(2)
}

/// All rows, in the record's order.
fn paths() -> Vec<Path> {
    let core = core_paths::NAMES.iter().map(|name| Path::Core(name));
    let scripts = SCRIPTS.iter().map(|name| Path::Script(name));
    core.chain(scripts).chain([Path::Start]).collect()
}

/// Counts what is wanted; true if it is as on record, or accepted.
fn guard(args: &[String]) -> Result<bool, String> {
    let accept = args.iter().any(|arg| arg == "--accept");
    let wanted: Vec<&String> = args.iter().filter(|arg| *arg != "--accept").collect();
    let all = paths();
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !all.iter().any(|path| path.name() == ***name))
    {
        let names: Vec<String> = all.iter().map(Path::name).collect();
        return Err(format!(
            "there is no row {unknown}; the rows are {}",
            names.join(", ")
        ));
    }
    let mut record = Record::load()?;
    if !cfg!(target_arch = "x86_64") {
        // Counts of another instruction set are other counts.
        println!("the counts on record are those of x86-64: nothing to compare here");
        return Ok(true);
    }
    let chosen: Vec<Path> = all
        .into_iter()
        .filter(|path| wanted.is_empty() || wanted.iter().any(|name| **name == path.name()))
        .collect();
    let counts = count_all(&chosen)?;

    let mut good = true;
    for (path, count) in chosen.iter().zip(counts) {
        let verdict = record.judge(&path.name(), count);
        if accept {
            record.set(&path.name(), count);
        } else {
            good &= verdict.is_good();
        }
        println!("{}", verdict.line(&path.name(), count));
    }
    if accept {
        record.save()?;
        println!("\nwritten to {}", record::FILE);
    } else if !good {
        println!("{}", record.how_to_accept());
    }
    Ok(good)
}

/// Every path's count, in order; as many at a time as there are processors.
fn count_all(paths: &[Path]) -> Result<Vec<u64>, String> {
    let counter = Counter::new()?;
    let next = AtomicUsize::new(0);
    let counts: Mutex<Vec<(usize, Result<u64, String>)>> = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((index, path)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    paths.get(index).map(|path| (index, path))
                } {
                    let count = counter.count(path);
                    if let Ok(mut counts) = counts.lock() {
                        counts.push((index, count));
                    }
                }
            });
        }
    });
    let mut counts = counts
        .into_inner()
        .map_err(|_| "a thread that counts has panicked".to_owned())?;
    counts.sort_by_key(|(index, _)| *index);
    counts.into_iter().map(|(_, count)| count).collect()
}
