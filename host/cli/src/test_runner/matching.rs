//! Matching a script's lines with the expected ones, in order or as a multiset.
//!
//! Both searches hand every complete way to match to `accept`, which may refuse it (because
//! lines of standard error don't fit the same names) and so ask for another.
//!
//! **In order** it is a walk through pairs (expected line, printed line, what the names stand for);
//! no such state is visited twice, so that without names it takes at most lines × expectations steps.
//!
//! **In any order** the question is a bipartite matching: every expected line needs a printed line
//! of its own, and every printed line an expected one, or a `//>*` line, which takes any number. Without
//! names that is Kuhn's algorithm with augmenting paths. First the expectations are served, then the printed lines that no
//! `//>*` takes; an augmenting path never unserves what was served, so both succeed if they can. Names
//! tie lines together, which no matching algorithm handles: so names are bound one expectation at a time, the
//! one with the fewest choices first, and each partial choice is kept only if the matching with the
//! still unbound names as wildcards exists. What the names stand for is branched on, not which line is
//! taken, so that equal lines cost nothing.
//!
//! Invariant: both searches end after a bounded number of steps; one that would not says so.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::pattern::{Bindings, Name, Pattern};

/// One expected line of standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// What it must match.
    pub(crate) pattern: Pattern,
    /// It may come any number of times (`//>*`).
    pub(crate) repeated: bool,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A way to match was found and accepted.
    Match,
    /// There is none.
    Mismatch,
    /// The search was given up: too many names that could stand for too many things.
    TooHard,
}

/// States of the search in order.
const MAX_STATES: usize = 2_000_000;
/// Choices of names tried in the search in any order.
const MAX_CHOICES: usize = 5_000;
/// Pairs of expected and printed lines, beyond those that are equal to the letter.
const MAX_PAIRS: usize = 4_000_000;

type Solutions = Rc<[Bindings]>;

/// Remembers which pattern matches which line how.
#[derive(Default)]
struct Cells<'a> {
    known: HashMap<(&'a str, &'a str), Solutions>,
}

impl<'a> Cells<'a> {
    fn get(&mut self, pattern: &'a Pattern, line: &'a str) -> Solutions {
        Rc::clone(
            self.known
                .entry((pattern.source(), line))
                .or_insert_with(|| pattern.solutions(line).into()),
        )
    }
}

fn agree(some: &Bindings, others: &Bindings) -> bool {
    some.iter()
        .all(|(name, text)| others.get(name).is_none_or(|other| other == text))
}

fn joined(some: &Bindings, others: &Bindings) -> Bindings {
    some.iter()
        .chain(others)
        .map(|(name, text)| (name.clone(), text.clone()))
        .collect()
}

/// Matches `lines` with `items` in order.
pub(crate) fn strict(
    items: &[Item],
    lines: &[&str],
    accept: &mut dyn FnMut(&Bindings) -> bool,
) -> Verdict {
    let mut cells = Cells::default();
    let mut visited = HashSet::new();
    let mut open = vec![(0, 0, Rc::new(Bindings::new()))];
    while let Some(state) = open.pop() {
        if !visited.insert(state.clone()) {
            continue;
        }
        if visited.len() > MAX_STATES {
            return Verdict::TooHard;
        }
        let (item, line, bindings) = state;
        let Some(expected) = items.get(item) else {
            if line == lines.len() && accept(&bindings) {
                return Verdict::Match;
            }
            continue;
        };
        if expected.repeated {
            open.push((item + 1, line, Rc::clone(&bindings)));
        }
        if let Some(text) = lines.get(line) {
            let next = if expected.repeated { item } else { item + 1 };
            for solution in cells
                .get(&expected.pattern, text)
                .iter()
                .rev()
                .filter(|found| agree(found, &bindings))
            {
                let after = if solution.is_empty() {
                    Rc::clone(&bindings)
                } else {
                    Rc::new(joined(&bindings, solution))
                };
                open.push((next, line + 1, after));
            }
        }
    }
    Verdict::Mismatch
}

/// Who is matched with whom.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    /// For each expectation its line. Repeated ones have none.
    pub(crate) line_of: Vec<Option<usize>>,
    /// For each line its expectation; none too for a line that a repeated expectation takes.
    pub(crate) item_of: Vec<Option<usize>>,
}

/// The bipartite graph of single expectations and lines.
struct Graph {
    /// For each expectation the lines it matches.
    lines_of: Vec<Vec<usize>>,
    /// For each line the expectations that match it.
    items_of: Vec<Vec<usize>>,
    /// For each line whether a repeated expectation takes it.
    spare: Vec<bool>,
}

impl Graph {
    /// A matching that serves as many expectations, and then as many lines, as can be.
    fn assign(&self) -> Assignment {
        let mut assignment = Assignment {
            line_of: vec![None; self.lines_of.len()],
            item_of: vec![None; self.items_of.len()],
        };
        let mut seen = vec![0_usize; self.items_of.len()];
        for item in 0..self.lines_of.len() {
            self.serve_item(item, &mut assignment, &mut seen, item + 1);
        }
        let mut seen = vec![0_usize; self.lines_of.len()];
        for line in 0..self.items_of.len() {
            if !self.spare[line] && assignment.item_of[line].is_none() {
                self.serve_line(line, &mut assignment, &mut seen, line + 1);
            }
        }
        assignment
    }

    /// Finds a line for `item`, moving others where needed. `seen` marks the lines of this round.
    fn serve_item(
        &self,
        item: usize,
        found: &mut Assignment,
        seen: &mut [usize],
        round: usize,
    ) -> bool {
        let free = self.lines_of[item]
            .iter()
            .copied()
            .find(|&line| found.item_of[line].is_none());
        if let Some(line) = free {
            (found.line_of[item], found.item_of[line]) = (Some(line), Some(item));
            return true;
        }
        for &line in &self.lines_of[item] {
            if std::mem::replace(&mut seen[line], round) == round {
                continue;
            }
            let Some(other) = found.item_of[line] else {
                continue;
            };
            if self.serve_item(other, found, seen, round) {
                (found.line_of[item], found.item_of[line]) = (Some(line), Some(item));
                return true;
            }
        }
        false
    }

    /// Finds an expectation for `line`: a free one, or one whose line a repeated one takes, or whose
    /// line finds another.
    fn serve_line(
        &self,
        line: usize,
        found: &mut Assignment,
        seen: &mut [usize],
        round: usize,
    ) -> bool {
        for &item in &self.items_of[line] {
            if std::mem::replace(&mut seen[item], round) == round {
                continue;
            }
            let free = match found.line_of[item] {
                None => true,
                Some(other) if self.spare[other] => {
                    found.item_of[other] = None;
                    true
                }
                Some(other) => self.serve_line(other, found, seen, round),
            };
            if free {
                (found.line_of[item], found.item_of[line]) = (Some(line), Some(item));
                return true;
            }
        }
        false
    }

    fn complete(&self, assignment: &Assignment) -> bool {
        assignment.line_of.iter().all(Option::is_some)
            && assignment
                .item_of
                .iter()
                .zip(&self.spare)
                .all(|(item, spare)| *spare || item.is_some())
    }
}

struct AnyOrder<'a, 'f> {
    singles: Vec<&'a Pattern>,
    repeated: Vec<&'a Pattern>,
    lines: Vec<&'a str>,
    /// Solutions of single and of repeated patterns, for each line.
    single_cells: Vec<Vec<Solutions>>,
    repeated_cells: Vec<Vec<Solutions>>,
    choices: usize,
    accept: &'f mut dyn FnMut(&Bindings) -> bool,
}

/// Matches `lines` with `items` as multisets.
pub(crate) fn any_order<'a>(
    items: &'a [Item],
    lines: &[&'a str],
    accept: &mut dyn FnMut(&Bindings) -> bool,
) -> Verdict {
    // An expectation without tags matches lines of one text only, and those are all alike: it can
    // as well be given the first of them at once.
    let mut stock: HashMap<&str, usize> = HashMap::new();
    for line in lines {
        *stock.entry(line.trim_end()).or_default() += 1;
    }
    let mut singles = Vec::new();
    for item in items.iter().filter(|item| !item.repeated) {
        match item.pattern.literal() {
            None => singles.push(&item.pattern),
            Some(text) => match stock.get_mut(text.trim_end()) {
                Some(left) if *left > 0 => *left -= 1,
                _ => return Verdict::Mismatch,
            },
        }
    }
    let lines: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| match stock.get_mut(line.trim_end()) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        })
        .collect();
    let repeated: Vec<&Pattern> = items
        .iter()
        .filter(|item| item.repeated)
        .map(|item| &item.pattern)
        .collect();
    if singles.len() > lines.len() {
        return Verdict::Mismatch;
    }
    if (singles.len() + repeated.len()).saturating_mul(lines.len()) > MAX_PAIRS {
        return Verdict::TooHard;
    }
    let mut cells = Cells::default();
    let mut table = |patterns: &[&'a Pattern]| -> Vec<Vec<Solutions>> {
        patterns
            .iter()
            .map(|pattern| lines.iter().map(|line| cells.get(pattern, line)).collect())
            .collect()
    };
    let (single_cells, repeated_cells) = (table(&singles), table(&repeated));
    let unused = vec![false; repeated.len()];
    let mut search = AnyOrder {
        singles,
        repeated,
        lines,
        single_cells,
        repeated_cells,
        choices: 0,
        accept,
    };
    match search.go(&Bindings::new(), &unused) {
        Some(true) => Verdict::Match,
        Some(false) => Verdict::Mismatch,
        None => Verdict::TooHard,
    }
}

impl AnyOrder<'_, '_> {
    /// The graph under a choice of names; names without a choice are wildcards.
    fn graph(&self, bindings: &Bindings, unused: &[bool]) -> Graph {
        let fits = |cell: &Solutions| cell.iter().any(|solution| agree(solution, bindings));
        let lines_of: Vec<Vec<usize>> = self
            .single_cells
            .iter()
            .map(|row| {
                row.iter()
                    .enumerate()
                    .filter(|(_, cell)| fits(cell))
                    .map(|(line, _)| line)
                    .collect()
            })
            .collect();
        let mut items_of = vec![Vec::new(); self.lines.len()];
        for (item, lines) in lines_of.iter().enumerate() {
            for &line in lines {
                items_of[line].push(item);
            }
        }
        let spare = (0..self.lines.len())
            .map(|line| {
                self.repeated_cells
                    .iter()
                    .zip(unused)
                    .any(|(row, &unused)| !unused && fits(&row[line]))
            })
            .collect();
        Graph {
            lines_of,
            items_of,
            spare,
        }
    }

    /// What the unbound names of a row of solutions could stand for.
    fn extensions(row: &[Solutions], bindings: &Bindings) -> BTreeSet<Bindings> {
        row.iter()
            .flat_map(|cell| cell.iter())
            .filter(|solution| agree(solution, bindings))
            .cloned()
            .collect()
    }

    /// `None`: given up.
    fn go(&mut self, bindings: &Bindings, unused: &[bool]) -> Option<bool> {
        self.choices += 1;
        if self.choices > MAX_CHOICES {
            return None;
        }
        let graph = self.graph(bindings, unused);
        if !graph.complete(&graph.assign()) {
            return Some(false);
        }
        let open = |pattern: &Pattern| {
            pattern
                .names()
                .any(|name: &Name| !bindings.contains_key(name))
        };
        let next = self
            .singles
            .iter()
            .zip(&self.single_cells)
            .filter(|(pattern, _)| open(pattern))
            .map(|(_, row)| Self::extensions(row, bindings))
            .min_by_key(BTreeSet::len);
        if let Some(extensions) = next {
            return self.branch(extensions, bindings, unused);
        }
        let next =
            (0..self.repeated.len()).find(|&index| !unused[index] && open(self.repeated[index]));
        if let Some(index) = next {
            let extensions = Self::extensions(&self.repeated_cells[index], bindings);
            if self.branch(extensions, bindings, unused)? {
                return Some(true);
            }
            let mut unused = unused.to_vec();
            unused[index] = true;
            return self.go(bindings, &unused);
        }
        Some((self.accept)(bindings))
    }

    fn branch(
        &mut self,
        extensions: BTreeSet<Bindings>,
        bindings: &Bindings,
        unused: &[bool],
    ) -> Option<bool> {
        for extension in extensions {
            if self.go(&joined(bindings, &extension), unused)? {
                return Some(true);
            }
        }
        Some(false)
    }
}

/// The best pairing in any order with names as wildcards: what a failure's diff is made from.
pub(crate) fn pair_any_order(items: &[Item], lines: &[&str]) -> Assignment {
    let lines_of: Vec<Vec<usize>> = items
        .iter()
        .map(|item| {
            if item.repeated {
                Vec::new()
            } else {
                (0..lines.len())
                    .filter(|&line| item.pattern.matches(lines[line]))
                    .collect()
            }
        })
        .collect();
    let mut items_of = vec![Vec::new(); lines.len()];
    for (item, found) in lines_of.iter().enumerate() {
        for &line in found {
            items_of[line].push(item);
        }
    }
    let spare = lines
        .iter()
        .map(|line| {
            items
                .iter()
                .any(|item| item.repeated && item.pattern.matches(line))
        })
        .collect();
    Graph {
        lines_of,
        items_of,
        spare,
    }
    .assign()
}

/// The longest pairing in order with names as wildcards. A repeated expectation is paired with
/// every line it takes, `line_of` holds the last of them.
pub(crate) fn pair_in_order(items: &[Item], lines: &[&str]) -> Assignment {
    // best[i][j]: how many lines of lines[j..] can be paired with items[i..].
    let width = lines.len() + 1;
    let mut best = vec![0_u32; (items.len() + 1) * width];
    let fits: Vec<Vec<bool>> = items
        .iter()
        .map(|item| {
            lines
                .iter()
                .map(|line| item.pattern.matches(line))
                .collect()
        })
        .collect();
    let after = |item: usize| if items[item].repeated { item } else { item + 1 };
    for item in (0..items.len()).rev() {
        for line in (0..lines.len()).rev() {
            let mut value = best[(item + 1) * width + line].max(best[item * width + line + 1]);
            if fits[item][line] {
                value = value.max(1 + best[after(item) * width + line + 1]);
            }
            best[item * width + line] = value;
        }
    }
    let mut assignment = Assignment {
        line_of: vec![None; items.len()],
        item_of: vec![None; lines.len()],
    };
    let (mut item, mut line) = (0, 0);
    while item < items.len() && line < lines.len() {
        let here = best[item * width + line];
        if fits[item][line] && here == 1 + best[after(item) * width + line + 1] {
            (assignment.line_of[item], assignment.item_of[line]) = (Some(line), Some(item));
            (item, line) = (after(item), line + 1);
        } else if here == best[(item + 1) * width + line] {
            item += 1;
        } else {
            line += 1;
        }
    }
    assignment
}

#[cfg(test)]
mod tests;
