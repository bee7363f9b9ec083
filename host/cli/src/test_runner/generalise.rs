//! From the lines that several runs of one script printed to expectations that fit them all.
//!
//! What is the same in all runs is written as it is, what differs as a tag. Lines are taken apart into text and
//! *slots* (numbers, times, paths); lines with the same text around the same slots are a *group*.
//!
//! 1. Groups that come equally often in every run: a slot whose values are the same multiset in every run is kept
//!    to the letter, any other becomes a tag. Some slots always do, since equal values prove nothing there: times,
//!    elapsed seconds, paths of this machine, the runner's own pid.
//! 2. Lines of the other groups are paired in order where every run has as many of them, and cut where they begin to
//!    differ (`prefix [..]`); else they become lines that may come any number of times.
//! 3. If no run's sequence of patterns fits all the runs in order, the order is `any`.
//! 4. Tags that in each run had one value get one name.
//!
//! Invariant: what is returned matches every run; that is checked with the real matcher, not assumed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::expectations::Order;
use super::matching::{Item, Verdict, any_order, strict};
use super::pattern::{Kind, Pattern, escape};
use super::slots::{Class, Context, Piece, Run, pieces};

/// Expectations that fit all runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generalised {
    /// Pattern, and whether it may come any number of times.
    pub(crate) lines: Vec<(String, bool)>,
    /// Whether the order counts.
    pub(crate) order: Order,
    /// What was generalised, for the user.
    pub(crate) notes: Vec<String>,
}

/// A line with its slots decided.
#[derive(Debug, Clone, Default)]
struct Line {
    parts: Vec<Part>,
    repeated: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    /// A tag and what it stood for in this run.
    Tag(Kind, String),
}

fn skeleton(pieces: &[Piece]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Slot { class, .. } => format!("\0{class:?}\0"),
        })
        .collect()
}

fn kind_of<'a>(slots: impl Iterator<Item = &'a Piece>) -> Kind {
    let (mut pid, mut float) = (true, false);
    for slot in slots {
        match slot {
            Piece::Slot {
                class: Class::Time, ..
            } => return Kind::Time,
            Piece::Slot {
                class: Class::Opaque,
                ..
            }
            | Piece::Text(_) => return Kind::Anything,
            Piece::Slot {
                text, pid: is_pid, ..
            } => {
                pid &= is_pid;
                float |= text.contains('.');
            }
        }
    }
    match (pid, float) {
        (_, true) => Kind::Float,
        (true, _) => Kind::Pid,
        _ => Kind::Integer,
    }
}

/// All runs' lines taken apart.
type Taken = Vec<Vec<Vec<Piece>>>;
/// Where a line is: run and index in it.
type At = (usize, usize);

/// Finds expectations that fit all `runs`. `any`: the order is known not to count.
///
/// # Errors
///
/// In words: the runs have too little in common.
pub(crate) fn generalise(runs: &[Run], any: bool, context: Context) -> Result<Generalised, String> {
    let taken: Taken = runs
        .iter()
        .map(|run| {
            run.lines
                .iter()
                .map(|line| pieces(line.trim_end(), run, context))
                .collect()
        })
        .collect();
    let mut groups: BTreeMap<String, Vec<At>> = BTreeMap::new();
    for (run, lines) in taken.iter().enumerate() {
        for (index, line) in lines.iter().enumerate() {
            groups.entry(skeleton(line)).or_default().push((run, index));
        }
    }
    let mut decided: Vec<Vec<Line>> = taken
        .iter()
        .map(|lines| vec![Line::default(); lines.len()])
        .collect();
    let mut rest: Vec<Vec<At>> = Vec::new();
    for places in groups.into_values() {
        if (0..runs.len()).all(|run| count(&places, run) * runs.len() == places.len()) {
            decide(&taken, &places, &mut decided);
        } else {
            rest.push(places);
        }
    }
    irregular(&taken, rest, &mut decided)?;
    assemble(runs, &decided, any)
}

fn count(places: &[At], run: usize) -> usize {
    places.iter().filter(|place| place.0 == run).count()
}

fn line_of(pieces: &[Piece], kinds: &[Option<Kind>], repeated: bool) -> Line {
    let parts = pieces
        .iter()
        .zip(kinds)
        .map(|(piece, kind)| match (piece, kind) {
            (Piece::Slot { text, .. }, Some(kind)) => Part::Tag(*kind, text.clone()),
            (Piece::Slot { text, .. } | Piece::Text(text), _) => Part::Text(text.clone()),
        })
        .collect();
    Line { parts, repeated }
}

/// Decides the slots of a group that comes equally often in every run.
fn decide(taken: &Taken, places: &[At], decided: &mut [Vec<Line>]) {
    let get = |&(run, index): &At| &taken[run][index];
    let runs = taken.len();
    let width = get(&places[0]).len();
    let values = |kinds: &[Option<Kind>], run: usize| -> Vec<String> {
        let mut all: Vec<String> = places
            .iter()
            .filter(|place| place.0 == run)
            .map(|place| line_of(get(place), kinds, false).render(&BTreeMap::new()))
            .collect();
        all.sort();
        all
    };
    let same = |kinds: &[Option<Kind>]| (1..runs).all(|run| values(kinds, run) == values(kinds, 0));
    let column = |slot: usize| places.iter().map(move |place| &get(place)[slot]);
    let kind = |slot: usize| Some(kind_of(column(slot)));
    let mut kinds: Vec<Option<Kind>> = vec![None; width];
    let mut kept = Vec::new();
    for (slot, decision) in kinds.iter_mut().enumerate() {
        let Piece::Slot { .. } = get(&places[0])[slot] else {
            continue;
        };
        let forced = column(slot).any(|piece| matches!(piece, Piece::Slot { forced: true, .. }));
        let multiset = |run: usize| {
            let mut texts: Vec<&str> = places
                .iter()
                .filter(|place| place.0 == run)
                .map(|place| match &get(place)[slot] {
                    Piece::Slot { text, .. } | Piece::Text(text) => text.as_str(),
                })
                .collect();
            texts.sort_unstable();
            texts
        };
        if forced || (1..runs).any(|run| multiset(run) != multiset(0)) {
            *decision = kind(slot);
        } else {
            kept.push((multiset(0).into_iter().collect::<BTreeSet<_>>().len(), slot));
        }
    }
    // Each kept slot has the same values in every run, but perhaps not together with the same others:
    // give up as few as will do, those with the fewest values, which say least, first.
    kept.sort_unstable();
    if !same(&kinds) {
        let one = kept.iter().find(|(_, slot)| {
            let mut kinds = kinds.clone();
            kinds[*slot] = kind(*slot);
            same(&kinds)
        });
        match one {
            Some((_, slot)) => kinds[*slot] = kind(*slot),
            None => kept.iter().for_each(|(_, slot)| kinds[*slot] = kind(*slot)),
        }
    }
    for place in places {
        decided[place.0][place.1] = line_of(get(place), &kinds, false);
    }
}

/// Decides the lines of groups that don't come equally often in every run.
fn irregular(taken: &Taken, groups: Vec<Vec<At>>, decided: &mut [Vec<Line>]) -> Result<(), String> {
    let mut by_run: Vec<Vec<At>> = vec![Vec::new(); taken.len()];
    for &place in groups.iter().flatten() {
        by_run[place.0].push(place);
    }
    by_run.iter_mut().for_each(|places| places.sort_unstable());
    let columns = by_run.iter().map(Vec::len).max().unwrap_or(0);
    if by_run.iter().all(|places| places.len() == columns) {
        for column in 0..columns {
            let places: Vec<At> = by_run.iter().map(|places| places[column]).collect();
            common_start(taken, &places, false, decided);
        }
        return Ok(());
    }
    let mut lonely = Vec::new();
    for places in groups {
        if places
            .iter()
            .map(|place| place.0)
            .collect::<BTreeSet<_>>()
            .len()
            == 1
            && taken.len() > 1
        {
            lonely.extend(places);
        } else {
            common_start(taken, &places, true, decided);
        }
    }
    if !lonely.is_empty() {
        common_start(taken, &lonely, true, decided);
        let (run, index) = lonely[0];
        if decided[run][index]
            .parts
            .iter()
            .all(|part| matches!(part, Part::Tag(..)))
        {
            return Err("the runs print different lines, and different numbers of them, which have nothing in common".to_owned());
        }
    }
    Ok(())
}

/// Decides lines that begin alike: as one pattern, cut where the text begins to differ.
fn common_start(taken: &Taken, places: &[At], repeated: bool, decided: &mut [Vec<Line>]) {
    let all: Vec<&Vec<Piece>> = places
        .iter()
        .map(|&(run, index)| &taken[run][index])
        .collect();
    let mut parts: Vec<Vec<Part>> = vec![Vec::new(); all.len()];
    let mut whole = true;
    let mut at = 0;
    while whole && all.iter().any(|line| at < line.len()) {
        let column: Vec<Option<&Piece>> = all.iter().map(|line| line.get(at)).collect();
        let class = |piece: &Option<&Piece>| match piece {
            Some(Piece::Slot { class, .. }) => Some(*class),
            _ => None,
        };
        let text = |piece: &Option<&Piece>| match piece {
            Some(Piece::Slot { text, .. } | Piece::Text(text)) => text.clone(),
            None => String::new(),
        };
        let first = text(&column[0]);
        let equal = column.iter().all(|piece| {
            piece.is_some() && text(piece) == first && class(piece) == class(&column[0])
        });
        let forced = column
            .iter()
            .any(|piece| matches!(piece, Some(Piece::Slot { forced: true, .. })));
        if equal && !forced {
            parts
                .iter_mut()
                .for_each(|parts| parts.push(Part::Text(first.clone())));
        } else if !torn(&all, at)
            && class(&column[0]).is_some()
            && column.iter().all(|piece| class(piece) == class(&column[0]))
        {
            let kind = kind_of(column.iter().flatten().copied());
            parts
                .iter_mut()
                .zip(&column)
                .for_each(|(parts, piece)| parts.push(Part::Tag(kind, text(piece))));
        } else {
            whole = false;
            if column
                .iter()
                .all(|piece| matches!(piece, Some(Piece::Text(_))))
            {
                let mut start = column
                    .iter()
                    .fold(first, |start, piece| common_prefix(&start, &text(piece)));
                // Not in the middle of a word.
                start.truncate(
                    start
                        .trim_end_matches(|c: char| c.is_ascii_alphanumeric())
                        .len(),
                );
                parts
                    .iter_mut()
                    .for_each(|parts| parts.push(Part::Text(start.clone())));
            }
            parts
                .iter_mut()
                .for_each(|parts| parts.push(Part::Tag(Kind::Anything, String::new())));
        }
        at += 1;
    }
    for (place, mut parts) in places.iter().zip(parts) {
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        decided[place.0][place.1] = Line { parts, repeated };
    }
}

/// Whether letters follow the number in some of the lines, and not the same in all: then the number is a part of
/// a word, which may begin with a letter next time.
fn torn(lines: &[&Vec<Piece>], at: usize) -> bool {
    let after = |line: &&Vec<Piece>| match line.get(at + 1) {
        Some(Piece::Text(text)) => text
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect(),
        _ => String::new(),
    };
    lines.iter().any(|line| after(line) != after(&lines[0]))
}

fn common_prefix(some: &str, other: &str) -> String {
    some.chars()
        .zip(other.chars())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect()
}

impl Line {
    /// The pattern, with names for the tags of these numbers.
    fn render(&self, names: &BTreeMap<usize, String>) -> String {
        let (mut out, mut text, mut tag) = (String::new(), String::new(), 0);
        for part in &self.parts {
            match part {
                Part::Text(more) => text.push_str(more),
                Part::Tag(kind, _) => {
                    let literal = escape(&std::mem::take(&mut text));
                    let slashes = literal.len() - literal.trim_end_matches('\\').len();
                    out.push_str(&literal);
                    out.push_str(&"\\".repeat(slashes));
                    let name = names
                        .get(&tag)
                        .map(|name| format!(":{name}"))
                        .unwrap_or_default();
                    out.push_str(&format!("[{}{name}]", kind.word()));
                    tag += 1;
                }
            }
        }
        out + &escape(&text)
    }

    fn tags(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Tag(kind, text) => Some((*kind, text.as_str())),
            Part::Text(_) => None,
        })
    }
}

fn fits(lines: &[(String, bool)], order: Order, runs: &[Run]) -> bool {
    let items: Vec<Item> = lines
        .iter()
        .map(|(text, repeated)| Item {
            pattern: Pattern::parse(text),
            repeated: *repeated,
        })
        .collect();
    runs.iter().all(|run| {
        let printed: Vec<&str> = run.lines.iter().map(String::as_str).collect();
        let verdict = match order {
            Order::Strict => strict(&items, &printed, &mut |_| true),
            Order::Any => any_order(&items, &printed, &mut |_| true),
        };
        verdict == Verdict::Match
    })
}

/// A run's lines as expectations, repeated ones once for each row of them.
fn sequence(lines: &[Line]) -> Vec<(String, bool)> {
    let mut out: Vec<(String, bool)> = lines
        .iter()
        .map(|line| (line.render(&BTreeMap::new()), line.repeated))
        .collect();
    out.dedup_by(|a, b| a.1 && a == b);
    out
}

fn assemble(runs: &[Run], decided: &[Vec<Line>], any: bool) -> Result<Generalised, String> {
    let in_order = decided
        .iter()
        .map(|lines| sequence(lines))
        .find(|lines| !any && fits(lines, Order::Strict, runs));
    let (plain, order) = match in_order {
        Some(lines) => (lines, Order::Strict),
        None => {
            let mut lines = sequence(&decided[0]);
            lines.retain(|(_, repeated)| !repeated);
            let repeated: BTreeSet<(String, bool)> = decided
                .iter()
                .flat_map(|lines| sequence(lines))
                .filter(|(_, repeated)| *repeated)
                .collect();
            lines.extend(repeated);
            (lines, Order::Any)
        }
    };
    let named = with_names(decided, order);
    let lines = match named {
        Some(lines) if fits(&lines, order, runs) => lines,
        _ if fits(&plain, order, runs) => plain,
        _ => return Err("no expectations were found that fit all the runs".to_owned()),
    };
    let notes = notes(decided, &lines, order, any);
    Ok(Generalised {
        lines,
        order,
        notes,
    })
}

/// The first run's lines with names for tags that had one value in every run; none if there are no such.
fn with_names(decided: &[Vec<Line>], order: Order) -> Option<Vec<(String, bool)>> {
    let first = &decided[0];
    if decided.iter().flatten().any(|line| line.repeated) && order == Order::Strict {
        return None;
    }
    // For each of the first run's lines the same line of the other runs, if it is certain which that is.
    let rendered: Vec<Vec<String>> = decided
        .iter()
        .map(|lines| {
            lines
                .iter()
                .map(|line| line.render(&BTreeMap::new()))
                .collect()
        })
        .collect();
    let twin = |index: usize, run: usize| -> Option<usize> {
        match order {
            Order::Strict => Some(index),
            Order::Any => {
                let mut found = (0..rendered[run].len())
                    .filter(|&other| rendered[run][other] == rendered[0][index]);
                found.next().filter(|_| found.next().is_none())
            }
        }
    };
    let mut classes: HashMap<Vec<&str>, Vec<(usize, usize)>> = HashMap::new();
    for index in (0..first.len()).filter(|&index| !first[index].repeated) {
        let twins: Option<Vec<usize>> = (0..decided.len()).map(|run| twin(index, run)).collect();
        let Some(twins) = twins else { continue };
        for (tag, (kind, _)) in first[index].tags().enumerate() {
            let values: Option<Vec<&str>> = twins
                .iter()
                .enumerate()
                .map(|(run, &at)| decided[run].get(at)?.tags().nth(tag).map(|(_, text)| text))
                .collect();
            let Some(values) = values else { continue };
            // Few different values may agree by chance.
            let telling = values.iter().collect::<BTreeSet<_>>().len() >= 3;
            if kind == Kind::Pid || (kind == Kind::Integer && telling) {
                classes.entry(values).or_default().push((index, tag));
            }
        }
    }
    let kind_at =
        |&(index, tag): &(usize, usize)| first[index].tags().nth(tag).map(|(kind, _)| kind);
    let mut classes: Vec<Vec<(usize, usize)>> = classes
        .into_values()
        .filter(|places| {
            places.len() > 1
                && places
                    .iter()
                    .all(|place| kind_at(place) == kind_at(&places[0]))
        })
        .collect();
    if classes.is_empty() {
        return None;
    }
    classes.sort_unstable();
    let mut names: BTreeMap<usize, BTreeMap<usize, String>> = BTreeMap::new();
    for (number, places) in classes.iter().enumerate() {
        let letter = char::from(b'a' + (number % 26) as u8);
        let name = if number < 26 {
            letter.to_string()
        } else {
            format!("{letter}{}", number / 26)
        };
        for (index, tag) in places {
            names.entry(*index).or_default().insert(*tag, name.clone());
        }
    }
    let none = BTreeMap::new();
    let mut lines: Vec<(String, bool)> = first
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.repeated)
        .map(|(index, line)| (line.render(names.get(&index).unwrap_or(&none)), false))
        .collect();
    let repeated: BTreeSet<(String, bool)> = decided
        .iter()
        .flat_map(|lines| sequence(lines))
        .filter(|(_, repeated)| *repeated)
        .collect();
    lines.extend(repeated);
    Some(lines)
}

fn notes(decided: &[Vec<Line>], lines: &[(String, bool)], order: Order, any: bool) -> Vec<String> {
    let mut notes = Vec::new();
    for kind in [
        Kind::Pid,
        Kind::Integer,
        Kind::Float,
        Kind::Time,
        Kind::Anything,
    ] {
        let number = decided[0]
            .iter()
            .flat_map(Line::tags)
            .filter(|(found, _)| *found == kind)
            .count();
        if number > 0 {
            let places = if number == 1 { "place" } else { "places" };
            notes.push(format!("[{}] in {number} {places}", kind.word()));
        }
    }
    let repeated = lines.iter().filter(|(_, repeated)| *repeated).count();
    if repeated > 0 {
        notes.push(format!(
            "{repeated} kinds of lines come a different number of times: //>*"
        ));
    }
    if order == Order::Any && !any {
        notes.push("the lines come in different orders: order: any".to_owned());
    }
    notes
}

#[cfg(test)]
mod tests;
