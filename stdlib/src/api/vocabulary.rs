//! Which names a program can call: what it doesn't name needn't be registered for it.
//!
//! Problem: there are several hundred calls, each in every number of arguments, and handing them all to Rhai takes longer
//! than a small program runs, in every process that is executed anew. A script, though, can only call what its text names.
//!
//! Invariants: a name is left out only where no code of the program can call it. Words in comments and texts count (a
//! text may be a name in `Fn("…")`); a script that runs code from elsewhere, or makes names as it runs, gets everything.

use ahash::RandomState;
use std::collections::HashSet;

/// Words after which a script may call what its own text doesn't name.
const OPEN_ENDED: [&str; 4] = ["import", "eval", "Fn", "call_fn"];

/// What the interpreter calls by name wherever it shows a value.
const ALWAYS: [&str; 2] = ["to_string", "to_debug"];

/// What the interpreter and this crate call by name where a script has another word: the operator `in`, entering and leaving a `with`.
const IMPLIED: [(&str, &[&str]); 2] = [
    ("in", &["contains"]),
    (
        "with",
        &["acquire", "release", "close", "terminate", "shutdown"],
    ),
];

/// A manager's server makes pools for its clients, whose own programs name what they call.
const SERVERS: [&str; 3] = ["Manager", "SyncManager", "BaseManager"];

/// The names that a program can call.
#[derive(Debug, Default)]
pub enum Vocabulary {
    /// Any.
    #[default]
    Everything,
    /// Those in its text, as hashes: where two are equal, one name too many is registered, which does no harm.
    Words(HashSet<u64, RandomState>),
}

impl Vocabulary {
    /// The names in a program's text.
    #[must_use]
    pub fn of(source: &str) -> Self {
        let mut words = HashSet::with_hasher(SEEDED);
        words.extend(
            source
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .chain(ALWAYS)
                .map(hash),
        );
        for (word, implied) in IMPLIED {
            if words.contains(&hash(word)) {
                words.extend(implied.iter().copied().map(hash));
            }
        }
        let has = |known: &[&str]| known.iter().any(|word| words.contains(&hash(word)));
        if has(&OPEN_ENDED) || has(&SERVERS) {
            Self::Everything
        } else {
            Self::Words(words)
        }
    }

    /// Whether the program can call `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Everything => true,
            // What the host itself calls begins so.
            Self::Words(words) => name.starts_with("__") || words.contains(&hash(name)),
        }
    }
}

/// Any seed would do.
const SEEDED: RandomState = RandomState::with_seeds(1, 2, 3, 4);

fn hash(word: &str) -> u64 {
    SEEDED.hash_one(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_what_it_calls() {
        let words =
            Vocabulary::of("let q = Queue(); print(`${q.qsize()}`); let f = \"put\"; // get");
        for name in ["Queue", "print", "qsize", "put", "get", "to_string"] {
            assert!(words.has(name), "{name}");
        }
        assert!(!words.has("contains") && Vocabulary::of("1 in x").has("contains"));
        assert!(!words.has("release") && Vocabulary::of("with x {}").has("release"));
        assert!(!words.has("get_nowait") && !words.has("size"));
    }

    #[test]
    fn code_from_elsewhere_gets_everything() {
        for source in [
            "import \"m\" as m;",
            "eval(x)",
            "Fn(\"a\" + b)",
            "let m = Manager();",
        ] {
            assert!(Vocabulary::of(source).has("get_nowait"), "{source}");
        }
    }
}
