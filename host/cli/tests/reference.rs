//! The reference in the book: made from the registrations, with examples that run.
//!
//! `MPHOST_BLESS=1 cargo test -p mphost --test reference` writes the pages anew.

#![expect(clippy::unwrap_used, reason = "tests")]

use mphost_stdlib::api::EntryKind;
use mphost_stdlib::error::Kind;
use mphost_stdlib::reference::{self, examples, pages, raises};
use std::path::{Path, PathBuf};
use std::process::Command;

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src")
}

/// Compares a page with what is to be on it, or writes it.
fn settle(path: &Path, text: &str, stale: &mut Vec<String>) {
    if std::fs::read_to_string(path).ok().as_deref() == Some(text) {
        return;
    }
    if std::env::var_os("MPHOST_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    } else {
        stale.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
}

#[test]
fn the_books_pages_say_what_the_registrations_say() {
    let mut stale = Vec::new();
    let folder = book().join("reference");
    settle(&folder.join("index.md"), &pages::overview(), &mut stale);
    let mut known = vec!["index.md".to_owned()];
    for page in pages::pages() {
        let name = format!("{}.md", page.file);
        settle(&folder.join(&name), &page.markdown(), &mut stale);
        known.push(name);
    }
    assert!(
        stale.is_empty(),
        "{stale:?} are stale: MPHOST_BLESS=1 cargo test -p mphost --test reference"
    );
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "{name} is a page of nothing");
    }
    let summary = std::fs::read_to_string(book().join("SUMMARY.md")).unwrap();
    for line in pages::contents().lines() {
        assert!(summary.contains(line), "SUMMARY.md lacks the line {line}");
    }
}

#[test]
fn every_call_names_its_errors() {
    let untold: Vec<String> = reference::entries()
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::Function | EntryKind::Method))
        .filter(|entry| Kind::from_name(entry.signature.name()).is_none())
        .filter(|entry| !raises::is_told(entry))
        .map(reference::full_name)
        .collect();
    assert!(
        untold.is_empty(),
        "{} calls don't say what they raise, see stdlib/src/reference/errors.txt: {untold:#?}",
        untold.len()
    );
}

#[test]
fn every_example_runs() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("example.rhai");
    let mut scripts: Vec<(String, String)> = examples::all()
        .into_iter()
        .map(|example| (example.names.join(", "), example.code))
        .collect();
    for entry in reference::entries() {
        for block in entry.doc.split("```rhai\n").skip(1) {
            let code = block.split("```").next().unwrap().to_owned();
            scripts.push((reference::full_name(&entry), code));
        }
    }
    let readme = std::fs::read_to_string(book().join("../../README.md")).unwrap();
    for block in readme.split("```rhai\n").skip(1) {
        let code = block.split("```").next().unwrap().to_owned();
        scripts.push(("README.md".to_owned(), code));
    }
    assert!(scripts.len() > 150, "{}", scripts.len());
    let mut failed = Vec::new();
    for (name, code) in scripts {
        std::fs::write(&script, &code).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mphost"))
            .args(["run", "example.rhai"])
            .current_dir(folder.path())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        if !output.status.success() {
            let report = String::from_utf8_lossy(&output.stderr).into_owned();
            failed.push(format!("{name}:\n{code}\n{report}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n---\n"));
}
