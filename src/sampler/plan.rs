//! What is settled of a run's segments before the first is made. Nothing is made here.

use crate::description::Description;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// What all segments of a run have in common.
#[derive(Debug, Clone)]
pub struct SegmentPlan {
    /// The run.
    pub run_id: Uuid,
    /// The kernel's boot id.
    pub boot_id: Uuid,
    /// Time between two ticks.
    pub interval_ns: u64,
    /// Newest samples to be kept.
    pub max_samples: u64,
    /// Slots beyond those: at least one, so that the record that is being written never costs the
    /// oldest one that is to be kept.
    pub spare_slots: u64,
    /// Time between two looks at whether others have touched the ring's file.
    pub look_interval: Duration,
    /// The run's directory in the ring storage; private memory without one.
    pub ring_dir: Option<PathBuf>,
    /// The run's directory for the mirror.
    pub mirror_dir: Option<PathBuf>,
    /// The description, but for schema and storage.
    pub description: Description,
}

impl SegmentPlan {
    /// For a ring in private memory that belongs to no run.
    pub(super) fn in_memory() -> SegmentPlan {
        let description = Description {
            ringstat: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: String::new(),
            run: Default::default(),
            system: Default::default(),
            sampler: Default::default(),
            schema: Default::default(),
        };
        SegmentPlan {
            run_id: Uuid::nil(),
            boot_id: Uuid::nil(),
            interval_ns: crate::ring::MIN_INTERVAL_NS,
            max_samples: 1,
            spare_slots: 1,
            look_interval: Duration::MAX,
            ring_dir: None,
            mirror_dir: None,
            description,
        }
    }
}
