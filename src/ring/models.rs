//! Loom models of the ring's protocols: `RUSTFLAGS="--cfg loom" cargo test --lib models`.
