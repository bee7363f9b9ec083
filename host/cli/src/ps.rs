//! `mphost ps`: the live programs of this user, and what the processes of one of them do.
//!
//! A program is known by its session's memory, an unnamed file that each of its processes has open (memfd_create(2)): /proc says who
//! does. It is mapped read-only, so looking disturbs nobody.
//!
//! Invariants: only processes of this user are looked at; a program that ends meanwhile is left out.

use crate::exit;
use crate::ui::{self, Ui};
use clap::Args;
use mphost_core::session::Session;
use mphost_core::snapshot::Snapshot;
use mphost_stdlib::picture::{self, Picture};
use mphost_stdlib::traceback::Sources;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How the system names the memory of a session in /proc/PID/fd.
const MEMORY: &str = "/memfd:mphost (deleted)";

/// What `mphost ps` takes.
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    /// A process of the program that is to be shown: its main process or any other.
    #[arg(value_name = "PID")]
    pid: Option<i32>,
}

/// Lists the programs, or shows one. Returns the exit code.
pub(crate) fn run(args: &PsArgs) -> u8 {
    let ui = Ui::standard();
    match args.pid {
        None => list(&ui),
        Some(pid) => show(&ui, pid),
    }
    .unwrap_or_else(|message| {
        ui.error(message);
        exit::FAILURE
    })
}

/// A program that runs.
struct Program {
    snapshot: Snapshot,
    script: String,
    main: i32,
}

impl Program {
    /// The program whose memory this is, unless it is none or has ended.
    fn observe(memory: OwnedFd) -> Option<Program> {
        Session::observe(memory).ok()?;
        let snapshot = Snapshot::take();
        let main = snapshot.process(snapshot.main)?.info.pid;
        let script = mphost_core::files::name_of(1).unwrap_or_else(|| "<script>".into());
        Some(Program {
            snapshot,
            script,
            main,
        })
    }

    fn has(&self, pid: i32) -> bool {
        let mut processes = self.snapshot.processes.iter();
        processes.any(|process| process.info.pid == pid)
    }

    fn uptime(&self) -> String {
        let main = self.snapshot.process(self.snapshot.main);
        let since = main.map_or(self.snapshot.taken_at, |main| main.info.start_time);
        picture::duration(self.snapshot.taken_at.saturating_sub(since))
    }

    fn memory(&self) -> String {
        let processes = self.snapshot.processes.iter();
        let known = processes.filter_map(|p| picture::memory(p.info.pid));
        picture::size(known.sum())
    }
}

fn list(ui: &Ui) -> Result<u8, String> {
    let mut seen = Vec::new();
    let mut programs = Vec::new();
    for memory in processes()?.into_iter().flat_map(memories_of) {
        let Some(id) = std::fs::metadata(&memory).ok().map(|d| (d.dev(), d.ino())) else {
            continue;
        };
        if !seen.contains(&id) {
            seen.push(id);
            programs.extend(open(&memory).and_then(Program::observe).map(|program| {
                let count = program.snapshot.processes.len();
                let (uptime, memory) = (program.uptime(), program.memory());
                (program.main, uptime, count, memory, program.script)
            }));
        }
    }
    if programs.is_empty() {
        ui.print("no program of this user runs");
        return Ok(exit::SUCCESS);
    }
    programs.sort();
    let head = format!(
        "{:>7} {:>10} {:>9} {:>10}  SCRIPT",
        "PID", "UPTIME", "PROCESSES", "MEMORY"
    );
    ui.print(&ui::styled(ui::BOLD, head));
    for (main, uptime, count, memory, script) in programs {
        ui.print(&format!(
            "{main:>7} {uptime:>10} {count:>9} {memory:>10}  {script}"
        ));
    }
    Ok(exit::SUCCESS)
}

fn show(ui: &Ui, pid: i32) -> Result<u8, String> {
    let of = |process| {
        memories_of(process)
            .filter_map(|memory| open(&memory).and_then(Program::observe))
            .find(|program| program.has(pid))
    };
    // A child that has just been executed hasn't opened the memory yet: its parent has.
    let program = of(pid)
        .or_else(|| parent_of(pid).and_then(of))
        .ok_or_else(|| {
            format!("process {pid} is of no program of this user that runs: `mphost ps` lists them")
        })?;
    let count = match program.snapshot.processes.len() {
        1 => "1 process".to_owned(),
        n => format!("{n} processes"),
    };
    ui.print(&format!(
        "{}: {count}, up {}, {}",
        ui::styled(ui::BOLD, &program.script),
        program.uptime(),
        program.memory()
    ));
    let folder = std::fs::read_link(format!("/proc/{}/cwd", program.main)).unwrap_or_default();
    let sources = Sources::below(&folder);
    ui.print(
        Picture::new(&program.snapshot, sources)
            .program()
            .trim_end(),
    );
    Ok(exit::SUCCESS)
}

/// The ids of this user's processes.
fn processes() -> Result<Vec<i32>, String> {
    let entries = std::fs::read_dir("/proc").map_err(|e| format!("/proc can't be read: {e}"))?;
    let own = rustix::process::geteuid().as_raw();
    let mut pids: Vec<i32> = entries
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|data| data.uid() == own))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    Ok(pids)
}

/// Where a process has the memory of a session open, or something else of that name: it may have inherited what isn't its own.
fn memories_of(pid: i32) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| std::fs::read_link(path).is_ok_and(|target| target == Path::new(MEMORY)))
}

fn parent_of(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn open(memory: &Path) -> Option<OwnedFd> {
    File::open(memory).ok().map(OwnedFd::from)
}
