//! `--update`: writing what a script does into it as its expectations.
//!
//! A script is run several times under each of its start methods. If its present expectations fit all the runs it
//! is left alone, so that patterns chosen by hand stay. Otherwise the `//>` lines are written anew
//! ([`super::generalise`]), with `exit` and `order` where needed; `order: any` is never taken back, since
//! runs that happened to agree prove no order. `//!` lines that still come stay, others go; a script that fails and has
//! none gets its last line of standard error.
//!
//! Invariants: a script that timed out, left something behind or ended in different ways isn't touched; no line but
//! the expectations' own changes; the file is replaced as a whole or not at all, and its permissions stay.

use std::io::Write;
use std::path::Path;

use super::discovery::Script;
use super::execute::{Ended, Outcome};
use super::expectations::{Expectations, Order, Place};
use super::generalise::generalise;
use super::matching::Verdict;
use super::slots::{Context, Run};
use super::source::scan;
use super::verdict::{Failure, compare, judge_end, lines};

/// What became of a script.
#[derive(Debug)]
pub(crate) enum Updated {
    /// Its expectations fitted.
    Unchanged,
    /// New text for it, and what was generalised.
    Rewritten {
        /// The whole script.
        text: String,
        /// For the user.
        notes: Vec<String>,
    },
}

/// Makes new expectations for `script` from its runs.
///
/// # Errors
///
/// Why there can be none.
pub(crate) fn update(
    script: &Script,
    expected: &Expectations,
    outcomes: &[Outcome],
    context: Context,
) -> Result<Updated, Vec<Failure>> {
    let code = |outcome: &Outcome| match outcome.ended {
        Ended::With(code) => Some(code),
        Ended::TimedOut | Ended::Cancelled => None,
    };
    let Some(first) = outcomes.first() else {
        return Ok(Updated::Unchanged);
    };
    for outcome in outcomes {
        let failures = judge_end(code(outcome).unwrap_or_default(), outcome);
        if !failures.is_empty() {
            return Err(failures);
        }
    }
    let exit = code(first).unwrap_or_default();
    if let Some(other) = outcomes.iter().filter_map(code).find(|code| *code != exit) {
        return Err(vec![Failure::new(format!(
            "not updated: the exit code was {exit} in one run and {other} in another"
        ))]);
    }
    let fits = |outcome: &Outcome| {
        compare(expected, &lines(&outcome.stdout), &lines(&outcome.stderr)) == Verdict::Match
    };
    if exit == expected.exit && outcomes.iter().all(fits) {
        return Ok(Updated::Unchanged);
    }
    let folder = script
        .path
        .parent()
        .unwrap_or(&script.path)
        .to_string_lossy()
        .into_owned();
    let run = |outcome: &Outcome, text: Vec<&str>| Run {
        lines: text.into_iter().map(str::to_owned).collect(),
        pid: outcome.pid,
        last_pid: outcome.last_pid,
        paths: vec![
            outcome.folder.to_string_lossy().into_owned(),
            folder.clone(),
        ],
    };
    let refused = |reason: String| vec![Failure::new(format!("not updated: {reason}"))];
    let runs: Vec<Run> = outcomes
        .iter()
        .map(|outcome| run(outcome, lines(&outcome.stdout)))
        .collect();
    let found = generalise(&runs, expected.order == Order::Any, context).map_err(refused)?;
    let mut notes = found.notes;

    let appears = |index: usize| {
        outcomes.iter().all(|outcome| {
            lines(&outcome.stderr)
                .iter()
                .any(|line| expected.stderr[index].matches(line))
        })
    };
    let kept: Vec<usize> = (0..expected.stderr.len())
        .filter(|&index| appears(index))
        .collect();
    let mut stderr: Vec<String> = kept
        .iter()
        .map(|&index| expected.stderr[index].source().to_owned())
        .collect();
    if kept.len() < expected.stderr.len() {
        notes.push(format!(
            "{} lines of standard error no longer come: removed",
            expected.stderr.len() - kept.len()
        ));
    }
    if stderr.is_empty() && exit != 0 {
        let last: Vec<Run> = outcomes
            .iter()
            .map(|outcome| {
                run(
                    outcome,
                    lines(outcome.stderr.trim_end())
                        .into_iter()
                        .next_back()
                        .into_iter()
                        .collect(),
                )
            })
            .collect();
        if let Ok(found) = generalise(&last, false, context) {
            stderr.extend(
                found
                    .lines
                    .into_iter()
                    .map(|(text, _)| text)
                    .filter(|text| !text.is_empty() && text != "[..]"),
            );
        }
    }
    let text = rewrite(
        &script.text,
        expected,
        exit,
        found.order,
        &found.lines,
        &stderr,
    );
    Ok(Updated::Rewritten { text, notes })
}

/// The script's text with other expectations.
fn rewrite(
    text: &str,
    expected: &Expectations,
    exit: i32,
    order: Order,
    stdout: &[(String, bool)],
    stderr: &[String],
) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut old: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut block = Vec::new();
    let order = match order {
        Order::Strict => "strict",
        Order::Any => "any",
    };
    for (name, value, default) in [
        ("exit", exit.to_string(), "0"),
        ("order", order.to_owned(), "strict"),
    ] {
        match expected.directives.iter().find(|place| place.name == name) {
            Some(place) => set_directive(&mut old[place.line], place, &value),
            None if value != default => block.push(format!("//# {name}: {value}")),
            None => {}
        }
    }
    let mark = |(text, repeated): &(String, bool)| {
        format!("//>{} {text}", if *repeated { "*" } else { "" })
            .trim_end()
            .to_owned()
    };
    block.extend(stdout.iter().map(mark));
    block.extend(stderr.iter().map(|text| format!("//! {text}")));

    let last_code_line = scan(text).last_code_line;
    let gone = |line: usize| {
        expected.stdout_lines.contains(&line) || expected.stderr_lines.contains(&line)
    };
    let behind_code = |line: usize| last_code_line.is_none_or(|last| line > last);
    let place = (0..old.len()).find(|&line| gone(line) && behind_code(line));
    let mut new: Vec<String> = Vec::new();
    let mut block = Some(block);
    for (line, text) in old.into_iter().enumerate() {
        if place == Some(line) {
            new.extend(block.take().unwrap_or_default());
        }
        if !gone(line) {
            new.push(text);
        }
    }
    if let Some(block) = block.filter(|block| !block.is_empty()) {
        while new.last().is_some_and(|line| line.trim().is_empty()) {
            new.pop();
        }
        if new
            .last()
            .is_some_and(|line| !line.trim_start().starts_with("//# "))
        {
            new.push(String::new());
        }
        new.extend(block);
    }
    new.iter().map(|line| format!("{line}{newline}")).collect()
}

/// Changes a directive's value in its line, which may hold others.
fn set_directive(line: &mut String, place: &Place, value: &str) {
    let Some(name) = line.find(&format!("{}:", place.name)) else {
        return;
    };
    let behind = name + place.name.len() + 1;
    if let Some(found) = line[behind..].find(&place.value) {
        line.replace_range(behind + found..behind + found + place.value.len(), value);
    }
}

/// Replaces a file's text at once.
///
/// # Errors
///
/// The folder can't be written to, or the disk is full; the file is as it was.
pub(crate) fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".mphost-update-")
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file()
        .set_permissions(std::fs::metadata(path)?.permissions())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::expectations::parse;
    use super::*;

    fn rewritten(text: &str, exit: i32, order: Order, stdout: &[&str], stderr: &[&str]) -> String {
        let expected = parse(&scan(text)).unwrap();
        let stdout: Vec<(String, bool)> = stdout
            .iter()
            .map(|line| match line.strip_prefix("* ") {
                Some(rest) => (rest.to_owned(), true),
                None => ((*line).to_owned(), false),
            })
            .collect();
        let stderr: Vec<String> = stderr.iter().map(|line| (*line).to_owned()).collect();
        rewrite(text, &expected, exit, order, &stdout, &stderr)
    }

    #[test]
    fn the_first_expectations_come_behind_the_code() {
        assert_eq!(
            rewritten("print(1);", 0, Order::Strict, &["1", ""], &[]),
            "print(1);\n\n//> 1\n//>\n"
        );
        assert_eq!(
            rewritten(
                "print(1);\n\n//# timeout: 3\n\n",
                1,
                Order::Any,
                &["1", "* w"],
                &["E: x"]
            ),
            "print(1);\n\n//# timeout: 3\n//# exit: 1\n//# order: any\n//> 1\n//>* w\n//! E: x\n"
        );
    }

    #[test]
    fn old_expectations_are_replaced_where_they_stood() {
        let text = "//! docs\n//> early\nf();\n//# exit: 1    //# timeout: 11\n//> a\n// note\n//> b\n//! E\n//# order: strict\n";
        assert_eq!(
            rewritten(text, 0, Order::Any, &["x"], &["E"]),
            "//! docs\nf();\n//# exit: 0    //# timeout: 11\n//> x\n//! E\n// note\n//# order: any\n"
        );
        assert_eq!(
            rewritten("f();\n//> a\n", 0, Order::Strict, &[], &[]),
            "f();\n"
        );
    }

    #[test]
    fn line_ends_stay() {
        assert_eq!(
            rewritten("f();\r\n//> a\r\n", 0, Order::Strict, &["b"], &[]),
            "f();\r\n//> b\r\n"
        );
    }

    #[test]
    fn permissions_stay() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rhai");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o751)).unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o751
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
