//! Tracebacks: an error with the chain of script calls that led to it, file, line, column, source line and caret.
//!
//! The text is made once, as a whole, so that it can be written at once: a child's traceback never mixes with another's.

use crate::error::{Kind, ScriptError, interpreter_error};
use rhai::{EvalAltResult, ParseError, Position};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where source lines come from: the program's own text, and files read when they are first needed.
#[derive(Default)]
pub struct Sources {
    texts: HashMap<String, Option<String>>,
    /// Where paths begin that aren't absolute; empty for the current folder.
    folder: PathBuf,
}

impl Sources {
    /// Sources that know the main script's text (which may never have been a file); one that is empty is looked for in its file.
    #[must_use]
    pub fn with_main(path: &str, text: &str) -> Self {
        let known = (!text.is_empty()).then(|| (path.to_owned(), Some(text.to_owned())));
        Self {
            texts: HashMap::from_iter(known),
            folder: crate::modules::start(),
        }
    }

    /// Sources of a program whose working directory is `folder`.
    #[must_use]
    pub fn below(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            ..Self::default()
        }
    }

    /// The text of a file, if it can be had.
    pub(crate) fn text(&mut self, path: &str) -> Option<&str> {
        self.texts
            .entry(path.to_owned())
            .or_insert_with(|| std::fs::read_to_string(self.folder.join(path)).ok())
            .as_deref()
    }

    /// Line `number` (from 1) of a file, if it can be had.
    pub(crate) fn line(&mut self, path: &str, number: usize) -> Option<String> {
        let text = self.text(path)?;
        text.lines().nth(number.checked_sub(1)?).map(str::to_owned)
    }
}

/// The whole traceback of an error that nobody caught.
///
/// `main` is the script's path. In a child (`called`) the outermost frame is the host's own call of the target, which
/// says nothing to anybody.
#[must_use]
pub fn format(error: &EvalAltResult, main: &str, called: bool, sources: &mut Sources) -> String {
    let mut text = String::from("Traceback (most recent call last):\n");
    let mut frame = "<script>".to_owned();
    let mut source = main.to_owned();
    // What the code that `eval` runs stands in.
    let mut around = source.clone();
    let mut at = error;
    if called && let EvalAltResult::ErrorInFunctionCall(name, from, inner, _) = at {
        frame = function_name(name);
        if !from.is_empty() {
            source.clone_from(from);
        }
        at = inner;
    }
    loop {
        match at {
            EvalAltResult::ErrorInFunctionCall(name, from, inner, position) => {
                push_frame(&mut text, &source, *position, &frame, sources);
                if frame == "eval" {
                    source.clone_from(&around);
                }
                frame = function_name(name);
                if frame == "eval" {
                    around = std::mem::replace(&mut source, EVALUATED.to_owned());
                } else if !from.is_empty() {
                    source.clone_from(from);
                }
                at = inner;
            }
            EvalAltResult::ErrorInModule(path, inner, position) => {
                push_frame(&mut text, &source, *position, &frame, sources);
                "<module>".clone_into(&mut frame);
                source.clone_from(path);
                at = inner;
            }
            _ => break,
        }
    }
    push_frame(&mut text, &source, at.position(), &frame, sources);
    text.push_str(&last_line(at));
    if let EvalAltResult::ErrorParsing(error, position) = at {
        push_advice(&mut text, &error.to_string(), &source, *position, sources);
    }
    text
}

/// Where code stands that `eval` runs: its lines are none of the script's.
pub(crate) const EVALUATED: &str = "<eval>";

fn function_name(name: &str) -> String {
    if name.starts_with("anon$") {
        "<closure>".to_owned()
    } else {
        name.to_owned()
    }
}

/// The last line (or lines) of a traceback: `KIND: message`, and what came from another process.
fn last_line(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorRuntime(value, _) | EvalAltResult::ErrorTerminated(value, _) => {
            match value.read_lock::<ScriptError>() {
                Some(script) => with_origin(&script),
                None => format!("{value}\n"),
            }
        }
        other => {
            let (kind, message) = interpreter_error(other);
            format!("{}: {message}\n", kind.name())
        }
    }
}

fn with_origin(error: &ScriptError) -> String {
    let mut text = format!("{error}\n");
    let detail = error.detail();
    if detail.kind == Kind::DeadlockError {
        let message = crate::stuck::shortened(&detail.message);
        text = format!("{}: {message}\n", detail.kind.name());
    }
    if !detail.traceback.is_empty() {
        text.push_str("\nIt came from another process:\n");
        for line in detail.traceback.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if let Some(cause) = detail.cause.read_lock::<ScriptError>() {
        let _ = write!(text, "\nCaused by: {}", with_origin(&cause));
    }
    text
}

fn push_frame(
    text: &mut String,
    source: &str,
    position: Position,
    frame: &str,
    sources: &mut Sources,
) {
    let position = crate::catches::original(source, position);
    let Some(line) = position.line() else {
        let _ = writeln!(text, "  File \"{source}\", in {frame}");
        return;
    };
    let column = position.position().unwrap_or(0);
    let _ = writeln!(
        text,
        "  File \"{source}\", line {line}, column {column}, in {frame}"
    );
    push_source(text, "    ", source, line, column, sources);
}

fn push_source(
    text: &mut String,
    indent: &str,
    source: &str,
    line: usize,
    column: usize,
    sources: &mut Sources,
) {
    let Some(code) = sources.line(source, line) else {
        return;
    };
    let trimmed = code.trim_start();
    let cut = code.chars().count() - trimmed.chars().count();
    let _ = writeln!(text, "{indent}{}", trimmed.trim_end());
    if let Some(offset) = column.checked_sub(cut + 1) {
        // Wide characters take two cells on a terminal: a caret below the text has to count them.
        let before: String = trimmed.chars().take(offset).collect();
        let _ = writeln!(
            text,
            "{indent}{}^",
            " ".repeat(unicode_width::UnicodeWidthStr::width(before.as_str()))
        );
    }
}

/// A report with colours, for a terminal: the error's class, the carets, advice.
#[must_use]
pub fn coloured(report: &str) -> String {
    const RED: &str = "\x1b[1;31m";
    const CYAN: &str = "\x1b[1;36m";
    const PLAIN: &str = "\x1b[0m";
    let mut text = String::with_capacity(report.len() + 64);
    for line in report.split_inclusive('\n') {
        let content = line.trim_end_matches('\n');
        let code = content.trim_start();
        let head = code.split(':').next().unwrap_or_default();
        if code == "^" || Kind::from_name(head).is_some() || head.starts_with("SyntaxError") {
            let styled = if code == "^" { code } else { head };
            let indent = &content[..content.len() - code.len()];
            let _ = write!(
                text,
                "{indent}{RED}{styled}{PLAIN}{}",
                &code[styled.len()..]
            );
            text.push_str(&line[content.len()..]);
        } else if let Some(advice) = line.strip_prefix("Hint:") {
            let _ = write!(text, "{CYAN}Hint:{PLAIN}{advice}");
        } else {
            text.push_str(line);
        }
    }
    text
}

/// One line of advice about a syntax error, where there is one.
fn push_advice(
    text: &mut String,
    message: &str,
    path: &str,
    position: Position,
    sources: &mut Sources,
) {
    let (Some(line), column) = (position.line(), position.position().unwrap_or(1)) else {
        return;
    };
    let advice = sources
        .text(path)
        .and_then(|source| crate::habits::syntax_advice(message, source, line, column));
    if let Some(advice) = advice {
        let _ = writeln!(text, "Hint: {advice}");
    }
}

/// A syntax error with its source line and a caret.
#[must_use]
pub fn format_syntax(error: &ParseError, path: &str, sources: &mut Sources) -> String {
    let mut text = String::new();
    let position = error.position();
    match position.line() {
        Some(line) => {
            let column = position.position().unwrap_or(0);
            let _ = writeln!(text, "  File \"{path}\", line {line}, column {column}");
            push_source(&mut text, "    ", path, line, column, sources);
        }
        None => {
            let _ = writeln!(text, "  File \"{path}\"");
        }
    }
    let message = error.err_type().to_string();
    let _ = writeln!(text, "SyntaxError: {message}");
    push_advice(&mut text, &message, path, position, sources);
    text
}
