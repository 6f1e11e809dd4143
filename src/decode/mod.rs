//! From rings to what people read. Works on rings alone, wherever they were recorded: it knows no
//! source, no sampler, and no `/proc`.

mod cluster;
mod counters;
mod deadlines;
mod error;
mod facts;
mod format;
mod hosts;
mod instances;
mod json;
mod json_sample;
mod json_text;
pub mod metadata;
mod names;
mod notes;
mod outline;
mod rings;
mod sample;
mod snapshot;
mod survey;
mod text_bound;
mod timeseries;
mod wall;

#[cfg(all(test, not(loom)))]
mod tests;

pub use cluster::ClusterDecoder;
pub use error::DecodeError;
pub use facts::{
    ClockStep, Cost, CounterDecrease, CounterDecreases, Decrease, Gap, HostSummary,
    InstanceSummary, RunSummary, SamplerSummary, Spread,
};
pub use format::{FORMATS, Format};
pub use hosts::{
    ClusterRun, CollectionMethod, HostClock, HostData, HostError, HostErrorKind, HostRings,
    OpenRings,
};
pub use json::{JSON, JSON_COMPACT};
pub use outline::Written;
pub use rings::Rings;
pub use snapshot::snapshot;
pub(crate) use snapshot::snapshot_within;
pub use timeseries::{
    Collection, Counter, DiskStats, LoadAvg, NetDev, TimeSeriesData, TimeSeriesSample,
};

use crate::description::Description;
use crate::ring::{Header, Ring};
use std::io::Write;
use std::sync::Arc;

/// The recording of one run on one host, read from its rings: a [`ClusterDecoder`] with one host,
/// which goes by its own name.
pub struct Decoder {
    rings: Arc<Rings>,
    all: ClusterDecoder,
}

impl Decoder {
    /// Reads all records once, to know what there is. `rings` are those of one run, in any order,
    /// mirrors among them; those that a recorder may still be writing come from [`snapshot`].
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn new(rings: Vec<Ring>) -> Result<Decoder, DecodeError> {
        let (all, rings) = ClusterDecoder::of_one(Rings::new(rings)?)?;
        Ok(Decoder { rings, all })
    }

    /// What was taken, missed and lost, and what it cost.
    pub fn summary(&self) -> &HostSummary {
        // `of_one` makes just this one.
        &self.all.written().summary.hosts[0]
    }

    /// What the oldest ring's header says.
    pub fn header(&self) -> &Header {
        self.rings.header()
    }

    /// What the oldest ring says in words.
    pub fn description(&self) -> &Description {
        self.rings.description()
    }

    /// Why rings of this run were left out, or parts of them could not be read. They may have samples
    /// that the output does not: nobody should remove them.
    pub fn unread(&self) -> impl Iterator<Item = &DecodeError> {
        self.all.unread().iter().map(|(_, why)| why)
    }

    /// From the start to the last sample, by the monotonic clock, ns.
    pub fn duration_ns(&self) -> u64 {
        self.all.duration_ns()
    }

    /// What [`write`](Self::write) will say that it has written.
    pub fn outline(&self) -> Written {
        self.all.outline()
    }

    /// The same as a run of one host.
    pub fn into_cluster(self) -> ClusterDecoder {
        self.all
    }

    /// The same as a run of one host.
    pub fn as_cluster(&self) -> &ClusterDecoder {
        &self.all
    }

    /// Writes the time series. `progress` hears how many samples are done, and of how many.
    ///
    /// # Errors
    /// [`DecodeError`]; what was written until then is not a whole file.
    pub fn write(
        &mut self,
        format: &Format,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Written, DecodeError> {
        self.all.write(format, out, progress)
    }

    /// The whole time series in memory: convenient, and as large as it is long.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn data(&mut self) -> Result<TimeSeriesData, DecodeError> {
        self.all.data()
    }
}
