//! A service that runs its users' scripts, each in a process of its own, with a time limit.
//!
//! `cargo run -p mphost-stdlib --example embed`
//!
//! The users write Rhai, with one function of the service's own (`price`). A script that runs too long, that crashes its process or
//! that throws takes nothing along: the service says what happened to it and answers all others.
//!
//! How it is done: the service itself is a short script ([`SERVICE`]) over a pool of processes; Rust gives it the requests and takes the
//! answers. Functions that Rust registers exist in forked processes, so it stays with the start method `fork`.

use mphost_stdlib::host::{Host, child_entry};
use mphost_stdlib::runtime::{Program, Settings};
use rhai::{Array, Dynamic, Map};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// What a user sent.
pub(crate) struct Request {
    /// Who.
    pub(crate) user: &'static str,
    /// Their script; its value is the answer.
    pub(crate) script: &'static str,
}

/// What the service does, in Rhai: every request is a task of a pool, in the processes of which `eval` runs the user's script.
const SERVICE: &str = r#"
    fn run(script) { eval(script) }

    let pool = Pool(2, #{timeout: time_limit()});
    let all = requests();
    let results = all.map(|request| pool.apply_async(run, [request.script]));
    for (request, index) in all {
        try {
            answer(request.user, `${results[index].get()}`);
        } catch (e) {
            answer(request.user, `${e}`);
        }
    }
    pool.terminate();
"#;

/// Answers the requests: user and answer, in their order.
///
/// # Errors
/// Where the system gives no memory or descriptors for a program, or the service's own script fails.
pub(crate) fn serve(
    requests: &'static [Request],
    limit: Duration,
) -> Result<Vec<(String, String)>, Box<dyn std::error::Error>> {
    let answers = Rc::new(RefCell::new(Vec::new()));
    let settings = Settings {
        name: "__main__".into(),
        ..Settings::default()
    };
    let taken = answers.clone();
    let host = Host::with_engine(Program::new("service", SERVICE), settings, move |engine| {
        engine.register_fn("time_limit", move || limit.as_secs_f64());
        engine.register_fn("requests", move || -> Array {
            requests
                .iter()
                .map(|request| {
                    let mut map = Map::new();
                    map.insert("user".into(), request.user.into());
                    map.insert("script".into(), request.script.into());
                    Dynamic::from_map(map)
                })
                .collect()
        });
        engine.register_fn("answer", move |user: &str, text: &str| {
            taken.borrow_mut().push((user.to_owned(), text.to_owned()));
        });
        // What users' scripts may call.
        engine.register_fn("price", |item: &str| match item {
            "apple" => 3_i64,
            "pear" => 4,
            _ => 0,
        });
    })?;
    match host.run() {
        0 => Ok(answers.take()),
        code => Err(format!("the service ended with exit code {code}").into()),
    }
}

/// The requests of this example.
pub(crate) const REQUESTS: &[Request] = &[
    Request {
        user: "ada",
        script: "let total = 0; for item in [\"apple\", \"pear\"] { total += price(item); } total",
    },
    Request {
        user: "bob",
        script: "loop { }",
    },
    Request {
        user: "cy",
        script: "os::abort()",
    },
    Request {
        user: "dee",
        script: "price(\"apple\") / 0",
    },
    Request {
        user: "eve",
        script: "price(\"pear\") * 10",
    },
];

#[allow(
    dead_code,
    reason = "the test of this example has a main function of its own"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A process that the host executed itself never gets past this line.
    child_entry();
    for (user, answer) in serve(REQUESTS, Duration::from_secs(1))? {
        println!("{user}: {answer}");
    }
    Ok(())
}
