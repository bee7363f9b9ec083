//! The book in `docs`: what it includes and links to is there, all examples are shown, and its code does what it says.
//!
//! A block of Rhai in the guide is either a file of `scripts`, included, or a script of its own with its expectations, which is run by
//! `mphost test` here, under each start method. A block that begins with `$ mphost run scripts/…` shows a real run; its lines have to pass the
//! expectations of that script.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace's folder")
}

/// The files below a folder whose names end so, sorted.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("its entries").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|it| it == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn pages() -> Vec<(PathBuf, String)> {
    let pages = files(&root().join("docs/src"), "md");
    pages
        .into_iter()
        .map(|path| (path.clone(), read(&path)))
        .collect()
}

/// What stands between an opening and a closing text, each time.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let parts = text.split(open).skip(1);
    parts
        .filter_map(|part| part.split_once(close).map(|(inner, _)| inner))
        .collect()
}

/// The paths that a page includes, without lines or anchors.
fn includes(page: &Path, text: &str) -> Vec<PathBuf> {
    let folder = page.parent().expect("a page lies in a folder");
    let names = between(text, "{{#include ", "}}").into_iter();
    names
        .map(|name| folder.join(name.split(':').next().unwrap_or(name).trim()))
        .collect()
}

/// A fenced block: the page's name, a number within the page, the word behind the fence, and the text.
struct Block {
    name: String,
    language: String,
    text: String,
}

fn blocks(page: &Path, text: &str) -> Vec<Block> {
    let name = page
        .file_stem()
        .expect("a page has a name")
        .to_string_lossy();
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block {
                    name: format!("{name}_{}", found.len() + 1),
                    language: language.to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                let _ = writeln!(block.text, "{line}");
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block isn't closed", page.display());
    found
}

/// A page's text without its code.
fn prose(text: &str) -> String {
    let mut code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            code = !code;
        } else if !code {
            for part in line.split('`').step_by(2) {
                prose.push_str(part);
            }
            prose.push('\n');
        }
    }
    prose
}

/// The names by which a page's headings can be linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        code ^= line.starts_with("```");
        if code || !line.starts_with('#') {
            continue;
        }
        let heading = line.trim_start_matches('#').trim();
        let name = heading.chars().filter_map(|c| match c {
            c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
            c if c.is_whitespace() => Some('-'),
            _ => None,
        });
        found.insert(name.collect());
    }
    found
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn the_summary_names_every_page() {
    let src = root().join("docs/src");
    let summary = read(&src.join("SUMMARY.md"));
    let named: BTreeSet<PathBuf> = between(&summary, "](", ")")
        .into_iter()
        .map(|link| src.join(link))
        .collect();
    let there: BTreeSet<PathBuf> = pages()
        .into_iter()
        .map(|page| page.0)
        .filter(|path| !path.ends_with("SUMMARY.md"))
        .collect();
    assert_eq!(named, there);
}

#[test]
fn whatever_is_included_or_linked_to_is_there() {
    let mut missing = Vec::new();
    for (page, text) in pages() {
        for path in includes(&page, &text) {
            if !path.is_file() {
                missing.push(format!(
                    "{}: {{{{#include}}}} of {}",
                    page.display(),
                    path.display()
                ));
            }
        }
        for link in between(&prose(&text), "](", ")") {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                page.clone()
            } else {
                page.with_file_name("").join(path)
            };
            let found =
                target.exists() && (anchor.is_empty() || anchors(&read(&target)).contains(anchor));
            if !found {
                missing.push(format!("{}: a link to {link}", page.display()));
            }
        }
    }
    assert_none("not there", &missing);
}

#[test]
fn the_guide_shows_every_example_and_every_drawing() {
    let mut shown = BTreeSet::new();
    for (page, text) in pages() {
        shown.extend(
            includes(&page, &text)
                .iter()
                .filter_map(|path| path.canonicalize().ok()),
        );
    }
    let mut there = files(&root().join("scripts"), "rhai");
    there.extend(files(&root().join("docs/src/drawings"), "svg"));
    there.retain(|path| !shown.contains(path));
    let names: Vec<String> = there
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    assert_none("shown nowhere", &names);
}

/// An empty line would end the HTML of a page in which a drawing is included.
#[test]
fn a_drawing_has_a_title_and_no_empty_line() {
    for path in files(&root().join("docs/src/drawings"), "svg") {
        let text = read(&path);
        assert!(text.contains("<title>"), "{}: no <title>", path.display());
        assert!(
            text.lines().all(|line| !line.trim().is_empty()),
            "{}: an empty line",
            path.display()
        );
    }
}

/// The expectations of a script as far as they are about its output. Colours are left out in the guide, and so here.
/// Relative luminance of an sRGB colour (WCAG 2.2).
fn luminance(colour: [f64; 3]) -> f64 {
    let [r, g, b] = colour.map(|value| match value / 255.0 {
        low if low <= 0.04045 => low / 12.92,
        high => ((high + 0.055) / 1.055).powf(2.4),
    });
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

fn colour(hex: &str) -> [f64; 3] {
    let part = |at: usize| {
        f64::from(u8::from_str_radix(&hex[at..at + 2], 16).expect("a colour is hexadecimal"))
    };
    [part(1), part(3), part(5)]
}

#[test]
fn texts_in_drawings_can_be_read_in_every_theme() {
    // Background and text of mdBook's themes: light, rust, coal, navy, ayu.
    let themes = [
        ("#ffffff", "#000000"),
        ("#e1e1db", "#262625"),
        ("#141617", "#98a3ad"),
        ("#161923", "#bcbdd0"),
        ("#0f1419", "#c5c5c5"),
    ];
    let mut seen = 0;
    for path in files(&root().join("docs/src/drawings"), "svg") {
        for fill in read(&path).split("fill=\"#").skip(1) {
            let hex = format!("#{}", &fill[..6]);
            let opacity = between(
                &fill[..fill.find('>').expect("a tag ends")],
                "fill-opacity=\"",
                "\"",
            );
            let opacity: f64 = opacity
                .first()
                .map_or(1.0, |text| text.parse().expect("an opacity is a number"));
            for (background, text) in themes {
                let (over, under) = (colour(&hex), colour(background));
                let mixed = std::array::from_fn(|i| opacity * over[i] + (1.0 - opacity) * under[i]);
                let (a, b) = (luminance(mixed), luminance(colour(text)));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                let name = path.file_name().expect("a file has a name").display();
                assert!(
                    contrast > 3.5,
                    "{name}: {text} on {hex} over {background}: {contrast:.1}"
                );
            }
            seen += 1;
        }
    }
    assert!(seen > 80, "{seen}");
}

fn expected_output(script: &str) -> String {
    let lines = script
        .lines()
        .filter(|line| line.starts_with("//>") || line.starts_with("//# order"));
    lines
        .map(|line| line.replacen("> [..]m", "> [..]", 1) + "\n")
        .collect()
}

/// A script that prints what a block of the guide shows, with the expectations of the script that is said to have printed it.
fn printer(shown: &str, script: &str) -> String {
    let mut text = String::new();
    for line in shown.lines() {
        let _ = writeln!(text, "print({line:?});");
    }
    text + &expected_output(script)
}

#[test]
fn the_code_of_the_guide_does_what_it_says() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("book");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for the blocks");
    let mut unclear = Vec::new();
    for page in files(&root().join("docs/src/guide"), "md") {
        for block in blocks(&page, &read(&page)) {
            let path = folder.join(format!("{}.rhai", block.name));
            let run = block
                .text
                .strip_prefix("$ mphost run scripts/")
                .and_then(|rest| rest.split_once('\n'));
            match (block.language.as_str(), run) {
                ("console", Some((script, shown)))
                    if !shown.is_empty() && !shown.starts_with("$ ") =>
                {
                    // Behind the script's name come its arguments.
                    let script = script.split(' ').next().unwrap_or_default();
                    let script = read(&root().join("scripts").join(script));
                    std::fs::write(path, printer(shown, &script)).expect("the block's file");
                }
                ("rhai", _) if block.text.starts_with("{{#include ") => {}
                ("rhai", _)
                    if block
                        .text
                        .lines()
                        .any(|line| line.starts_with("//>") || line.starts_with("//!")) =>
                {
                    let mut text = block.text.clone();
                    if !text.contains("//# start-methods:") {
                        text.push_str("//# start-methods: fork spawn forkserver\n");
                    }
                    std::fs::write(path, text).expect("the block's file");
                }
                // What shall not be run says so; Rust is compiled where it comes from, as an example or a doc test.
                ("console" | "text" | "rhai,fragment" | "rust,ignore", _) => {}
                (language, _) => unclear.push(format!("{}: ```{language}", block.name)),
            }
        }
    }
    assert_none("neither included nor with expectations", &unclear);
    let output = Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(["test", "--jobs", "4"])
        .arg(&folder)
        .current_dir(&folder)
        .output()
        .expect("the test runner starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let failures: String = stdout
        .lines()
        .filter(|line| !line.starts_with("ok "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(
        output.status.success(),
        "{failures}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
