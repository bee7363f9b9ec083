//! All scripts: the examples and the conformance tests, each under its start methods, by `mphost test` itself.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace's folder")
}

fn scripts(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of scripts") {
        let path = entry.expect("its entries").path();
        if path.is_dir() {
            scripts(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rhai") {
            found.push(path);
        }
    }
}

fn assert_all_pass(paths: &[PathBuf]) {
    let output = Command::new(env!("CARGO_BIN_EXE_mphost"))
        // They sleep and wait more than they compute.
        .args(["test", "--jobs", "6"])
        .args(paths)
        .current_dir(root())
        .output()
        .expect("the test runner starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let failures: String = stdout
        .lines()
        .filter(|line| !line.starts_with("ok "))
        .map(|line| format!("{line}\n"))
        .collect();
    println!("{failures}");
    // Past the test harness, which shows nothing of a test that passed: how many there were.
    let count = stdout.lines().last().unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "mphost test: {count}");
    assert!(output.status.success(), "{failures}{stderr}");
}

#[test]
fn the_examples_show_what_they_say() {
    let mut found = Vec::new();
    let folder = root().join("scripts");
    scripts(&folder, &mut found);
    found.sort();
    assert_all_pass(&found);
}

#[test]
fn the_behaviours_of_the_map_are_there() {
    assert_all_pass(&[root().join("tests/conformance")]);
}
