//! What the line editor knows of the language: completion, hints, colours, and when a line is complete.
//!
//! All names come from the registrations' own entries ([`mphost_stdlib::reference`]), from Rhai's own functions, and from what the program
//! has defined so far.

use super::lexer::{KEYWORDS, Kind, Lexed, lex};
use super::protocol::Name;
use mphost_stdlib::api::{Entry, EntryKind};
use mphost_stdlib::reference;
use rhai::{Dynamic, Engine};
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter, HistoryHinter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};
use std::any::TypeId;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// The commands of the prompt, with what each takes and does.
pub(super) const COMMANDS: &[(&str, &str, &str)] = &[
    (
        ":help",
        "[NAME]",
        "this, or what is known of a name: `:help Queue.put`",
    ),
    (
        ":ps",
        "",
        "the processes of this program, and what each waits for",
    ),
    (":load", "FILE", "evaluate a script as if it were typed"),
    (":time", "EXPR", "evaluate, and say how long it took"),
    (
        ":start-method",
        "METHOD",
        "start processes by fork, spawn or forkserver from now on",
    ),
    (":quit", "", "end the program, as Ctrl-D does"),
];

/// What the editor is asked for.
pub(super) struct Assistant {
    entries: Vec<Entry>,
    /// The methods of Rhai's own types.
    rhai: HashMap<&'static str, BTreeSet<String>>,
    names: Vec<Name>,
    colour: bool,
    /// The line is an answer to the script, not code.
    answering: bool,
    files: FilenameCompleter,
    history: HistoryHinter,
}

impl Assistant {
    /// One that knows what is registered.
    pub(super) fn new(colour: bool) -> Self {
        Self {
            entries: reference::entries(),
            rhai: rhai_methods(),
            names: Vec::new(),
            colour,
            answering: false,
            files: FilenameCompleter::new(),
            history: HistoryHinter::new(),
        }
    }

    /// What is registered.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Learns which names the program has now.
    pub(super) fn learn(&mut self, names: Vec<Name>) {
        self.names = names;
    }

    /// Whether the next line is an answer rather than code.
    pub(super) fn set_answering(&mut self, answering: bool) {
        self.answering = answering;
    }

    fn modules(&self) -> BTreeSet<&str> {
        self.entries
            .iter()
            .map(|entry| entry.module)
            .filter(|module| !module.is_empty())
            .chain(
                self.names
                    .iter()
                    .filter(|name| name.class == "module")
                    .map(|name| name.name.as_str()),
            )
            .collect()
    }

    /// What can stand where `prefix` stands, as pairs of what is shown and what is inserted.
    fn candidates(&self, before: &str, prefix: &str) -> Vec<Pair> {
        let mut found = Vec::new();
        let mut add = |shown: String, inserted: String| {
            if inserted.starts_with(prefix) {
                found.push(Pair {
                    display: shown,
                    replacement: inserted,
                });
            }
        };
        let lexed = lex(before);
        if before.ends_with("::") {
            let path = path_before(before);
            for entry in self.entries.iter().filter(|entry| entry.module == path) {
                add(entry.signature.text.to_owned(), call_of(entry));
            }
            let inner = format!("{path}::");
            for module in self.modules() {
                if let Some(rest) = module.strip_prefix(&inner) {
                    add(format!("{rest}::"), format!("{rest}::"));
                }
            }
        } else if before.ends_with('.') && !before.ends_with("..") {
            let class = self.class_before(before, &lexed);
            for entry in self.entries.iter().filter(|entry| entry.class.is_some()) {
                let fits = class
                    .as_deref()
                    .is_none_or(|class| entry.class == Some(class));
                if fits && !entry.signature.name.starts_with('[') {
                    add(entry.signature.text.to_owned(), call_of(entry));
                }
            }
            for (of, methods) in &self.rhai {
                if class.as_deref().is_none_or(|class| class == *of) {
                    for method in methods {
                        add(format!("{method}(…)"), format!("{method}("));
                    }
                }
            }
        } else if let Some(entry) = self.call_with_options(before, &lexed) {
            for param in &entry.signature.params {
                add(
                    format!("{}: {}", param.name, param.ty.describe()),
                    format!("{}: ", param.name),
                );
            }
        } else {
            for name in &self.names {
                match name.class.as_str() {
                    "function" => add(
                        format!("{}({})", name.name, name.params.join(", ")),
                        name.name.clone(),
                    ),
                    "module" => add(format!("{}::", name.name), format!("{}::", name.name)),
                    class => add(format!("{}: {class}", name.name), name.name.clone()),
                }
            }
            for entry in self.entries.iter().filter(|entry| {
                entry.module.is_empty() && entry.class.is_none() && !entry.doc.is_empty()
            }) {
                add(entry.signature.text.to_owned(), call_of(entry));
            }
            for module in self.modules() {
                if !module.contains("::") {
                    add(format!("{module}::"), format!("{module}::"));
                }
            }
            for keyword in KEYWORDS {
                add((*keyword).to_owned(), (*keyword).to_owned());
            }
        }
        found.sort_by(|a, b| (&a.replacement, &a.display).cmp(&(&b.replacement, &b.display)));
        found.dedup_by(|a, b| a.replacement == b.replacement);
        found
    }

    /// The class of what a dot follows, if that can be said: a variable's, or a constructor's.
    fn class_before(&self, before: &str, lexed: &Lexed) -> Option<String> {
        let tokens = &lexed.tokens;
        let word = |index: usize| &before[tokens[index].at.clone()];
        // The last token is the dot.
        let last = tokens.len().checked_sub(2)?;
        match (tokens[last].kind, word(last)) {
            (Kind::Name, name) => self
                .names
                .iter()
                .find(|known| known.name == name)
                .map(|known| known.class.clone()),
            (Kind::Text, _) => Some("string".into()),
            (_, "]") => Some("array".into()),
            (_, ")") => {
                let mut depth = 0usize;
                let open = (0..=last).rev().find(|index| {
                    match word(*index) {
                        ")" => depth += 1,
                        "(" => depth -= 1,
                        _ => {}
                    }
                    depth == 0
                })?;
                let name = word(open.checked_sub(1)?);
                self.entries
                    .iter()
                    .any(|entry| entry.class == Some(name))
                    .then(|| name.to_owned())
            }
            _ => None,
        }
    }

    /// The call in whose options the line ends: `q.get(#{` or `q.get(#{block: true, `.
    fn call_with_options(&self, before: &str, lexed: &Lexed) -> Option<&Entry> {
        let (bracket, at) = *lexed.open.last()?;
        let in_options = bracket == '{' && before[..at].ends_with('#');
        // A name of an option stands behind the bracket or a comma.
        let at_name = before
            .trim_end()
            .ends_with(['{', ','])
            .then_some(in_options)?;
        let (outer, place) = *lexed.open.len().checked_sub(2).map(|i| &lexed.open[i])?;
        (at_name && outer == '(')
            .then(|| self.call_at(before, lexed, place))
            .flatten()
    }

    /// The entry of the call whose bracket stands at `place`.
    fn call_at(&self, text: &str, lexed: &Lexed, place: usize) -> Option<&Entry> {
        let bracket = lexed
            .tokens
            .iter()
            .position(|token| token.at.start == place)?;
        let name = &lexed.tokens[bracket.checked_sub(1)?];
        let word = &text[name.at.clone()];
        let ahead = &text[..name.at.start];
        let called: Vec<&Entry> = self
            .entries
            .iter()
            .filter(|entry| {
                entry.signature.name == word
                    && matches!(entry.kind, EntryKind::Function | EntryKind::Method)
            })
            .collect();
        if ahead.ends_with('.') {
            let class = self.class_before(ahead, &lex(ahead));
            called
                .iter()
                .find(|entry| class.is_some() && entry.class == class.as_deref())
                .or_else(|| called.iter().find(|entry| entry.class.is_some()))
                .copied()
        } else if ahead.ends_with("::") {
            let path = path_before(ahead);
            let inner = called.iter().find(|entry| entry.module == path);
            inner
                .or_else(|| {
                    called
                        .iter()
                        .find(|entry| path == "mp" && entry.module.is_empty())
                })
                .copied()
        } else {
            called
                .into_iter()
                .find(|entry| entry.module.is_empty() && entry.class.is_none())
        }
    }
}

/// The module's path that ends a text: `os::path::`.
fn path_before(text: &str) -> &str {
    let text = text.trim_end_matches(':');
    let start = text
        .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
        .map_or(0, |at| at + 1);
    text[start..].trim_start_matches(':')
}

/// How a call begins: `put(`, `getpid()`, a constant's or a property's name.
fn call_of(entry: &Entry) -> String {
    let name = entry.signature.name;
    match entry.kind {
        EntryKind::Property | EntryKind::Constant => name.to_owned(),
        _ if entry.signature.params.is_empty() => format!("{name}()"),
        _ => format!("{name}("),
    }
}

fn rhai_methods() -> HashMap<&'static str, BTreeSet<String>> {
    let classes: [(&str, TypeId); 8] = [
        ("int", TypeId::of::<i64>()),
        ("float", TypeId::of::<f64>()),
        ("char", TypeId::of::<char>()),
        ("string", TypeId::of::<rhai::ImmutableString>()),
        ("array", TypeId::of::<rhai::Array>()),
        ("blob", TypeId::of::<rhai::Blob>()),
        ("object map", TypeId::of::<rhai::Map>()),
        ("function", TypeId::of::<rhai::FnPtr>()),
    ];
    let engine = Engine::new();
    let mut methods: HashMap<&str, BTreeSet<String>> = HashMap::new();
    let all = engine.collect_fn_metadata(
        None,
        |info| {
            let first = info.metadata.param_types.first().copied()?;
            Some((info.metadata.name.to_string(), first))
        },
        true,
    );
    for (name, first) in all {
        let plain = name.starts_with(|c: char| c.is_alphabetic()) && !name.contains('$');
        if plain && first != TypeId::of::<Dynamic>() {
            for (class, of) in classes {
                if of == first {
                    methods.entry(class).or_default().insert(name.clone());
                }
            }
        }
    }
    methods
}

impl Helper for Assistant {}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if self.answering {
            return Ok((pos, Vec::new()));
        }
        let before = &line[..pos];
        let start = before
            .rfind(|c: char| !c.is_alphanumeric() && c != '_')
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(1, char::len_utf8)
            });
        let pairs = |all: &mut dyn Iterator<Item = &str>, prefix: &str| -> Vec<Pair> {
            all.filter(|name| name.starts_with(prefix))
                .map(|name| Pair {
                    display: name.to_owned(),
                    replacement: name.to_owned(),
                })
                .collect()
        };
        if let Some(command) = before.strip_prefix(':') {
            return Ok(match command.split_once(' ') {
                None => {
                    let mut names = COMMANDS.iter().map(|(name, ..)| *name);
                    (0, pairs(&mut names, before))
                }
                Some(("load", path)) => {
                    let offset = pos - path.len();
                    let (at, found) = self.files.complete_path(path, path.len())?;
                    (offset + at, found)
                }
                Some(("start-method", typed)) => {
                    let mut names = ["fork", "spawn", "forkserver"].into_iter();
                    (pos - typed.len(), pairs(&mut names, typed))
                }
                Some(("help", typed)) => {
                    let mut names: Vec<String> =
                        self.entries.iter().map(reference::full_name).collect();
                    names.sort();
                    names.dedup();
                    let mut names = names.iter().map(String::as_str);
                    (pos - typed.len(), pairs(&mut names, typed))
                }
                Some(("time", _)) => {
                    let offset = ":time ".len().min(pos);
                    let code = &before[offset..start.max(offset)];
                    (start, self.candidates(code, &before[start.max(offset)..]))
                }
                Some(_) => (pos, Vec::new()),
            });
        }
        Ok((start, self.candidates(&before[..start], &before[start..])))
    }
}

/// A hint: an earlier line, which can be accepted, or a signature, which can only be read.
pub(super) struct Suggestion {
    text: String,
    accepts: bool,
}

impl Hint for Suggestion {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.accepts.then_some(&self.text)
    }
}

impl Hinter for Assistant {
    type Hint = Suggestion;

    fn hint(&self, line: &str, pos: usize, context: &Context<'_>) -> Option<Suggestion> {
        if self.answering || pos < line.len() || line.is_empty() {
            return None;
        }
        if line.ends_with('(') {
            let lexed = lex(line);
            if let Some(&('(', place)) = lexed.open.last()
                && let Some(entry) = self.call_at(line, &lexed, place)
                && let Some((_, params)) = entry.signature.text.split_once('(')
            {
                return Some(Suggestion {
                    text: params.to_owned(),
                    accepts: false,
                });
            }
        }
        let text = self.history.hint(line, pos, context)?;
        // Of a longer input the first line says enough.
        (!text.contains('\n')).then_some(Suggestion {
            text,
            accepts: true,
        })
    }
}

impl Highlighter for Assistant {
    fn highlight<'l>(&self, line: &'l str, _pos: usize) -> Cow<'l, str> {
        if !self.colour || self.answering {
            return Cow::Borrowed(line);
        }
        let mut text = String::with_capacity(line.len() * 2);
        let mut at = 0;
        for token in lex(line).tokens {
            let style = match token.kind {
                Kind::Keyword => "\x1b[35m",
                Kind::Number => "\x1b[36m",
                Kind::Text => "\x1b[32m",
                Kind::Comment => "\x1b[2m",
                Kind::Name | Kind::Symbol => "",
            };
            text.push_str(&line[at..token.at.start]);
            text.push_str(style);
            text.push_str(&line[token.at.clone()]);
            if !style.is_empty() {
                text.push_str("\x1b[0m");
            }
            at = token.at.end;
        }
        text.push_str(&line[at..]);
        Cow::Owned(text)
    }

    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(
        &'s self,
        prompt: &'p str,
        _default: bool,
    ) -> Cow<'b, str> {
        match self.colour && !self.answering {
            true => Cow::Owned(format!("\x1b[1m{prompt}\x1b[0m")),
            false => Cow::Borrowed(prompt),
        }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        match self.colour {
            true => Cow::Owned(format!("\x1b[2m{hint}\x1b[0m")),
            false => Cow::Borrowed(hint),
        }
    }

    fn highlight_char(&self, _line: &str, _pos: usize, kind: CmdKind) -> bool {
        self.colour && !self.answering && kind != CmdKind::MoveCursor
    }
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(match self.answering || is_complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

/// Whether an input can be evaluated as it is.
pub(super) fn is_complete(input: &str) -> bool {
    input.trim_start().starts_with(':') && !input.contains('\n') || !lex(input).is_incomplete(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assistant() -> Assistant {
        let mut assistant = Assistant::new(false);
        assistant.learn(vec![
            Name {
                name: "jobs".into(),
                class: "Queue".into(),
                params: vec![],
            },
            Name {
                name: "list".into(),
                class: "array".into(),
                params: vec![],
            },
            Name {
                name: "work".into(),
                class: "function".into(),
                params: vec!["a".into()],
            },
        ]);
        assistant
    }

    fn complete(line: &str) -> Vec<String> {
        let assistant = assistant();
        let history = rustyline::history::DefaultHistory::new();
        let context = Context::new(&history);
        let (start, found) = assistant
            .complete(line, line.len(), &context)
            .expect("completion doesn't fail");
        found
            .into_iter()
            .map(|pair| format!("{}{}", &line[..start], pair.replacement))
            .collect()
    }

    #[test]
    fn names_are_completed_where_they_can_stand() {
        assert_eq!(complete("jobs.put_"), ["jobs.put_nowait("]);
        assert_eq!(complete("jo"), ["jobs"]);
        assert_eq!(complete("spawn(wo"), ["spawn(work"]);
        assert_eq!(complete("JoinableQ"), ["JoinableQueue("]);
        assert_eq!(complete("os::getpi"), ["os::getpid()"]);
        assert_eq!(complete("os::pat"), ["os::path::", "os::pathsep"]);
        assert_eq!(complete("os::path::joi"), ["os::path::join("]);
        assert_eq!(
            complete("JoinableQueue().task"),
            ["JoinableQueue().task_done()"]
        );
        assert_eq!(complete("jobs.get(#{time"), ["jobs.get(#{timeout: "]);
        assert_eq!(
            complete("jobs.get(#{block: true, time"),
            ["jobs.get(#{block: true, timeout: "]
        );
        assert_eq!(complete(":sta"), [":start-method"]);
        assert_eq!(
            complete(":start-method forks"),
            [":start-method forkserver"]
        );
        assert_eq!(complete(":help Queue.put_"), [":help Queue.put_nowait"]);
        assert_eq!(complete(":time jobs.put_"), [":time jobs.put_nowait("]);
        // A queue has no Rhai array's methods, and the other way round.
        assert!(
            complete("jobs.re")
                .iter()
                .all(|line| !line.contains("reverse"))
        );
        assert!(complete("list.rev").contains(&"list.reverse(".to_owned()));
        assert!(complete("list.put_").is_empty());
    }

    #[test]
    fn a_call_that_begins_shows_its_signature() {
        let assistant = assistant();
        let history = rustyline::history::DefaultHistory::new();
        let context = Context::new(&history);
        let hint = |line: &str| {
            assistant
                .hint(line, line.len(), &context)
                .map(|hint| hint.text)
        };
        assert_eq!(
            hint("jobs.put(").as_deref(),
            Some("item: any, block: bool = true, timeout: seconds = ())")
        );
        assert_eq!(hint("let q = Queue(").as_deref(), Some("maxsize: int = 0)"));
        assert_eq!(hint("mp::Queue(").as_deref(), Some("maxsize: int = 0)"));
        assert_eq!(hint("unknown("), None);
    }

    #[test]
    fn commands_are_complete_and_code_when_its_brackets_are() {
        assert!(is_complete(":help ("));
        assert!(is_complete("print(1)"));
        assert!(!is_complete("print("));
    }
}
