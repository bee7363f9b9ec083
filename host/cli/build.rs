//! How the program is linked: so that little is left to do each time it is executed.
//!
//! Problem: a spawned process is this program, executed anew, and a position-independent program of this size has 34,000 addresses in its
//! read-only data that the dynamic linker fills in each time, on 150 pages that are copied for it; then there are libraries to find and
//! to map. So it is linked at a fixed address (the feature `pie` is for those who would rather have it placed at random), and with the
//! unwinder in it, which is a library of its own otherwise.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_OS") != "linux" || variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    if std::env::var_os("CARGO_FEATURE_PIE").is_none() {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    let linker = variable("RUSTC_LINKER");
    let compiler = match linker.is_empty() {
        false => linker.as_str(),
        true if variable("HOST") == variable("TARGET") => "cc",
        true => return,
    };
    if let Some(unwinder) = unwinder(compiler) {
        println!("cargo::rustc-link-arg-bins=-Wl,--whole-archive,{unwinder},--no-whole-archive");
    }
}

/// Where the compiler has the unwinder as an archive. What isn't found stays a library.
fn unwinder(compiler: &str) -> Option<String> {
    let answer = Command::new(compiler)
        .arg("-print-file-name=libgcc_eh.a")
        .output()
        .ok()?;
    let path = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    (!path.contains(',') && Path::new(&path).is_absolute() && Path::new(&path).is_file())
        .then_some(path)
}
