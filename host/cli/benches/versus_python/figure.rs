//! Figures and how they are shown.
//!
//! Invariant: a figure is what one operation costs (microseconds, or MiB for memory), so less is better in every row; rates are for
//! reading only.

/// What a row's figures are shown as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Quantity {
    /// Time for one operation.
    Time,
    /// Operations a second.
    Rate,
    /// Bytes a second, where an operation moves 1 MiB.
    Bandwidth,
    /// MiB.
    Memory,
}

pub(crate) const fn ns(figure: f64) -> f64 {
    figure / 1e3
}

pub(crate) const fn us(figure: f64) -> f64 {
    figure
}

pub(crate) const fn ms(figure: f64) -> f64 {
    figure * 1e3
}

pub(crate) const fn per_second(figure: f64) -> f64 {
    1e6 / figure
}

/// Gigabytes (10⁹) a second, as time for 1 MiB.
pub(crate) const fn gigabytes(figure: f64) -> f64 {
    MIB / 1e3 / figure
}

pub(crate) const fn mebibytes(figure: f64) -> f64 {
    figure
}

const MIB: f64 = 1_048_576.0;

impl Quantity {
    /// The figure with its unit, in three digits.
    pub(crate) fn show(self, figure: f64) -> String {
        match self {
            Quantity::Time => scaled(figure * 1e3, &["ns", "µs", "ms", "s"]),
            Quantity::Rate => scaled(1e6 / figure, &["/s", "k/s", "M/s", "G/s"]),
            Quantity::Bandwidth => scaled(MIB / figure, &["MB/s", "GB/s", "TB/s"]),
            Quantity::Memory => format!("{} MiB", digits(figure)),
        }
    }
}

/// In the unit that leaves fewer than four digits before the point; each is a thousand of the one before.
fn scaled(mut figure: f64, units: &[&str]) -> String {
    let mut units = units.iter().peekable();
    let mut unit = "";
    while let Some(next) = units.next() {
        unit = next;
        // What would be shown as 1000 belongs to the next.
        if figure < 999.5 || units.peek().is_none() {
            break;
        }
        figure /= 1e3;
    }
    format!("{} {unit}", digits(figure))
}

/// Three digits that mean something.
pub(crate) fn digits(figure: f64) -> String {
    let places = if figure < 9.995 {
        2
    } else if figure < 99.95 {
        1
    } else {
        0
    };
    format!("{figure:.places$}")
}
