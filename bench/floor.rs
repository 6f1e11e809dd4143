//! CPU time of a sample next to that of merely reading the same files: back to back, and a second
//! apart by the whole process. What `ringstat bench` measures, with the same code.
//!
//! `cargo bench --bench floor -- [--rounds N] [--window-s S] [--windows N]`; 0 windows leave the
//! second part out.

use ringstat::measure::cold::{ColdPlan, cold};
use ringstat::measure::{Attendant, child_main, cost, machine, recorder};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(status) = child_main() {
        return Ok(status);
    }
    let mut rounds = 20_000;
    let mut plan = ColdPlan {
        interval: Duration::from_secs(1),
        window: Duration::from_secs(12),
        rounds: 3,
        mirrored: true,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().ok_or("a number is missing");
        match &argument[..] {
            // From `cargo bench`.
            "--bench" => {}
            "--rounds" => rounds = number()?.parse()?,
            "--window-s" => plan.window = Duration::from_secs(number()?.parse()?),
            "--windows" => plan.rounds = number()?.parse()?,
            other => return Err(format!("{other}? --rounds, --window-s, --windows").into()),
        }
    }
    let attendant = Attendant::new(|line| eprintln!("{line}"));
    println!("{}\n", machine());
    println!("{}", cost::hot(rounds, &attendant)?);
    if plan.rounds > 0 {
        print!("{}", cold(&plan, &recorder, &attendant)?);
    }
    Ok(ExitCode::SUCCESS)
}
