//! Time that jumps: whatever waits with a time limit waits as long as it was told, though the system's clock goes forth and back.
//!
//! Nothing changes the machine's own clock. The host is run with a library preloaded that tells it another time (`jumping_clock/clock.rs`): so a
//! limit that were reckoned by that clock would end at once or after days.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Many times what the script takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Each wait takes about the time that it was told, by a clock that doesn't jump. What ends only after days is ended by the test.
const SCRIPT: &str = r#"
fn lasts(what, wait) {
    let begin = time::monotonic();
    try { wait.call(); } catch (e) {
        if !["Empty", "Full", "TimeoutError", "TimeoutExpired", "BrokenBarrierError"].contains(e.type) { throw e; }
    }
    let took = time::monotonic() - begin;
    if took < 0.19 || took > 30.0 { throw `${what} took ${took} seconds instead of 0.2`; }
}

fn slow(n) { time::sleep(n); n }
fn set_later(e) { time::sleep(0.5); e.set(); }
fn quiet(ends) { ends[1].recv(); }

let seen = [];
for i in range(20) { seen.push(time::time()); time::sleep(0.02); }
seen.sort();
if seen[19] - seen[0] < 100000 { throw "the clock doesn't jump: this test shows nothing"; }

lasts("sleep", || time::sleep(0.2));
for q in [Queue(1), JoinableQueue(1)] {
    lasts("get", || q.get(true, 0.2));
    q.put(1);
    lasts("put", || q.put(2, true, 0.2));
}
for lock in [Lock(), Semaphore(1), BoundedSemaphore(1)] {
    lock.acquire();
    lasts("acquire", || lock.acquire(true, 0.2));
}
let e = Event();
lasts("Event.wait", || e.wait(0.2));
let c = Condition();
with c {
    lasts("Condition.wait", || c.wait(0.2));
    lasts("Condition.wait_for", || c.wait_for(|| false, 0.2));
}
lasts("Barrier.wait", || Barrier(2).wait(0.2));
let ends = Pipe();
lasts("poll", || ends[0].poll(0.2));
lasts("connection.wait", || mp::connection::wait([ends[0]], 0.2));
let p = spawn(quiet, [ends]);
lasts("join", || p.join(0.2));
lasts("the sentinel", || mp::connection::wait([p.sentinel], 0.2));
ends[0].send(1);
p.join();
with Pool(2) as pool {
    lasts("AsyncResult.get", || pool.apply_async(slow, [0.6]).get(0.2));
    lasts("AsyncResult.wait", || pool.apply_async(slow, [0.6]).wait(0.2));
    lasts("imap", || pool.imap(slow, [0.6, 0.6]).next(0.2));
    lasts("a task's time limit", || pool.apply(slow, [3600], #{timeout: 0.2}));
}
with Manager() as m {
    let lock = m.Lock();
    lock.acquire();
    lasts("a managed acquire", || lock.acquire(true, 0.2));
    let q = m.Queue();
    lasts("a managed get", || q.get(true, 0.2));
    let e = m.Event();
    lasts("a managed Event.wait", || e.wait(0.2));
    let c = m.Condition();
    with c { lasts("a managed Condition.wait", || c.wait(0.2)); }
    let b = m.Barrier(2);
    lasts("a managed Barrier.wait", || b.wait(0.2));
}
let server = socket::socket();
server.bind(["127.0.0.1", 0]);
server.listen(1);
server.settimeout(0.2);
lasts("accept", || server.accept());
lasts("a subprocess", || subprocess::run(["sleep", "3600"], #{timeout: 0.2}));
lasts("an alarm", || { signal::signal(signal::SIGALRM, |n| throw TimeoutError("over")); signal::alarm(1); time::sleep(3600); });
// What has no limit isn't cut short, nor taken for a program that is stuck.
lasts("a wait for ever", || { let e = Event(); let p = spawn(set_later, [e]); e.wait(); p.join(); });
print("all as long as they were told");
"#;

fn build_clock(folder: &Path) -> PathBuf {
    let library = folder.join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jumping_clock/clock.rs");
    let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
    let built = Command::new(rustc)
        .args([
            "--edition=2024",
            "--crate-type=cdylib",
            "-Cpanic=abort",
            "-o",
        ])
        .args([&library, &source])
        .status()
        .expect("rustc is where cargo is");
    assert!(built.success());
    library
}

#[test]
fn time_limits_do_not_follow_a_clock_that_jumps() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = build_clock(folder.path());
    let script = folder.path().join("waits.rhai");
    std::fs::write(&script, SCRIPT).expect("a script in it");
    let start = |method| {
        let child = Command::new(env!("CARGO_BIN_EXE_mphost"))
            .args(["run", "--start-method", method])
            .arg(&script)
            .env("LD_PRELOAD", &clock)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the host starts");
        (method, child)
    };
    let begin = Instant::now();
    for (method, mut child) in ["fork", "spawn", "forkserver"].map(start) {
        let mut in_time = true;
        while child.try_wait().expect("a child").is_none() && in_time {
            in_time = begin.elapsed() < PATIENCE;
            std::thread::sleep(Duration::from_millis(10));
        }
        // One that isn't at its end waits for what never comes.
        let _ = child.kill();
        let output = child.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(in_time, "{method}: a wait doesn't end: {stderr}");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "all as long as they were told\n",
            "{method}: {stderr}"
        );
    }
}
