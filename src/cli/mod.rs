//! The subcommands, one file each, and what they share: how they speak and how they end.

mod args;
mod bench;
mod child;
mod decode;
mod host_args;
mod hosts;
mod info;
mod open_files;
mod record;
mod recover;
mod run;
mod signals;
mod term;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

/// A run failed: files could not be written, a ring could not be read.
const FAILED: u8 = 1;
/// The command line asks for what cannot be.
const USAGE: u8 = 2;

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    if let Some(status) = ringstat::measure::child_main() {
        return status;
    }
    signals::survive_inheritance();
    let status = match Cli::parse().command {
        Command::Run(args) => run::main(&args),
        Command::Record(args) => record::main(&args),
        Command::Decode(args) => decode::main(&args),
        Command::Info(args) => info::main(&args),
        Command::Recover(args) => recover::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Hosts(args) => hosts::main(&args),
        Command::SelfCheck => match ringstat::agents::self_check() {
            Ok(line) => {
                println!("{line}");
                0
            }
            Err(error) => {
                term::error(error);
                FAILED
            }
        },
        Command::Agent(args) if args.recorder => ringstat::agents::record(),
        Command::Agent(args) => ringstat::agents::serve(&args.nonce),
    };
    ExitCode::from(status)
}
