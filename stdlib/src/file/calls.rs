//! What scripts can call of files: `open`, the methods, the standard streams.

use super::{File, Stream, closed, stdin};
use crate::api::{Call, Registry};
use crate::core_error;
use crate::error::{Kind, Result, raise};
use mphost_core::position::Position;
use rhai::{Blob, Dynamic, ImmutableString};
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

fn without_end(line: Dynamic) -> Dynamic {
    if let Some(text) = line.read_lock::<ImmutableString>() {
        return text
            .strip_suffix('\n')
            .map_or_else(|| text.clone().into(), |text| text.into());
    }
    let mut blob = line.cast::<Blob>();
    if blob.last() == Some(&b'\n') {
        blob.pop();
    }
    Dynamic::from_blob(blob)
}

fn here(call: &Call<'_>) -> Position {
    crate::places::of_call(call.ctx)
}

fn this(call: &Call<'_>) -> File {
    call.this::<File>()
}

fn empty(file: &File) -> Result {
    Ok(if file.state()?.mode.binary {
        Dynamic::from_blob(Blob::new())
    } else {
        Dynamic::from("")
    })
}

fn open(call: &mut Call<'_>) -> Result {
    let path = call.string(0).unwrap_or_default();
    let mode = call.string(1).unwrap_or_else(|| "r".into());
    if let Some(encoding) = call.string(2) {
        let plain = encoding.to_lowercase().replace(['-', '_'], "");
        if !matches!(plain.as_str(), "utf8" | "ascii" | "usascii") {
            return Err(raise(
                Kind::LookupError,
                format!("unknown encoding: {encoding}; texts are UTF-8"),
            ));
        }
        if mode.contains('b') {
            return Err(raise(
                Kind::ValueError,
                "binary mode doesn't take an encoding argument",
            ));
        }
    }
    File::open(&path, &mode).map(Dynamic::from)
}

/// Registers `open`, the type of files, and the standard streams in `sys`.
pub fn register(registry: &mut Registry) {
    crate::with::context::<File>(None, "close");
    registry.function(
        "",
        "open(path: string, mode: string = \"r\", *, encoding: string = \"utf-8\")",
        "Opens a file.\n\n\
         - `path`: where it is.\n\
         - `mode`: `r` reads, `w` empties and writes, `a` appends, `x` creates; `+` adds the other direction, `b` gives blobs instead of text.\n\
         - `encoding`: UTF-8 is the only one.\n\n\
         Raises `FileNotFoundError`, `PermissionError` and the other kinds of `OSError`, `ValueError` for a bad mode.\n\n\
         ```rhai\nlet path = `/tmp/mphost-example-${id(#{})}`;\nwith open(path, \"w\") as f { f.write(\"one\\ntwo\\n\"); }\n\
         let text = with open(path) as f { f.read() };\nos::remove(path);\nif text != \"one\\ntwo\\n\" { throw text; }\n```",
        open,
    );
    registry.constant(
        "sys",
        "stdin",
        Dynamic::from(stdin()),
        "Standard input, as a file: `for line in sys::stdin { … }`.",
    );
    let stdout = File::standard(Stream::Stdout(std::io::stdout()), "<stdout>", "w");
    registry.constant(
        "sys",
        "stdout",
        Dynamic::from(stdout),
        "Standard output, as a file.",
    );
    let stderr = File::standard(Stream::Stderr(std::io::stderr()), "<stderr>", "w");
    registry.constant(
        "sys",
        "stderr",
        Dynamic::from(stderr),
        "Standard error, as a file.",
    );
    let mut class = registry.class::<File>("file");
    register_reading(&mut class);
    register_the_rest(&mut class);
}

type Class<'r> = crate::api::Class<'r, File>;

fn register_reading(class: &mut Class<'_>) {
    class
        .method(
            "read(size: int = -1)",
            "Reads the rest of the file, or at most `size` characters (bytes in binary mode). At the end it is empty.",
            |call| match call.int(0).map(usize::try_from) {
                Some(Ok(size)) => this(call).read_some(size, here(call)),
                _ => this(call).read_all(here(call)),
            },
        )
        .method("readline()", "Reads one line with its `\\n`. At the end of the file it is empty.", |call| {
            let file = this(call);
            match file.read_line(here(call))? {
                Some(line) => Ok(line),
                None => empty(&file),
            }
        })
        .method("readlines()", "Reads all lines that are left, as an array, each with its `\\n`.", |call| {
            this(call).lines(here(call)).map(Dynamic::from_array)
        })
        .method("lines()", "Reads all lines that are left, as an array, without their ends.", |call| {
            let lines = this(call).lines(here(call))?;
            Ok(Dynamic::from_array(lines.into_iter().map(without_end).collect()))
        })
        .iterate(|file| {
            // A line at a time: a pipe's lines are handed out as they come.
            std::iter::from_fn(move || match file.read_line(Position::default()) {
                Ok(line) => line.map(Ok),
                Err(error) => Some(Err(error.into_rhai(None, rhai::Position::NONE))),
            })
        });
}

fn register_the_rest(class: &mut Class<'_>) {
    class
        .method(
            "write(text: any)",
            "Writes a text, or a blob in binary mode, and says how many characters or bytes that were. Nothing is held back in a buffer.",
            |call| this(call).write(call),
        )
        .method("writelines(lines: items)", "Writes several texts or blobs, without adding line ends.", |call| {
            let lines = call.take(0);
            for line in crate::items::collect(call.ctx, lines)? {
                this(call).write_value(&line)?;
            }
            Ok(Dynamic::UNIT)
        })
        .method("flush()", "Does nothing more: what was written is with the system already.", |call| {
            this(call).state()?;
            Ok(Dynamic::UNIT)
        })
        .method("close()", "Closes the file. Closing it again is fine; any other use is a `ValueError`.", |call| {
            this(call).close();
            Ok(Dynamic::UNIT)
        })
        .method(
            "seek(offset: int, whence: int = 0)",
            "Moves to a byte position: from the start (`whence` 0), from here (1) or from the end (2); gives the new position.",
            |call| this(call).seek(call.int(0).unwrap_or(0), call.int(1).unwrap_or(0)),
        )
        .method("tell()", "The position in bytes.", |call| this(call).seek(0, 1))
        .method(
            "truncate(size: int = ())",
            "Cuts the file off at `size` bytes, or at the position; gives the new size.",
            |call| {
                let file = this(call);
                let size = match call.int(0) {
                    Some(size) => size,
                    None => file.seek(0, 1)?.as_int().unwrap_or(0),
                };
                let state = file.state()?;
                let length = u64::try_from(size).map_err(|_| raise(Kind::ValueError, "negative size value"))?;
                match &state.stream {
                    Some(Stream::Opened(opened)) => opened
                        .set_len(length)
                        .map_err(|error| core_error::from_io(&error, "truncate", Some(&state.name)))?,
                    _ => return Err(raise(Kind::OSError, format!("'{}' can't be truncated", state.name))),
                }
                Ok(Dynamic::from(size))
            },
        )
        .method("fileno()", "The number of its descriptor.", |call| {
            let file = this(call);
            let state = file.state()?;
            Ok(Dynamic::from(i64::from(state.stream.as_ref().ok_or_else(closed)?.as_fd().as_raw_fd())))
        })
        .method("isatty()", "Whether it is a terminal.", |call| {
            let file = this(call);
            let state = file.state()?;
            Ok(Dynamic::from(nix::unistd::isatty(state.stream.as_ref().ok_or_else(closed)?).unwrap_or(false)))
        })
        .method("readable()", "Whether it can be read from.", |call| Ok(Dynamic::from(this(call).state()?.mode.read)))
        .method("writable()", "Whether it can be written to.", |call| Ok(Dynamic::from(this(call).state()?.mode.write)))
        .getter("closed", "Whether it has been closed.", |call| Ok(Dynamic::from(this(call).state().is_err())))
        .getter("name", "The path as given to `open`.", |call| Ok(Dynamic::from(this(call).0.borrow().name.clone())))
        .getter("mode", "The mode as given to `open`.", |call| Ok(Dynamic::from(this(call).0.borrow().mode_text.clone())))
        .display(|file| {
            let state = file.0.borrow();
            let closed = if state.stream.is_none() { "closed " } else { "" };
            format!("<{}file name='{}' mode='{}'>", closed, state.name, state.mode_text)
        })
        .equality(|a, b| Rc::ptr_eq(&a.0, &b.0));
}
