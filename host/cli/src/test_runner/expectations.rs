//! The expectations that a script carries in its comments.
//!
//! ```text
//! //# exit: 0              the exit code; -15 for an end by SIGTERM (default 0)
//! //# timeout: 10          seconds (default 30)
//! //# args: a 'b c'        the script's arguments, quoted as in a shell
//! //# start-methods: fork spawn forkserver     run once for each (default fork)
//! //# stdin: Ann\nBob\n    standard input; \n \t \r \0 \\ are escapes (default: empty)
//! //# order: any           lines may come in any order (default strict)
//! //> Parent process [PID].
//! //>* still waiting       a line that comes any number of times, also not at all
//! //! ValueError: [..]     a line of standard error that must appear
//! ```
//!
//! Each stands on a line of its own. `//#` and `//>` count wherever they stand, `//!` only behind the last
//! line of code, because at a script's top it is a module's documentation. Several directives may share a
//! line (`//# exit: 1   //# timeout: 5`). What the patterns mean is said in [`super::pattern`].
//!
//! A script without any `//>` line must print nothing, and one without `exit` must exit with 0: a script
//! with no expectations at all is no test that passes whatever it prints. Standard error isn't checked but for the
//! `//!` lines, since warnings and progress may come there.
//!
//! Invariant: what isn't understood is an error with its line, never skipped. A misspelled directive that was
//! taken for a comment would make a test that checks nothing.

use std::fmt;
use std::time::Duration;

use super::matching::Item;
use super::pattern::Pattern;
use super::source::{Comment, Scan};

/// How processes are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum StartMethod {
    /// The child is a copy of its parent.
    Fork,
    /// The host executes itself anew.
    Spawn,
    /// A clean server forks the children.
    Forkserver,
}

impl fmt::Display for StartMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StartMethod::Fork => "fork",
            StartMethod::Spawn => "spawn",
            StartMethod::Forkserver => "forkserver",
        })
    }
}

/// Whether the order of the lines counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Order {
    /// Line by line.
    #[default]
    Strict,
    /// As a multiset.
    Any,
}

/// Where a directive's value stands, for `--update`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directive's name.
    pub(crate) name: String,
    /// Line number, from 0.
    pub(crate) line: usize,
    /// The value's text.
    pub(crate) value: String,
}

/// What a script must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expectations {
    /// The exit code; negative for the end by a signal.
    pub(crate) exit: i32,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// The script's arguments.
    pub(crate) args: Vec<String>,
    /// The start methods to run it with, at least one.
    pub(crate) start_methods: Vec<StartMethod>,
    /// What it reads.
    pub(crate) stdin: Option<String>,
    /// Whether the order of the lines counts.
    pub(crate) order: Order,
    /// The lines of standard output.
    pub(crate) stdout: Vec<Item>,
    /// Lines of standard error that must appear.
    pub(crate) stderr: Vec<Pattern>,
    /// The directives as they were found.
    pub(crate) directives: Vec<Place>,
    /// The lines (from 0) that hold `//>`.
    pub(crate) stdout_lines: Vec<usize>,
    /// The lines (from 0) that hold `//!`, in the order of `stderr`.
    pub(crate) stderr_lines: Vec<usize>,
}

impl Default for Expectations {
    fn default() -> Self {
        Expectations {
            exit: 0,
            timeout: Duration::from_secs(30),
            args: Vec::new(),
            start_methods: vec![StartMethod::Fork],
            stdin: None,
            order: Order::Strict,
            stdout: Vec::new(),
            stderr: Vec::new(),
            directives: Vec::new(),
            stdout_lines: Vec::new(),
            stderr_lines: Vec::new(),
        }
    }
}

impl Expectations {
    /// Whether it says anything about what the script prints or how it ends.
    pub(crate) fn expects_something(&self) -> bool {
        !self.stdout.is_empty()
            || !self.stderr.is_empty()
            || self.directives.iter().any(|place| place.name == "exit")
    }
}

/// An expectation that isn't understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Line number, from 1.
    pub(crate) line: usize,
    /// What is wrong, and what would be right.
    pub(crate) message: String,
}

const DIRECTIVES: [&str; 6] = ["exit", "timeout", "args", "start-methods", "stdin", "order"];

/// Reads the expectations out of a scanned script.
///
/// # Errors
///
/// All the mistakes in them, in the order of their lines.
pub(crate) fn parse(scan: &Scan<'_>) -> Result<Expectations, Vec<Mistake>> {
    let mut found = Expectations::default();
    let mut mistakes = Vec::new();
    for comment in &scan.comments {
        if let Err(message) = read(comment, scan.last_code_line, &mut found) {
            mistakes.push(Mistake {
                line: comment.line + 1,
                message,
            });
        }
    }
    if mistakes.is_empty() {
        Ok(found)
    } else {
        Err(mistakes)
    }
}

/// Reads one comment; ordinary comments are passed over.
fn read(
    comment: &Comment<'_>,
    last_code_line: Option<usize>,
    found: &mut Expectations,
) -> Result<(), String> {
    let body = &comment.text[2..];
    if !comment.own_line {
        let known = body.starts_with("> ")
            || body.starts_with(">*")
            || (body.starts_with("# ") && is_directive(body));
        return if known {
            Err("an expectation behind code; give it a line of its own".to_owned())
        } else {
            Ok(())
        };
    }
    let trailing = last_code_line.is_none_or(|last| comment.line > last);
    if let Some(rest) = body.strip_prefix(">*") {
        expected_line(rest, "//>*", true, comment.line, found)
    } else if let Some(rest) = body.strip_prefix('>') {
        expected_line(rest, "//>", false, comment.line, found)
    } else if let Some(rest) = body.strip_prefix('!').filter(|_| trailing) {
        let text = separated(rest, "//!")?;
        if text.is_empty() {
            return Err(
                "`//!` without text; write the line of standard error that must appear behind it"
                    .to_owned(),
            );
        }
        found.stderr.push(Pattern::parse(text));
        found.stderr_lines.push(comment.line);
        Ok(())
    } else if body.starts_with("# ") || body == "#" || is_directive(body) {
        directives(body, comment.line, found)
    } else {
        Ok(())
    }
}

/// Takes off the one space between the mark and the text.
fn separated<'a>(rest: &'a str, mark: &str) -> Result<&'a str, String> {
    match rest.strip_prefix(' ') {
        Some(text) => Ok(text),
        None if rest.is_empty() => Ok(rest),
        None => Err(format!("`{mark}{rest}`: write a space behind `{mark}`")),
    }
}

fn expected_line(
    rest: &str,
    mark: &str,
    repeated: bool,
    line: usize,
    found: &mut Expectations,
) -> Result<(), String> {
    let pattern = Pattern::parse(separated(rest, mark)?);
    found.stdout.push(Item { pattern, repeated });
    found.stdout_lines.push(line);
    Ok(())
}

/// `#` and a known name with a colon, with or without space before it: no `#region` and no `####`.
fn is_directive(body: &str) -> bool {
    let Some(rest) = body.strip_prefix('#') else {
        return false;
    };
    rest.split_once(':')
        .is_some_and(|(name, _)| DIRECTIVES.contains(&name.trim()))
}

/// Reads all directives of a line.
fn directives(body: &str, line: usize, found: &mut Expectations) -> Result<(), String> {
    let mut pieces: Vec<String> = Vec::new();
    for piece in body.split("//") {
        match pieces.last_mut() {
            // Only a known directive begins anew: the text may hold slashes.
            Some(last) if !(is_directive(piece) && last.ends_with([' ', '\t'])) => {
                last.push_str("//");
                last.push_str(piece);
            }
            _ => pieces.push(piece.to_owned()),
        }
    }
    for piece in pieces {
        let piece = piece.strip_prefix('#').unwrap_or(&piece);
        let Some((name, value)) = piece.split_once(':') else {
            return Err(format!(
                "`//#{piece}` has no colon; a directive is written `//# name: value`"
            ));
        };
        if !piece.starts_with(' ') {
            return Err(format!("`//#{piece}`: write a space behind `//#`"));
        }
        let (name, value) = (name.trim(), value.trim());
        if !DIRECTIVES.contains(&name) {
            return Err(format!(
                "unknown directive `{name}`; there are {}",
                DIRECTIVES.join(", ")
            ));
        }
        if let Some(first) = found.directives.iter().find(|place| place.name == name) {
            return Err(format!(
                "`{name}` was given in line {} already",
                first.line + 1
            ));
        }
        directive(name, value, found)?;
        found.directives.push(Place {
            name: name.to_owned(),
            line,
            value: value.to_owned(),
        });
    }
    Ok(())
}

fn directive(name: &str, value: &str, found: &mut Expectations) -> Result<(), String> {
    match name {
        "exit" => {
            found.exit = value.parse().ok().filter(|code| (-64..=255).contains(code)).ok_or_else(|| {
                format!("exit: `{value}` is no exit code; write 0 to 255, or -15 for an end by signal 15")
            })?;
        }
        "timeout" => {
            let seconds = value
                .parse::<f64>()
                .ok()
                .filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0);
            found.timeout = Duration::from_secs_f64(seconds.ok_or_else(|| {
                format!("timeout: `{value}` is no number of seconds above 0 and up to 86400")
            })?);
        }
        "args" => {
            found.args =
                shlex::split(value).ok_or_else(|| format!("args: `{value}` has an open quote"))?;
        }
        "start-methods" => {
            let mut methods = Vec::new();
            for word in value.split_whitespace() {
                let method = <StartMethod as clap::ValueEnum>::from_str(word, false).map_err(|_| {
                    format!("start-methods: `{word}` is unknown; there are fork, spawn and forkserver")
                })?;
                if methods.contains(&method) {
                    return Err(format!("start-methods: `{word}` is named twice"));
                }
                methods.push(method);
            }
            if methods.is_empty() {
                return Err(
                    "start-methods: name at least one of fork, spawn and forkserver".to_owned(),
                );
            }
            found.start_methods = methods;
        }
        "stdin" => found.stdin = Some(unescape(value)?),
        // The list of names was checked before.
        _ => {
            found.order = match value {
                "strict" => Order::Strict,
                "any" => Order::Any,
                _ => return Err(format!("order: `{value}` is unknown; write strict or any")),
            };
        }
    }
    Ok(())
}

fn unescape(text: &str) -> Result<String, String> {
    let mut plain = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        plain.push(match characters.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('0') => '\0',
            Some('\\') => '\\',
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(format!(
                    "stdin: `\\{other}` is no escape; there are \\n \\t \\r \\0 and \\\\"
                ));
            }
        });
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::super::source::scan;
    use super::*;

    fn read(source: &str) -> Expectations {
        parse(&scan(source)).unwrap()
    }

    fn mistake(source: &str) -> (usize, String) {
        let mut mistakes = parse(&scan(source)).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        let found = mistakes.remove(0);
        (found.line, found.message)
    }

    #[test]
    fn all_forms() {
        let found = read(concat!(
            "//! Documentation of the module.\n",
            "print(1);\n\n",
            "//# exit: 3\n//# timeout: 0.5\n//# args: a 'b c' --d\n",
            "//# start-methods: spawn fork\n//# stdin: Ann\\nBob\\\\ // x\n//# order: any\n",
            "// a comment\n//### another\n//#region\n",
            "//> Parent [PID].\n//>\n//>* w [N]\n//>   three spaces\n//! Boom: [..]\n",
        ));
        assert_eq!((found.exit, found.timeout), (3, Duration::from_millis(500)));
        assert_eq!(found.args, ["a", "b c", "--d"]);
        assert_eq!(found.start_methods, [StartMethod::Spawn, StartMethod::Fork]);
        assert_eq!(found.stdin.as_deref(), Some("Ann\nBob\\ // x"));
        assert_eq!(found.order, Order::Any);
        let lines: Vec<(&str, bool)> = found
            .stdout
            .iter()
            .map(|i| (i.pattern.source(), i.repeated))
            .collect();
        assert_eq!(
            lines,
            [
                ("Parent [PID].", false),
                ("", false),
                ("w [N]", true),
                ("  three spaces", false)
            ]
        );
        assert_eq!(found.stderr[0].source(), "Boom: [..]");
        assert_eq!(found.stdout_lines, [12, 13, 14, 15]);
        assert_eq!(found.stderr_lines, [16]);
    }

    #[test]
    fn defaults() {
        let found = read("print(1); // just a comment\n");
        assert_eq!(found, Expectations::default());
        assert!(!found.expects_something());
        assert!(read("//# exit: 1").expects_something());
    }

    #[test]
    fn several_directives_in_a_line() {
        let found = read("//# exit: 1      //# timeout: 10 \t //# args: http://a //b\n");
        assert_eq!(found.exit, 1);
        assert_eq!(found.timeout, Duration::from_secs(10));
        assert_eq!(found.args, ["http://a", "//b"]);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (source, line, part) in [
            ("\n//# exits: 1", 2, "unknown directive `exits`"),
            ("//# exit: one", 1, "`one` is no exit code"),
            ("//# exit: 256", 1, "no exit code"),
            ("//# exit 1", 1, "no colon"),
            ("//#exit: 1", 1, "a space behind `//#`"),
            ("//# timeout: 0", 1, "seconds"),
            ("//# timeout: inf", 1, "seconds"),
            ("//# timeout: NaN", 1, "seconds"),
            ("//# args: 'a", 1, "open quote"),
            ("//# start-methods: vfork", 1, "`vfork` is unknown"),
            ("//# start-methods: fork fork", 1, "twice"),
            ("//# start-methods:", 1, "at least one"),
            ("//# stdin: a\\q", 1, "`\\q` is no escape"),
            ("//# order: random", 1, "`random` is unknown"),
            ("//# exit: 1\n//# exit: 2", 2, "given in line 1 already"),
            ("//>text", 1, "a space behind `//>`"),
            ("//>*text", 1, "a space behind `//>*`"),
            ("//!", 1, "without text"),
            ("print(1); //> 1", 1, "behind code"),
        ] {
            let (found, message) = mistake(source);
            assert_eq!(found, line, "{source:?}");
            assert!(message.contains(part), "{source:?}: {message}");
        }
    }
}
