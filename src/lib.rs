//! ringstat
#![allow(dead_code)]
mod fault;
mod record;
mod ring;
mod schema;
mod source;
mod sync;
mod units;
