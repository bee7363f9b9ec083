//! How much memory a process has of its own: its proportional set size, where a page that n processes share counts as a share of 1/n
//! for each (man page proc_pid_smaps(5)).

use crate::limits::processes::proportional_set_size;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs the workload, measures the process whose pid it prints, or that and all its descendants, and lets it end: MiB.
///
/// # Errors
/// Where the program or /proc doesn't say what is needed.
pub(crate) fn measure(command: &mut Command, tree: bool) -> Result<f64, String> {
    let mut program = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("can't run: {e}"))?;
    let said = program.stdout.take().map(BufReader::new);
    let mut line = String::new();
    let read = said.map(|mut said| said.read_line(&mut line));
    let result = match (read, line.trim().parse()) {
        (Some(Ok(_)), Ok(pid)) => settled(pid, tree),
        _ => Err("failed: it printed no pid".to_owned()),
    };
    // The end of its input ends it.
    drop(program.stdin.take());
    program
        .wait()
        .map_err(|e| format!("can't wait for it: {e}"))?;
    result
}

/// The sum when it has stopped changing: processes that have just begun still touch pages.
fn settled(pid: i32, tree: bool) -> Result<f64, String> {
    let mut before = f64::NAN;
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(100));
        let now = total(pid, tree)?;
        if (now / before - 1.0).abs() < 0.005 {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn total(pid: i32, tree: bool) -> Result<f64, String> {
    let mut sum = proportional_set_size(pid)?;
    if tree {
        for child in children(pid)? {
            sum += total(child, true)?;
        }
    }
    Ok(sum)
}

fn children(pid: i32) -> Result<Vec<i32>, String> {
    let text = read(&format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(text
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect())
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("can't read {path}: {e}"))
}
