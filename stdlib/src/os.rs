//! The modules `os` and `os::path`.
//!
//! Failing calls raise Python's kinds of `OSError`, which name the path and the reason. The environment is a map of this process's
//! own: changing the system's is only safe where no other code reads it, so `os::environ` is what scripts see and what
//! [`environment`] gives to those who start programs.
//!
//! Source: CPython Library Reference, `os`, `os.path`.

use crate::api::{Call, Registry};
use crate::core_error;
use crate::error::{Error, Kind, Result, raise};
use crate::room;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rhai::{Array, Dynamic, ImmutableString, Map};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

thread_local! {
    static ENVIRONMENT: RefCell<Option<BTreeMap<String, String>>> = const { RefCell::new(None) };
}

fn with_environment<R>(use_it: impl FnOnce(&mut BTreeMap<String, String>) -> R) -> R {
    ENVIRONMENT.with_borrow_mut(|kept| {
        use_it(kept.get_or_insert_with(|| {
            let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
            std::env::vars_os()
                .map(|(name, value)| (text(name), text(value)))
                .collect()
        }))
    })
}

/// The environment as this process's script has it: for programs that it starts.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    with_environment(|environment| environment.clone())
}

/// Replaces the environment: in a child that is started anew, with its parent's.
pub fn set_environment(environment: BTreeMap<String, String>) {
    ENVIRONMENT.set(Some(environment));
}

/// How many processors this process may use.
#[must_use]
pub fn cpu_count() -> i64 {
    let allowed = nix::sched::sched_getaffinity(Pid::from_raw(0))
        .ok()
        .map(|set| {
            (0..nix::sched::CpuSet::count())
                .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
                .count()
        });
    let count = allowed
        .filter(|count| *count > 0)
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    i64::try_from(count.unwrap_or(1)).unwrap_or(1)
}

/// The environment as a value: `os::environ["HOME"]`. There is one, so the value holds nothing.
#[derive(Clone, Copy, Debug)]
pub struct Environ;

fn io(error: &std::io::Error, path: &str) -> Error {
    core_error::from_io(error, "", Some(path)).into()
}

fn path(call: &Call<'_>, index: usize) -> ImmutableString {
    call.string(index).unwrap_or_default()
}

fn text(path: &Path) -> Dynamic {
    Dynamic::from(path.to_string_lossy().into_owned())
}

/// A function of one path that does something.
fn action(
    registry: &mut Registry,
    signature: &'static str,
    doc: &'static str,
    act: impl Fn(&str) -> std::io::Result<()> + 'static,
) {
    registry.function("os", signature, doc, move |call| {
        let path = path(call, 0);
        act(&path).map_err(|error| io(&error, &path))?;
        Ok(Dynamic::UNIT)
    });
}

/// Registers both modules.
pub fn register(registry: &mut Registry) {
    register_process(registry);
    register_files(registry);
    register_path(registry);
    register_environment(registry);
    registry.constant("os", "sep", "/", "What stands between the parts of a path.");
    registry.constant("os", "linesep", "\n", "The end of a line.");
    registry.constant(
        "os",
        "pathsep",
        ":",
        "What stands between the paths of a list such as `PATH`.",
    );
    registry.constant(
        "os",
        "devnull",
        "/dev/null",
        "The file that takes everything and gives nothing.",
    );
    registry.constant("os", "name", "posix", "The kind of system.");
}

fn register_process(registry: &mut Registry) {
    registry.function(
        "os",
        "getpid()",
        "This process's number.\n\n```rhai\nif os::getpid() < 1 { throw \"pid\"; }\n```",
        |_| Ok(Dynamic::from(i64::from(nix::unistd::getpid().as_raw()))),
    );
    registry.function(
        "os",
        "getppid()",
        "The parent process's number.\n\n```rhai\nif os::getppid() == os::getpid() { throw \"pid\"; }\n```",
        |_| Ok(Dynamic::from(i64::from(nix::unistd::getppid().as_raw()))),
    );
    registry.function(
        "os",
        "cpu_count()",
        "How many processors this process may use.\n\n```rhai\nif os::cpu_count() < 1 { throw \"cpus\"; }\n```",
        |_| Ok(Dynamic::from(cpu_count())),
    );
    registry.function(
        "os",
        "kill(pid: int, sig: int)",
        "Sends a signal to a process.\n\n- `pid`: its number; 0 is the own process group, a negative one is a group.\n\
         - `sig`: the signal's number, as `signal::SIGTERM`; 0 only asks whether the process is there.\n\n\
         Raises `ProcessLookupError` where there is none, `PermissionError`, `OSError` for a bad number.\n\n\
         ```rhai\nos::kill(os::getpid(), 0);\n```",
        |call| {
            let (pid, number) = (call.int(0).unwrap_or(0), call.int(1).unwrap_or(0));
            kill(pid, number)?;
            // A signal to this process has its effect before the next line.
            mphost_core::wait::poll_interrupts()?;
            Ok(Dynamic::UNIT)
        },
    );
    registry.function(
        "os",
        "abort()",
        "Ends this process at once with SIGABRT; nothing is cleaned up.\n\n```rhai\nfn give_up() { os::abort() }\n```",
        |_| std::process::abort(),
    );
    registry.function(
        "os",
        "_exit(status: int)",
        "Ends this process at once; no `atexit` function runs and no child is waited for.\n\n- `status`: its exit code.\n\n\
         ```rhai\nfn leave() { os::_exit(1) }\n```",
        |call| std::process::exit(i32::try_from(call.int(0).unwrap_or(0) & 0xff).unwrap_or(1)),
    );
    registry.function(
        "os",
        "urandom(size: int)",
        "Random bytes from the system, good enough for keys.\n\n- `size`: how many.\n\n\
         ```rhai\nif os::urandom(16).len() != 16 { throw \"urandom\"; }\n```",
        |call| {
            let size = call.int(0).unwrap_or(0);
            let size = usize::try_from(size)
                .map_err(|_| raise(Kind::ValueError, "negative argument not allowed"))?;
            room::ensure(size, 1)?;
            let mut bytes = vec![0; size];
            mphost_core::random::fill(&mut bytes)?;
            Ok(Dynamic::from_blob(bytes))
        },
    );
}

fn kill(pid: i64, number: i64) -> Result<()> {
    let out_of_range = || {
        raise(
            Kind::OverflowError,
            format!("kill(): {pid} is no process number"),
        )
    };
    let pid = i32::try_from(pid).map_err(|_| out_of_range())?;
    let signal = match i32::try_from(number) {
        Ok(0) => None,
        Ok(number) => Some(
            Signal::try_from(number).map_err(|errno| core_error::os("kill", errno as i32, None))?,
        ),
        Err(_) => {
            return Err(raise(
                Kind::OverflowError,
                format!("kill(): {number} is no signal number"),
            ));
        }
    };
    nix::sys::signal::kill(Pid::from_raw(pid), signal)
        .map_err(|errno| core_error::os("kill", errno as i32, Some(&pid.to_string())).into())
}

fn register_files(registry: &mut Registry) {
    registry.function(
        "os",
        "getcwd()",
        "The current directory.\n\n```rhai\nif os::getcwd() == \"\" { throw \"cwd\"; }\n```",
        |_| {
            std::env::current_dir()
                .map(|path| text(&path))
                .map_err(|error| core_error::from_io(&error, "getcwd", None).into())
        },
    );
    action(
        registry,
        "chdir(path: string)",
        "Changes the current directory of this process.\n\n- `path`: where to.\n\nRaises `FileNotFoundError`, `NotADirectoryError`.\n\n\
         ```rhai\nos::chdir(\".\");\n```",
        |path| std::env::set_current_dir(path),
    );
    registry.function(
        "os",
        "listdir(path: string = \".\")",
        "The names in a directory, in no particular order, without `.` and `..`.\n\n- `path`: which.\n\n\
         Raises `FileNotFoundError`, `NotADirectoryError`.\n\n```rhai\nif os::listdir(\"/\").len() == 0 { throw \"listdir\"; }\n```",
        |call| {
            let path = call.string(0).unwrap_or_else(|| ".".into());
            let names: std::io::Result<Array> = std::fs::read_dir(path.as_str()).and_then(|entries| {
                entries.map(|entry| entry.map(|e| Dynamic::from(e.file_name().to_string_lossy().into_owned()))).collect()
            });
            names.map(Dynamic::from_array).map_err(|error| io(&error, &path))
        },
    );
    action(
        registry,
        "mkdir(path: string)",
        "Makes a directory.\n\n- `path`: where.\n\nRaises `FileExistsError`, `FileNotFoundError` where its parent isn't there.\n\n\
         ```rhai\nlet d = `/tmp/mphost-mkdir-${os::getpid()}`;\nos::mkdir(d);\nos::rmdir(d);\n```",
        |path| std::fs::create_dir(path),
    );
    registry.function(
        "os",
        "makedirs(path: string, exist_ok: bool = false)",
        "Makes a directory and those above it that are missing.\n\n- `path`: where.\n\
         - `exist_ok`: whether it may be there already.\n\nRaises `FileExistsError`.\n\n\
         ```rhai\nlet d = `/tmp/mphost-makedirs-${os::getpid()}`;\nos::makedirs(`${d}/a`);\nos::makedirs(`${d}/a`, true);\n\
         os::rmdir(`${d}/a`);\nos::rmdir(d);\n```",
        |call| {
            let path = path(call, 0);
            let there = Path::new(path.as_str());
            if there.exists() && !(call.bool(1, false) && there.is_dir()) {
                return Err(core_error::os("makedirs", nix::errno::Errno::EEXIST as i32, Some(&path)).into());
            }
            std::fs::create_dir_all(there).map_err(|error| io(&error, &path))?;
            Ok(Dynamic::UNIT)
        },
    );
    const REMOVE: &str = "Removes a file.\n\n- `path`: which.\n\nRaises `FileNotFoundError`, `IsADirectoryError`.\n\n\
         ```rhai\nlet f = `/tmp/mphost-remove-${os::getpid()}`;\nopen(f, \"w\").close();\nos::remove(f);\n```";
    action(registry, "remove(path: string)", REMOVE, |path| {
        std::fs::remove_file(path)
    });
    action(
        registry,
        "unlink(path: string)",
        "The same as `os::remove`.",
        |path| std::fs::remove_file(path),
    );
    action(
        registry,
        "rmdir(path: string)",
        "Removes an empty directory.\n\n- `path`: which.\n\nRaises `FileNotFoundError`, `OSError` where it isn't empty.\n\n\
         ```rhai\nlet d = `/tmp/mphost-rmdir-${os::getpid()}`;\nos::mkdir(d);\nos::rmdir(d);\n```",
        |path| std::fs::remove_dir(path),
    );
    registry.function(
        "os",
        "rename(src: string, dst: string)",
        "Gives a file or directory another name, in one step; a file that is there is replaced.\n\n- `src`, `dst`: from, to.\n\n\
         Raises `FileNotFoundError` and other kinds of `OSError`.\n\n\
         ```rhai\nlet f = `/tmp/mphost-rename-${os::getpid()}`;\nopen(f, \"w\").close();\nos::rename(f, f + \"2\");\nos::remove(f + \"2\");\n```",
        |call| {
            let (from, to) = (path(call, 0), path(call, 1));
            std::fs::rename(from.as_str(), to.as_str()).map_err(|error| io(&error, &format!("{from}' -> '{to}")))?;
            Ok(Dynamic::UNIT)
        },
    );
}

fn register_path(registry: &mut Registry) {
    let question = |registry: &mut Registry, signature, doc, ask: fn(&Path) -> bool| {
        registry.function("os::path", signature, doc, move |call| {
            Ok(Dynamic::from(ask(Path::new(path(call, 0).as_str()))))
        });
    };
    question(
        registry,
        "exists(path: string)",
        "Whether there is something of that name.\n\n- `path`: the name.\n\n```rhai\nif !os::path::exists(\"/\") { throw \"exists\"; }\n```",
        Path::exists,
    );
    question(
        registry,
        "isfile(path: string)",
        "Whether there is a regular file of that name.\n\n- `path`: the name.\n\n```rhai\nif os::path::isfile(\"/\") { throw \"isfile\"; }\n```",
        Path::is_file,
    );
    question(
        registry,
        "isdir(path: string)",
        "Whether there is a directory of that name.\n\n- `path`: the name.\n\n```rhai\nif !os::path::isdir(\"/\") { throw \"isdir\"; }\n```",
        Path::is_dir,
    );
    question(
        registry,
        "isabs(path: string)",
        "Whether the path begins at the root.\n\n- `path`: the path.\n\n```rhai\nif !os::path::isabs(\"/a\") { throw \"isabs\"; }\n```",
        Path::is_absolute,
    );
    registry.function(
        "os::path",
        "getsize(path: string)",
        "The size of a file in bytes.\n\n- `path`: which.\n\nRaises `FileNotFoundError`.\n\n```rhai\nos::path::getsize(\"/\");\n```",
        |call| {
            let path = path(call, 0);
            let size = std::fs::metadata(path.as_str()).map_err(|error| io(&error, &path))?.len();
            Ok(Dynamic::from(i64::try_from(size).unwrap_or(i64::MAX)))
        },
    );
    registry.function(
        "os::path",
        "join(path: string, a: string = (), b: string = (), c: string = (), d: string = (), e: string = (), f: string = ())",
        "Joins parts of a path with `/`; a part that begins with `/` starts anew.\n\n- `path`, `a` … `f`: the parts.\n\n\
         ```rhai\nif os::path::join(\"a\", \"b\", \"c\") != \"a/b/c\" { throw \"join\"; }\n```",
        |call| {
            let mut joined = path(call, 0).to_string();
            for index in 1..call.count() {
                let part = path(call, index);
                if part.starts_with('/') {
                    joined.clear();
                } else if !joined.is_empty() && !joined.ends_with('/') {
                    joined.push('/');
                }
                joined.push_str(&part);
            }
            Ok(Dynamic::from(joined))
        },
    );
    let piece = |registry: &mut Registry, signature, doc, cut: fn(&str) -> String| {
        registry.function("os::path", signature, doc, move |call| {
            Ok(Dynamic::from(cut(&path(call, 0))))
        });
    };
    piece(
        registry,
        "basename(path: string)",
        "What follows the last `/`.\n\n- `path`: the path.\n\n```rhai\nif os::path::basename(\"/a/b.txt\") != \"b.txt\" { throw \"basename\"; }\n```",
        |path| split(path).1.to_owned(),
    );
    piece(
        registry,
        "dirname(path: string)",
        "What precedes the last `/`.\n\n- `path`: the path.\n\n```rhai\nif os::path::dirname(\"/a/b.txt\") != \"/a\" { throw \"dirname\"; }\n```",
        |path| split(path).0.to_owned(),
    );
    piece(
        registry,
        "normpath(path: string)",
        "The path without needless `/`, `.` and `..`; nothing is looked up.\n\n- `path`: the path.\n\n\
         ```rhai\nif os::path::normpath(\"a//b/../c\") != \"a/c\" { throw \"normpath\"; }\n```",
        normal,
    );
    registry.function(
        "os::path",
        "abspath(path: string)",
        "The path from the root, without `.` and `..`.\n\n- `path`: the path, from the current directory.\n\n\
         ```rhai\nif os::path::abspath(\"/a/../b\") != \"/b\" { throw \"abspath\"; }\n```",
        |call| {
            let path = path(call, 0);
            let here = std::env::current_dir().map_err(|error| io(&error, &path))?;
            Ok(Dynamic::from(normal(&here.join(path.as_str()).to_string_lossy())))
        },
    );
    registry.function(
        "os::path",
        "splitext(path: string)",
        "The path without its extension, and the extension with its dot.\n\n- `path`: the path.\n\n\
         ```rhai\nif os::path::splitext(\"a/b.tar.gz\") != [\"a/b.tar\", \".gz\"] { throw \"splitext\"; }\n```",
        |call| {
            let path = path(call, 0);
            let name = split(&path).1;
            let dots = name.len() - name.trim_start_matches('.').len();
            let at = name[dots..].rfind('.').map_or(path.len(), |dot| path.len() - name.len() + dots + dot);
            Ok(Dynamic::from_array(vec![path[..at].into(), path[at..].into()]))
        },
    );
    registry.function(
        "os::path",
        "split(path: string)",
        "What precedes and what follows the last `/`.\n\n- `path`: the path.\n\n\
         ```rhai\nif os::path::split(\"/a/b\") != [\"/a\", \"b\"] { throw \"split\"; }\n```",
        |call| {
            let path = path(call, 0);
            let (head, tail) = split(&path);
            Ok(Dynamic::from_array(vec![head.into(), tail.into()]))
        },
    );
}

fn split(path: &str) -> (&str, &str) {
    let at = path.rfind('/').map_or(0, |slash| slash + 1);
    let (head, tail) = path.split_at(at);
    let bare = head.trim_end_matches('/');
    // Nothing but slashes is the root.
    (if bare.is_empty() { head } else { bare }, tail)
}

fn normal(path: &str) -> String {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::CurDir | Component::Prefix(_) => {}
            Component::RootDir => out.push("/"),
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            Component::Normal(name) => out.push(name),
        }
    }
    if out.as_os_str().is_empty() {
        ".".into()
    } else {
        out.to_string_lossy().into_owned()
    }
}

fn register_environment(registry: &mut Registry) {
    registry.function(
        "os",
        "getenv(name: string, default: any = ())",
        "An environment variable, or `default` where there is none.\n\n- `name`: which.\n- `default`: what to give instead.\n\n\
         ```rhai\nif os::getenv(\"NO_SUCH_VARIABLE\") != () { throw \"getenv\"; }\nif os::getenv(\"NO_SUCH_VARIABLE\", 5) != 5 { throw \"getenv\"; }\n```",
        |call| {
            let name = path(call, 0);
            match with_environment(|environment| environment.get(name.as_str()).cloned()) {
                Some(value) => Ok(Dynamic::from(value)),
                None => Ok(call.take(1)),
            }
        },
    );
    registry.constant(
        "os",
        "environ",
        Dynamic::from(Environ),
        "The environment: `os::environ[\"HOME\"]`.",
    );
    let missing = |name: &str| {
        let mut quoted = String::new();
        crate::spelling::quote(name, &mut quoted);
        raise(Kind::KeyError, quoted)
    };
    let names = || -> Array {
        with_environment(|environment| environment.keys().cloned().map(Dynamic::from).collect())
    };
    registry
        .class::<Environ>("environ")
        .index_getter(
            "A variable; raises `KeyError` where there is none.",
            move |call| {
                let name = name_of(call)?;
                with_environment(|environment| environment.get(name.as_str()).cloned())
                    .map(Dynamic::from)
                    .ok_or_else(|| missing(&name))
            },
        )
        .index_setter(|call| {
            let name = name_of(call)?;
            let Some(value) = call.string(1) else {
                return Err(raise(Kind::TypeError, "str expected: a variable is a text"));
            };
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(raise(
                    Kind::ValueError,
                    format!("illegal environment variable name or value: '{name}'"),
                ));
            }
            with_environment(|environment| environment.insert(name.to_string(), value.to_string()));
            Ok(Dynamic::UNIT)
        })
        .method(
            "get(name: string, default: any = ())",
            "A variable, or `default` where there is none.",
            |call| {
                let name = path(call, 0);
                match with_environment(|environment| environment.get(name.as_str()).cloned()) {
                    Some(value) => Ok(Dynamic::from(value)),
                    None => Ok(call.take(1)),
                }
            },
        )
        .method(
            "pop(name: string, default: any = ())",
            "Removes a variable and gives its value, or `default`.",
            |call| {
                let name = path(call, 0);
                match with_environment(|environment| environment.remove(name.as_str())) {
                    Some(value) => Ok(Dynamic::from(value)),
                    None => Ok(call.take(1)),
                }
            },
        )
        .method(
            "contains(name: any)",
            "Whether there is such a variable: `\"HOME\" in os::environ`.",
            |call| {
                let name = path(call, 0);
                Ok(Dynamic::from(with_environment(|environment| {
                    environment.contains_key(name.as_str())
                })))
            },
        )
        .method("keys()", "All names.", move |_| {
            Ok(Dynamic::from_array(names()))
        })
        .method("values()", "All values, in the order of the names.", |_| {
            Ok(Dynamic::from_array(with_environment(|environment| {
                environment.values().cloned().map(Dynamic::from).collect()
            })))
        })
        .method("items()", "All `[name, value]` pairs.", |_| {
            let pair = |(name, value): (&String, &String)| {
                Dynamic::from_array(vec![name.into(), value.into()])
            };
            Ok(Dynamic::from_array(with_environment(|environment| {
                environment.iter().map(pair).collect()
            })))
        })
        .method("copy()", "All of it as an object map.", |_| {
            Ok(Dynamic::from_map(as_map()))
        })
        .method("len()", "How many variables there are.", |_| {
            Ok(Dynamic::from(
                i64::try_from(with_environment(|environment| environment.len()))
                    .unwrap_or(i64::MAX),
            ))
        })
        .iterate(move |_| names().into_iter().map(Ok))
        .display(|_| format!("environ({:?})", environment()))
        .equality(|_, _| true);
}

fn as_map() -> Map {
    with_environment(|environment| {
        environment
            .iter()
            .map(|(name, value)| (name.as_str().into(), Dynamic::from(value.clone())))
            .collect()
    })
}

fn name_of(call: &Call<'_>) -> Result<ImmutableString> {
    call.string(0)
        .ok_or_else(|| raise(Kind::TypeError, "str expected: a variable's name is a text"))
}

#[cfg(test)]
mod tests;
