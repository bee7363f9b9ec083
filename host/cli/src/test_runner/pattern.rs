//! Patterns of expected lines: text with tags in it that stand for what differs from run to run.
//!
//! | tag | matches |
//! |---|---|
//! | `[PID]` | a process id: a whole number above 0 |
//! | `[N]` | a whole number, with or without a sign |
//! | `[F]` | a decimal number, with or without a fraction and an exponent |
//! | `[TIME]` | a date and time as `asctime` writes it or as in ISO 8601, a date, or a time of day |
//! | `[..]` | anything, also nothing |
//!
//! A tag may have a name, `[PID:a]`: tags of one kind and name match equal text throughout a test.
//! Any other bracket is text, so that `[42, None]` and `[[1, 2], [PID]]` need no escape. A backslash
//! before what would be a tag makes it text, `\[PID]`; backslashes before a tag come in pairs
//! (`\\[PID]` is a backslash and a tag), everywhere else they are text.
//!
//! Numbers and times match as long as they can: `[N]` never matches a part of `123`. White space at the
//! end of a line counts on neither side, because editors remove it.
//!
//! Invariant: `Pattern::parse(&escape(line))` matches `line`, and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What a tag stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// `[PID]`
    Pid,
    /// `[N]`
    Integer,
    /// `[F]`
    Float,
    /// `[TIME]`
    Time,
    /// `[..]`
    Anything,
}

/// The date and time forms of `[TIME]`, longest first; also what `--update` recognises as a time.
pub(crate) const TIME_FORMS: &str = r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4}|[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?(?:Z|[+-][0-9]{2}:?[0-9]{2}))?)?|[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:[.,][0-9]+)?|[0-9]{1,2}:[0-9]{2}";

static TAG: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(\\*)\[(PID|N|F|TIME|\.\.)(?::([A-Za-z0-9_-]+))?\]").expect("a constant")
});
static PID: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[1-9][0-9]*").expect("a constant"));
static INTEGER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[+-]?[0-9]+").expect("a constant"));
static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?").expect("a constant")
});
static TIME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!("^(?:{TIME_FORMS})")).expect("a constant"));

impl Kind {
    /// How it is written in a tag.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Pid => "PID",
            Kind::Integer => "N",
            Kind::Float => "F",
            Kind::Time => "TIME",
            Kind::Anything => "..",
        }
    }

    fn from_word(word: &str) -> Kind {
        match word {
            "PID" => Kind::Pid,
            "N" => Kind::Integer,
            "F" => Kind::Float,
            "TIME" => Kind::Time,
            _ => Kind::Anything,
        }
    }

    /// How much of the start of `text` it matches, in bytes. `[..]` is the caller's affair.
    fn longest(self, text: &str) -> Option<usize> {
        let form = match self {
            Kind::Pid => &PID,
            Kind::Integer => &INTEGER,
            Kind::Float => &FLOAT,
            Kind::Time => &TIME,
            Kind::Anything => return None,
        };
        form.find(text).map(|found| found.end())
    }
}

/// A named tag: the kind and the name are its identity.
pub(crate) type Name = (Kind, String);
/// What the named tags stand for.
pub(crate) type Bindings = BTreeMap<Name, String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Tag(Kind, Option<Name>),
}

/// One expected line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    source: String,
    parts: Vec<Part>,
}

/// Ways to match one line with different named texts beyond this number are not looked at.
const MAX_SOLUTIONS: usize = 256;
/// Steps after which the search for more ways to match one line ends.
const MAX_STEPS: usize = 100_000;

impl Pattern {
    /// Reads a pattern; every text is one.
    pub(crate) fn parse(source: &str) -> Pattern {
        let source = source.trim_end();
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut end = 0;
        for found in TAG.captures_iter(source) {
            let whole = found.get_match();
            let slashes = found[1].len();
            text.push_str(&source[end..whole.start()]);
            text.push_str(&"\\".repeat(slashes / 2));
            end = whole.end();
            if slashes % 2 == 1 {
                text.push_str(&source[whole.start() + slashes..end]);
                continue;
            }
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            let kind = Kind::from_word(&found[2]);
            parts.push(Part::Tag(
                kind,
                found.get(3).map(|name| (kind, name.as_str().to_owned())),
            ));
        }
        text.push_str(&source[end..]);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Pattern {
            source: source.to_owned(),
            parts,
        }
    }

    /// The pattern as it was written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The one line it matches, if it has no tags.
    pub(crate) fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The names of its tags.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.parts.iter().filter_map(|part| match part {
            Part::Tag(_, name) => name.as_ref(),
            Part::Text(_) => None,
        })
    }

    /// All the ways in which it matches `line`, told apart by what the named tags stand for; empty
    /// if it doesn't match.
    pub(crate) fn solutions(&self, line: &str) -> Vec<Bindings> {
        let mut search = Search {
            parts: &self.parts,
            line,
            named: self.names().next().is_some(),
            steps: 0,
            failed: HashSet::new(),
            found: Vec::new(),
        };
        search.go(0, 0, &Bindings::new());
        search.found
    }

    /// Whether it matches `line`, names aside from other lines.
    pub(crate) fn matches(&self, line: &str) -> bool {
        !self.solutions(line).is_empty()
    }
}

struct Search<'a> {
    parts: &'a [Part],
    line: &'a str,
    named: bool,
    steps: usize,
    /// Part and position from which nothing matches; kept only where no names make it depend on
    /// the way there.
    failed: HashSet<(usize, usize)>,
    found: Vec<Bindings>,
}

impl Search<'_> {
    fn done(&self) -> bool {
        self.found.len() >= if self.named { MAX_SOLUTIONS } else { 1 } || self.steps > MAX_STEPS
    }

    fn go(&mut self, part: usize, at: usize, bindings: &Bindings) {
        self.steps += 1;
        if self.done() || (!self.named && !self.failed.insert((part, at))) {
            return;
        }
        let rest = &self.line[at..];
        match self.parts.get(part) {
            None => {
                if rest.trim_end().is_empty() && !self.found.contains(bindings) {
                    self.found.push(bindings.clone());
                }
            }
            Some(Part::Text(text)) => {
                if rest.starts_with(text.as_str()) {
                    self.go(part + 1, at + text.len(), bindings);
                }
            }
            Some(Part::Tag(_, Some(name))) if bindings.contains_key(name) => {
                let text = &bindings[name];
                if rest.starts_with(text.as_str()) {
                    self.go(part + 1, at + text.len(), bindings);
                }
            }
            Some(Part::Tag(Kind::Anything, name)) => {
                self.anything(part, at, name.as_ref(), bindings)
            }
            Some(Part::Tag(kind, name)) => {
                if let Some(end) = kind.longest(rest) {
                    self.tag(part, at, end, name.as_ref(), bindings);
                }
            }
        }
    }

    /// Tries the ends that `[..]` can have, looking ahead to the text behind it, so that long lines cost little.
    fn anything(&mut self, part: usize, at: usize, name: Option<&Name>, bindings: &Bindings) {
        let rest = &self.line[at..];
        match (self.parts.get(part + 1), self.parts.get(part + 2)) {
            (None, _) => self.tag(part, at, rest.trim_end().len(), name, bindings),
            (Some(Part::Text(text)), None) => {
                if let Some(before) = rest.trim_end().strip_suffix(text.as_str()) {
                    self.tag(part, at, before.len(), name, bindings);
                }
            }
            (Some(Part::Text(text)), Some(_)) => {
                let mut from = 0;
                while let Some(found) = rest[from..].find(text.as_str()) {
                    if self.done() {
                        break;
                    }
                    self.tag(part, at, from + found, name, bindings);
                    let step = rest[from + found..]
                        .chars()
                        .next()
                        .map_or(1, char::len_utf8);
                    from += found + step;
                }
            }
            _ => {
                for end in rest
                    .char_indices()
                    .map(|(index, _)| index)
                    .chain([rest.len()])
                {
                    if self.done() {
                        break;
                    }
                    self.tag(part, at, end, name, bindings);
                }
            }
        }
    }

    fn tag(
        &mut self,
        part: usize,
        at: usize,
        length: usize,
        name: Option<&Name>,
        bindings: &Bindings,
    ) {
        match name {
            None => self.go(part + 1, at + length, bindings),
            Some(name) => {
                let mut bindings = bindings.clone();
                bindings.insert(name.clone(), self.line[at..at + length].to_owned());
                self.go(part + 1, at + length, &bindings);
            }
        }
    }
}

/// The pattern that matches `line` alone.
pub(crate) fn escape(line: &str) -> String {
    TAG.replace_all(line, |found: &Captures<'_>| {
        let slashes = found[1].len();
        format!("{}{}", "\\".repeat(slashes * 2 + 1), &found[0][slashes..])
    })
    .into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, line: &str) -> bool {
        Pattern::parse(pattern).matches(line)
    }

    #[test]
    fn tags_match_their_kind() {
        assert!(matches("Parent process [PID].", "Parent process 4711."));
        assert!(!matches("Parent process [PID].", "Parent process x."));
        assert!(!matches("[PID]", "0"));
        assert!(!matches("[PID]", "-3"));
        assert!(matches("person[N]购票成功", "person3购票成功"));
        assert!(matches("[N]", "-12"));
        assert!(!matches("[N]", "1.5"));
        assert!(!matches("[N]", ""));
        assert!(matches("runs [F] seconds", "runs 0.52 seconds"));
        assert!(matches("[F].", "3."));
        assert!(matches("[F]", "-1.5e-7"));
        assert!(matches("at [TIME]: go", "at Sun Jun 20 23:21:05 1993: go"));
        assert!(matches("[TIME]", "Sun Jun  2 23:21:05 1993"));
        assert!(matches("[TIME] x", "2024-02-29T12:00:00.123+02:00 x"));
        assert!(matches("[TIME]", "12:34:56"));
        assert!(!matches("[TIME]", "noon"));
        assert!(matches("a[..]z", "az"));
        assert!(matches("a[..]b[..]c", "a b b c c"));
        assert!(!matches("a[..]b", "a b c"));
    }

    #[test]
    fn a_number_is_matched_whole() {
        assert!(!matches("[N]3", "123"));
        assert!(matches("1[N]", "123"));
    }

    #[test]
    fn other_brackets_are_text() {
        assert!(matches("[42, None, 'hello']", "[42, None, 'hello']"));
        assert!(matches("[[1, 2], [PID]]", "[[1, 2], 99]"));
        assert!(matches("[[PID], [N]]", "[12, 13]"));
        assert!(matches(r"\[PID]", "[PID]"));
        assert!(!matches(r"\[PID]", "12"));
        assert!(matches(r"\\[PID]", r"\12"));
        assert!(matches(r"C:\dir [x]", r"C:\dir [x]"));
    }

    #[test]
    fn equal_names_match_equal_text() {
        assert!(matches("[PID:a] [PID:a]", "7 7"));
        assert!(!matches("[PID:a] [PID:a]", "7 8"));
        assert!(matches("[PID:a] [PID:b]", "7 7"));
        assert!(matches("[..:x]-[..:x]", "a-b-a-b"));
        assert!(!matches("[..:x]-[..:x]", "a-b-a"));
        let solutions = Pattern::parse("[..:x] [..:y]").solutions("a b c");
        assert_eq!(solutions.len(), 2);
    }

    #[test]
    fn white_space_at_the_end_does_not_count() {
        assert!(matches("a  ", "a"));
        assert!(matches("a", "a \t\r"));
        assert!(matches("", "   "));
        assert!(!matches(" a", "a"));
        assert!(matches("name: [..]", "name: "));
        assert!(matches("[..] x", "name x  "));
    }

    #[test]
    fn many_wildcards_end_soon() {
        assert!(!matches(&"[..]a".repeat(30), &"a".repeat(29)));
        assert!(matches(&"[..]a".repeat(30), &"a".repeat(300)));
    }

    #[test]
    fn long_lines_cost_little() {
        let line = "o".repeat(1_000_000);
        assert!(matches("o[..]o", &line));
        assert!(matches("[..:a]", &line));
        assert!(!matches("o[..]p[..]o", &line));
    }

    proptest! {
        #[test]
        fn an_escaped_line_matches_itself(line in r"(\PC|\[|\]|\\|\[PID\]|\[N\]|\[F:x\]|\[\.\.\]|\\\[TIME\])*", other in "\\PC*") {
            let pattern = Pattern::parse(&escape(&line));
            prop_assert!(pattern.matches(&line), "{:?}", pattern);
            prop_assert!(pattern.literal().is_some());
            prop_assert_eq!(pattern.matches(&other), other.trim_end() == line.trim_end());
        }

        #[test]
        fn any_text_is_a_pattern(source in r"(\PC|\[|\\|\[PID\]|\[\.\.:a\])*", line in "\\PC*") {
            let _ = Pattern::parse(&source).matches(&line);
        }
    }
}
