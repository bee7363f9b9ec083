//! Bars of progress in a terminal whose screen can be looked at.

#![expect(clippy::unwrap_used, reason = "tests")]

use rexpect::process::PtyProcess;
use std::io::Read;
use std::process::Command;

/// What is on the screen when a script has ended.
fn screen(script: &str, method: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mphost"));
    command
        .args(["run", "--start-method", method, "-e", script])
        .env("TERM", "xterm");
    let process = PtyProcess::new(command).unwrap();
    let mut terminal = process.get_file_handle().unwrap();
    let size = rustix::termios::Winsize {
        ws_row: 50,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&terminal, size).unwrap();
    let size = |n: u16| std::num::NonZero::new(n).unwrap();
    let mut screen = vt100::Parser::new(size(50), size(80), 0);
    let mut buffer = [0; 4096];
    // A terminal whose last process has ended can't be read.
    while let Ok(length @ 1..) = terminal.read(&mut buffer) {
        screen.process(&buffer[..length]);
    }
    process.wait().unwrap();
    screen.screen().contents()
}

fn lines<'s>(screen: &'s str, with: &str) -> Vec<&'s str> {
    screen.lines().filter(|line| line.contains(with)).collect()
}

#[test]
fn prints_of_workers_go_above_the_bar() {
    for method in ["fork", "spawn"] {
        let screen = screen(
            "let total = 0; \
             with Pool(2) as pool { \
                 for n in pool.imap(|n| { print(`task ${n}`); time::sleep(0.02); n }, 0..12, #{progress: \"counting\"}) { \
                     total += n; print(`result ${n}`); } \
             } \
             print(`total ${total}`);",
            method,
        );
        for n in 0..12 {
            assert_eq!(
                lines(&screen, &format!("task {n}"))
                    .iter()
                    .filter(|l| **l == format!("task {n}"))
                    .count(),
                1,
                "{screen}"
            );
            assert!(
                screen.lines().any(|line| line == format!("result {n}")),
                "{screen}"
            );
        }
        let last = lines(&screen, "counting");
        assert_eq!(last.len(), 1, "{screen}");
        assert!(
            last[0].starts_with("counting 12/12 in ") && last[0].ends_with("/s)"),
            "{screen}"
        );
        assert!(screen.trim_end().ends_with("total 66"), "{screen}");
    }
}

#[test]
fn several_bars_keep_their_lines() {
    let screen = screen(
        "with Pool(2) as pool { \
             let one = pool.map_async(|n| { print(`one ${n}`); time::sleep(0.02); n }, 0..8, #{chunksize: 1, progress: \"first\"}); \
             let two = pool.map_async(|n| { print(`two ${n}`); time::sleep(0.02); n }, 0..8, #{chunksize: 1, progress: \"second\"}); \
             one.get(); two.get(); \
         } \
         print(\"the end\");",
        "fork",
    );
    for n in 0..8 {
        for which in ["one", "two"] {
            assert!(
                screen.lines().any(|line| line == format!("{which} {n}")),
                "{screen}"
            );
        }
    }
    assert_eq!(lines(&screen, "first 8/8 in ").len(), 1, "{screen}");
    assert_eq!(lines(&screen, "second 8/8 in ").len(), 1, "{screen}");
    assert!(screen.trim_end().ends_with("the end"), "{screen}");
}

#[test]
fn a_bar_shows_rate_and_time_left() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mphost"));
    command
        .args([
            "-e",
            "Pool(1).map(|n| time::sleep(0.1), 0..10, #{chunksize: 1, progress: true});",
        ])
        .env("TERM", "xterm");
    let process = PtyProcess::new(command).unwrap();
    let mut terminal = process.get_file_handle().unwrap();
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = terminal.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    process.wait().unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("/s [") && text.contains(" < "), "{text}");
}

#[test]
fn without_a_terminal_there_is_no_bar() {
    let output = Command::new(env!("CARGO_BIN_EXE_mphost"))
        .args(["-e", "Pool(1).map(|n| print(n), 0..3, #{progress: true});"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
