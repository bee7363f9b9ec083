//! One path's count: runs of a program under valgrind, and what they are subtracted from.
//!
//! Invariant: a run's environment is this module's, not the caller's, so that a count doesn't depend on who asks for it.

use crate::core_paths;
use std::path::PathBuf;
use std::process::Command;

/// How often a path is taken in the shorter of both runs.
const TIMES: u64 = 2000;

/// Where valgrind is looked for: the environment's `PATH` doesn't reach the programs that it runs.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A row of the record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Path {
    /// An operation of core, without a script.
    Core(&'static str),
    /// An operation of a script, in `scripts/NAME.rhai`.
    Script(&'static str),
    /// A whole program that does nothing: `mphost -e ''`.
    Start,
}

impl Path {
    /// The row's name.
    pub(crate) fn name(&self) -> String {
        match self {
            Path::Core(name) => format!("core.{name}"),
            Path::Script(name) => format!("script.{name}"),
            Path::Start => "program.empty".to_owned(),
        }
    }
}

/// Knows the programs whose instructions are counted.
pub(crate) struct Counter {
    mphost: PathBuf,
    this: PathBuf,
    scripts: PathBuf,
}

impl Counter {
    /// The programs beside this one.
    ///
    /// # Errors
    /// Where mphost or valgrind isn't there.
    pub(crate) fn new() -> Result<Self, String> {
        let this = std::env::current_exe().map_err(|e| format!("where is this program? {e}"))?;
        let mphost = this.with_file_name("mphost");
        if !mphost.exists() {
            return Err(format!(
                "there is no {}: build it first, with the same profile (cargo build --release)",
                mphost.display()
            ));
        }
        let found = Command::new("valgrind").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            return Err("there is no valgrind here: install it (apt-get install valgrind)".into());
        }
        let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts");
        Ok(Self {
            mphost,
            this,
            scripts,
        })
    }

    /// How many instructions the path takes, once.
    pub(crate) fn count(&self, path: &Path) -> Result<u64, String> {
        let total = |times: u64| -> Result<u64, String> {
            let mut command = valgrind();
            match path {
                Path::Core(name) => command.arg(&self.this).args([core_paths::MODE, name]),
                Path::Script(name) => {
                    let script = self.scripts.join(name).with_extension("rhai");
                    command.arg(&self.mphost).arg("run").arg(script)
                }
                Path::Start => return run(command.arg(&self.mphost).args(["-e", ""])),
            };
            run(command.arg(times.to_string()))
        };
        if matches!(path, Path::Start) {
            return total(1);
        }
        let (once, twice) = (total(TIMES)?, total(2 * TIMES)?);
        Ok(twice.saturating_sub(once) / TIMES)
    }
}

fn valgrind() -> Command {
    let mut command = Command::new("valgrind");
    command
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .env(
            "GLIBC_TUNABLES",
            "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-ERMS,-FSRM",
        )
        .current_dir("/")
        // Without the caches' simulation it does nothing but count.
        .args(["--tool=cachegrind", "--cache-sim=no"])
        .arg("--cachegrind-out-file=/dev/null");
    command
}

/// The instructions of all of the program.
fn run(command: &mut Command) -> Result<u64, String> {
    let output = command
        .output()
        .map_err(|e| format!("can't run valgrind: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{command:?} failed:\n{text}"));
    }
    total_of(&text).ok_or_else(|| format!("valgrind gave no count:\n{text}"))
}

/// The number in the line `==PID== I   refs:      1,234,567`.
fn total_of(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.contains(" I ") && line.contains("refs:"))?;
    let (_, number) = line.split_once("refs:")?;
    number.trim().replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valgrinds_total_is_found() {
        let text = "==7== Cachegrind, a profiler\n==7== \n==7== I   refs:      4,012,345\n";
        assert_eq!(total_of(text), Some(4_012_345));
        assert_eq!(total_of("==7== nothing of that kind"), None);
    }
}
