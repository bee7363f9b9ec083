//! `docs/src/conformance.md` says which test shows which behaviour of CPython. These tests keep it true: each behaviour has its
//! line, a line that says "shown" names tests that exist, and a test whose name carries a number is named in that line.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// How many behaviours each area has.
const AREAS: [(&str, usize); 18] = [
    ("P", 61),
    ("Q", 38),
    ("JQ", 7),
    ("SQ", 9),
    ("PI", 53),
    ("L", 17),
    ("S", 12),
    ("E", 9),
    ("C", 20),
    ("B", 16),
    ("V", 39),
    ("SM", 45),
    ("M", 78),
    ("PO", 71),
    ("CN", 28),
    ("CTX", 21),
    ("LG", 8),
    ("X", 44),
];

/// An area and a number in it.
type Number = (&'static str, usize);

/// One line of the table.
struct Row {
    behaviour: String,
    status: String,
    evidence: String,
    /// The tests named in it, as `file::function` or `file.rhai`.
    tests: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn area(name: &str) -> Option<&'static str> {
    AREAS
        .iter()
        .map(|(area, _)| *area)
        .find(|area| area.eq_ignore_ascii_case(name))
}

/// The `file::function`s and `file.rhai`s in a text, each in backquotes.
fn named_tests(text: &str) -> Vec<String> {
    let word = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| {
            let function = quoted.split_once("::");
            function.is_some_and(|(file, test)| word(file) && word(test))
                || quoted.strip_suffix(".rhai").is_some_and(word)
        })
        .map(str::to_owned)
        .collect()
}

fn table() -> Vec<(Number, Row)> {
    let page = std::fs::read_to_string(root().join("docs/src/conformance.md")).expect("the page");
    let mut rows = Vec::new();
    for line in page.lines() {
        let cells: Vec<&str> = line
            .trim_matches('|')
            .split(" | ")
            .map(|cell| cell.trim_matches(['|', ' ']))
            .collect();
        let Some((name, number)) = cells[0].split_once('-') else {
            continue;
        };
        let (Some(area), Ok(number)) = (area(name), number.parse()) else {
            continue;
        };
        let [_, behaviour, status, evidence] = cells[..] else {
            panic!("a line of the table has four cells: {line}");
        };
        rows.push((
            (area, number),
            Row {
                behaviour: behaviour.to_owned(),
                status: status.to_owned(),
                evidence: evidence.to_owned(),
                tests: named_tests(evidence),
            },
        ));
    }
    rows
}

/// The files with one ending in some folders.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, ending, found);
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
}

/// All tests that the table may name: as `file::function`, or as `file.rhai` where a script says what it prints.
fn tests() -> BTreeSet<String> {
    let mut found = Vec::new();
    files(&root().join("tests/conformance"), "rhai", &mut found);
    files(&root().join("host/cli/tests"), "rs", &mut found);
    files(&root().join("host/core/tests"), "rs", &mut found);
    let mut tests = BTreeSet::new();
    for path in found {
        let text = std::fs::read_to_string(&path).expect("a text");
        let stem = path
            .file_stem()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        let scripted = path.extension().is_some_and(|e| e == "rhai");
        if scripted && text.contains("\n//! ") {
            tests.insert(format!("{stem}.rhai"));
        }
        let mut marked = false;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("fn ")
                && (marked || scripted && rest.starts_with("test_"))
            {
                let name = rest.split('(').next().unwrap_or_default();
                tests.insert(format!("{stem}::{name}"));
            }
            marked = line == "#[test]";
        }
    }
    tests
}

/// The behaviours in a test's name: `test_l_08_to_11_…`, `test_c_01_and_02_…`, `test_x_05_x_06_…`, `test_p_36_to_p_40_…`.
fn numbers(test: &str) -> Vec<Number> {
    let mut words = test
        .strip_prefix("test_")
        .unwrap_or(test)
        .split('_')
        .peekable();
    let mut numbers: Vec<Number> = Vec::new();
    let mut here = None;
    let mut to = false;
    while let Some(word) = words.next() {
        let digits = word.len() == 2 && word.bytes().all(|b| b.is_ascii_digit());
        if digits && let Some(area) = here {
            let number = word.parse().expect("digits");
            let first = match numbers.last() {
                Some((_, last)) if to => last + 1,
                _ => number,
            };
            numbers.extend((first..=number).map(|number| (area, number)));
            to = false;
        } else if word == "to" {
            to = true;
        } else if let Some(area) = area(word)
            && words
                .peek()
                .is_some_and(|next| next.len() == 2 && next.bytes().all(|b| b.is_ascii_digit()))
        {
            here = Some(area);
        } else if word != "and" {
            break;
        }
    }
    numbers
}

#[test]
fn each_behaviour_has_one_line() {
    let mut lines: BTreeMap<Number, usize> = BTreeMap::new();
    for (number, row) in table() {
        *lines.entry(number).or_default() += 1;
        assert!(!row.behaviour.is_empty(), "{number:?} says nothing");
    }
    let mut all = 0;
    for (area, count) in AREAS {
        for number in 1..=count {
            assert_eq!(lines.remove(&(area, number)), Some(1), "{area}-{number:02}");
        }
        all += count;
    }
    assert_eq!(lines, BTreeMap::new(), "there are no such behaviours");
    assert_eq!(all, 576);
}

#[test]
fn each_line_says_how_it_is_known() {
    let tests = tests();
    assert!(tests.len() > 300, "the tests were not found");
    for ((area, number), row) in table() {
        let number = format!("{area}-{number:02}");
        match row.status.as_str() {
            "shown" => assert!(!row.tests.is_empty(), "{number} is shown by no test"),
            "differs on purpose" | "not applicable" => {
                let named: usize = row.tests.iter().map(|test| test.len() + 4).sum();
                assert!(row.evidence.len() > named + 10, "{number} gives no reason");
            }
            other => panic!("{number}: unknown status '{other}'"),
        }
        for test in row.tests {
            assert!(tests.contains(&test), "{number}: there is no test {test}");
        }
    }
}

#[test]
fn numbers_are_read_from_names() {
    let numbers = |name| {
        numbers(name)
            .iter()
            .map(|(area, n)| format!("{area}{n}"))
            .collect::<String>()
    };
    assert_eq!(numbers("test_l_08_to_11_an_rlock_counts"), "L8L9L10L11");
    assert_eq!(numbers("test_c_01_and_02_without_the_lock"), "C1C2");
    assert_eq!(numbers("test_x_05_x_06_the_main_process"), "X5X6");
    assert_eq!(numbers("test_p_36_to_p_38_exit_codes"), "P36P37P38");
    assert_eq!(
        numbers("test_cn_21_22_and_24_nothing_ready"),
        "CN21CN22CN24"
    );
    assert_eq!(numbers("test_sq_a_large_item"), "");
    assert_eq!(numbers("a_killed_child"), "");
}

#[test]
fn each_test_with_a_number_is_in_its_line() {
    let table: BTreeMap<Number, Row> = table().into_iter().collect();
    let mut missing = Vec::new();
    for test in tests() {
        let name = test.split("::").nth(1).unwrap_or_default();
        for (area, number) in numbers(name) {
            if !table
                .get(&(area, number))
                .is_some_and(|row| row.tests.contains(&test))
            {
                missing.push(format!("{area}-{number:02}: {test}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "docs/src/conformance.md doesn't name\n{}",
        missing.join("\n")
    );
}
