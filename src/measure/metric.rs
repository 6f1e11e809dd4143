//! A figure in the output of somebody's benchmark, found by a regular expression.

use regex::bytes::Regex;

/// Says where a figure is in a text.
#[derive(Debug, Clone)]
pub struct Metric {
    regex: Regex,
}

/// An expression that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricError {
    /// It is none.
    #[error("{0}")]
    Syntax(#[from] regex::Error),
    /// The figure must be in one.
    #[error("it must have exactly one group, such as \"IOPS=([0-9.]+)\", and has {found}")]
    Groups {
        /// How many there are.
        found: usize,
    },
}

/// What follows a number for short.
const FACTORS: [(&str, f64); 7] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("k", 1e3),
    ("K", 1e3),
    ("M", 1e6),
    ("G", 1e9),
];

impl Metric {
    /// A regular expression as those of the `regex` crate, with one group.
    ///
    /// # Errors
    /// [`MetricError`].
    pub fn new(regex: &str) -> Result<Metric, MetricError> {
        let regex = Regex::new(regex)?;
        match regex.captures_len() - 1 {
            1 => Ok(Metric { regex }),
            found => Err(MetricError::Groups { found }),
        }
    }

    /// The name of its group, or the expression.
    pub fn name(&self) -> &str {
        self.regex.capture_names().flatten().next().unwrap_or(self.regex.as_str())
    }

    /// The number in the group of the last match: what a benchmark says of itself before its end is
    /// about a part of it.
    pub fn find(&self, output: &[u8]) -> Option<f64> {
        let group = self.regex.captures_iter(output).last()?.get(1)?;
        number(str::from_utf8(group.as_bytes()).ok()?.trim())
    }
}

/// `12`, `1.5e3`, `12.5k`, `3Mi`.
fn number(text: &str) -> Option<f64> {
    let factor = FACTORS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, factor)));
    let (digits, factor) = factor.unwrap_or((text, &1.0));
    let value = digits.parse::<f64>().ok()? * factor;
    value.is_finite().then_some(value)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_is_the_figure() {
        let metric = Metric::new(r"IOPS=([0-9.]+\w?)").unwrap();
        let output = b"\xff read: IOPS=10k, BW=1\n read: IOPS=12.5k, BW=2\n";
        assert_eq!(metric.find(output), Some(12_500.0));
        assert_eq!(metric.find(b"IOPS="), None);
        assert_eq!(metric.find(b""), None);
        let json = Metric::new(r#"(?s)"read" : \{.*?"iops" : ([0-9.]+)"#).unwrap();
        let output = b"\"read\" : {\n\"iops\" : 123.5,\n},\n\"write\" : {\n\"iops\" : 0.0 }";
        assert_eq!(json.find(output), Some(123.5));
    }

    #[test]
    fn numbers_may_be_short() {
        let rows = [
            ("12", Some(12.0)),
            ("-1.5e3", Some(-1500.0)),
            ("3Mi", Some(3_145_728.0)),
            ("2G", Some(2e9)),
            ("1 k", None),
            ("k", None),
            ("inf", None),
            ("nan", None),
            ("1d", None),
        ];
        for (text, expected) in rows {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn an_expression_has_one_group() {
        assert!(matches!(Metric::new("a(b"), Err(MetricError::Syntax(_))));
        assert!(matches!(Metric::new("ab"), Err(MetricError::Groups { found: 0 })));
        assert!(matches!(Metric::new("(a)(b)"), Err(MetricError::Groups { found: 2 })));
        assert_eq!(Metric::new("(?:a)(b)").unwrap().name(), "(?:a)(b)");
        assert_eq!(Metric::new("(?:a)(?<it>b)").unwrap().name(), "it");
    }
}
