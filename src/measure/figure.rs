//! One figure of pairs of runs, and what it says in a plain sentence. Numbers in; how the runs were made is
//! for others.

use super::stats::{Difference, Median};
use serde::Serialize;

/// One figure of every run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// `wall time`, `CPU time`, or the expression.
    pub name: String,
    /// Of the runs without recording.
    pub without: Median,
    /// Of the runs with recording.
    pub with: Median,
    /// Each pair: without, with.
    pub pairs: Vec<(f64, f64)>,
    /// With minus without, with its 95 % confidence interval.
    pub difference: Difference,
    /// The same in % of the mean without; `None` if that is 0.
    pub difference_percent: Option<Difference>,
    /// What that means.
    pub conclusion: String,
}

/// What more of a figure is called, and less of it.
pub(super) type Words = (&'static str, &'static str);

pub(super) const WALL_TIME: (&str, Words) = ("wall time, s", ("slower", "faster"));
pub(super) const CPU_TIME: (&str, Words) = ("CPU time, s", ("more", "less"));
pub(super) const OTHER: Words = ("higher", "lower");

impl Figure {
    pub(super) fn new(name: &str, words: Words, pairs: Vec<(f64, f64)>) -> Option<Figure> {
        let (without, with): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let difference = Difference::of(&pairs)?;
        let mean = without.iter().sum::<f64>() / without.len() as f64;
        let percent = difference.relative_to(mean.abs() / 100.0);
        let difference_percent = (mean != 0.0).then_some(percent);
        let conclusion = match difference_percent {
            Some(percent) => conclusion(&percent, words, " %"),
            None => conclusion(&difference, words, ""),
        };
        Some(Figure {
            name: name.to_owned(),
            without: Median::of(&without),
            with: Median::of(&with),
            pairs,
            difference,
            difference_percent,
            conclusion,
        })
    }
}

/// A plain sentence.
fn conclusion(difference: &Difference, (more, less): Words, unit: &str) -> String {
    if difference.is_none_seen() {
        let bound = short(difference.bound());
        return format!("no difference seen; anything above {bound}{unit} would have been");
    }
    let word = if difference.mean > 0.0 { more } else { less };
    let mut ends = [difference.low.abs(), difference.high.abs()];
    ends.sort_by(f64::total_cmp);
    let [low, high] = ends.map(short);
    format!("{word} by {}{unit} ({low} to {high})", short(difference.mean.abs()))
}

/// Two digits that count.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        value if value >= 10.0 => 0,
        value if value >= 1.0 => 1,
        value if value >= 0.1 => 2,
        value if value >= 0.01 || value == 0.0 => 3,
        _ => 5,
    };
    format!("{value:.decimals$}")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_conclusion_is_a_plain_sentence() {
        let say = |mean, low, high, words| conclusion(&Difference { mean, low, high }, words, " %");
        assert_eq!(say(1.2, 0.8, 1.6, WALL_TIME.1), "slower by 1.2 % (0.80 to 1.6)");
        assert_eq!(say(-1.2, -1.6, -0.8, WALL_TIME.1), "faster by 1.2 % (0.80 to 1.6)");
        assert_eq!(say(25.0, 20.0, 30.0, OTHER), "higher by 25 % (20 to 30)");
        assert_eq!(
            say(0.1, -0.1, 0.3, CPU_TIME.1),
            "no difference seen; anything above 0.30 % would have been"
        );
        assert_eq!(
            say(0.0, 0.0, 0.0, OTHER),
            "no difference seen; anything above 0.000 % would have been"
        );
    }

    #[test]
    fn percent_are_of_the_mean_without() {
        let pairs = vec![(100.0, 101.0), (100.0, 103.0), (100.0, 102.0)];
        let figure = Figure::new("x", OTHER, pairs).unwrap();
        let percent = figure.difference_percent.unwrap();
        assert!((percent.mean - 2.0).abs() < 1e-12);
        // t(2) = 4.3027, standard error 1 / sqrt(3).
        assert!((percent.high - 2.0 - 4.302_653 / 3.0_f64.sqrt()).abs() < 1e-5);
        assert_eq!(figure.without.median, 100.0);
        let none = Figure::new("x", OTHER, vec![(0.0, 1.0), (0.0, 1.0)]).unwrap();
        assert_eq!(none.difference_percent, None);
        assert_eq!(none.conclusion, "higher by 1.0 (1.0 to 1.0)");
    }
}
