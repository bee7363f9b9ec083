//! What is compiled in the place of a script: the script with a few words more.
//!
//! - `try { … } catch (e) { … }` becomes `try {guard__{ … }} catch (e) { … }`, so that `e` is an error value for every error: see
//!   [`crate::tries`].
//! - `with … as NAME { … }` becomes `with … as NAME {let NAME=bound__(); … }`. The parser doesn't know the variable of custom syntax, so a
//!   closure around the block would look for one outside: see [`crate::with`].
//!
//! Where the blocks are is what Rhai's own parser says, in a first compilation (only of scripts with the words `catch` or `as` in them), so that
//! neither texts nor comments mislead. Columns behind inserted words are counted back ([`original`]).
//!
//! Invariants: a script that doesn't compile is reported as it is written; every process compiles the same text, so the names of
//! closures agree. In code that is compiled elsewhere (`eval`) an error of the interpreter is caught as Rhai's object map, and closures around
//! a `with … as` block don't find its variable.

use crate::tries::GUARD;
use crate::with::BOUND;
use rhai::{AST, Engine, ParseError, Position, Token};
use std::cell::{Cell, RefCell};

/// A brace, and the words that go behind it, or before it.
struct Block {
    line: usize,
    column: usize,
    statement: String,
    before: bool,
}

/// What of `try {`, `} catch` or `as NAME {` has been read.
#[derive(Default)]
enum Progress {
    #[default]
    Nothing,
    Try,
    Closed(Position),
    As,
    Entered(String),
}

#[derive(Default)]
struct Recorder {
    progress: Progress,
    blocks: Vec<Block>,
}

/// In a line, from a column of the compiled text on, so many columns are ours.
struct Shift {
    line: usize,
    column: usize,
    width: usize,
}

thread_local! {
    static DECLARES: Cell<bool> = const { Cell::new(false) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
    /// Those of each file that has any: few, and looked at by calls that want to be quick.
    static SHIFTS: RefCell<Vec<(String, Vec<Shift>)>> = const { RefCell::new(Vec::new()) };
}

/// Compiles a script so that its blocks have their variables; `path` is what its errors name.
///
/// The engine must show its tokens to [`watch`].
///
/// # Errors
/// The syntax error, with its position in `source`.
pub fn compile(engine: &Engine, source: &str, path: &str) -> Result<AST, ParseError> {
    SHIFTS.with_borrow_mut(|all| all.retain(|(of, _)| of != path));
    compile_piece(engine, source, path)
}

/// The same for a piece of a script, which stands behind those that were compiled before: `source` has an empty line for each of theirs.
///
/// # Errors
/// As [`compile`].
pub(crate) fn compile_piece(engine: &Engine, source: &str, path: &str) -> Result<AST, ParseError> {
    let ast = if source.contains("catch") || source.contains(" as ") {
        RECORDER.set(Some(Recorder::default()));
        let compiled = engine.compile(source);
        let blocks = RECORDER
            .take()
            .map(|recorder| recorder.blocks)
            .unwrap_or_default();
        let compiled = compiled?;
        if blocks.is_empty() {
            compiled
        } else {
            let (text, shifts) = insert(source, &blocks);
            SHIFTS.with_borrow_mut(|all| match all.iter_mut().find(|(of, _)| of == path) {
                Some((_, known)) => known.extend(shifts),
                None => all.push((path.to_owned(), shifts)),
            });
            // It has just compiled without the statements, and they are valid wherever a statement is.
            DECLARES.set(true);
            let complete = engine.compile(text);
            DECLARES.set(false);
            complete.unwrap_or(compiled)
        }
    } else {
        engine.compile(source)?
    };
    let mut ast = ast;
    ast.set_source(path);
    Ok(ast)
}

/// Whether what is being compiled declares the variables of its `with … as` blocks.
pub(crate) fn declares() -> bool {
    DECLARES.get()
}

/// Sees a token that the parser is about to get.
pub(crate) fn watch(token: &Token, position: Position) {
    RECORDER.with_borrow_mut(|recorder| {
        let Some(recorder) = recorder else { return };
        let before = std::mem::take(&mut recorder.progress);
        recorder.progress = match (before, token) {
            (before, Token::Comment(_)) => before,
            (_, Token::Try) => Progress::Try,
            (Progress::Try, Token::LeftBrace) => {
                recorder.add(position, format!("{GUARD}{{"), false);
                Progress::Nothing
            }
            (_, Token::RightBrace) => Progress::Closed(position),
            (Progress::Closed(brace), Token::Catch) => {
                recorder.add(brace, "}".into(), true);
                Progress::Nothing
            }
            (_, Token::As) => Progress::As,
            (Progress::As, Token::Identifier(name)) => Progress::Entered(name.to_string()),
            (Progress::Entered(name), Token::LeftBrace) => {
                recorder.add(position, format!("let {name}={BOUND}();"), false);
                Progress::Nothing
            }
            _ => Progress::Nothing,
        };
    });
}

impl Recorder {
    fn add(&mut self, brace: Position, statement: String, before: bool) {
        if let (Some(line), Some(column)) = (brace.line(), brace.position()) {
            self.blocks.push(Block {
                line,
                column,
                statement,
                before,
            });
        }
    }
}

fn insert(source: &str, blocks: &[Block]) -> (String, Vec<Shift>) {
    let mut text = String::with_capacity(source.len() + blocks.len() * 32);
    let mut shifts = Vec::with_capacity(blocks.len());
    // The parser reads from the beginning to the end, so the blocks come in order.
    let mut blocks = blocks.iter().peekable();
    for (index, line) in source.split('\n').enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let mut added = 0;
        for (column, letter) in line.chars().enumerate() {
            let mut behind = String::new();
            while let Some(block) =
                blocks.next_if(|block| block.line == index + 1 && block.column == column + 1)
            {
                let width = block.statement.chars().count();
                // What goes before the brace moves the brace, too.
                let from = if block.before { column } else { column + 1 };
                shifts.push(Shift {
                    line: block.line,
                    column: from + added,
                    width,
                });
                if block.before {
                    text.push_str(&block.statement);
                } else {
                    behind.push_str(&block.statement);
                }
                added += width;
            }
            text.push(letter);
            text.push_str(&behind);
        }
    }
    (text, shifts)
}

/// A position of a compiled script as it is in the text that was written.
#[must_use]
pub fn original(path: &str, position: Position) -> Position {
    let (Some(line), Some(column)) = (position.line(), position.position()) else {
        return position;
    };
    let ours = SHIFTS.with_borrow(|all| {
        let Some((_, shifts)) = all.iter().find(|(of, _)| of == path) else {
            return 0;
        };
        // They are in the order of the text.
        shifts[shifts.partition_point(|shift| shift.line < line)..]
            .iter()
            .take_while(|shift| shift.line == line && shift.column < column)
            .map(|shift| shift.width)
            .sum::<usize>()
    });
    if ours == 0 {
        return position;
    }
    let number = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    Position::new(number(line), number(column.saturating_sub(ours)))
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, engine};

    #[test]
    fn interpreter_errors_are_typed_wherever_they_are_caught() {
        let engine = engine(&[crate::builtins::register, crate::errors::register]);
        check(
            &engine,
            &[
                (
                    "try { 1 / 0 } catch (e) { return [e.type, e.message, e.traceback, e.cause]; }",
                    "[\"ZeroDivisionError\", \"Division by zero: 1 / 0\", \"\", ()]",
                ),
                (
                    "try { [1][5] } catch (err) { return err; }",
                    "IndexError: Array index 5 out of bounds: only 1 element in array",
                ),
                (
                    "try { let x = nothing; } catch (e) { return e.type; }",
                    "NameError",
                ),
                (
                    "try { nothing() } catch (e) { return e.type; }",
                    "NameError",
                ),
                (
                    "try { sys::nothing() } catch (e) { return e.type; }",
                    "NameError",
                ),
                (
                    "try { let x = 5; x.y } catch (e) { return e.type; }",
                    "AttributeError",
                ),
                (
                    "try { \"a\" - 1 } catch (e) { return `${e}`; }",
                    "TypeError: unsupported operand type(s) for -: 'string' and 'int'",
                ),
                (
                    "try { 9223372036854775807 + 1 } catch (e) { return e.type; }",
                    "OverflowError",
                ),
                (
                    "try { [].push(1, 2) } catch (e) { return `${e}`; }",
                    "TypeError: push() doesn't take (array, int, int)",
                ),
                (
                    "fn deep() { deep() } try { deep() } catch (e) { return [e.type, e.message]; }",
                    "[\"RecursionError\", \"Stack overflow\"]",
                ),
                (
                    "fn deep() { deep() } fn f() { try { deep() } catch (e) { return e.type; } } f() + f()",
                    "RecursionErrorRecursionError",
                ),
                (
                    "let f = || { let q = 5; q.missing }; try { f.call() } catch (e) { return e.type; }",
                    "AttributeError",
                ),
                (
                    "let n = 0; for i in 0..5 { try { if i == 1 { continue; } if i == 3 { break; } n += 1; } catch { } } n",
                    "2",
                ),
                (
                    "let n = 0; while true { try { throw 1; } catch (e) { n += e; if n > 2 { break; } } } n",
                    "3",
                ),
                (
                    "let e = 7; let f = || { try { throw 1; } catch (e) { return e; } }; [f.call(), e]",
                    "[1, 7]",
                ),
                ("let e = 7; try { throw 1; } catch (e) { e += 1; } e", "7"),
                ("fn f() { try { 5 } catch { 6 } } f()", "5"),
                (
                    "let k = 1; try { throw 2; } catch (e) { k = e; } [k, 5]",
                    "[2, 5]",
                ),
                ("let k = 1; try { k = 3; } catch { } (k + 1)", "4"),
                ("fn f() { try { return 5; } catch { } -1 } f()", "5"),
                ("fn f() { try { throw 5; } catch { } -1 } f()", "-1"),
                (
                    "try {} catch (e) { return 1; } try { throw 2; } catch (e) { return e; }",
                    "2",
                ),
                (
                    "try { eval(\"1 / 0\") } catch (e) { return e.type; }",
                    "ZeroDivisionError",
                ),
                (
                    "let all = []; try { all.push(1); throw 2; } catch (e) { all.push(e); } all.push(3); all",
                    "[1, 2, 3]",
                ),
                (
                    "try {\n  1 / 0\n} catch (e) { return [e.position, e.line, e.error]; }",
                    "[\"<script>:2:5\", 2, \"ErrorArithmetic\"]",
                ),
                // In functions, closures, loops, conditions, expressions, custom syntax, and inside each other.
                (
                    "fn f() { try { 1 / 0 } catch (e) { return e.type; } } f()",
                    "ZeroDivisionError",
                ),
                (
                    "let f = || { try { 1 / 0 } catch (e) { return e.type; } }; f.call()",
                    "ZeroDivisionError",
                ),
                (
                    "let x = 3; let f = |y| { try { x / y } catch (e) { return `${x} ${e.type}`; } }; f.call(0)",
                    "3 ZeroDivisionError",
                ),
                (
                    "for i in 0..1 { while true { if true { try { 1 / 0 } catch (e) { return e.type; } } } }",
                    "ZeroDivisionError",
                ),
                (
                    "let all = []; let x = { try { 1 / 0 } catch (e) { all.push(e.type); } 7 }; all.push(x); all",
                    "[\"ZeroDivisionError\", 7]",
                ),
                (
                    "switch 1 { 1 => try { 1 / 0 } catch (e) { return e.type; } }",
                    "ZeroDivisionError",
                ),
                (
                    "try { try { 1 / 0 } catch (a) { [][1] } } catch (b) { return b.type; }",
                    "IndexError",
                ),
                (
                    "try { 1 / 0 } catch (a) { try { [][1] } catch (b) { return a.type + b.type; } }",
                    "ZeroDivisionErrorIndexError",
                ),
                (
                    "let a = 1; try { let b = 2; 1 / 0 } catch (e) { let c = 3; return [a, c, e.type]; }",
                    "[1, 3, \"ZeroDivisionError\"]",
                ),
                (
                    "try { 1 / 0 } catch (e) { let f = || e.type; return f.call(); }",
                    "ZeroDivisionError",
                ),
                (
                    "try { 1 / 0 } catch (e) { throw e; }",
                    "ZeroDivisionError: Division by zero: 1 / 0",
                ),
                (
                    "try { 1 / 0 } catch (e) { throw; }",
                    "ZeroDivisionError: Division by zero: 1 / 0",
                ),
                ("try { 1 / 0 } catch { return 5; }", "5"),
                (
                    "try { eval(\"1 +\") } catch (e) { return [e.type, e.message]; }",
                    "[\"SyntaxError\", \"Syntax error: Script is incomplete\"]",
                ),
                (
                    "try { Fn(\"print\") } catch (e) { return e.type; }",
                    "SyntaxError",
                ),
                (
                    "try { parse_int(\"abc\") } catch (e) { return e.type; }",
                    "ValueError",
                ),
                (
                    "try { let f = |x| x; f.call() } catch (e) { return `${e}`; }",
                    "TypeError: a closure was called with 1 argument too few",
                ),
                // What a script throws stays what it is.
                (
                    "try { throw #{error: \"mine\", message: \"m\"} } catch (e) { return e.error; }",
                    "mine",
                ),
                ("try { throw 5 } catch (e) { return e + 1; }", "6"),
            ],
        );
    }

    #[test]
    fn maps_keep_their_ways() {
        // The other way to give caught maps a type would have broken these.
        let engine = engine(&[crate::builtins::register, crate::errors::register]);
        check(
            &engine,
            &[
                (
                    "let m = #{}; m.a = 1; m[\"b\"] = 2; m.c ?? 3; m",
                    "#{\"a\": 1, \"b\": 2}",
                ),
                ("let m = #{}; m.type == ()", "true"),
            ],
        );
    }

    #[test]
    fn positions_are_those_of_the_written_text() {
        let engine = engine(&[crate::builtins::register, crate::errors::register]);
        check(
            &engine,
            &[
                (
                    "try { 1 / 0 } catch (e) { throw ValueError(\"x\"); }",
                    "ValueError: x",
                ),
                (
                    "try { try { 1 / 0 } catch (e) { throw ValueError(\"x\"); } } catch (f) { return f.position; }",
                    "<script>:1:39",
                ),
                (
                    "try { try { 1 / 0 } catch (e) { try { [][0] } catch (g) { let x = nothing; } } } catch (f) { return f.position; }",
                    "<script>:1:67",
                ),
                (
                    "try { try { 1 / 0 } /* catch (x) { */ catch (e) {\n  let x = nothing;\n} } catch (f) { return f.position; }",
                    "<script>:2:11",
                ),
                (
                    "let s = \"catch (e) {\"; let t = `a${ { try { 1/0 } catch (e) { s += e.type; } s } }b`; t",
                    "acatch (e) {ZeroDivisionErrorb",
                ),
            ],
        );
    }

    #[test]
    fn a_syntax_error_is_where_it_was_written() {
        let engine = engine(&[crate::errors::register]);
        let error = super::compile(&engine, "try { } catch (e) { let = 5; }", "script")
            .expect_err("that is no script");
        assert_eq!(error.position(), rhai::Position::new(1, 25));
        let ast =
            super::compile(&engine, "try { 1 / 0 } catch (e) { }", "script").expect("that is one");
        assert_eq!(ast.source(), Some("script"));
    }
}
