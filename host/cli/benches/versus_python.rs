//! The same workloads in mphost and in CPython's multiprocessing, run by turns on this machine, as ratios.
//!
//! `cargo bench --bench versus_python [NAME]`. Each workload is a pair of files in `workloads/` that do the same and print how many
//! microseconds one operation took. They run alternately, so that both sides see the same machine; the figures are medians. Absolute
//! times say little on a machine that others use too: the ratio is what counts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A row of the table: its name, the files' stem, their arguments.
struct Workload {
    name: &'static str,
    stem: &'static str,
    args: &'static [&'static str],
    /// What mphost promises, in microseconds; none where only the ratio counts.
    aim: Option<f64>,
    /// What the machine itself needs, measured in C on two virtual CPUs (Xeon, KVM), in microseconds.
    machine: Option<f64>,
    /// Both programs on one CPU: where the kernel places the two sides of a hand-off changes its cost several times over.
    pinned: bool,
}

const fn row(
    name: &'static str,
    stem: &'static str,
    args: &'static [&'static str],
    aim: Option<f64>,
    machine: Option<f64>,
) -> Workload {
    Workload {
        name,
        stem,
        args,
        aim,
        machine,
        pinned: false,
    }
}

const fn pinned(row: Workload) -> Workload {
    Workload {
        pinned: true,
        ..row
    }
}

const WORKLOADS: &[Workload] = &[
    row(
        "start and join, fork",
        "start_join",
        &["fork"],
        Some(350.0),
        Some(126.0),
    ),
    row(
        "start and join, forkserver",
        "start_join",
        &["forkserver"],
        Some(600.0),
        Some(126.0),
    ),
    row(
        "start and join, spawn",
        "start_join",
        &["spawn"],
        Some(1200.0),
        Some(475.0),
    ),
    row(
        "100 processes, fork",
        "hundred",
        &["fork"],
        Some(25_000.0),
        Some(9620.0),
    ),
    row(
        "100 processes, spawn",
        "hundred",
        &["spawn"],
        Some(90_000.0),
        Some(25_000.0),
    ),
    row(
        "Queue, one to one, small integers",
        "queue_stream",
        &["int", "100000", "1", "1"],
        Some(0.83),
        Some(0.52),
    ),
    row(
        "Queue, one to one, 100 B texts",
        "queue_stream",
        &["text", "100000", "1", "1"],
        Some(1.11),
        Some(0.52),
    ),
    row(
        "Queue, four to four, small integers",
        "queue_stream",
        &["int", "100000", "4", "4"],
        Some(1.25),
        None,
    ),
    row(
        "Queue, 1 MiB blobs",
        "queue_stream",
        &["blob", "600", "1", "1"],
        Some(175.0),
        Some(69.0),
    ),
    row(
        "Queue, round trip",
        "queue_pingpong",
        &[],
        Some(13.0),
        Some(9.6),
    ),
    pinned(row(
        "Queue, round trip",
        "queue_pingpong",
        &[],
        Some(7.0),
        Some(2.6),
    )),
    row(
        "JoinableQueue, put, get, task_done",
        "joinable",
        &[],
        Some(1.43),
        None,
    ),
    row("Pipe, round trip", "pipe", &[], Some(14.0), Some(11.9)),
    pinned(row("Pipe, round trip", "pipe", &[], Some(7.0), Some(5.6))),
    row(
        "Pipe, one way, small integers",
        "pipe_oneway",
        &["int", "100000"],
        Some(1.43),
        Some(1.24),
    ),
    row(
        "Pipe, one way, 1 MiB blobs",
        "pipe_oneway",
        &["blob", "600"],
        Some(300.0),
        Some(220.0),
    ),
    row("two empty calls", "empty_calls", &[], None, None),
    row("Lock, acquire and release", "lock", &[], None, Some(0.028)),
    row("Event, hand-off", "event", &[], Some(8.0), Some(4.8)),
    row(
        "Condition, round trip",
        "condition",
        &[],
        Some(14.0),
        Some(9.6),
    ),
    row(
        "Barrier of four, a round",
        "barrier",
        &[],
        Some(16.7),
        Some(8.1),
    ),
    row(
        "Value += 1 under its lock, four processes",
        "value",
        &[],
        Some(0.67),
        None,
    ),
    row(
        "Array of a million, sum by index",
        "array_read",
        &["index"],
        Some(350_000.0),
        Some(752.0),
    ),
    row(
        "Array of a million, read as a slice",
        "array_read",
        &["slice"],
        Some(10_000.0),
        Some(332.0),
    ),
    row(
        "Manager, start and shutdown",
        "manager_start",
        &[],
        None,
        Some(1060.0),
    ),
    row(
        "Manager dict, set or get, one client",
        "manager_dict",
        &["1"],
        Some(16.7),
        Some(10.9),
    ),
    row(
        "Manager dict, set or get, four clients",
        "manager_dict",
        &["4"],
        Some(9.1),
        Some(5.3),
    ),
    row(
        "TCP manager, connect",
        "manager_tcp",
        &["connect"],
        Some(500.0),
        Some(43.0),
    ),
    row(
        "TCP manager, queue put or get",
        "manager_tcp",
        &["queue"],
        Some(25.0),
        Some(20.4),
    ),
    row(
        "Pool(4).map, chunks of 1",
        "pool",
        &["map"],
        Some(3.33),
        None,
    ),
    row("Pool(4).imap", "pool", &["imap"], Some(4.0), None),
    row(
        "Pool(4).apply_async and get",
        "pool",
        &["apply_async"],
        Some(5.0),
        None,
    ),
    row(
        "Pool(4).apply, round trip",
        "pool",
        &["apply"],
        Some(25.0),
        Some(11.9),
    ),
    row(
        "Pool(4), start and terminate",
        "pool",
        &["start"],
        Some(2000.0),
        None,
    ),
];

const ROUNDS: usize = 5;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/workloads");
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    println!("| workload | mphost, µs | CPython, µs | times as fast | aim, µs | machine, µs |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    program_start(&wanted);
    for workload in WORKLOADS {
        let Workload {
            name, stem, args, ..
        } = workload;
        if !is_wanted(&wanted, name, stem) {
            continue;
        }
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..ROUNDS {
            ours.push(measure(
                program(workload.pinned, env!("CARGO_BIN_EXE_mphost")).arg("run"),
                &folder.join(format!("{stem}.rhai")),
                args,
            ));
            // -S: no site packages, as in a bare installation.
            theirs.push(measure(
                program(workload.pinned, "python3").arg("-S"),
                &folder.join(format!("{stem}.py")),
                args,
            ));
        }
        let place = if workload.pinned { ", one CPU" } else { "" };
        print_row(
            &format!("{name}{place}"),
            median(ours),
            median(theirs),
            workload.aim,
            workload.machine,
        );
    }
}

/// A program that does nothing, from its start to its end, as the shell sees it.
fn program_start(wanted: &[String]) {
    let name = "an empty program";
    if !is_wanted(wanted, name, "program") {
        return;
    }
    let time = |program: &str, args: &[&str]| {
        let begin = Instant::now();
        match Command::new(program).args(args).status() {
            Ok(status) if status.success() => Ok(begin.elapsed().as_secs_f64() * 1e6),
            other => Err(format!("failed: {other:?}")),
        }
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS * 10 {
        ours.push(time(env!("CARGO_BIN_EXE_mphost"), &["-e", ""]));
        theirs.push(time("python3", &["-S", "-c", "pass"]));
    }
    print_row(
        name,
        median(ours),
        median(theirs),
        Some(2000.0),
        Some(475.0),
    );
}

fn is_wanted(wanted: &[String], name: &str, stem: &str) -> bool {
    wanted.is_empty()
        || wanted
            .iter()
            .any(|w| name.contains(w.as_str()) || stem.contains(w.as_str()))
}

fn program(pinned: bool, path: &str) -> Command {
    if pinned {
        let mut command = Command::new("taskset");
        command.args(["-c", "0", path]);
        command
    } else {
        Command::new(path)
    }
}

fn print_row(
    name: &str,
    ours: Result<f64, String>,
    theirs: Result<f64, String>,
    aim: Option<f64>,
    machine: Option<f64>,
) {
    let known = |figure: Option<f64>| figure.map_or_else(|| "—".to_owned(), |f| format!("{f}"));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => println!(
            "| {name} | {ours:.2} | {theirs:.2} | {:.1} | {} | {} |",
            theirs / ours,
            known(aim),
            known(machine)
        ),
        (Err(error), _) | (_, Err(error)) => println!("| {name} | {error} | | | | |"),
    }
}

fn measure(command: &mut Command, script: &PathBuf, args: &[&str]) -> Result<f64, String> {
    let output = command
        .arg(script)
        .args(args)
        .output()
        .map_err(|e| format!("can't run: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("failed: {}", error.lines().last().unwrap_or("no output"))
    })
}

fn median(figures: Vec<Result<f64, String>>) -> Result<f64, String> {
    let mut figures = figures.into_iter().collect::<Result<Vec<f64>, String>>()?;
    figures.sort_by(f64::total_cmp);
    Ok(figures[figures.len() / 2])
}
