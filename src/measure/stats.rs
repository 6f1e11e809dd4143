//! Medians, spread, and what pairs of measurements say about a difference. Numbers in, numbers
//! out.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A middle and how far the values spread about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Median {
    /// Half of the values lie below it.
    pub median: f64,
    /// A tenth of them.
    pub p10: f64,
    /// Nine tenths of them.
    pub p90: f64,
}

impl Median {
    /// Of `values`, whatever their order; zeros of none.
    pub fn of(values: &[f64]) -> Median {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let [median, p10, p90] = [0.5, 0.1, 0.9].map(|share| quantile(&values, share));
        Median { median, p10, p90 }
    }
}

/// The value below which a `share` of `sorted` lies, between two values in proportion; 0 of none.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = last as f64 * share.clamp(0.0, 1.0);
    // Not above `last`, which is an index.
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// What pairs of measurements say about a difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Mean of the differences within the pairs, second minus first.
    pub mean: f64,
    /// The true difference is at least this, with a confidence of 95 % together with `high`.
    pub low: f64,
    /// The true difference is at most this.
    pub high: f64,
}

impl Difference {
    /// Student's t for the differences within the pairs: whatever drifts from pair to pair is in
    /// both of a pair and falls out. `None` of fewer than two pairs.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Difference> {
        let count = pairs.len() as f64;
        let differences = pairs.iter().map(|(first, second)| second - first);
        let mean = differences.clone().sum::<f64>() / count;
        let freedom = count - 1.0;
        let t = t_95(freedom)?;
        let squares: f64 = differences.map(|difference| (difference - mean).powi(2)).sum();
        let half = t * (squares / freedom / count).sqrt();
        Some(Difference { mean, low: mean - half, high: mean + half })
    }

    /// Whether no difference at all would be as likely.
    pub fn is_none_seen(&self) -> bool {
        self.low <= 0.0 && 0.0 <= self.high
    }

    /// The largest true difference, either way, that what was measured leaves room for.
    pub fn bound(&self) -> f64 {
        self.low.abs().max(self.high.abs())
    }

    /// In units of `one`.
    pub fn relative_to(self, one: f64) -> Difference {
        Difference { mean: self.mean / one, low: self.low / one, high: self.high / one }
    }
}

/// The value that Student's t with so many degrees of freedom exceeds either way in 5 % of cases.
fn t_95(freedom: f64) -> Option<f64> {
    Some(StudentsT::new(0.0, 1.0, freedom).ok()?.inverse_cdf(0.975))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn students_t_is_that_of_the_tables() {
        // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, column 0.975.
        let table = [
            (1.0, 12.706),
            (2.0, 4.303),
            (3.0, 3.182),
            (4.0, 2.776),
            (5.0, 2.571),
            (9.0, 2.262),
            (10.0, 2.228),
            (19.0, 2.093),
            (30.0, 2.042),
            (60.0, 2.000),
            (100.0, 1.984),
        ];
        for (freedom, expected) in table {
            let t = t_95(freedom).unwrap();
            assert!((t - expected).abs() < 6e-4, "{freedom}: {t}, not {expected}");
        }
        assert_eq!(t_95(0.0), None);
    }

    #[test]
    fn a_confidence_interval_is_that_of_the_textbook() {
        // Differences 1, 2, 3, 4, 5: mean 3, standard error sqrt(2.5 / 5), t(4) = 2.7764.
        let pairs = [(10.0, 11.0), (20.0, 22.0), (30.0, 33.0), (5.0, 9.0), (1.0, 6.0)];
        let difference = Difference::of(&pairs).unwrap();
        let half = 2.776_445 * 0.5_f64.sqrt();
        assert_eq!(difference.mean, 3.0);
        assert!((difference.low - (3.0 - half)).abs() < 1e-5, "{difference:?}");
        assert!((difference.high - (3.0 + half)).abs() < 1e-5, "{difference:?}");
        assert!(!difference.is_none_seen());
        let [low, high] = [difference.low, difference.high].map(|end| end / 2.0);
        assert_eq!(difference.relative_to(2.0), Difference { mean: 1.5, low, high });
    }

    #[test]
    fn what_is_the_same_in_both_of_a_pair_falls_out() {
        let same = Difference::of(&[(1.0, 1.0), (1e6, 1e6), (7.0, 7.0)]).unwrap();
        assert_eq!(same, Difference { mean: 0.0, low: 0.0, high: 0.0 });
        assert!(same.is_none_seen());
        let drift = Difference::of(&[(1.0, 2.0), (100.0, 99.0), (7.0, 7.0)]).unwrap();
        assert!(drift.is_none_seen() && drift.bound() > 2.0 && drift.bound() < 3.0, "{drift:?}");
        assert_eq!(Difference::of(&[(1.0, 2.0)]), None);
        assert_eq!(Difference::of(&[]), None);
    }

    #[test]
    fn medians_lie_between_values_and_ignore_their_order() {
        let of = |values: &[f64]| {
            let Median { median, p10, p90 } = Median::of(values);
            [median, p10, p90]
        };
        assert_eq!(of(&[]), [0.0; 3]);
        assert_eq!(of(&[7.0]), [7.0; 3]);
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), [2.5, 1.3, 3.7]);
        assert_eq!(
            of(&[5.0, 3.0, 1.0, 2.0, 4.0, 11.0, 6.0, 8.0, 7.0, 9.0, 10.0]),
            [6.0, 2.0, 10.0]
        );
    }
}
