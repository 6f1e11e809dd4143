//! `ringstat hosts`: whether hosts can be recorded, as a table; and removing what was left there.

use super::host_args::HostsArgs;
use super::term::{self, Progress, Volume, count};
use super::{FAILED, USAGE, open_files};
use ringstat::checking::{CheckOptions, Found, HostReport, Leftovers, Reached, RemotePath, check};
use ringstat::hosts::{HostList, HostSpec};
use std::io::{self, IsTerminal, Write};

const COLUMNS: usize = 9;

pub fn main(args: &HostsArgs) -> u8 {
    let (hosts, mut options) = match wanted(args) {
        Ok(wanted) => wanted,
        Err(why) => {
            term::error(why);
            return USAGE;
        }
    };
    open_files::suffice_for(hosts.len());
    let reports = checked(&hosts, &options);
    table(&reports, &hosts);
    let mut status = 0;
    for report in &reports {
        if let Some(why) = report.trouble() {
            term::error(why);
            status = FAILED;
        }
    }
    if !args.clean {
        return status;
    }
    let dirty: Vec<HostSpec> = reports
        .iter()
        .filter(|report| left(report).is_some_and(|left| !left.is_clean()))
        .map(|report| report.host.clone())
        .collect();
    reports.iter().for_each(|report| list(report, "has"));
    if dirty.is_empty() {
        Volume::Normal.say("nothing was left on any host");
        return status;
    }
    if !args.yes && !agreed(dirty.len()) {
        term::error("nothing was removed; give --yes to remove what is listed");
        return FAILED;
    }
    options.clean = true;
    for report in checked(&dirty, &options) {
        list(&report, "had, now removed,");
        if let Some(why) = report.trouble() {
            term::error(why);
            status = FAILED;
        }
    }
    status
}

fn wanted(args: &HostsArgs) -> Result<(Vec<HostSpec>, CheckOptions), String> {
    let mut list = HostList::new();
    for text in &args.ways.hosts {
        list.add(text, "--hosts").map_err(|error| error.to_string())?;
    }
    if let Some(file) = &args.ways.hostfile {
        list.add_file(file).map_err(|error| error.to_string())?;
    }
    let hosts = list.into_hosts();
    if hosts.is_empty() {
        return Err("no host is named; give --hosts or --hostfile".to_owned());
    }
    let mut options = CheckOptions::new(&args.ways.options())?;
    for dir in args.places.ring_dir.iter().chain(&args.places.mirror_dir) {
        // As a run with that option takes it, on every host.
        let path = std::path::absolute(dir).map_err(|error| error.to_string())?;
        let path = path.to_str().ok_or_else(|| format!("{} is not UTF-8", dir.display()))?;
        options.dirs.push(RemotePath::new(path).map_err(|why| format!("{path}: {why}"))?);
    }
    Ok((hosts, options))
}

fn checked(hosts: &[HostSpec], options: &CheckOptions) -> Vec<HostReport> {
    let mut progress = Progress::new("hosts", Volume::Normal);
    let total = hosts.len();
    check(hosts, options, &mut |done| progress.line(format!("{done} of {total} hosts")))
}

fn left(report: &HostReport) -> Option<&Leftovers> {
    match &report.found {
        Found::Reached(reached) => reached.left.as_ref().ok(),
        _ => None,
    }
}

/// What is there that could go.
fn list(report: &HostReport, verb: &str) {
    let Some(left) = left(report) else { return };
    let name = &report.host.name;
    for path in &left.programs {
        Volume::Normal.say(format_args!("{name} {verb} a program: {path}"));
    }
    for (path, kb) in &left.dead {
        let what = "a run that died and was not fetched";
        Volume::Normal.say(format_args!("{name} {verb} {what}, {kb} kB: {path}"));
    }
}

/// Asks whoever sits there.
fn agreed(hosts: usize) -> bool {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return false;
    }
    let hosts = count(hosts as u64, "host", "hosts");
    let _ = write!(io::stderr(), "ringstat: remove all this from {hosts}? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn table(reports: &[HostReport], hosts: &[HostSpec]) {
    let head = ["HOST", "REACH", "KEY", "MACHINE", "FREE", "CLOCK", "PROGRAM", "RECORDING", "LEFT"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(reports.iter().map(|report| row(report, hosts)));
    let widths: Vec<usize> = (0..COLUMNS)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = io::stdout().lock();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        // A reader that has seen enough is no error.
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn row(report: &HostReport, hosts: &[HostSpec]) -> [String; COLUMNS] {
    let mut row: [String; COLUMNS] = [(); COLUMNS].map(|()| "-".to_owned());
    row[0].clone_from(&report.host.name);
    match &report.found {
        Found::Here(_) => row[1] = "this machine".to_owned(),
        Found::Unreachable(error) => {
            let step = error.step().to_string();
            row[if step == "host key" { 2 } else { 1 }] = format!("no: {step}");
        }
        Found::Reached(reached) => reached_row(&mut row, reached),
    }
    if let Some(same) = report.same_as.and_then(|number| hosts.get(number)) {
        row[1] = format!("same machine as {}", same.name);
    }
    row
}

fn reached_row(row: &mut [String; COLUMNS], reached: &Reached) {
    let Ok(facts) = &reached.facts else {
        row[1] = "no answer".to_owned();
        return;
    };
    row[1] = format!("{} ms", reached.connected_after.as_millis());
    row[2] = "known".to_owned();
    row[3].clone_from(&facts.machine);
    if let Some(free_kb) = facts.cache_free_kb {
        row[4] = format!("{:.1} GB", free_kb as f64 * 1024.0 / 1e9);
    }
    if let Some((offset_ms, uncertainty_ms)) = facts.clock_offset_ms {
        row[5] = format!("{:+.2} s +-{:.2}", offset_ms / 1e3, uncertainty_ms / 1e3);
    }
    row[6] = match &reached.program {
        Ok(Some(deployed)) => format!("there, {}", deployed.version),
        Ok(None) => "to be brought".to_owned(),
        Err(_) => "cannot run".to_owned(),
    };
    if let Ok(left) = &reached.left {
        row[7] = count(left.living.len() as u64, "run", "runs");
        let left = [
            (left.dead.len() as u64, "dead run", "dead runs"),
            (left.programs.len() as u64, "program", "programs"),
        ];
        let left = left.into_iter().filter(|(number, ..)| *number > 0);
        let left: Vec<String> = left.map(|(number, one, many)| count(number, one, many)).collect();
        if !left.is_empty() {
            row[8] = left.join(", ");
        }
    }
}
