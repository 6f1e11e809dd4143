//! What the fuzz targets and their seeds share: reading a text as the sampler does, making and
//! mending rings, and reading JSON strictly. No target and no file is here.

pub mod json;
pub mod reading;
pub mod rings;
