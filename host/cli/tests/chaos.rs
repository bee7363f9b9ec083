//! Chaos: programs over every primitive whose processes are killed at random instants.
//!
//! The scripts in `tests/chaos` kill their own processes, start others in their places, and compare what came of it with what may come of it:
//! each item of a queue once, never two in a section, no permit lost, and so on. Here they are run under each start method;
//! their main processes are killed as well, and nothing may be left of them.
//!
//! `MPHOST_CHAOS_KILLS=10000` makes a long run of it, `MPHOST_CHAOS_SEED=N` chooses the instants again that a failed run names (as far as a
//! machine does the same twice).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

const SCRIPTS: [&str; 7] = [
    "queues",
    "locks",
    "semaphores",
    "meetings",
    "pools",
    "managers",
    "trees",
];

/// How many processes are killed in all, unless told otherwise.
const KILLS: u64 = 500;
/// How long one script may take, for each process that it kills, and besides.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// What marks the processes of one run.
const MARK: &str = "MPHOST_CHAOS_RUN";

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => default,
    }
}

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    number(
        "MPHOST_CHAOS_SEED",
        u64::from(now.expect("the clock").subsec_nanos()),
    )
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/chaos")
        .join(format!("{name}.rhai"))
}

fn start(method: &str, name: &str, kills: u64, seed: u64, mark: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(["run", "--start-method", method])
        .arg(script(name))
        .args([kills.to_string(), seed.to_string()])
        .env(MARK, mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the host starts")
}

/// The processes that carry a mark.
fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}");
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
                environment
                    .split(|byte| *byte == 0)
                    .any(|entry| entry == wanted.as_bytes())
            })
        })
        .collect()
}

fn assert_nothing_left(mark: &str, what: &str) {
    let begin = Instant::now();
    loop {
        let left = marked(mark);
        if left.is_empty() {
            return;
        }
        assert!(begin.elapsed() < PATIENCE.1, "{what}: {left:?} are left");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text_of(pipe: Option<impl Read>) -> String {
    let mut text = String::new();
    let _ = pipe.expect("piped").read_to_string(&mut text);
    text
}

/// Waits for the end of a script; one that doesn't come to it is shown.
fn finish(mut child: Child, what: &str, limit: Duration) {
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if begin.elapsed() > limit {
            let picture = Command::new(env!("CARGO_BIN_EXE_mphost"))
                .args(["ps", &child.id().to_string()])
                .output()
                .expect("the host starts");
            let _ = child.kill();
            panic!(
                "{what} doesn't end:\n{}{}",
                String::from_utf8_lossy(&picture.stdout),
                text_of(child.stderr.take())
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let (stdout, stderr) = (text_of(child.stdout.take()), text_of(child.stderr.take()));
    assert!(status.success(), "{what}: {status}\n{stdout}{stderr}");
    assert!(stdout.starts_with("ok: "), "{what}: {stdout}{stderr}");
    println!("{what}: {}", stdout.trim_end());
}

fn chaos(method: &str) {
    let seed = seed();
    let kills = number("MPHOST_CHAOS_KILLS", KILLS).div_ceil(3 * SCRIPTS.len() as u64);
    for name in SCRIPTS {
        let what = format!("{name} under {method} with {kills} kills, seed {seed}");
        let mark = format!("{}-{method}-{name}", std::process::id());
        let child = start(method, name, kills.max(4), seed, &mark);
        let limit = PATIENCE.1 + PATIENCE.0 * u32::try_from(kills).expect("not that many");
        finish(child, &what, limit);
        assert_nothing_left(&mark, &what);
    }
}

#[test]
fn forked_processes_are_killed() {
    chaos("fork");
}

#[test]
fn spawned_processes_are_killed() {
    chaos("spawn");
}

#[test]
fn processes_of_the_forkserver_are_killed() {
    chaos("forkserver");
}

#[test]
fn main_processes_are_killed() {
    let mut random = seed();
    // At any time, and often while its first processes begin.
    let early = ["trees"; 12].map(|name| (name, 63));
    let runs: Vec<(&str, u64)> = SCRIPTS
        .map(|name| (name, 511))
        .into_iter()
        .chain(early)
        .collect();
    for method in ["fork", "spawn", "forkserver"] {
        for (name, time) in &runs {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let what = format!("{name} under {method}");
            let mark = format!("{}-main-{method}-{name}", std::process::id());
            let mut child = start(method, name, 1_000_000, random % 1000, &mark);
            std::thread::sleep(Duration::from_millis(random >> 33 & time));
            child.kill().expect("it runs");
            child.wait().expect("it is dead");
            assert_nothing_left(&mark, &what);
        }
    }
}
