//! How cost grows: with the number of processes, of queued items, of contenders and clients, and with the size of items.
//!
//! `cargo bench --bench growth -- [--quick] [NAME…]`. Prints a table for each, with the cost of one of whatever there are many of, so that a
//! straight line shows as a column of equal numbers. Beside the time on the clock stands the processors' time, of all processes together: on a
//! machine that others use it says more. Each cell is the median of three programs (one, with `--quick`).

#[path = "../common/mod.rs"]
mod common;

use clap::Parser;
use common::{MPHOST, core_lock, figures, median, workloads};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::process::{Command, ExitCode};

/// Measures how cost grows.
#[derive(Parser)]
struct Options {
    /// Only these tables: processes, items, sizes, contenders, clients.
    names: Vec<String>,
    /// Everything once, and without the largest.
    #[arg(long)]
    quick: bool,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What fills a table.
type Fill = fn(&Measure);

/// The tables' names, and what fills them.
const TABLES: [(&str, Fill); 5] = [
    ("processes", processes),
    ("items", items),
    ("sizes", sizes),
    ("contenders", contenders),
    ("clients", clients),
];

fn main() -> ExitCode {
    if core_lock::was_asked() {
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    let known = TABLES.map(|(name, _)| name);
    if let Some(unknown) = options.names.iter().find(|n| !known.contains(&n.as_str())) {
        eprintln!("no table {unknown}: there are {}", known.join(", "));
        return ExitCode::from(2);
    }
    let measure = Measure::new(options.quick);
    for (name, fill) in TABLES {
        if options.names.is_empty() || options.names.iter().any(|n| n == name) {
            fill(&measure);
        }
    }
    ExitCode::SUCCESS
}

/// A cell, or why there is none.
type Cell = Result<f64, String>;

/// What a program took.
struct Cost {
    /// What it printed.
    figures: Vec<f64>,
    /// Microseconds of processor time, of it and all processes that it started and waited for, without its own start.
    processor: f64,
}

struct Measure {
    quick: bool,
    /// Microseconds of processor time of a program that does nothing.
    start: f64,
}

impl Measure {
    fn new(quick: bool) -> Measure {
        let mut measure = Measure { quick, start: 0.0 };
        let empty = || {
            let before = processor_time();
            let _ = Command::new(MPHOST).args(["-e", ""]).status();
            processor_time() - before
        };
        measure.start = median((0..9).map(|_| empty()).collect()).unwrap_or(0.0);
        measure
    }

    /// The numbers of a table's first column; the largest costs most of the time.
    fn steps(&self, all: &[usize]) -> Vec<usize> {
        let most = all.len() - usize::from(self.quick);
        all[..most].to_vec()
    }

    fn cost(&self, command: &mut Command) -> Result<Cost, String> {
        let before = processor_time();
        let figures = figures(command)?;
        Ok(Cost {
            figures,
            processor: (processor_time() - before - self.start).max(0.0),
        })
    }

    /// The medians of the cells that `read` makes of each of three runs.
    fn cells<const N: usize>(
        &self,
        command: impl Fn() -> Result<Command, String>,
        read: impl Fn(&Cost) -> [f64; N],
    ) -> Vec<Cell> {
        let rounds = if self.quick { 1 } else { 3 };
        let all: Result<Vec<[f64; N]>, String> = (0..rounds)
            .map(|_| Ok(read(&self.cost(&mut command()?)?)))
            .collect();
        (0..N)
            .map(|place| {
                let figures = all.clone()?.iter().map(|run| run[place]).collect();
                median(figures).ok_or_else(|| "nothing was measured".to_owned())
            })
            .collect()
    }

    /// [`Self::cells`] of a script.
    fn script<const N: usize>(
        &self,
        stem: &str,
        args: &[String],
        read: impl Fn(&Cost) -> [f64; N],
    ) -> Vec<Cell> {
        let command = || {
            let mut command = Command::new(MPHOST);
            command
                .arg("run")
                .arg(workloads().join(stem).with_extension("rhai"))
                .args(args);
            Ok(command)
        };
        self.cells(command, read)
    }
}

/// Microseconds of all programs that were run until now (man page getrusage(2): of those that ended and were waited for).
fn processor_time() -> f64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, |usage| {
        (usage.user_time() + usage.system_time()).num_microseconds() as f64
    })
}

fn head(title: &str, columns: &[&str]) {
    println!("\n{title}\n\n| {} |", columns.join(" | "));
    println!("|{}", " ---: |".repeat(columns.len()));
}

/// A line of a table.
fn line(first: usize, cells: impl IntoIterator<Item = Cell>) {
    print!("| {first} |");
    for cell in cells {
        match cell {
            Ok(figure) if figure >= 100.0 => print!(" {figure:.0} |"),
            Ok(figure) if figure >= 1.0 => print!(" {figure:.2} |"),
            Ok(figure) => print!(" {figure:.3} |"),
            Err(error) => print!(" {error} |"),
        }
    }
    println!();
}

fn processes(measure: &Measure) {
    let kinds = [
        ("empty", "Processes, started, then joined: µs each"),
        ("alive", "Processes, all alive at once: µs each"),
    ];
    for (kind, title) in kinds {
        head(
            title,
            &[
                "processes",
                "fork",
                "processors",
                "forkserver",
                "processors",
                "spawn",
                "processors",
            ],
        );
        for n in measure.steps(&[1, 10, 100, 1000]) {
            let cells = ["fork", "forkserver", "spawn"].map(|method| {
                let args = [method.to_owned(), n.to_string(), kind.to_owned()];
                // As many as the script starts.
                let all = if n < 100 { 100 / n * n } else { n };
                measure.script("growth_processes", &args, |cost| {
                    [cost.figures[0], cost.processor / all as f64]
                })
            });
            line(n, cells.into_iter().flatten());
        }
    }
}

fn items(measure: &Measure) {
    head(
        "Small integers in a Queue, all put, then all taken: µs of the processor each",
        &["items", "put", "get"],
    );
    for n in measure.steps(&[1, 10, 100, 1000, 10_000, 100_000, 1_000_000]) {
        let cells = measure.script("growth_items", &[n.to_string()], |cost| {
            [cost.figures[0], cost.figures.get(1).copied().unwrap_or(0.0)]
        });
        line(n, cells);
    }
}

fn sizes(measure: &Measure) {
    head(
        "Blobs of one size, through a Queue within a process, through a Pipe to another: processors' time",
        &[
            "bytes",
            "Queue, µs an item",
            "ns a byte",
            "Pipe, µs an item",
            "ns a byte",
        ],
    );
    for power in measure.steps(&[0, 4, 8, 12, 16, 20, 24, 28, 30]) {
        let bytes = 1_usize << power;
        // In the script, in its call, encoded, in the queue, decoded; and others want some, too.
        if available_memory().is_some_and(|available| available < 10 * bytes as u64) {
            line(bytes, vec![Err("too little memory is free".to_owned())]);
            continue;
        }
        // So many that there is something to measure, and no more than a second of copying.
        let count = ((1 << 28) / bytes).clamp(2, 50_000);
        let cells = ["queue", "pipe"].map(|kind| {
            let args = [kind.to_owned(), bytes.to_string(), count.to_string()];
            measure.script("growth_size", &args, |cost| {
                let each = match kind {
                    "queue" => cost.figures[0],
                    _ => cost.processor / count as f64,
                };
                [each, each * 1e3 / bytes as f64]
            })
        });
        line(bytes, cells.into_iter().flatten());
    }
}

fn contenders(measure: &Measure) {
    head(
        "Processes that contend for a Lock: ns for acquire and release, over all",
        &[
            "processes",
            "in core",
            "processors",
            "in a script",
            "processors",
        ],
    );
    for n in measure.steps(&[1, 2, 4, 8, 16, 32, 64]) {
        let core = measure.cells(
            || core_lock::command(n),
            |cost| {
                let count = cost.figures.get(1).copied().unwrap_or(1.0);
                [cost.figures[0] * 1e3, cost.processor * 1e3 / count]
            },
        );
        let script = measure.script("growth_contenders", &[n.to_string()], |cost| {
            [cost.figures[0] * 1e3, cost.processor * 1e3 / 512_000.0]
        });
        line(n, core.into_iter().chain(script));
    }
}

fn clients(measure: &Measure) {
    head(
        "Clients of a Manager, each a process: µs for a set or a get, over all",
        &["clients", "set or get", "the server's processor"],
    );
    for n in measure.steps(&[1, 10, 100, 1000]) {
        let cells = measure.script("growth_clients", &[n.to_string()], |cost| {
            [cost.figures[0], cost.figures.get(1).copied().unwrap_or(0.0)]
        });
        line(n, cells);
    }
}

/// Bytes that programs can still have (man page proc_meminfo(5)).
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
