//! What the machine itself needs for the work that a script's operations come down to: `cargo bench -p mphost-core --bench machine`.
//!
//! `-- [--quick] [--one-cpu] [NAME…]` selects limits by parts of their names. Prints a table with the median of five measurements (one,
//! with `--quick`), each in a process of its own. Nothing here uses the crate: what core adds is the difference between these figures and
//! those of `primitives`, and what the interpreter adds is the rest up to those of `versus_python`, which measures these limits by turns
//! with scripts.
//!
//! Invariant: this process measures nothing itself, and has no thread but the first when it does so for another.

// By its path, so that the rooms that it declares are looked for beside it, as they are where another benchmark includes it.
#[path = "limits.rs"]
mod limits;

use limits::{Figure, Limit};
use std::process::ExitCode;

const HELP: &str = "\
What the machine itself needs, in microseconds an operation.

Usage: machine [--quick] [--one-cpu] [NAME…]

  NAME…      only limits whose name contains one of these
  --quick    each once, not five times
  --one-cpu  all processes of a measurement on one CPU";

fn main() -> ExitCode {
    if limits::was_asked() {
        return ExitCode::SUCCESS;
    }
    let (mut rounds, mut pinned, mut names) = (5, false, Vec::new());
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--quick" => rounds = 1,
            "--one-cpu" => pinned = true,
            // What cargo says to every benchmark.
            "--bench" => {}
            "--help" | "-h" => {
                println!("{HELP}");
                return ExitCode::SUCCESS;
            }
            option if option.starts_with('-') => {
                eprintln!("there is no option {option}: --help names them");
                return ExitCode::from(2);
            }
            name => names.push(name.to_owned()),
        }
    }
    let wanted: Vec<_> = limits::all()
        .filter(|(_, name, _)| names.is_empty() || names.iter().any(|part| name.contains(part)))
        .collect();
    if wanted.is_empty() {
        eprintln!("no limit has {} in its name", names.join(" or "));
        return ExitCode::from(2);
    }
    println!("| limit | µs | what |\n| --- | ---: | --- |");
    for (limit, name, what) in wanted {
        let said = median(limit, pinned, rounds).map_or_else(|error| error, show);
        println!("| {name} | {said} | {what} |");
    }
    ExitCode::SUCCESS
}

fn median(limit: Limit, pinned: bool, rounds: usize) -> Figure {
    let figures: Result<Vec<f64>, String> = (0..rounds).map(|_| limit.measure(pinned)).collect();
    let mut figures = figures?;
    figures.sort_by(f64::total_cmp);
    Ok(figures[figures.len() / 2])
}

/// Three digits that mean something, where there are so many.
fn show(figure: f64) -> String {
    let places = match figure {
        ..0.1 => 4,
        0.1..1.0 => 3,
        1.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{figure:.places$}")
}
