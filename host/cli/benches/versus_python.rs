//! The same workloads in mphost and in CPython's multiprocessing, run by turns on this machine, as ratios.
//!
//! `cargo bench --bench versus_python [NAME]`. Each workload is a pair of files in `workloads/` that do the same and print how many
//! microseconds one operation took. They run alternately, so that both sides see the same machine; the figures are medians. Absolute
//! times say little on a machine that others use too: the ratio is what counts.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What is run: a name for the table, the files' stem, and their arguments.
const WORKLOADS: &[(&str, &str, &[&str])] = &[
    ("start and join, fork", "start_join", &["fork"]),
    ("start and join, spawn", "start_join", &["spawn"]),
    ("start and join, forkserver", "start_join", &["forkserver"]),
    ("Queue, one to one, small integers", "queue_ints", &[]),
    ("Pipe, round trip", "pipe", &[]),
    ("Manager dict, set and get", "manager_dict", &[]),
    ("Pool(4).map, chunks of 1", "pool_map", &[]),
];

const ROUNDS: usize = 5;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/workloads");
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    println!("| workload | mphost, µs | CPython, µs | times as fast |");
    println!("| --- | ---: | ---: | ---: |");
    for (name, stem, args) in WORKLOADS {
        if !wanted.is_empty()
            && !wanted
                .iter()
                .any(|w| name.contains(w.as_str()) || stem.contains(w.as_str()))
        {
            continue;
        }
        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..ROUNDS {
            ours.push(measure(
                Command::new(env!("CARGO_BIN_EXE_mphost")).arg("run"),
                &folder.join(format!("{stem}.rhai")),
                args,
            ));
            // -S: no site packages, as in a bare installation.
            theirs.push(measure(
                Command::new("python3").arg("-S"),
                &folder.join(format!("{stem}.py")),
                args,
            ));
        }
        match (median(ours), median(theirs)) {
            (Ok(ours), Ok(theirs)) => println!(
                "| {name} | {ours:.2} | {theirs:.2} | {:.1} |",
                theirs / ours
            ),
            (Err(error), _) | (_, Err(error)) => println!("| {name} | {error} | | |"),
        }
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
