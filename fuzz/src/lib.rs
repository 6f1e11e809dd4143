//! What the fuzz targets and their seeds share: reading a text as the sampler does, making and
//! mending rings, a world of files to recover a run in, and reading JSON strictly. No target is
//! here.

pub mod json;
pub mod reading;
pub mod rings;
pub mod world;
