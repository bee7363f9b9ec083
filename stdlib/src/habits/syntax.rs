//! Advice about what Rhai's parser doesn't understand.
//!
//! The parser says what it expected and where; what was meant is told from the words around that place. A word inside a text or a
//! comment is no sign of anything, so the line is taken apart first.

/// A piece of a line, as far as advice needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word<'t> {
    text: &'t str,
    /// Where it begins, in characters from 0.
    column: usize,
}

impl Word<'_> {
    fn is_text(&self) -> bool {
        self.text.starts_with(['"', '\'', '`'])
    }

    fn is_name(&self) -> bool {
        self.text
            .starts_with(|c: char| c.is_alphabetic() || c == '_')
    }
}

/// The words, texts and symbols of a line, without its comment.
fn words(line: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut letters = line.char_indices().enumerate().peekable();
    while let Some((column, (start, letter))) = letters.next() {
        if letter.is_whitespace() {
            continue;
        }
        let mut end = start + letter.len_utf8();
        if matches!(letter, '"' | '\'' | '`') {
            let mut escaped = false;
            for (_, (at, next)) in letters.by_ref() {
                end = at + next.len_utf8();
                match next {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    _ if next == letter => break,
                    _ => {}
                }
            }
        } else if letter.is_alphanumeric() || letter == '_' {
            while let Some((_, (at, next))) =
                letters.next_if(|(_, (_, c))| c.is_alphanumeric() || *c == '_')
            {
                end = at + next.len_utf8();
            }
        } else if letter == '/' && line[start..].starts_with("//") {
            break;
        }
        words.push(Word {
            text: &line[start..end],
            column,
        });
    }
    words
}

/// The names that a script declares at its top level with `let` and `const`, and whether each is a constant.
pub(super) fn declared(source: &str) -> Vec<(String, bool)> {
    let mut names = Vec::new();
    for line in source.lines() {
        let words = words(line);
        for pair in words.windows(2) {
            let constant = match pair[0].text {
                "let" => false,
                "const" => true,
                _ => continue,
            };
            // What is indented is a function's own, or a block's: then it isn't the script's.
            if pair[0].column == 0 && pair[1].is_name() {
                names.push((pair[1].text.to_owned(), constant));
            }
        }
    }
    names
}

/// Whether a line of the script assigns to `name` as Python declares a variable: `name = value`.
pub(super) fn assigned(source: &str, name: &str) -> bool {
    source
        .lines()
        .filter(|line| line.contains(name))
        .any(|line| {
            let words = words(line);
            let word = |index: usize| words.get(index).map(|word| word.text);
            word(0) == Some(name) && word(1) == Some("=") && word(2) != Some("=")
        })
}

/// Advice about a syntax error: `message` is the parser's, `line` (from 1) and `column` (from 1) say where.
pub(crate) fn advice(message: &str, source: &str, line: usize, column: usize) -> Option<String> {
    let Some(text) = source.lines().nth(line.checked_sub(1)?) else {
        return open_bracket(message, source, line - 1);
    };
    let here = words(text);
    // The parser stops at what comes behind a statement that it didn't understand, which may be a line further.
    let at = here
        .iter()
        .position(|word| word.column + 1 >= column)
        .unwrap_or(here.len());
    // What stands before it, where the error is at the beginning of its line.
    let before = || {
        let lines = source.lines().enumerate().take(line - 1);
        let last = lines.filter(|(_, text)| !text.trim().is_empty()).last();
        last.filter(|_| at == 0)
    };
    reserved(message, &here, at)
        .or_else(|| keyword_argument(message, &here, at))
        .or_else(|| by_words(message, &here, at))
        .or_else(|| {
            before().and_then(|(_, text)| {
                let before = words(text);
                by_words(message, &before, before.len())
            })
        })
        .or_else(|| before().and_then(|(index, text)| no_semicolon(message, index + 1, text)))
        .or_else(|| triple_quotes(message, text))
        .or_else(|| match at {
            0 => open_bracket(message, source, line - 1),
            _ if at == here.len() => open_bracket(message, source, line),
            _ => None,
        })
}

/// Advice about an error behind the first `lines` lines, where a bracket is still open.
fn open_bracket(message: &str, source: &str, lines: usize) -> Option<String> {
    let wanted = [
        "Expecting '}'",
        "Expecting ')'",
        "Expecting ']'",
        "Expecting ','",
    ];
    if !wanted.iter().any(|begin| message.starts_with(begin)) {
        return None;
    }
    let mut open: Vec<(&str, usize, &str)> = Vec::new();
    for (index, text) in source.lines().enumerate().take(lines) {
        for word in words(text) {
            match word.text {
                "(" | "[" | "{" => open.push((word.text, index + 1, text)),
                ")" | "]" | "}" => {
                    open.pop();
                }
                // A text of several lines, or a comment: what is in it would mislead.
                "/" if text.contains("/*") => return None,
                "`" => return None,
                text if text.starts_with('`') && !text.ends_with('`') => return None,
                _ => {}
            }
        }
    }
    let (bracket, at, text) = open.pop()?;
    let comma = match message.starts_with("Expecting ','") {
        true => format!(", or a comma is missing at the end of line {lines}"),
        false => String::new(),
    };
    Some(format!(
        "the {bracket} of line {at} isn't closed{comma}: {}",
        text.trim()
    ))
}

/// A statement that ends with its line, as in Python.
fn no_semicolon(message: &str, number: usize, line: &str) -> Option<String> {
    if !message.starts_with("Expecting ';'") {
        return None;
    }
    let words = words(line);
    let last = words.last()?;
    let end = line.char_indices().nth(last.column).map_or(0, |(at, _)| at) + last.text.len();
    let (code, comment) = line.split_at(end);
    let divisor = comment
        .trim()
        .trim_start_matches('/')
        .trim()
        .trim_end_matches(';');
    let divides = comment.trim().starts_with("//")
        && !divisor.is_empty()
        && divisor
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '(' | ')'));
    let missing = format!(
        "the ; is missing at the end of line {number}: {};",
        code.trim()
    );
    Some(match divides {
        true => format!("// begins a comment, and whole numbers are divided by /; {missing}"),
        false => missing,
    })
}

fn triple_quotes(message: &str, line: &str) -> Option<String> {
    let triple =
        message.starts_with("Open string") && ["\"\"\"", "'''"].iter().any(|q| line.contains(q));
    triple.then(|| "a text of several lines is written in back-ticks: `…`".into())
}

/// `'go' is a reserved keyword`.
fn reserved(message: &str, here: &[Word<'_>], at: usize) -> Option<String> {
    let name = message.strip_prefix('\'')?.split_once("' is a reserved")?.0;
    let declares = here
        .first()
        .is_some_and(|word| matches!(word.text, "let" | "const" | "fn"));
    Some(match name {
        "null" | "nil" | "undefined" | "void" => format!("Rhai's {name} is ()"),
        "print" | "debug" => match here.get(at + 1) {
            Some(next) if matches!(next.text, "," | ")" | ";" | "]" | "}") => {
                format!("{name} can't be given away, a closure that calls it can: |x| {name}(x)")
            }
            Some(value) => format!("{name} is a function: {name}({})", value.text),
            None => format!("{name} is a function: {name}(value)"),
        },
        "#" => "a comment begins with //".to_owned(),
        "yield" => "there are no generators: put items into a queue, or return an array".to_owned(),
        "async" | "await" => {
            "there is no async: a process or a pool runs things at the same time".to_owned()
        }
        "is" => "values are compared with ==".to_owned(),
        "thread" | "go" if !declares => {
            "processes take the place of threads: spawn(f, [arguments])".to_owned()
        }
        "use" => NO_IMPORT.to_owned(),
        "match" | "case" => "it is switch value { 1 => …, _ => … }".to_owned(),
        "new" => "an object is made by a call: Queue()".to_owned(),
        _ if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
            format!("'{name}' is a word that Rhai keeps for itself: choose another name")
        }
        _ => return None,
    })
}

/// `q.get(timeout=3)`, or with a colon.
fn keyword_argument(message: &str, here: &[Word<'_>], at: usize) -> Option<String> {
    let call = message
        .strip_prefix("Expecting ',' to separate the arguments to function call '")?
        .split('\'')
        .next()?;
    let sign = here.get(at)?.text;
    let name = here.get(at.checked_sub(1)?)?;
    let before = at.checked_sub(2).map(|i| here[i].text);
    // After a brace it is a map without its number sign.
    let is_argument = sign == "=" || sign == ":" && matches!(before, Some("(" | ","));
    if !is_argument || !name.is_name() {
        return None;
    }
    let mut depth = 0usize;
    let value: String = here[at + 1..]
        .iter()
        .take_while(|word| {
            match word.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" if depth > 0 => depth -= 1,
                ")" | "," if depth == 0 => return false,
                _ => {}
            }
            true
        })
        .map(|word| match word.text {
            "True" => "true",
            "False" => "false",
            "None" => "()",
            text => text,
        })
        .collect();
    if call == "print" && name.text == "end" {
        return Some("print always ends the line: sys::write(text) doesn't".into());
    }
    let alone = before == Some("(");
    Some(format!(
        "arguments by name are given in an object map, the last argument: {call}({}#{{{}: {}}})",
        if alone { "" } else { "…, " },
        name.text,
        if value.is_empty() { "…" } else { &value }
    ))
}

const NO_IMPORT: &str = "nothing has to be imported: Process, Queue, Pool and the like are always there, and mp:: holds everything";

/// What single words tell.
fn by_words(message: &str, here: &[Word<'_>], at: usize) -> Option<String> {
    let first = here.first()?.text;
    let second = here.get(1).map(|word| word.text);
    let has = |wanted: &str| here.iter().any(|word| word.text == wanted);
    let found = here.get(at).map(|word| word.text);
    let before = at.checked_sub(1).and_then(|i| here.get(i));
    let rest = |from: usize| -> String {
        let words: Vec<&str> = here.iter().skip(from).map(|word| word.text).collect();
        words.join(" ")
    };
    if message.starts_with("Invalid character") {
        return Some(
            "a text is written in double quotes: \"abc\"; single quotes hold one character".into(),
        );
    }
    if message.starts_with("Unknown operator: '++'")
        || message.starts_with("Unknown operator: '--'")
    {
        return Some("it is written x += 1".into());
    }
    let single = match first {
        "def" | "function" | "func" | "async" if second.is_some() => {
            Some("a function is written fn name(a, b) { … }")
        }
        "class" => Some(
            "there are no classes: a process with a run() of its own is Process(#{run: || { … }}), other objects are object maps",
        ),
        "from" if has("import") => Some(NO_IMPORT),
        "import" if matches!(second, Some("multiprocessing" | "threading" | "concurrent")) => {
            Some(NO_IMPORT)
        }
        "switch" if found == Some("case") => Some("it is switch value { 1 => …, _ => … }"),
        "raise" => Some("an error is thrown: throw ValueError(\"what was wrong\")"),
        "except" | "finally" => {
            Some("errors are caught by try { … } catch (e) { … }; e.type is the class's name")
        }
        "elif" => Some("elif is written else if"),
        "global" | "nonlocal" => Some(
            "a function sees the script's constants, as global::NAME, and none of its variables",
        ),
        "del" => Some("a variable ends with its block; a map's key is removed by m.remove(key)"),
        "assert" => Some("assert is a function: assert(condition)"),
        "pass" => Some("a block may be empty: { }"),
        _ => None,
    };
    if let Some(single) = single {
        return Some(single.to_owned());
    }
    if let Some(advice) = declaration(message, here, at) {
        return Some(advice.into());
    }
    if first == "import" && here.get(1).is_some_and(Word::is_name) {
        let name = second.unwrap_or_default();
        return Some(format!(
            "the modules os, sys, time, random, json and the like need no import, {name}::NAME is all; a file of one's own is a text: \
             import \"{name}\" as {name};"
        ));
    }
    let moves = |pair: &[Word<'_>]| pair[0].text == "move" && pair[1].text == "|";
    if here.windows(2).any(moves) {
        return Some("a closure takes along what it names: || …".into());
    }
    if has("lambda") {
        return Some("a function without a name is written |x| x * 2".into());
    }
    if has("elif") {
        return Some("elif is written else if".into());
    }
    if has("except") || message.contains("Expecting 'catch'") {
        return Some(
            "errors are caught by try { … } catch (e) { … }; e.type is the class's name".into(),
        );
    }
    // A block that begins with a colon.
    let block = matches!(first, "if" | "for" | "while" | "else" | "try" | "with");
    let colon = here.last().is_some_and(|word| word.text == ":") || found == Some(":");
    if block && colon {
        let head: Vec<&str> = here.iter().map(|word| word.text).collect();
        return Some(match first {
            "if" if head.contains(&"__name__") => {
                "a block is written in braces; and this guard isn't needed: children run no statement of the top level".into()
            }
            "else" | "try" => format!("a block is written in braces: {first} {{ … }}"),
            _ => format!("a block is written in braces: {first} … {{ … }}"),
        });
    }
    for (python, rhai) in [("and", "&&"), ("or", "||"), ("not", "!")] {
        if has(python) {
            return Some(format!("{python} is written {rhai}"));
        }
    }
    if found == Some("is") {
        return Some("values are compared with ==; Python's None is ()".into());
    }
    if let (Some(letter), Some(text)) = (before, here.get(at))
        && matches!(letter.text, "f" | "F")
        && text.is_text()
        && letter.column + 1 == text.column
    {
        return Some("a text with values in it is written in back-ticks: `hello ${name}`".into());
    }
    if found == Some("if") && message.starts_with("Expecting") && at > 0 {
        return Some("a value that depends is written if condition { a } else { b }".into());
    }
    if found == Some("for") && has("in") {
        return Some("there are no comprehensions: items.map(|x| x * x), items.filter(|x| x > 0), or a for loop".into());
    }
    if found == Some("=") && matches!(first, "if" | "while") {
        return Some("values are compared with ==".into());
    }
    if found == Some(",") && message.starts_with("Expecting 'in'") {
        return Some("it is for (item, index) in items { … }; a map's keys are map.keys()".into());
    }
    if found == Some(",") && message.starts_with("Expecting ')'") {
        return Some("there are no tuples: an array is written [a, b]".into());
    }
    if found == Some("as") {
        return Some("numbers are converted by methods: x.to_float(), x.to_int()".into());
    }
    if message.starts_with("Expecting '|'") && has("_") {
        return Some("each parameter of a closure has a name: |x| …".into());
    }
    if message.starts_with("Unknown operator: '?'") {
        return Some("an error that is thrown passes on by itself: no ? is needed".into());
    }
    if message.starts_with("Expecting '('") && has("!") && has("[") {
        return Some("an array is written [a, b]".into());
    }
    if found == Some(":") && message.contains("index expression") {
        return Some("a range is written with dots: items[1..2]".into());
    }
    if found == Some(":") && before.is_some_and(|word| word.is_text() || word.is_name())
        || message.starts_with("Expecting ';'") && has("{") && has(":") && !has("#")
    {
        return Some("an object map begins with a number sign: #{a: 1, \"b\": 2}".into());
    }
    if matches!(first, "let" | "const") {
        if found == Some(",") || matches!(second, Some("(" | "[")) {
            return Some("one name is declared at a time: let ends = Pipe(); let a = ends[0]; let b = ends[1];".into());
        }
        return None;
    }
    if matches!(first, "print") && second.is_some_and(|word| word != "(") {
        return Some(format!("print is a function: print({})", rest(1)));
    }
    None
}

const TYPES: &str = "variables and parameters have no types in Rhai: only their names are written";

/// What other languages have in declarations.
fn declaration(message: &str, here: &[Word<'_>], at: usize) -> Option<&'static str> {
    let first = here.first()?.text;
    let found = here.get(at).map(|word| word.text);
    let next = here.get(at.saturating_add(1)).map(|word| word.text);
    let in_parameters = message.contains("the parameters of function");
    match (first, found) {
        ("fn", Some("=")) if in_parameters => Some(
            "parameters have no defaults: write a second function, f(a) beside f(a, b), or take an object map",
        ),
        ("fn", Some(":")) if in_parameters => Some(TYPES),
        ("fn", Some("-")) if next == Some(">") => Some(TYPES),
        ("let" | "const", Some(":")) if at == 2 => Some(TYPES),
        ("fn", _) if message.starts_with("Expecting parameters") => {
            Some("there are no *args and **kwargs: take an array, or an object map")
        }
        ("let", _) if here.get(1).is_some_and(|word| word.text == "mut") => {
            Some("every variable that let declares can be changed: no mut is needed")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let texts: Vec<&str> = words("q.get(\"a b\", n=3) // c")
            .iter()
            .map(|w| w.text)
            .collect();
        assert_eq!(
            texts,
            ["q", ".", "get", "(", "\"a b\"", ",", "n", "=", "3", ")"]
        );
        assert_eq!(words("é x")[1].column, 2);
    }

    #[test]
    fn words_in_texts_are_no_sign() {
        let message = "Expecting ';' to terminate this statement";
        assert_eq!(advice(message, "let x = \"lambda\" \"and\"", 1, 18), None);
        assert_eq!(advice(message, "x y // def", 1, 3), None);
        assert!(advice(message, "let f = lambda x: x", 1, 16).is_some());
    }

    #[test]
    fn what_a_script_declares_is_found() {
        let source = "let a = 1;\nconst B = 2;\nfn f() {\n    let c = 3;\n}\n// let d = 4;";
        assert_eq!(
            declared(source),
            [("a".to_owned(), false), ("B".to_owned(), true)]
        );
    }

    #[test]
    fn any_place_can_be_asked_about() {
        for column in 0..12 {
            for line in 0..4 {
                let _ = advice(
                    "Expecting ',' to separate the arguments to function call 'f'",
                    "f(a=\n\"",
                    line,
                    column,
                );
                let _ = advice("'x' is a reserved keyword", "", line, column);
            }
        }
    }
}
