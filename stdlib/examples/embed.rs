//! A service that runs its users' scripts, each in a process of its own, with a time limit.
//!
//! `cargo run -p mphost-stdlib --example embed`, or with a start method: `… --example embed -- spawn`
//!
//! The users write Rhai, with one function of the service's own (`price`). A script that runs too long, that crashes its process or
//! that throws takes nothing along: the service says what happened to it and answers all others.
//!
//! How it is done: the service has an engine of its own, which [`register`] gives processes and pools. A short script ([`SERVICE`])
//! over a pool of processes takes the requests and gives the answers.

use mphost_stdlib::embed::{compile, finish, register, set_start_method, traceback};
use mphost_stdlib::host::child_entry_with;
use mphost_stdlib::process::Method;
use mphost_stdlib::runtime::Program;
use rhai::{Array, Dynamic, Engine, Map, Scope};
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

    fn serve(requests, limit) {
        let pool = Pool(2, #{timeout: limit});
        let results = requests.map(|request| pool.apply_async(run, [request.script]));
        let answers = [];
        for (request, index) in requests {
            try {
                answers.push(`${request.user}: ${results[index].get()}`);
            } catch (e) {
                answers.push(`${request.user}: ${e}`);
            }
        }
        pool.terminate();
        answers
    }
"#;

/// The service's own functions, for its engine and for those of all processes.
pub(crate) fn functions(engine: &mut Engine) {
    engine.register_fn("price", |item: &str| match item {
        "apple" => 3_i64,
        "pear" => 4,
        _ => 0,
    });
}

/// Answers the requests, in their order.
///
/// # Errors
/// Where the system gives no memory or descriptors for processes, or the service's own script fails.
pub(crate) fn serve(
    requests: &[Request],
    limit: Duration,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut engine = Engine::new();
    register(&mut engine)?;
    let ast = compile(&engine, Program::new("service", SERVICE))?;
    let requests: Array = requests
        .iter()
        .map(|request| {
            let mut map = Map::new();
            map.insert("user".into(), request.user.into());
            map.insert("script".into(), request.script.into());
            Dynamic::from_map(map)
        })
        .collect();
    let answers: Array = engine
        .call_fn(
            &mut Scope::new(),
            &ast,
            "serve",
            (requests, limit.as_secs_f64()),
        )
        .map_err(|error| traceback(&error))?;
    finish(&engine)?;
    Ok(answers.iter().map(ToString::to_string).collect())
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
    // A process that was executed by the start methods spawn and forkserver never gets past this line.
    child_entry_with(functions);
    if let Some(name) = std::env::args().nth(1) {
        set_start_method(Method::from_name(&name).ok_or("there are fork, spawn and forkserver")?);
    }
    for answer in serve(REQUESTS, Duration::from_secs(1))? {
        println!("{answer}");
    }
    Ok(())
}
