//! What several runs become.

use super::*;

const CONTEXT: Context = Context {
    runner: 77,
    now: 1_700_000_000.0,
};

fn runs(outputs: &[&str]) -> Vec<Run> {
    let run = |(index, output): (usize, &&str)| {
        let pid = 1000 * (index as i32 + 1);
        Run {
            lines: output
                .replace('#', &(index + 1).to_string())
                .lines()
                .map(str::to_owned)
                .collect(),
            pid,
            last_pid: pid + 50,
            paths: vec![format!("/tmp/cwd{index}"), "/home/x/scripts".to_owned()],
        }
    };
    outputs.iter().enumerate().map(run).collect()
}

/// Lines joined with `|`, repeated ones marked `* `; `any: ` before all where the order doesn't count.
fn result(outputs: &[&str]) -> String {
    let found = generalise(&runs(outputs), false, CONTEXT).unwrap();
    let lines: Vec<String> = found
        .lines
        .iter()
        .map(|(text, repeated)| format!("{}{text}", if *repeated { "* " } else { "" }))
        .collect();
    format!(
        "{}{}",
        if found.order == Order::Any {
            "any: "
        } else {
            ""
        },
        lines.join("|")
    )
}

#[test]
fn equal_output_is_kept_to_the_letter() {
    assert_eq!(
        result(&["a 1\nx [N] [2.5, None]"; 5]),
        r"a 1|x \[N] [2.5, None]"
    );
    assert_eq!(result(&["", ""]), "");
}

#[test]
fn process_ids_become_tags_with_names() {
    let output = "Parent process #000.\nchild #001\nend #000 #002";
    assert_eq!(
        result(&[output; 5]),
        "Parent process [PID:a].|child [PID]|end [PID:a] [PID]"
    );
    // The runner itself is the parent of every run's main process.
    assert_eq!(result(&["ppid 77"; 5]), "ppid [PID]");
}

#[test]
fn what_tells_the_time_is_never_kept() {
    let output = "now Sun Jun 20 23:21:05 1993\n2024-01-02 03:04:05.6\nruns 0.50 seconds, pi 3.14\nt 1700000000.25\nsize 0.5";
    assert_eq!(
        result(&[output; 5]),
        "now [TIME]|[TIME]|runs [F] seconds, pi 3.14|t [F]|size 0.5"
    );
}

#[test]
fn numbers_that_differ_become_tags() {
    assert_eq!(result(&["a -5 b 1", "a 6 b 1", "a 7 b 1"]), "a [N] b 1");
    assert_eq!(result(&["v 1", "v 1.5", "v 2"]), "v [F]");
    assert_eq!(
        result(&["r 5\nsame 5", "r 6\nsame 6", "r 7\nsame 7"]),
        "r [N:a]|same [N:a]"
    );
    assert_eq!(result(&["Process-1 3", "Process-1 4"]), "Process-1 [N]");
}

#[test]
fn paths_of_this_machine_are_never_kept() {
    assert_eq!(
        result(&[
            "in /tmp/cwd0/x of /home/x/scripts/a.rhai",
            "in /tmp/cwd1/x of /home/x/scripts/a.rhai"
        ]),
        "in [..]/x of [..]/a.rhai"
    );
}

#[test]
fn another_order_is_any_order() {
    assert_eq!(
        result(&["w 1\nw 2\nend", "w 2\nw 1\nend"]),
        "any: w 1|w 2|end"
    );
    assert_eq!(
        result(&[
            "w 1 1001\nw 2 1002",
            "w 2 2001\nw 1 2002",
            "w 1 3001\nw 2 3002"
        ]),
        "any: w 1 [PID]|w 2 [PID]"
    );
    // Which worker takes which item differs, but each item is taken once.
    assert_eq!(
        result(&["w 1 i 1\nw 1 i 2\nw 2 i 3", "w 2 i 1\nw 1 i 2\nw 1 i 3"]),
        "w [N] i 1|w [N] i 2|w [N] i 3"
    );
    assert_eq!(
        result(&["main 1000\nchild of 1000", "child of 2000\nmain 2000"]),
        "any: main [PID:a]|child of [PID:a]"
    );
}

#[test]
fn an_order_known_not_to_count_stays_so() {
    assert_eq!(
        generalise(&runs(&["a\nb", "a\nb"]), true, CONTEXT)
            .unwrap()
            .order,
        Order::Any
    );
}

#[test]
fn other_texts_are_cut_where_they_differ() {
    assert_eq!(result(&["key 12ab x", "key 7f9 x"]), "key [..]");
    assert_eq!(
        result(&["hello wonderful\nz", "hello world\nz"]),
        "hello [..]|z"
    );
    assert_eq!(
        result(&["id 1001 at 0x7fab", "id 2001 at 0x4c"]),
        "id [PID] at [..]"
    );
    assert_eq!(result(&["甲来了", "甲走了"]), "甲[..]");
}

#[test]
fn lines_that_come_a_different_number_of_times() {
    assert_eq!(
        result(&["a\nw 1\nz", "a\nw 1\nw 2\nz", "a\nz"]),
        "a|* w [N]|z"
    );
    assert_eq!(
        result(&["w 1\na\nw 2\nz", "a\nw 1\nz", "a\nw 1\nz"]),
        "* w [N]|a|* w [N]|z"
    );
    assert_eq!(result(&["a\nb\nw 1", "b\na\nw 1\nw 1"]), "any: a|b|* w 1");
    assert!(generalise(&runs(&["x", "y\nz", ""]), false, CONTEXT).is_err());
}

#[test]
fn backslashes_before_tags_stay_text() {
    assert_eq!(result(&["a\\5", "a\\6"]), r"a\\[N]");
}

proptest::proptest! {
    #[test]
    fn whatever_comes_out_fits(outputs in proptest::collection::vec(
        proptest::collection::vec("(a|b|job) ?-?(1|22|1\\.5|#00[0-9])( \\[N\\]|\\\\| 0\\.2 s)?", 0..6), 1..5)) {
        let outputs: Vec<String> = outputs.iter().map(|lines| lines.join("\n")).collect();
        let refs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let runs = runs(&refs);
        // An error is an answer too, but never for lack of a fit.
        match generalise(&runs, false, CONTEXT) {
            Ok(found) => proptest::prop_assert!(fits(&found.lines, found.order, &runs)),
            Err(message) => proptest::prop_assert!(message.contains("nothing in common"), "{}", message),
        }
    }
}
