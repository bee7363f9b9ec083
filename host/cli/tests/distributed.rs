//! Programs that find each other over a network: the documents' master and worker, its chat server and clients, each a program of
//! its own; and the former again with a network between them.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace's folder")
}

/// A script of the examples, to be run with these arguments.
fn script(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mphost"));
    command
        .arg("run")
        .arg(root().join("scripts").join(name))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A port that nobody uses now.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it is bound");
    address.port().to_string()
}

fn finish(child: Child, what: &str) -> Output {
    let output = child.wait_with_output().expect("it ends");
    assert!(
        output.status.success(),
        "the {what} ended with {}:\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn lines(output: &[u8], start: &str) -> Vec<String> {
    String::from_utf8_lossy(output)
        .lines()
        .filter_map(|line| line.strip_prefix(start))
        .map(|rest| rest.trim_end_matches("...").to_owned())
        .collect()
}

/// Ten tasks, put by one program, done by the other.
fn check_products(master: &[u8], worker: &[u8]) {
    let put = lines(master, "Put task ");
    let done = lines(worker, "run task ");
    let results = lines(master, "Result: ");
    assert_eq!(put.len(), 10);
    for (index, number) in put.iter().enumerate() {
        let number: i64 = number.parse().expect("a number");
        assert_eq!(done[index], format!("{number} * {number}"));
        assert_eq!(
            results[index],
            format!("{number} * {number} = {}", number * number)
        );
    }
    assert_eq!(lines(master, "master exit."), [""]);
    assert_eq!(lines(worker, "worker exit."), [""]);
}

#[test]
fn a_master_and_a_worker_share_queues() {
    let port = free_port();
    let worker = script("distributed/task_worker.rhai", &[&port]).spawn();
    let worker = worker.expect("the worker starts");
    let master = script("distributed/task_master.rhai", &[&port]).spawn();
    let master = finish(master.expect("the master starts"), "master");
    let worker = finish(worker, "worker");
    check_products(&master.stdout, &worker.stdout);
}

#[test]
fn a_chat_server_talks_to_several_clients() {
    const CLIENTS: usize = 3;
    let port = free_port();
    let count = CLIENTS.to_string();
    let server = script("pool/chat_server.rhai", &[&port, &count]).spawn();
    let server = server.expect("the server starts");
    let mut clients: Vec<Child> = (0..CLIENTS)
        .map(|_| {
            let client = script("pool/chat_client.rhai", &[&port]).spawn();
            client.expect("a client starts")
        })
        .collect();
    // All are connected before the first has said everything.
    for (round, word) in ["hello", "bye"].iter().enumerate() {
        for (index, client) in clients.iter_mut().enumerate() {
            let input = client.stdin.as_mut().expect("its input is a pipe");
            writeln!(input, "{word} from {index} in {round}").expect("it reads");
        }
    }
    for (index, client) in clients.into_iter().enumerate() {
        let output = finish(client, "client");
        let text = String::from_utf8_lossy(&output.stdout).replace(">>", "");
        let said: Vec<&str> = text.lines().collect();
        assert_eq!(
            said,
            [
                format!("HELLO FROM {index} IN 0"),
                format!("BYE FROM {index} IN 1")
            ]
        );
    }
    let output = finish(server, "server");
    assert_eq!(lines(&output.stdout, "进程pid: ").len(), CLIENTS);
}

/// Two network namespaces with a cable between them; the master in the one, the worker in the other.
const TWO_MACHINES: &str = r#"
set -e
unshare --net sleep 1000 &
other=$!
trap 'kill $other' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.01; done
there() { nsenter --target $other --net "$@"; }
ip link add here type veth peer name there || exit 77
ip link set there netns $other
ip address add 10.98.0.1/24 dev here
ip link set here up
ip link set lo up
there ip address add 10.98.0.2/24 dev there
there ip link set there up
there ip link set lo up
"$MPHOST" run "$SCRIPTS/task_master.rhai" > "$OUT/master" &
master=$!
there "$MPHOST" run "$SCRIPTS/task_worker.rhai" 5000 10.98.0.1 > "$OUT/worker"
wait $master
"#;

#[test]
fn a_master_and_a_worker_on_two_machines() {
    let skip = |why: &str| {
        // Past the test harness, which shows nothing of a test that passed.
        let _ = writeln!(
            std::io::stderr(),
            "a_master_and_a_worker_on_two_machines: skipped, {why}"
        );
    };
    let namespaces = ["--user", "--map-root-user", "--net"];
    for (command, args) in [
        ("unshare", [&namespaces[..], &["true"]].concat()),
        ("ip", vec!["-V"]),
        ("nsenter", vec!["-V"]),
    ] {
        let tried = Command::new(command)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !tried.is_ok_and(|status| status.success()) {
            return skip(&format!("since `{command}` makes no namespaces here"));
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", TWO_MACHINES])
        .env("MPHOST", env!("CARGO_BIN_EXE_mphost"))
        .env("SCRIPTS", root().join("scripts/distributed"))
        .env("OUT", folder.path())
        .output()
        .expect("unshare starts");
    if output.status.code() == Some(77) {
        return skip("since there are no virtual cables here");
    }
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read = |name| std::fs::read(folder.path().join(name)).expect("what it printed");
    check_products(&read("master"), &read("worker"));
}
