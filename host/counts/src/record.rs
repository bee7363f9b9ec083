//! The counts on record: a file beside the sources, a line for each path.
//!
//! Invariant: the file is only written on `--accept`; a row that isn't in it is as bad as one that has grown, so that nobody adds
//! a path without a count.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

/// The record, seen from the workspace's root.
pub(crate) const FILE: &str = "host/counts/counts.txt";
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/counts.txt");
const COMPILER: &str = "# compiler: ";

/// How much more than on record a count may be, in hundredths. Another patch release of a dependency moves counts by a few.
const TOLERANCE: u64 = 10;

/// What the record has.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// What `rustc --version` said when it was written.
    compiler: String,
    counts: BTreeMap<String, u64>,
}

/// What a count is, beside the one on record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Within the tolerance.
    Same(u64),
    /// Less than that: good, and worth a new record.
    Less(u64),
    /// More than that.
    More(u64),
    /// Not on record.
    New,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        matches!(self, Verdict::Same(_) | Verdict::Less(_))
    }

    /// A line that says so.
    pub(crate) fn line(&self, name: &str, count: u64) -> String {
        let change = |old: u64| (count as f64 / old.max(1) as f64 - 1.0) * 100.0;
        let said = match *self {
            Verdict::Same(old) => format!("on record {old} ({:+.1} %)", change(old)),
            Verdict::Less(old) => format!(
                "on record {old} ({:+.1} %): better, accept it to keep it so",
                change(old)
            ),
            Verdict::More(old) => format!(
                "on record {old} ({:+.1} %): MORE than the {TOLERANCE} % that it may grow",
                change(old)
            ),
            Verdict::New => "NOT on record".to_owned(),
        };
        format!("{name:<24} {count:>9} instructions, {said}")
    }
}

impl Record {
    /// Reads the file; empty if there is none.
    ///
    /// # Errors
    /// A line that is no count, with its number.
    pub(crate) fn load() -> Result<Self, String> {
        match std::fs::read_to_string(PATH) {
            Ok(text) => Self::parse(&text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(format!("can't read {FILE}: {e}")),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut record = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(compiler) = line.strip_prefix(COMPILER) {
                record.compiler = compiler.to_owned();
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let (Some(name), Some(Ok(count)), None) =
                (words.next(), words.next().map(str::parse), words.next())
            else {
                return Err(format!(
                    "{FILE}, line {number}: not a name and a count: {line}"
                ));
            };
            record.counts.insert(name.to_owned(), count);
        }
        Ok(record)
    }

    /// What `count` is for the path `name`.
    pub(crate) fn judge(&self, name: &str, count: u64) -> Verdict {
        match self.counts.get(name) {
            None => Verdict::New,
            Some(&old) if count * 100 > old * (100 + TOLERANCE) => Verdict::More(old),
            Some(&old) if count * 100 < old * (100 - TOLERANCE) => Verdict::Less(old),
            Some(&old) => Verdict::Same(old),
        }
    }

    pub(crate) fn set(&mut self, name: &str, count: u64) {
        self.counts.insert(name.to_owned(), count);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn save(&self) -> Result<(), String> {
        std::fs::write(PATH, self.text(&compiler())).map_err(|e| format!("can't write {FILE}: {e}"))
    }

    fn text(&self, compiler: &str) -> String {
        let mut text = format!(
            "# Instructions of an operation on x86-64, release profile. Written by `{ACCEPT}`;\n\
             # checked by .ci/run: see src/main.rs.\n{COMPILER}{compiler}\n"
        );
        for (name, count) in &self.counts {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{name:<24} {count:>9}");
        }
        text
    }

    /// What to do about counts that aren't good.
    pub(crate) fn how_to_accept(&self) -> String {
        let now = compiler();
        let other = if now == self.compiler {
            String::new()
        } else {
            format!(
                "\nThe record is of another compiler ({}; this is {now}): if most rows have changed, that may be all.",
                self.compiler
            )
        };
        format!(
            "\nA hot path takes more instructions than it did, or isn't on record. If that is what it costs to be right, accept it and say why in the \
             commit:\n    {ACCEPT}\nOtherwise find what was added: valgrind --tool=callgrind, on a build with symbols \
             (--profile test-release).{other}"
        )
    }
}

/// The command that rewrites the record.
const ACCEPT: &str = "cargo build --release --workspace && target/release/mphost-counts --accept";

fn compiler() -> String {
    Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut record = Record::default();
        record.set("core.lock", 123);
        record.set("script.lock", 4567);
        let again = Record::parse(&record.text("rustc 1.90.0")).unwrap();
        assert_eq!(again.counts, record.counts);
        assert_eq!(again.compiler, "rustc 1.90.0");
        assert!(Record::parse("core.lock\n").unwrap_err().contains("line 1"));
    }

    #[test]
    fn a_tenth_more_is_too_much_and_says_what_it_was() {
        let mut record = Record::default();
        record.set("core.lock", 1000);
        assert_eq!(record.judge("core.lock", 1100), Verdict::Same(1000));
        assert_eq!(record.judge("core.lock", 899), Verdict::Less(1000));
        assert_eq!(record.judge("core.unlock", 1), Verdict::New);
        let worse = record.judge("core.lock", 1101);
        assert_eq!(worse, Verdict::More(1000));
        assert!(!worse.is_good() && !Verdict::New.is_good());
        let line = worse.line("core.lock", 1101);
        for word in ["core.lock", "1101", "1000", "+10.1 %"] {
            assert!(line.contains(word), "{line}");
        }
        assert!(record.how_to_accept().contains("--accept"));
    }
}
