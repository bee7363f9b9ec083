//! Both searches, also against brute force.

use proptest::prelude::*;

use super::super::pattern::escape;
use super::*;

/// `* x` is a repeated expectation.
fn items(sources: &[&str]) -> Vec<Item> {
    sources
        .iter()
        .map(|source| match source.strip_prefix("* ") {
            Some(rest) => Item {
                pattern: Pattern::parse(rest),
                repeated: true,
            },
            None => Item {
                pattern: Pattern::parse(source),
                repeated: false,
            },
        })
        .collect()
}

fn in_order(expected: &[&str], lines: &[&str]) -> bool {
    strict(&items(expected), lines, &mut |_| true) == Verdict::Match
}

fn in_any_order(expected: &[&str], lines: &[&str]) -> bool {
    any_order(&items(expected), lines, &mut |_| true) == Verdict::Match
}

#[test]
fn in_order_every_line_counts() {
    assert!(in_order(&["a", "b [N]"], &["a", "b 1"]));
    assert!(!in_order(&["a", "b [N]"], &["b 1", "a"]));
    assert!(!in_order(&["a"], &["a", "b"]));
    assert!(!in_order(&["a", "b"], &["a"]));
    assert!(in_order(&[], &[]));
    assert!(!in_order(&[], &[""]));
}

#[test]
fn repeated_lines_in_order() {
    for lines in [
        &["a", "z"][..],
        &["a", "w 1", "z"],
        &["a", "w 1", "w 2", "w 2", "z"],
    ] {
        assert!(in_order(&["a", "* w [N]", "z"], lines), "{lines:?}");
    }
    assert!(in_order(&["* [..]", "z"], &["z", "z", "z"]));
    assert!(!in_order(&["a", "* w [N]", "z"], &["a", "w", "z"]));
}

#[test]
fn names_hold_across_lines() {
    assert!(in_order(
        &["[PID:a] starts", "[PID:b] starts", "[PID:a] ends"],
        &["1 starts", "2 starts", "1 ends"]
    ));
    assert!(!in_order(
        &["[PID:a] starts", "[PID:b] starts", "[PID:a] ends"],
        &["1 starts", "2 starts", "2 ends"]
    ));
    // The first split that comes to mind is the wrong one.
    assert!(in_order(&["[..:x] [..:y]", "[..:y]"], &["a b c", "c"]));
    assert!(in_order(&["* [N:n]", "end [N:n]"], &["3", "3", "end 3"]));
    assert!(!in_order(&["* [N:n]", "end [N:n]"], &["3", "4", "end 4"]));
}

#[test]
fn the_multiset_must_be_exact() {
    assert!(in_any_order(&["a", "b", "a"], &["b", "a", "a"]));
    assert!(!in_any_order(&["a", "b"], &["b", "a", "a"]));
    assert!(!in_any_order(&["a", "b", "a"], &["b", "a"]));
    // The wildcard must not take the line that only it could leave to the other.
    assert!(in_any_order(&["[..]", "x [N]"], &["x 1", "y"]));
    assert!(in_any_order(&["x [N]", "x [F]"], &["x 1.5", "x 1"]));
    assert!(!in_any_order(&["x [N]", "x [N]"], &["x 1.5", "x 1"]));
}

#[test]
fn repeated_lines_in_any_order() {
    assert!(in_any_order(&["a", "* w [N]"], &["a"]));
    assert!(in_any_order(&["a", "* w [N]"], &["w 1", "a", "w 2"]));
    assert!(!in_any_order(&["a", "* w [N]"], &["w 1", "a", "v"]));
    // The single one must take the line that the repeated one can't.
    assert!(in_any_order(&["[..]", "* w [N]"], &["w 1", "w 2", "v"]));
    assert!(in_any_order(&["* w [N]", "[..]"], &["w 1", "v", "w 2"]));
}

#[test]
fn names_in_any_order() {
    let expected = [
        "[PID:a] in",
        "[PID:b] in",
        "[PID:c] in",
        "[PID:a] out",
        "[PID:b] out",
        "[PID:c] out",
    ];
    assert!(in_any_order(
        &expected,
        &["2 in", "3 in", "3 out", "1 in", "1 out", "2 out"]
    ));
    assert!(!in_any_order(
        &expected,
        &["2 in", "3 in", "3 out", "1 in", "1 out", "4 out"]
    ));
    assert!(in_any_order(
        &["main [PID:m]", "* child of [PID:m]"],
        &["child of 4", "main 4", "child of 4"]
    ));
    assert!(!in_any_order(
        &["main [PID:m]", "* child of [PID:m]"],
        &["child of 4", "main 4", "child of 5"]
    ));
    assert!(in_any_order(&["a", "* [N:n]"], &["7", "a", "7"]));
    assert!(!in_any_order(&["a", "* [N:n]"], &["7", "a", "8"]));
    assert!(in_any_order(&["a", "* [N:n]"], &["a"]));
}

#[test]
fn many_named_pairs_are_found_soon() {
    let (mut expected, mut lines) = (Vec::new(), Vec::new());
    for index in 0..40 {
        expected.push(format!("[PID:p{index}] in"));
        expected.push(format!("[PID:p{index}] out"));
        lines.push(format!("{} in", 100 + index));
        lines.push(format!("{} out", 139 - index));
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert!(in_any_order(&expected, &lines));
}

#[test]
fn many_equal_lines_are_matched_soon() {
    let expected = vec!["task [N] by [PID]"; 1000];
    let lines: Vec<String> = (0..1000)
        .map(|index| format!("task {index} by {}", index + 1))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert!(in_any_order(&expected, &lines));
    assert!(!in_any_order(&expected[1..], &lines));
}

#[test]
fn a_refused_match_is_followed_by_another() {
    let mut seen = Vec::new();
    let verdict = any_order(&items(&["[N:a]", "[N:b]"]), &["1", "2"], &mut |bindings| {
        seen.push(bindings.values().cloned().collect::<Vec<_>>());
        seen.len() == 2
    });
    assert_eq!((verdict, seen.len()), (Verdict::Match, 2));
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn pairing_shows_what_is_missing() {
    let found = pair_in_order(&items(&["a", "b", "* w", "z"]), &["a", "w", "w", "x", "z"]);
    assert_eq!(found.line_of, [Some(0), None, Some(2), Some(4)]);
    assert_eq!(found.item_of, [Some(0), Some(2), Some(2), None, Some(3)]);
    let found = pair_any_order(&items(&["[..]", "b", "* w"]), &["w", "b", "x"]);
    assert_eq!(found.item_of, [None, Some(1), Some(0)]);
}

proptest! {
    #[test]
    fn output_matches_itself(lines in proptest::collection::vec("[ab\\[\\]PIDN\\\\.]{0,6}", 0..12)) {
        let escaped: Vec<Item> =
            lines.iter().map(|line| Item { pattern: Pattern::parse(&escape(line)), repeated: false }).collect();
        let refs: Vec<&str> = lines.iter().map(String::as_str).collect();
        prop_assert_eq!(strict(&escaped, &refs, &mut |_| true), Verdict::Match);
        let mut turned = refs.clone();
        turned.reverse();
        prop_assert_eq!(any_order(&escaped, &turned, &mut |_| true), Verdict::Match);
    }

    /// Against trying all permutations.
    #[test]
    fn any_order_agrees_with_brute_force(
        expected in proptest::collection::vec("(\\[N:a\\]|\\[N:b\\]|\\[N\\]|1|\\[\\.\\.\\]) (\\[N:a\\]|\\[N\\]|2)", 0..5),
        lines in proptest::collection::vec("[12] [12]", 0..5),
    ) {
        let singles: Vec<&str> = expected.iter().map(String::as_str).collect();
        let refs: Vec<&str> = lines.iter().map(String::as_str).collect();
        let expected = items(&singles);
        let brute = permutations(&refs).iter().any(|order| strict(&expected, order, &mut |_| true) == Verdict::Match);
        prop_assert_eq!(any_order(&expected, &refs, &mut |_| true) == Verdict::Match, brute);
    }
}

fn permutations<'a>(lines: &[&'a str]) -> Vec<Vec<&'a str>> {
    let Some((&first, rest)) = lines.split_first() else {
        return vec![Vec::new()];
    };
    permutations(rest)
        .into_iter()
        .flat_map(|order| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, first);
                order
            })
        })
        .collect()
}
