//! The same workloads in mphost and in CPython's multiprocessing, and the least that the machine needs for them, by turns.
//!
//! `cargo bench --bench versus_python -- [--quick] [NAME…]`; `--help` has the rest. Each workload is a pair of files in `workloads/`
//! that do the same and print how many microseconds one operation took. They run alternately, so that both sides see the same machine;
//! the figures are medians. Absolute times say little on a machine that others use too: the ratio is what counts there.
//!
//! What the machine needs is measured in between as well, once a round, since a machine is another one on another day: a hand-off can't be
//! faster than the kernel wakes a sleeper, and that alone changes several times over. So the last column, mphost's figure by the machine's,
//! says how much is in the program's hands.
//!
//! CPython runs bare: isolated, without site packages, whose startup files are no part of it.

#[path = "../common/mod.rs"]
mod common;
mod figure;
// Core's own benchmark of the machine: such measurements need `unsafe`, which stands in core alone, and there is to be one of each.
#[path = "../../../core/benches/machine/limits.rs"]
mod limits;
mod memory;
mod rows;

use clap::Parser;
use common::{MPHOST, core_lock, figures, median, workloads};
use rows::{ROWS, Row, Work};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// Compares mphost with CPython's multiprocessing, by turns.
#[derive(Parser)]
struct Options {
    /// Only rows whose name, or whose workload's file, contains one of these.
    names: Vec<String>,
    /// Each workload once, not five times.
    #[arg(long)]
    quick: bool,
    /// Only mphost and the machine: no Python is needed, and it takes a third of the time.
    #[arg(long)]
    alone: bool,
    /// Name the rows and their workloads, and measure nothing.
    #[arg(long)]
    list: bool,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    if core_lock::was_asked() || limits::was_asked() {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    let rows: Vec<&Row> = ROWS.iter().filter(|row| options.wants(row)).collect();
    if rows.is_empty() {
        eprintln!(
            "no row has {} in its name: --list names them",
            options.names.join(" or ")
        );
        return ExitCode::from(2);
    }
    if options.list {
        for row in rows {
            println!("{:<44} {}", row.title(), row.stem());
        }
        return ExitCode::SUCCESS;
    }
    let python = match (options.alone, Python::find()) {
        (true, _) => None,
        (false, Ok(python)) => Some(python),
        (false, Err(error)) => {
            eprintln!("{error}; --alone does without");
            return ExitCode::from(2);
        }
    };
    compare(&options, python.as_ref(), &rows);
    ExitCode::SUCCESS
}

impl Options {
    fn wants(&self, row: &Row) -> bool {
        let title = row.title().to_lowercase();
        self.names.is_empty()
            || self.names.iter().any(|name| {
                let name = name.to_lowercase();
                title.contains(&name) || row.stem().contains(&name)
            })
    }
}

/// Measures the rows and prints the table.
fn compare(options: &Options, python: Option<&Python>, rows: &[&Row]) {
    let rounds = if options.quick { 1 } else { 5 };
    let version = python.map_or("—", |python| &python.version);
    println!(
        "| workload | mphost | CPython {version} | times as good | aim | met | machine | times the machine |\n\
         | --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |"
    );
    let (mut aims, mut met) = (0, 0);
    for row in rows {
        let Figures {
            ours,
            theirs,
            machine,
        } = measure(row, python, rounds);
        let show = |figure: f64| row.quantity.show(figure);
        let none = || "—".to_owned();
        let said = |figure: &Figure| {
            figure
                .as_ref()
                .map_or_else(Clone::clone, |figure| show(*figure))
        };
        let ratio = match (&ours, &theirs) {
            (Ok(ours), Some(Ok(theirs))) => figure::digits(theirs / ours),
            _ => none(),
        };
        let times = match (&ours, &machine) {
            (Ok(ours), Some(Ok(machine))) => figure::digits(ours / machine),
            _ => none(),
        };
        let verdict = match (row.aim, &ours) {
            (None, _) => "",
            (Some(aim), Ok(ours)) if *ours <= aim => "yes",
            _ => "no",
        };
        aims += usize::from(row.aim.is_some());
        met += usize::from(verdict == "yes");
        println!(
            "| {} | {} | {} | {ratio} | {} | {verdict} | {} | {times} |",
            row.title(),
            said(&ours),
            theirs.as_ref().map_or_else(none, said),
            row.aim.map_or_else(none, show),
            machine.as_ref().map_or_else(none, said)
        );
    }
    println!("\n{met} of {aims} aims met.");
}

type Figure = Result<f64, String>;

/// What a row's work took.
struct Figures {
    ours: Figure,
    theirs: Option<Figure>,
    machine: Option<Figure>,
}

/// The medians of all sides, by turns.
fn measure(row: &Row, python: Option<&Python>, rounds: usize) -> Figures {
    // A program that does nothing is over so soon that one more doesn't matter.
    let repeats = match row.work {
        Work::EmptyProgram => 10,
        _ => 1,
    };
    let (mut ours, mut theirs, mut machine) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        for _ in 0..repeats {
            ours.push(once(row, None));
            theirs.extend(python.map(|python| once(row, Some(python))));
        }
        machine.extend(row.machine.map(|limit| limit.measure(row.pinned)));
    }
    Figures {
        ours: middle(ours),
        theirs: python.map(|_| middle(theirs)),
        machine: row.machine.map(|_| middle(machine)),
    }
}

fn middle(figures: Vec<Figure>) -> Figure {
    let figures: Vec<f64> = figures.into_iter().collect::<Result<_, _>>()?;
    median(figures).ok_or_else(|| "nothing was measured".to_owned())
}

/// One figure, of mphost or of Python.
fn once(row: &Row, python: Option<&Python>) -> Figure {
    let script = |stem: &str, args: &[&str]| match python {
        Some(python) => {
            let mut command = program(row.pinned, &python.path);
            let script = workloads().join(stem).with_extension("py");
            command.args(BARE).arg(script).args(args);
            command
        }
        None => {
            let mut command = program(row.pinned, MPHOST);
            let script = workloads().join(stem).with_extension("rhai");
            command.arg("run").arg(script).args(args);
            command
        }
    };
    let first = |command: &mut Command| figures(command).map(|figures| figures[0]);
    match row.work {
        Work::Script(stem, args) => first(&mut script(stem, args)),
        Work::CoreLock(parties, stem, args) => match python {
            None => first(&mut core_lock::command(parties)?),
            Some(_) => first(&mut script(stem, args)),
        },
        Work::Memory { stem, args, tree } => memory::measure(&mut script(stem, args), tree),
        Work::EmptyProgram => match python {
            None => whole(Command::new(MPHOST).args(["-e", ""])),
            Some(python) => whole(Command::new(&python.path).args(BARE).args(["-c", "pass"])),
        },
    }
}

/// A program from its start to its end, as the shell sees it: microseconds.
fn whole(command: &mut Command) -> Figure {
    let begin = Instant::now();
    match command.status() {
        Ok(status) if status.success() => Ok(begin.elapsed().as_secs_f64() * 1e6),
        other => Err(format!("failed: {other:?}")),
    }
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

/// Isolated from the environment and the user's packages, and without site packages.
const BARE: [&str; 2] = ["-I", "-S"];

/// The Python to compare with.
struct Python {
    /// The interpreter itself: what is called python3 may be a script that looks for one.
    path: String,
    version: String,
}

impl Python {
    fn find() -> Result<Python, String> {
        let code = "import sys; print(sys.executable); print(sys.version.split()[0])";
        let output = Command::new("python3")
            .args(BARE)
            .args(["-c", code])
            .output()
            .map_err(|e| format!("there is no python3 to compare with: {e}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        match (lines.next(), lines.next()) {
            (Some(path), Some(version)) => Ok(Python {
                path: path.to_owned(),
                version: version.to_owned(),
            }),
            _ => Err("python3 doesn't say where it is".to_owned()),
        }
    }
}
