//! What a line is made of, as far as a prompt has to know: for colours, for completion, and for whether more lines are to come.
//!
//! It never fails: a text that isn't Rhai gives some tokens too, and the compiler says what is wrong with it.

use std::ops::Range;

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Keyword,
    Name,
    Number,
    Text,
    Comment,
    Symbol,
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: Range<usize>,
}

/// A line, taken apart.
#[derive(Debug, Default)]
pub(super) struct Lexed {
    pub(super) tokens: Vec<Token>,
    /// The brackets that are open at the end, innermost last, with their places.
    pub(super) open: Vec<(char, usize)>,
    /// Whether a text or a comment is open at the end.
    pub(super) unfinished: bool,
}

pub(super) const KEYWORDS: &[&str] = &[
    "let", "const", "fn", "private", "if", "else", "switch", "do", "while", "until", "loop", "for",
    "in", "continue", "break", "return", "throw", "try", "catch", "import", "export", "as", "with",
    "true", "false", "this", "global",
];

/// Takes a text apart.
pub(super) fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer {
        text,
        at: 0,
        lexed: Lexed::default(),
    };
    while lexer.at < text.len() {
        lexer.next();
    }
    lexer.lexed
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    lexed: Lexed,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn next(&mut self) {
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return;
        };
        let kind = if first.is_whitespace() {
            self.at += first.len_utf8();
            return;
        } else if rest.starts_with("//") {
            self.at += rest.find('\n').unwrap_or(rest.len());
            Kind::Comment
        } else if rest.starts_with("/*") {
            self.block_comment();
            Kind::Comment
        } else if first == '"' || first == '\'' {
            self.quoted(first);
            Kind::Text
        } else if first == '`' {
            self.template();
            return;
        } else if first.is_ascii_digit() {
            self.at += number(rest);
            Kind::Number
        } else if first.is_alphabetic() || first == '_' {
            self.at += rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            if KEYWORDS.contains(&&self.text[start..self.at]) {
                Kind::Keyword
            } else {
                Kind::Name
            }
        } else {
            self.symbol(first);
            Kind::Symbol
        };
        self.push(kind, start);
    }

    fn push(&mut self, kind: Kind, start: usize) {
        self.lexed.tokens.push(Token {
            kind,
            at: start..self.at,
        });
    }

    fn symbol(&mut self, symbol: char) {
        let start = self.at;
        self.at += symbol.len_utf8();
        match symbol {
            '(' | '[' | '{' => self.lexed.open.push((symbol, start)),
            ')' | ']' | '}' => {
                self.lexed.open.pop();
            }
            // `#{`: the map's bracket follows.
            _ => {}
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        while self.at < self.text.len() {
            let rest = self.rest();
            if rest.starts_with("/*") {
                depth += 1;
                self.at += 2;
            } else if rest.starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return;
                }
            } else {
                self.at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        self.lexed.unfinished = true;
    }

    /// A text in double quotes, or a character: neither goes beyond its line, unless the line ends with a backslash.
    fn quoted(&mut self, quote: char) {
        self.at += 1;
        let mut escaped = false;
        while let Some(letter) = self.rest().chars().next() {
            self.at += letter.len_utf8();
            match letter {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\n' => return,
                _ if letter == quote => return,
                _ => {}
            }
        }
        self.lexed.unfinished |= escaped;
    }

    /// A text in back-ticks, with code in it.
    fn template(&mut self) {
        let mut start = self.at;
        self.at += 1;
        while let Some(letter) = self.rest().chars().next() {
            if letter == '`' {
                self.at += 1;
                self.push(Kind::Text, start);
                return;
            }
            if self.rest().starts_with("${") {
                self.at += 2;
                self.push(Kind::Text, start);
                self.lexed.open.push(('{', self.at - 1));
                let depth = self.lexed.open.len();
                while self.at < self.text.len() && self.lexed.open.len() >= depth {
                    self.next();
                }
                if self.lexed.open.len() >= depth {
                    return;
                }
                // The closing bracket was taken as a symbol: it is the text's.
                start = self.at;
                continue;
            }
            self.at += letter.len_utf8();
        }
        self.push(Kind::Text, start);
        self.lexed.unfinished = true;
    }
}

fn number(rest: &str) -> usize {
    let mut length = 0;
    let mut letters = rest.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        let fits = letter.is_ascii_alphanumeric()
            || letter == '_'
            // `1.5`, not `1..5` nor `1.max(2)`.
            || letter == '.' && letters.peek().is_some_and(|(_, next)| next.is_ascii_digit());
        if !fits {
            break;
        }
        length = at + letter.len_utf8();
    }
    length
}

impl Lexed {
    /// Whether more lines are to come: something is open, or the last word can't be the end.
    pub(super) fn is_incomplete(&self, text: &str) -> bool {
        if self.unfinished || !self.open.is_empty() {
            return true;
        }
        let code: Vec<&Token> = self
            .tokens
            .iter()
            .filter(|token| token.kind != Kind::Comment)
            .collect();
        let word = |token: &Token| &text[token.at.clone()];
        let Some(last) = code.last() else {
            return false;
        };
        // A function's head, whose body begins on the next line.
        let head = code.iter().position(|token| word(token) == "fn");
        if let Some(head) = head
            && head <= 1
            && code[head].kind == Kind::Keyword
            && !code.iter().any(|token| word(token) == "{")
        {
            return true;
        }
        match last.kind {
            Kind::Symbol => {
                let before = code.len().checked_sub(2).map(|index| word(code[index]));
                match word(last) {
                    // `|x|` may end with a body on the next line, and so may any operator.
                    "," | "." | "+" | "-" | "*" | "/" | "%" | "<" | "&" | "=" | "|" => true,
                    ">" => before != Some(")"),
                    _ => false,
                }
            }
            Kind::Keyword => matches!(word(last), "else" | "in" | "as" | "try" | "loop" | "do"),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incomplete(text: &str) -> bool {
        lex(text).is_incomplete(text)
    }

    #[test]
    fn a_line_is_complete_when_its_brackets_are() {
        for text in [
            "print(1)",
            "let x = [1, 2, 3];",
            "fn f(x) { x * x }",
            "let s = \"a { b ( c\";",
            "let s = `a ${ x + \"}\" } b { `;",
            "// { ( [",
            "1 /* { /* ( */ [ */ + 2",
            "let c = '{';",
            "#{a: 1, b: [2]}",
            "x }",
            "",
            "let f = |x| x + 1;",
            "pool.map(|x| x * x, 0..5)",
            "1.5",
            "\"unclosed",
        ] {
            assert!(!incomplete(text), "{text}");
        }
        for text in [
            "fn f(x) {",
            "fn f(x)",
            "let x = [1,",
            "print(",
            "let s = `a",
            "let s = `a ${ x",
            "/* a comment",
            "let x =",
            "1 +",
            "if x { 1 } else",
            "with lock {",
            "let q = Queue(#{maxsize: 5",
        ] {
            assert!(incomplete(text), "{text}");
        }
    }

    #[test]
    fn tokens_cover_what_they_name() {
        let text = "let größe = f(\"a\", 1.5e3) // so";
        let kinds: Vec<(Kind, &str)> = lex(text)
            .tokens
            .iter()
            .map(|token| (token.kind, &text[token.at.clone()]))
            .collect();
        assert_eq!(
            kinds,
            [
                (Kind::Keyword, "let"),
                (Kind::Name, "größe"),
                (Kind::Symbol, "="),
                (Kind::Name, "f"),
                (Kind::Symbol, "("),
                (Kind::Text, "\"a\""),
                (Kind::Symbol, ","),
                (Kind::Number, "1.5e3"),
                (Kind::Symbol, ")"),
                (Kind::Comment, "// so"),
            ]
        );
    }

    #[test]
    fn any_text_can_be_taken_apart() {
        let text = "`a${b`c${'\\''}`}\"\\\u{1f980}`${}}])(#{/*/**/";
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let lexed = lex(&text[..end]);
            for token in lexed.tokens {
                assert!(text.get(token.at).is_some());
            }
        }
    }
}
