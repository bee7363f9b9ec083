//! Which tests there are.
//!
//! A path names a script, or a folder in which every `.rhai` file is looked at, at any depth; folders
//! whose name begins with a dot are passed over. A script is one test for each of its start methods. In
//! a file named `*_test.rhai` every function `test_…` without parameters (and not private) is a test of its own, for each start
//! method; such a file as a whole is a test too only if it says what it prints or how it exits.
//!
//! Invariants: the order is that of the paths as given, then of the names in a folder, then of the file's text; no file
//! is taken twice; a file that can't be read or understood is a test that fails, so that it isn't lost.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regex::Regex;
use walkdir::WalkDir;

use super::Error;
use super::expectations::{Expectations, StartMethod, parse};
use super::source::scan;

/// One script file.
#[derive(Debug)]
pub(crate) struct Script {
    /// Its path as given, or below a folder as given: how it is shown.
    pub(crate) shown: String,
    /// Its absolute path: how it is run.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
    /// What it should do, or what is wrong with it: lines `FILE:LINE: …`.
    pub(crate) expected: Result<Expectations, String>,
    /// Its test functions; none unless it is named `*_test.rhai`.
    pub(crate) functions: Vec<String>,
}

/// One test.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Its script.
    pub(crate) script: Arc<Script>,
    /// The function to call instead of running the script.
    pub(crate) function: Option<String>,
    /// How processes are started. None where the script isn't understood: such a test can't be run.
    pub(crate) start_method: Option<StartMethod>,
    /// Which of several repetitions it is, from 1; 0 without any.
    pub(crate) repetition: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.script.shown)?;
        if let Some(function) = &self.function {
            write!(f, "::{function}")?;
        }
        if let Some(method) = self.start_method {
            write!(f, " [{method}]")?;
        }
        if self.repetition > 0 {
            write!(f, " #{}", self.repetition)?;
        }
        Ok(())
    }
}

impl Case {
    /// What it is called within its script, for reports that group by script.
    pub(crate) fn short_name(&self) -> String {
        let whole = self.to_string();
        whole[self.script.shown.len()..]
            .trim_start_matches("::")
            .trim_start()
            .to_owned()
    }
}

/// Which tests to take.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    /// Those whose name holds this text.
    Text(String),
    /// Those whose name this regular expression matches.
    Regex(Regex),
}

impl Filter {
    /// Reads `text` or `/regular expression/`.
    ///
    /// # Errors
    ///
    /// The regular expression isn't one.
    pub(crate) fn parse(text: &str) -> Result<Filter, Error> {
        match text
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'))
        {
            Some(form) if !form.is_empty() => {
                Regex::new(form).map(Filter::Regex).map_err(Error::Filter)
            }
            _ => Ok(Filter::Text(text.to_owned())),
        }
    }

    fn takes(&self, name: &str) -> bool {
        match self {
            Filter::Text(text) => name.contains(text.as_str()),
            Filter::Regex(form) => form.is_match(name),
        }
    }
}

/// Finds the scripts under the paths.
///
/// # Errors
///
/// A path that doesn't exist or can't be read.
pub(crate) fn scripts(paths: &[PathBuf]) -> Result<Vec<Arc<Script>>, Error> {
    let mut found: Vec<Arc<Script>> = Vec::new();
    for path in paths {
        let unreadable = |source| Error::Path {
            path: path.clone(),
            source,
        };
        if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
            add(path, &mut found);
            continue;
        }
        let visible = |name: &std::ffi::OsStr| !name.to_string_lossy().starts_with('.');
        let walk = WalkDir::new(path)
            .follow_links(true)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || visible(entry.file_name()));
        for entry in walk {
            let entry = entry.map_err(|error| Error::Path {
                path: error.path().unwrap_or(path).to_owned(),
                source: error.into(),
            })?;
            if entry.file_type().is_file()
                && entry.path().extension().is_some_and(|end| end == "rhai")
            {
                add(entry.path(), &mut found);
            }
        }
    }
    Ok(found)
}

fn add(path: &Path, found: &mut Vec<Arc<Script>>) {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if !found.iter().any(|script| script.path == absolute) {
        let shown = path
            .strip_prefix(".")
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned();
        found.push(Arc::new(read(shown, absolute)));
    }
}

fn read(shown: String, path: PathBuf) -> Script {
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            let expected = Err(format!("{shown}: can't be read: {error}"));
            return Script {
                shown,
                path,
                text: String::new(),
                expected,
                functions: Vec::new(),
            };
        }
    };
    let found = scan(&text);
    let is_test_file = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().ends_with("_test.rhai"));
    let mut functions = Vec::new();
    let mut expected = parse(&found).map_err(|mistakes| {
        mistakes
            .iter()
            .map(|mistake| format!("{shown}:{}: {}", mistake.line, mistake.message))
            .collect::<Vec<_>>()
            .join("\n")
    });
    if is_test_file {
        for test in found.tests {
            if functions.contains(&test.name) {
                expected = Err(format!(
                    "{shown}:{}: `{}` is defined twice",
                    test.line + 1,
                    test.name
                ));
            } else {
                functions.push(test.name);
            }
        }
        if functions.is_empty()
            && expected
                .as_ref()
                .is_ok_and(|expected| !expected.expects_something())
        {
            expected = Err(format!(
                "{shown}: no tests: there is no function `test_…` without parameters in it, and no expectation"
            ));
        }
    }
    Script {
        shown,
        path,
        expected,
        functions,
        text,
    }
}

/// The tests of the scripts.
pub(crate) fn cases(
    scripts: &[Arc<Script>],
    only: &[StartMethod],
    filter: Option<&Filter>,
    repeat: usize,
) -> Vec<Case> {
    let mut found = Vec::new();
    let mut push = |script: &Arc<Script>, function: Option<&String>, start_method| {
        let case = Case {
            script: Arc::clone(script),
            function: function.cloned(),
            start_method,
            repetition: 0,
        };
        if filter.is_none_or(|filter| filter.takes(&case.to_string())) {
            let times = repeat.max(1);
            found.extend((1..=times).map(|repetition| Case {
                repetition: if times > 1 { repetition } else { 0 },
                ..case.clone()
            }));
        }
    };
    for script in scripts {
        let Ok(expected) = &script.expected else {
            push(script, None, None);
            continue;
        };
        let methods: Vec<StartMethod> = expected
            .start_methods
            .iter()
            .copied()
            .filter(|method| only.is_empty() || only.contains(method))
            .collect();
        if script.functions.is_empty() || expected.expects_something() {
            methods
                .iter()
                .for_each(|method| push(script, None, Some(*method)));
        }
        for function in &script.functions {
            methods
                .iter()
                .for_each(|method| push(script, Some(function), Some(*method)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(
        folder: &Path,
        only: &[StartMethod],
        filter: Option<&str>,
        repeat: usize,
    ) -> Vec<String> {
        let filter = filter.map(|text| Filter::parse(text).unwrap());
        let prefix = format!("{}/", folder.display());
        let found = scripts(&[folder.to_owned()]).unwrap();
        cases(&found, only, filter.as_ref(), repeat)
            .iter()
            .map(|case| case.to_string().replace(&prefix, ""))
            .collect()
    }

    #[test]
    fn folders_are_searched() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.rhai", "//# start-methods: fork spawn"),
            ("a/z.rhai", ""),
            (".hidden/x.rhai", ""),
            ("a/notes.txt", ""),
            (
                "m_test.rhai",
                "fn test_b() {}\nfn test_a() {}\n//# start-methods: spawn",
            ),
            ("n_test.rhai", "fn test_c() {}\n//> x"),
            ("bad.rhai", "//# nonsense: 1"),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let all = names(folder.path(), &[], None, 1);
        assert_eq!(
            all,
            [
                "a/z.rhai [fork]",
                "b.rhai [fork]",
                "b.rhai [spawn]",
                "bad.rhai",
                "m_test.rhai::test_b [spawn]",
                "m_test.rhai::test_a [spawn]",
                "n_test.rhai [fork]",
                "n_test.rhai::test_c [fork]",
            ]
        );
        assert_eq!(
            names(folder.path(), &[StartMethod::Spawn], Some("b.rhai"), 2),
            ["b.rhai [spawn] #1", "b.rhai [spawn] #2"]
        );
        assert_eq!(
            names(folder.path(), &[], Some(r"/_test\.rhai::test_[ab]/"), 1).len(),
            2
        );
        let twice = scripts(&[folder.path().join("b.rhai"), folder.path().to_owned()]).unwrap();
        assert_eq!(
            twice
                .iter()
                .filter(|script| script.path.ends_with("b.rhai"))
                .count(),
            1
        );
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text, part) in [
            ("x.rhai", "\n//# exit: x", "x.rhai:2: exit"),
            ("empty_test.rhai", "fn helper() {}", "no tests"),
            (
                "twice_test.rhai",
                "fn test_a() {}\nfn test_a() {}",
                "twice_test.rhai:2: `test_a` is defined twice",
            ),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
            let found = scripts(&[folder.path().join(name)]).unwrap();
            assert!(
                found[0].expected.as_ref().unwrap_err().contains(part),
                "{found:?}"
            );
        }
        assert!(matches!(
            scripts(&[folder.path().join("none.rhai")]),
            Err(Error::Path { .. })
        ));
        assert!(Filter::parse("/(/").is_err());
    }

    #[test]
    fn short_names_leave_the_script_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a_test.rhai"), "fn test_x() {}").unwrap();
        let found = scripts(&[folder.path().to_owned()]).unwrap();
        assert_eq!(cases(&found, &[], None, 1)[0].short_name(), "test_x [fork]");
    }
}
