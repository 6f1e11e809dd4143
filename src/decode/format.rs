//! The output formats. A new one is a file beside this one, with a [`Format`], and a line in
//! [`FORMATS`]: command line, manifest and file names follow from it.

use super::cluster::ClusterDecoder;
use super::error::DecodeError;
use super::json;
use std::io::Write;

/// All formats; the first is the default.
pub static FORMATS: [&Format; 2] = [&json::JSON, &json::JSON_COMPACT];

/// Writes the time series of rings, which must not change meanwhile, and tells how many samples are
/// done and how many there are.
pub(super) type WriteTimeSeries =
    fn(&ClusterDecoder, &mut dyn Write, &mut dyn FnMut(u64, u64)) -> Result<(), DecodeError>;

/// A way to write a time series.
#[derive(Debug)]
pub struct Format {
    /// Name on the command line and in manifests.
    pub name: &'static str,
    /// For the help.
    pub help: &'static str,
    /// How its files' names end, without the dot.
    pub extension: &'static str,
    pub(super) write: WriteTimeSeries,
}

impl Format {
    /// The format of that name.
    pub fn find(name: &str) -> Option<&'static Format> {
        FORMATS.into_iter().find(|format| format.name == name)
    }
}

impl Default for &'static Format {
    fn default() -> Self {
        FORMATS[0]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_own_name_alone() {
        for format in FORMATS {
            assert!(std::ptr::eq(Format::find(format.name).unwrap(), format));
        }
        assert!(Format::find("").is_none());
        assert_eq!(<&Format>::default().name, "json");
    }
}
