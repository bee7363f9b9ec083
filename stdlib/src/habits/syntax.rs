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
    let text = source.lines().nth(line.checked_sub(1)?)?;
    let here = words(text);
    // The parser stops at what comes behind a statement that it didn't understand, which may be a line further.
    let at = here
        .iter()
        .position(|word| word.column + 1 >= column)
        .unwrap_or(here.len());
    reserved(message, &here, at)
        .or_else(|| keyword_argument(message, &here, at))
        .or_else(|| by_words(message, &here, at))
        .or_else(|| {
            let before = source
                .lines()
                .take(line - 1)
                .filter(|line| !line.trim().is_empty())
                .last()?;
            let before = words(before);
            // Only where the error stands at the beginning of its line.
            (at == 0)
                .then(|| by_words(message, &before, before.len()))
                .flatten()
        })
}

/// `'go' is a reserved keyword`.
fn reserved(message: &str, here: &[Word<'_>], at: usize) -> Option<String> {
    let name = message.strip_prefix('\'')?.split_once("' is a reserved")?.0;
    Some(match name {
        "null" | "nil" | "undefined" | "void" => format!("Rhai's {name} is ()"),
        "print" | "debug" => match here.get(at + 1) {
            Some(value) => format!("{name} is a function: {name}({})", value.text),
            None => format!("{name} is a function: {name}(value)"),
        },
        "#" => "a comment begins with //".to_owned(),
        "yield" => "there are no generators: put items into a queue, or return an array".to_owned(),
        "async" | "await" => {
            "there is no async: a process or a pool runs things at the same time".to_owned()
        }
        "is" => "values are compared with ==".to_owned(),
        "match" | "case" => "it is switch value { 1 => …, _ => … }".to_owned(),
        "new" => "an object is made by a call: Queue()".to_owned(),
        _ if name.chars().all(|c| c.is_alphanumeric() || c == '_') => {
            format!("'{name}' is a word that Rhai keeps for itself: choose another name")
        }
        _ => return None,
    })
}

/// `q.get(timeout=3)`.
fn keyword_argument(message: &str, here: &[Word<'_>], at: usize) -> Option<String> {
    let call = message
        .strip_prefix("Expecting ',' to separate the arguments to function call '")?
        .split('\'')
        .next()?;
    let equals = here.get(at)?;
    let name = here.get(at.checked_sub(1)?)?;
    if equals.text != "=" || !name.is_name() {
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
    Some(format!(
        "arguments by name are given in an object map, the last argument: {call}(#{{{}: {}}})",
        name.text,
        if value.is_empty() { "…" } else { &value }
    ))
}

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
        "from" if has("import") => Some(
            "nothing has to be imported: Process, Queue, Pool and the like are always there, and mp:: holds everything",
        ),
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
    if block && here.last().is_some_and(|word| word.text == ":") {
        let head: Vec<&str> = here[..here.len() - 1]
            .iter()
            .map(|word| word.text)
            .collect();
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
    if found == Some("if") && message.starts_with("Expecting ','") {
        return Some("a value that depends is written if condition { a } else { b }".into());
    }
    if found == Some("for") && has("in") {
        return Some("there are no comprehensions: items.map(|x| x * x), items.filter(|x| x > 0), or a for loop".into());
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
