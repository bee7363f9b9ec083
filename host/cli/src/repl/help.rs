//! `:help`: what the registrations say of a name.

use super::helper::COMMANDS;
use crate::ui::{self, styled};
use mphost_stdlib::api::{Entry, EntryKind, suggest};
use mphost_stdlib::reference::{examples, full_name, raises, summary};
use std::fmt::Write;

/// What is to be said of `name`; of the prompt itself where it is empty.
pub(super) fn help(entries: &[Entry], name: &str) -> String {
    let name = name.trim().trim_end_matches("()");
    if name.is_empty() {
        return commands();
    }
    let plain = name.strip_prefix("mp::").unwrap_or(name);
    let exact: Vec<&Entry> = entries
        .iter()
        .filter(|entry| matches!(full_name(entry).as_str(), full if full == name || full == plain))
        .collect();
    let found = match exact.is_empty() {
        false => exact,
        true => entries
            .iter()
            .filter(|entry| entry.signature.name == name)
            .collect(),
    };
    let mut text = String::new();
    for entry in &found {
        describe(&mut text, entry);
    }
    let members: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.class == Some(plain) || entry.module == name)
        .collect();
    if !members.is_empty() {
        let _ = writeln!(text, "{}", styled(ui::BOLD, format!("In {name}:")));
        for entry in members {
            let _ = writeln!(text, "  {:<50} {}", entry.signature.text, summary(entry));
        }
    }
    if text.is_empty() {
        let names: Vec<String> = entries
            .iter()
            .map(full_name)
            .chain(entries.iter().map(|entry| entry.signature.name.to_owned()))
            .collect();
        let near = suggest(name, names.iter().map(String::as_str));
        let _ = writeln!(text, "nothing is known of '{name}'{near}");
    }
    text
}

fn describe(text: &mut String, entry: &Entry) {
    let head = match (entry.kind, entry.class) {
        (EntryKind::Method, Some(class)) => format!("{class}.{}", entry.signature.text),
        (EntryKind::Property, _) => full_name(entry),
        _ if entry.module.is_empty() => entry.signature.text.to_owned(),
        _ => format!("{}::{}", entry.module, entry.signature.text),
    };
    let _ = writeln!(text, "{}", styled(ui::BOLD, head));
    let prose = entry.doc.split("```rhai").next().unwrap_or_default();
    for line in prose.trim().lines() {
        fill(text, line);
    }
    let of_class = entry.class.map(raises::of_class).unwrap_or_default();
    for line in raises::of(entry).into_iter().chain(of_class) {
        fill(text, &format!("Raises {line}"));
    }
    if let Some(example) = examples::of(entry, &examples::all()) {
        text.push('\n');
        for line in example.trim().lines() {
            let _ = writeln!(text, "      {line}");
        }
    }
    text.push('\n');
}

/// A paragraph in lines that are as long as the terminal has room for, and not too long to read.
fn fill(text: &mut String, paragraph: &str) {
    let columns = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(0, |size| size.ws_col);
    let width = match usize::from(columns) {
        0 => 100,
        columns => columns.clamp(40, 100),
    };
    let mut line = String::from(" ");
    for word in paragraph.split(' ') {
        if !line.trim_start().is_empty() && line.chars().count() + 1 + word.chars().count() > width
        {
            let _ = writeln!(text, "{line}");
            line = String::from(" ");
        }
        let _ = write!(line, " {word}");
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

fn commands() -> String {
    let mut text = String::from(
        "Type Rhai; brackets that are open go on in the next line. Tab completes, Ctrl-R searches what was typed before,\n\
         Ctrl-C gives up a line or interrupts what runs, Ctrl-D ends the program.\n\n",
    );
    for (name, takes, does) in COMMANDS {
        let _ = writeln!(text, "  {:<22} {does}", format!("{name} {takes}"));
    }
    text.push_str("\n  :help os, :help Queue and the like list what a module or a class has.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_says_what_the_registrations_say() {
        let entries = mphost_stdlib::reference::entries();
        let plain = |name: &str| anstream::adapter::strip_str(&help(&entries, name)).to_string();
        let put = plain("Queue.put");
        assert!(
            put.starts_with("Queue.put(item: any, block: bool = true, timeout: seconds = ())\n")
        );
        assert!(
            put.contains("\n  Raises `ValueError` \"Queue is closed\" after"),
            "{put}"
        );
        assert!(put.lines().all(|line| line.chars().count() <= 100), "{put}");
        assert!(plain("os::getpid").contains("This process's number."));
        assert!(plain("mp::Queue").contains("A queue that any process may put items into"));
        assert!(plain("Queue").contains("In Queue:\n"));
        assert!(plain("os").contains("  getpid() "));
        assert!(
            plain("task_done").contains("\nJoinableQueue.task_done()")
                || plain("task_done").starts_with("JoinableQueue")
        );
        assert_eq!(
            plain("Qeue"),
            "nothing is known of 'Qeue'; did you mean 'Queue'?\n"
        );
        assert!(plain("").contains(":start-method METHOD"));
    }
}
