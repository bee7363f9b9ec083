//! The module `json`.
//!
//! Reading is serde_json's. Writing is done here, because its spelling is Python's: `", "` and `": "` between items, floats as `repr`
//! writes them, what isn't ASCII as `\u` escapes. An object map has no order of its own in Rhai: keys come in alphabetical order.
//!
//! Source: CPython Library Reference, `json`.

use crate::api::{Call, Registry, type_name};
use crate::error::{Error, Kind, Result, ScriptError, raise};
use crate::file::File;
use crate::spelling;
use rhai::{Array, Blob, Dynamic, ImmutableString, Map};
use serde_json::Value;
use std::fmt::Write;

/// As deep as serde_json reads.
const MAX_DEPTH: usize = 127;

const PROPERTY: &str = "Expecting property name enclosed in double quotes";

/// Reads a JSON text.
///
/// # Errors
/// `JSONDecodeError` with `lineno`, `colno`, `pos`; `RecursionError` for more than 127 levels.
pub fn loads(text: &str) -> Result {
    serde_json::from_str::<Value>(text)
        .map(to_script)
        .map_err(|error| decode_error(text, &error))
}

fn to_script(value: Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(truth) => truth.into(),
        // A whole number that is too large becomes a float, as numbers with a point are.
        Value::Number(number) => match number.as_i64() {
            Some(int) => int.into(),
            None => number.as_f64().unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.into(),
        Value::Array(items) => Dynamic::from_array(items.into_iter().map(to_script).collect()),
        Value::Object(members) => Dynamic::from_map(
            members
                .into_iter()
                .map(|(key, value)| (key.into(), to_script(value)))
                .collect(),
        ),
    }
}

fn decode_error(text: &str, error: &serde_json::Error) -> Error {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or_default();
    if said.starts_with("recursion limit") {
        return raise(
            Kind::RecursionError,
            format!("the JSON text nests deeper than {MAX_DEPTH} levels"),
        );
    }
    // serde_json points behind what it has read, Python at it.
    let (line, column) = (error.line().max(1), error.column());
    let start: usize = text
        .split_inclusive('\n')
        .take(line - 1)
        .map(str::len)
        .sum();
    let at_end = error.is_eof();
    let offset = if at_end {
        text.len()
    } else {
        (start + column.saturating_sub(1)).min(text.len())
    };
    let offset = (0..=offset)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    // Of a word that is none of JSON's, it points into the middle.
    let word = |c: char| c.is_ascii_alphabetic();
    let offset = if said == "expected ident" {
        text[..offset].trim_end_matches(word).len()
    } else {
        offset
    };
    let before = &text[..offset];
    let lineno = before.matches('\n').count() + 1;
    let colno = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    let pos = before.chars().count();
    let msg = match said {
        "EOF while parsing a list" if !before.trim_end().ends_with(['[', ',']) => {
            "Expecting ',' delimiter".to_owned()
        }
        "EOF while parsing an object" if before.trim_end().ends_with(['{', ',']) => PROPERTY.into(),
        "EOF while parsing an object" => "Expecting ',' delimiter".into(),
        "expected value"
        | "expected ident"
        | "EOF while parsing a value"
        | "EOF while parsing a list" => "Expecting value".into(),
        "trailing characters" => "Extra data".into(),
        "key must be a string" => PROPERTY.into(),
        "expected `:`" => "Expecting ':' delimiter".into(),
        "expected `,` or `}`" | "expected `,` or `]`" => "Expecting ',' delimiter".into(),
        "EOF while parsing a string" => "Unterminated string".into(),
        "control character (\\u0000-\\u001F) found while parsing a string" => {
            "Invalid control character".into()
        }
        "invalid escape" => "Invalid \\escape".into(),
        "trailing comma" => "Illegal trailing comma".into(),
        other => other.to_owned(),
    };
    let number = |n: usize| Dynamic::from(i64::try_from(n).unwrap_or(i64::MAX));
    ScriptError::new(
        Kind::JSONDecodeError,
        format!("{msg}: line {lineno} column {colno} (char {pos})"),
    )
    .with_field("msg", msg)
    .with_field("lineno", number(lineno))
    .with_field("colno", number(colno))
    .with_field("pos", number(pos))
    .into()
}

/// How a text is written.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether what isn't ASCII is escaped.
    pub ensure_ascii: bool,
    /// How many spaces each level is indented by; `None` is all on one line.
    pub indent: Option<usize>,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            ensure_ascii: true,
            indent: None,
        }
    }
}

/// Writes a value as JSON.
///
/// # Errors
/// `TypeError` for what JSON has no form for, `RecursionError` for more than 127 levels.
pub fn dumps(value: &Dynamic, style: Style) -> Result<String> {
    let mut out = String::new();
    write_value(value, style, 0, &mut out)?;
    Ok(out)
}

fn write_value(value: &Dynamic, style: Style, depth: usize, out: &mut String) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(raise(
            Kind::RecursionError,
            format!("the value nests deeper than {MAX_DEPTH} levels"),
        ));
    }
    if let Ok(int) = value.as_int() {
        let _ = write!(out, "{int}");
    } else if let Some(text) = value.read_lock::<ImmutableString>() {
        write_text(&text, style, out);
    } else if value.is_unit() {
        out.push_str("null");
    } else if let Ok(truth) = value.as_bool() {
        out.push_str(if truth { "true" } else { "false" });
    } else if let Ok(number) = value.as_float() {
        match number {
            _ if number.is_nan() => out.push_str("NaN"),
            _ if number.is_infinite() => out.push_str(if number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            }),
            _ => out.push_str(&spelling::float(number)),
        }
    } else if let Ok(letter) = value.as_char() {
        write_text(letter.encode_utf8(&mut [0; 4]), style, out);
    } else if let Some(array) = value.read_lock::<Array>() {
        write_members(['[', ']'], array.iter(), style, depth, out, |item, out| {
            write_value(item, style, depth + 1, out)
        })?;
    } else if let Some(map) = value.read_lock::<Map>() {
        write_members(
            ['{', '}'],
            map.iter(),
            style,
            depth,
            out,
            |(key, item), out| {
                write_text(key, style, out);
                out.push_str(": ");
                write_value(item, style, depth + 1, out)
            },
        )?;
    } else {
        return Err(raise(
            Kind::TypeError,
            format!(
                "Object of type {} is not JSON serializable",
                type_name(value)
            ),
        ));
    }
    Ok(())
}

fn write_members<T>(
    [open, close]: [char; 2],
    members: impl ExactSizeIterator<Item = T>,
    style: Style,
    depth: usize,
    out: &mut String,
    mut write_one: impl FnMut(T, &mut String) -> Result<()>,
) -> Result<()> {
    out.push(open);
    let empty = members.len() == 0;
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = style.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    for (index, member) in members.enumerate() {
        if index > 0 {
            out.push_str(if style.indent.is_some() { "," } else { ", " });
        }
        line(depth + 1, out);
        write_one(member, out)?;
    }
    if !empty {
        line(depth, out);
    }
    out.push(close);
    Ok(())
}

fn write_text(text: &str, style: Style, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(letter),
            _ if style.ensure_ascii || letter < ' ' => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

fn style(call: &Call<'_>, from: usize) -> Result<Style> {
    let indent = match call.int(from + 1) {
        None => None,
        Some(indent) => Some(
            usize::try_from(indent.max(0))
                .ok()
                .filter(|indent| *indent <= 100)
                .ok_or_else(|| raise(Kind::ValueError, "'indent' is at most 100"))?,
        ),
    };
    Ok(Style {
        ensure_ascii: call.bool(from, true),
        indent,
    })
}

fn read(value: &Dynamic) -> Result {
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return loads(&text);
    }
    let Some(blob) = value.read_lock::<Blob>() else {
        let got = type_name(value);
        return Err(raise(
            Kind::TypeError,
            format!("the JSON text must be a string or a blob, not {got}"),
        ));
    };
    let text = std::str::from_utf8(&blob).map_err(|error| {
        raise(
            Kind::UnicodeDecodeError,
            format!(
                "'utf-8' codec can't decode the byte in position {}",
                error.valid_up_to()
            ),
        )
    })?;
    loads(text)
}

/// Registers the module.
pub fn register(registry: &mut Registry) {
    registry.function(
        "json",
        "dumps(value: any, *, ensure_ascii: bool = true, indent: int = ())",
        "A value as a JSON text.\n\n- `value`: what JSON knows: `()`, truth values, numbers, texts, arrays, object maps.\n\
         - `ensure_ascii`: whether other characters than ASCII are escaped.\n- `indent`: how many spaces a level is indented by; one line if left out.\n\n\
         Raises `TypeError` for anything else.\n\n\
         ```rhai\nif json::dumps(#{count: 0, names: [\"a\", ()]}) != `{\"count\": 0, \"names\": [\"a\", null]}` { throw \"dumps\"; }\n```",
        |call| {
            let value = call.take(0);
            dumps(&value, style(call, 1)?).map(Dynamic::from)
        },
    );
    registry.function(
        "json",
        "loads(text: bytes)",
        "Reads a JSON text.\n\n- `text`: a string or a UTF-8 blob.\n\n\
         Raises `JSONDecodeError`, with `lineno`, `colno` and `pos`, where it is none.\n\n\
         ```rhai\nif json::loads(`{\"a\": [1, 2.5, null]}`).a != [1, 2.5, ()] { throw \"loads\"; }\n```",
        |call| read(call.peek(0).unwrap_or(&Dynamic::UNIT)),
    );
    registry.function(
        "json",
        "dump(value: any, file: any, *, ensure_ascii: bool = true, indent: int = ())",
        "Writes a value as JSON to a file, in one write.\n\n- `value`, `ensure_ascii`, `indent`: as for `dumps`.\n\
         - `file`: a file that is open for writing.\n\nRaises `TypeError` for a value that has no JSON form: then nothing is written.\n\n\
         ```rhai\nlet path = `/tmp/mphost-json-${os::getpid()}`;\nwith open(path, \"w\") as f { json::dump(#{count: 0}, f); }\n\
         let back = with open(path) as f { json::load(f) };\nos::remove(path);\nif back.count != 0 { throw back; }\n```",
        |call| {
            let value = call.take(0);
            let file = call.object::<File>(1, "a file")?;
            file.write_value(&dumps(&value, style(call, 2)?)?.into())?;
            Ok(Dynamic::UNIT)
        },
    );
    registry.function(
        "json",
        "load(file: any)",
        "Reads the rest of a file as JSON.\n\n- `file`: a file that is open for reading.\n\nRaises `JSONDecodeError`.\n\n\
         ```rhai\nlet path = `/tmp/mphost-load-${os::getpid()}`;\nwith open(path, \"w\") as f { f.write(\"[1]\"); }\n\
         let back = json::load(open(path));\nos::remove(path);\nif back != [1] { throw back; }\n```",
        |call| {
            let file = call.object::<File>(0, "a file")?;
            read(&file.read_all(crate::places::of_call(call.ctx))?)
        },
    );
}

#[cfg(test)]
mod tests {
    use crate::testing::{check, engine, outcome, run_examples};

    #[test]
    fn texts_are_written_as_by_python() {
        // The expected texts are json.dumps's of CPython 3.11.
        let engine = engine(&[
            crate::builtins::register,
            crate::errors::register,
            super::register,
        ]);
        check(
            &engine,
            &[
                ("json::dumps(#{count: 0})", r#"{"count": 0}"#),
                (
                    "json::dumps([1, 2.0, 1e16, 0.00001, true, false, ()])",
                    "[1, 2.0, 1e+16, 1e-05, true, false, null]",
                ),
                ("json::dumps([[], #{}, [[]]])", "[[], {}, [[]]]"),
                (
                    "json::dumps(\"中 é 😀 \\x7f \\x01 \\\" \\\\ / \\t\\r\\n\")",
                    r#""\u4e2d \u00e9 \ud83d\ude00 \u007f \u0001 \" \\ / \t\r\n""#,
                ),
                ("json::dumps(\"中é\", #{ensure_ascii: false})", "\"中é\""),
                (
                    "json::dumps(#{a: [1, #{b: ()}], c: [], d: #{}}, #{indent: 2})",
                    "{\n  \"a\": [\n    1,\n    {\n      \"b\": null\n    }\n  ],\n  \"c\": [],\n  \"d\": {}\n}",
                ),
                ("json::dumps('x')", "\"x\""),
                (
                    "json::dumps([0.0 / 0.0, 1.0 / 0.0, -1.0 / 0.0])",
                    "[NaN, Infinity, -Infinity]",
                ),
                (
                    "json::dumps(|x| x)",
                    "TypeError: Object of type function is not JSON serializable",
                ),
                (
                    "json::dumps([1, blob(2)])",
                    "TypeError: Object of type blob is not JSON serializable",
                ),
                (
                    "let a = []; for i in 0..200 { a = [a]; } json::dumps(a)",
                    "RecursionError: the value nests deeper than 127 levels",
                ),
                (
                    "json::dumps(1, #{ident: 2})",
                    "TypeError: dumps() has no option 'ident'; did you mean 'indent'?; it takes: value, ensure_ascii, indent",
                ),
                (
                    "json::dump(1, 2)",
                    "TypeError: dump(): 'file' must be a file, not int",
                ),
            ],
        );
    }

    #[test]
    fn texts_are_read() {
        let engine = engine(&[
            crate::builtins::register,
            crate::errors::register,
            super::register,
        ]);
        for (text, expected) in [
            (
                "{\"a\": [1, -2.5, true, null, \"x\"]}",
                "{'a': [1, -2.5, True, None, 'x']}",
            ),
            (" [ ] ", "[]"),
            ("\"\\u4e2d\\ud83d\\ude00\\n\"", "'中😀\\n'"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9.223372036854776e+18"),
            ("1e400", "JSONDecodeError"),
            ("{\"a\": 1, \"a\": 2}", "{'a': 2}"),
        ] {
            let script = format!("repr(json::loads({text:?}))").replace("\\\\u", "\\\\u");
            let result = outcome(&engine, &script);
            assert!(
                result == expected || result.starts_with(&format!("{expected}: ")),
                "{text}: {result}"
            );
        }
    }

    #[test]
    fn what_is_no_json_is_located() {
        // Python's messages and places.
        let engine = engine(&[
            crate::builtins::register,
            crate::errors::register,
            super::register,
        ]);
        for (text, expected) in [
            ("", "Expecting value: line 1 column 1 (char 0)"),
            ("nope", "Expecting value: line 1 column 1 (char 0)"),
            ("[1, 2", "Expecting ',' delimiter: line 1 column 6 (char 5)"),
            ("[1,", "Expecting value: line 1 column 4 (char 3)"),
            (
                "{",
                "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            ),
            (
                "{\"a\": 1",
                "Expecting ',' delimiter: line 1 column 8 (char 7)",
            ),
            ("[1 2]", "Expecting ',' delimiter: line 1 column 4 (char 3)"),
            (
                "{\"a\" 1}",
                "Expecting ':' delimiter: line 1 column 6 (char 5)",
            ),
            (
                "{1: 2}",
                "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
            ),
            ("[1]\n[2]", "Extra data: line 2 column 1 (char 4)"),
            (
                "[\n  1,\n  x\n]",
                "Expecting value: line 3 column 3 (char 9)",
            ),
            ("\"中文\" x", "Extra data: line 1 column 6 (char 5)"),
        ] {
            let script = format!("json::loads({text:?})");
            assert_eq!(
                outcome(&engine, &script),
                format!("JSONDecodeError: {expected}"),
                "{text}"
            );
        }
        let deep = format!("json::loads(\"[\" * {0} + \"]\" * {0})", 200);
        assert!(outcome(&engine, &deep).starts_with("RecursionError"));
        check(
            &engine,
            &[
                (
                    "try { json::loads(\"[1,\\n x]\") } catch (e) { return [e.lineno, e.colno, e.pos, e.msg, e.is_a(\"ValueError\")]; }",
                    "[2, 2, 5, \"Expecting value\", true]",
                ),
                (
                    "json::loads(5)",
                    "TypeError: loads(): 'text' must be a string or a blob, not int",
                ),
                (
                    "json::loads(blob(1, 0xff))",
                    "UnicodeDecodeError: 'utf-8' codec can't decode the byte in position 0",
                ),
            ],
        );
    }

    #[test]
    fn the_examples_run() {
        run_examples(
            &[crate::builtins::register, crate::os::register],
            super::register,
        );
    }
}
