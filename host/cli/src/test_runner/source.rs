//! A light reading of a script's text: where its comments are, where its code ends, and which
//! functions are tests.
//!
//! The runner must read scripts that it will not run (`--list`), that use syntax only the host's
//! engine knows (`with`, `spawn`), or that do not compile at all, so it can't ask the engine. It
//! needs no grammar either: only what separates comments and strings from code (The Rhai Book,
//! "Comments", "Strings and Characters").
//!
//! Invariant: any text is accepted; broken code gives a scan that is at worst useless, never a panic.

/// A line comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Comment<'a> {
    /// Line number, from 0.
    pub(crate) line: usize,
    /// The text from `//` to the end of the line, without white space at its end.
    pub(crate) text: &'a str,
    /// Nothing but white space stands before it on its line.
    pub(crate) own_line: bool,
}

/// A function that is a test of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestFunction {
    /// Its name, which begins with `test_`.
    pub(crate) name: String,
    /// Line number, from 0.
    pub(crate) line: usize,
}

/// What a scan finds.
#[derive(Debug, Default)]
pub(crate) struct Scan<'a> {
    /// Line comments, in order. Block comments aren't listed.
    pub(crate) comments: Vec<Comment<'a>>,
    /// The last line (from 0) that holds code; none for a file of comments.
    pub(crate) last_code_line: Option<usize>,
    /// Public functions without parameters whose name begins with `test_`.
    pub(crate) tests: Vec<TestFunction>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Token<'a> {
    Word(&'a str),
    Other(char),
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    /// Only white space so far on this line.
    blank: bool,
    tokens: Vec<(Token<'a>, usize)>,
    /// For each open `${` of a back-tick string: how many braces are open inside it.
    interpolations: Vec<usize>,
    scan: Scan<'a>,
}

/// Scans a script.
pub(crate) fn scan(source: &str) -> Scan<'_> {
    let mut scanner = Scanner {
        source,
        at: 0,
        line: 0,
        blank: true,
        tokens: Vec::new(),
        interpolations: Vec::new(),
        scan: Scan::default(),
    };
    if source.starts_with("#!") {
        scanner.at = source.find('\n').unwrap_or(source.len());
    }
    while scanner.at < source.len() {
        scanner.step();
    }
    scanner.find_tests();
    scanner.scan
}

impl<'a> Scanner<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Goes on by `count` bytes, which end at a character boundary, and counts the lines in them.
    fn advance(&mut self, count: usize) {
        let end = (self.at + count).min(self.source.len());
        for byte in self.source[self.at..end].bytes() {
            if byte == b'\n' {
                self.line += 1;
                self.blank = true;
            } else if !byte.is_ascii_whitespace() {
                self.blank = false;
            }
        }
        self.at = end;
    }

    /// Code goes on by `count` bytes.
    fn code(&mut self, count: usize) {
        self.advance(count);
        self.scan.last_code_line = Some(self.line);
    }

    fn step(&mut self) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return;
        };
        if first.is_whitespace() {
            self.advance(first.len_utf8());
        } else if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            self.scan.comments.push(Comment {
                line: self.line,
                text: rest[..end].trim_end(),
                own_line: self.blank,
            });
            self.advance(end);
        } else if rest.starts_with("/*") {
            self.block_comment();
        } else if first == '"' {
            self.code(string_length(rest));
            self.tokens.push((Token::Other('"'), self.line));
        } else if first == '`' {
            self.code(1);
            self.back_tick_string();
        } else if first == '#' && rest.trim_start_matches('#').starts_with('"') {
            let hashes = rest.len() - rest.trim_start_matches('#').len();
            let close = format!("\"{}", "#".repeat(hashes));
            let body = &rest[hashes + 1..];
            let end = body
                .find(&close)
                .map_or(rest.len(), |found| hashes + 1 + found + close.len());
            self.code(end);
            self.tokens.push((Token::Other('"'), self.line));
        } else if first == '\'' {
            self.code(character_length(rest));
            self.tokens.push((Token::Other('\''), self.line));
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            self.tokens.push((Token::Word(&rest[..end]), self.line));
            self.code(end);
        } else {
            self.punctuation(first);
        }
    }

    fn punctuation(&mut self, character: char) {
        self.tokens.push((Token::Other(character), self.line));
        self.code(character.len_utf8());
        let Some(depth) = self.interpolations.last_mut() else {
            return;
        };
        match character {
            '{' => *depth += 1,
            '}' if *depth > 0 => *depth -= 1,
            '}' => {
                self.interpolations.pop();
                self.back_tick_string();
            }
            _ => {}
        }
    }

    /// Inside a back-tick string: goes on to behind its end, or behind a `${`.
    fn back_tick_string(&mut self) {
        let rest = self.rest();
        let mut characters = rest.char_indices().peekable();
        while let Some((index, character)) = characters.next() {
            match character {
                // Two back-ticks are one in the text.
                '`' if characters.peek().is_some_and(|&(_, next)| next == '`') => {
                    characters.next();
                }
                '`' => {
                    self.code(index + 1);
                    self.tokens.push((Token::Other('`'), self.line));
                    return;
                }
                '$' if characters.peek().is_some_and(|&(_, next)| next == '{') => {
                    self.code(index + 2);
                    self.interpolations.push(0);
                    return;
                }
                _ => {}
            }
        }
        self.code(rest.len());
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        let rest = self.rest();
        let (mut depth, mut at) = (0_usize, 0);
        while at < rest.len() {
            if rest[at..].starts_with("/*") {
                (depth, at) = (depth + 1, at + 2);
            } else if rest[at..].starts_with("*/") {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    break;
                }
            } else {
                at += rest[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        self.advance(at);
    }

    fn find_tests(&mut self) {
        for (index, window) in self.tokens.windows(4).enumerate() {
            let [
                (Token::Word("fn"), line),
                (Token::Word(name), _),
                (Token::Other('('), _),
                (Token::Other(')'), _),
            ] = *window
            else {
                continue;
            };
            let private = index > 0 && self.tokens[index - 1].0 == Token::Word("private");
            if name.starts_with("test_") && !private {
                self.scan.tests.push(TestFunction {
                    name: name.to_owned(),
                    line,
                });
            }
        }
    }
}

/// The length of the string literal that `text` begins with. It ends with its line, unless the
/// line's end is escaped.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            '\n' => return index,
            _ => {}
        }
    }
    text.len()
}

/// The length of the character literal that `text` begins with; 1 if it is none.
fn character_length(text: &str) -> usize {
    let mut escaped = false;
    // The longest is '\U12345678'.
    for (index, character) in text.char_indices().skip(1).take(12) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => return index + 1,
            '\n' => break,
            _ => {}
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_in_strings_are_text() {
        let source = concat!(
            "#!/usr/bin/env mphost\n",
            "let a = \"//> no\"; //> at the end\n",
            "let b = `//> no ${ f(`//> no`, #{ a: \"}\" }) } //> no\n//> no`;\n",
            "let c = #\"//> \"no\" \"#; let d = '\"'; // yes\n",
            "/* //> no /* nested */ //> no */\n",
            "  //> yes\n",
        );
        let found: Vec<(usize, &str, bool)> = scan(source)
            .comments
            .iter()
            .map(|c| (c.line, c.text, c.own_line))
            .collect();
        assert_eq!(
            found,
            [
                (1, "//> at the end", false),
                (4, "// yes", false),
                (6, "//> yes", true)
            ]
        );
    }

    #[test]
    fn code_ends_before_the_trailing_comments() {
        assert_eq!(
            scan("// a\nprint(1);\n\n/* b */\n// c\n").last_code_line,
            Some(1)
        );
        assert_eq!(scan("// only\n").last_code_line, None);
        assert_eq!(scan("print(`a\nb`);\n//> a\n").last_code_line, Some(1));
    }

    #[test]
    fn tests_are_public_functions_without_parameters() {
        let source = "fn test_one() { }\n// fn test_two() {}\nprivate fn test_three() {}\nfn test_four(a) {}\n\
                      let s = \"fn test_five() {}\";\nfn helper() {}\nfn /* x */ test_six\n( ) { `${ || 1 }` }\nfn int.test_seven() {}";
        let names: Vec<(String, usize)> = scan(source)
            .tests
            .into_iter()
            .map(|t| (t.name, t.line))
            .collect();
        assert_eq!(
            names,
            [("test_one".to_owned(), 0), ("test_six".to_owned(), 6)]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_accepted(text in "(\\PC|[\"'`#${}/*\\\\\n])*") {
            let found = scan(&text);
            proptest::prop_assert!(found.comments.iter().all(|c| c.text.starts_with("//")));
        }
    }
}
