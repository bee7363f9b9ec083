//! What the benchmarks share: running a workload and reading the figures that it prints.

pub(crate) mod core_lock;

use std::path::PathBuf;
use std::process::Command;

/// The program that is measured.
pub(crate) const MPHOST: &str = env!("CARGO_BIN_EXE_mphost");

/// The folder with the workloads' scripts.
pub(crate) fn workloads() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/workloads")
}

/// Runs a workload to its end and gives the numbers that it printed, one at least.
///
/// # Errors
/// Where it can't be run, or prints anything else: the last thing that it said.
pub(crate) fn figures(command: &mut Command) -> Result<Vec<f64>, String> {
    let output = command.output().map_err(|e| format!("can't run: {e}"))?;
    let numbers: Option<Vec<f64>> = String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .map(|word| word.parse().ok())
        .collect();
    match numbers {
        Some(numbers) if output.status.success() && !numbers.is_empty() => Ok(numbers),
        _ => {
            let error = String::from_utf8_lossy(&output.stderr);
            let last = error.lines().last().unwrap_or("no output");
            Err(format!("failed: {last}"))
        }
    }
}

/// The one in the middle; `None` of none.
pub(crate) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}
