//! Counts that must not be mixed up: a slot is not a sequence number, a word is not a byte.
//! Plain newtypes; arithmetic across two of them lives where its meaning is known.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

unit!(
    /// A number of bytes, or an offset in a file.
    Bytes
);
unit!(
    /// A number of 64-bit words.
    Words
);
unit!(
    /// The place of a record in one ring.
    Slot
);
unit!(
    /// Number of a record within its run, from 0; it counts what was recorded.
    Seq
);
unit!(
    /// Number of a deadline within its run, from 0: start + tick x interval.
    Tick
);

impl Words {
    /// The bytes that these words take; saturates.
    pub const fn bytes(self) -> Bytes {
        Bytes(self.0.saturating_mul(8))
    }
}

impl Bytes {
    /// The whole words in these bytes.
    pub const fn words(self) -> Words {
        Words(self.0 / 8)
    }

    /// Rounded up to a multiple of `unit`; saturates.
    pub const fn round_up(self, unit: u64) -> Bytes {
        match self.0.checked_next_multiple_of(unit) {
            Some(bytes) => Bytes(bytes),
            None => Bytes(u64::MAX),
        }
    }
}
