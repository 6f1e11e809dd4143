//! What ringstat says to people: few lines on standard error, and a progress line where that is a
//! terminal and the work takes over a second.

use indicatif::{ProgressBar, ProgressStyle};
use ringstat::{FinalFiles, HostProgress};
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Work that is done sooner needs no progress line.
const PATIENCE: Duration = Duration::from_secs(1);

/// What hosts have done at the end of a run.
pub const FETCHED: &str = "fetched from";

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volume {
    Quiet,
    Normal,
    Verbose,
}

impl Volume {
    pub fn of(verbose: bool, quiet: bool) -> Volume {
        match (verbose, quiet) {
            (_, true) => Volume::Quiet,
            (true, _) => Volume::Verbose,
            _ => Volume::Normal,
        }
    }

    /// Says something that is good to know.
    pub fn say(self, line: impl Display) {
        if self >= Volume::Normal {
            tell(line);
        }
    }

    /// Says something that is good to know for who asks.
    pub fn detail(self, line: impl Display) {
        if self >= Volume::Verbose {
            tell(line);
        }
    }

    /// What was recorded, and where the files are.
    pub fn files(self, files: &FinalFiles) {
        if let Some(written) = &files.written {
            let (overwritten, missed) = written.overwritten_and_missed();
            let overwritten = match overwritten {
                0 => String::new(),
                samples => format!(
                    ", {} beyond --max-samples overwritten",
                    count(samples, "older sample", "older samples")
                ),
            };
            self.say(format_args!(
                "{}, {} missed{overwritten}",
                count(written.num_samples, "sample", "samples"),
                count(missed, "tick", "ticks")
            ));
        }
        files.written.iter().flat_map(|written| written.warnings()).for_each(warn);
        for file in [&files.timeseries, &files.metadata].into_iter().flatten() {
            self.say(shown(file));
        }
        files.problems.iter().for_each(warn);
    }
}

/// Says that something is not as it should be.
pub fn warn(line: impl Display) {
    tell(format_args!("warning: {line}"));
}

/// Says why something was not done.
pub fn error(line: impl Display) {
    tell(line);
}

/// Standard error may be closed, or its reader gone: that is no reason to fail. What others have named
/// (hosts, files, what a ring says) does nothing to a terminal.
fn tell(line: impl Display) {
    let is_harmless = |c: &char| !c.is_control() || *c == '\n' || *c == '\t';
    let line: String =
        line.to_string().chars().map(|c| if is_harmless(&c) { c } else { '\u{fffd}' }).collect();
    let _ = writeln!(std::io::stderr(), "ringstat: {line}");
}

/// A path as the user would type it: relative, if it is below the current directory.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}

/// A progress line that appears when it is needed.
pub struct Progress {
    since: Instant,
    what: &'static str,
    bar: Option<ProgressBar>,
    wanted: bool,
}

/// How far other hosts are, and some of those that are waited for; `what` they have done.
pub fn of_hosts(hosts: &HostProgress, what: &str) -> String {
    let HostProgress { hosts, done, bytes, awaited, .. } = hosts;
    let mut line = format!("{what} {done} of {hosts} hosts, {} MB", bytes >> 20);
    let others = hosts.saturating_sub(done + awaited.len());
    if !awaited.is_empty() {
        line += &format!(", waiting for {}", awaited.join(", "));
    }
    if others > 0 {
        line += &format!(" and {others} more");
    }
    line
}

impl Progress {
    pub fn new(what: &'static str, volume: Volume) -> Progress {
        let wanted = volume >= Volume::Normal && std::io::stderr().is_terminal();
        Progress { since: Instant::now(), what, bar: None, wanted }
    }

    /// Whether anything will be shown.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// `done` of `total` samples.
    pub fn set(&mut self, done: u64, total: u64) {
        // Once in a while is often enough to look at the clock.
        if !self.wanted || !(done.is_multiple_of(256) || done == total) {
            return;
        }
        if self.bar.is_none() && self.since.elapsed() >= PATIENCE {
            let style = ProgressStyle::with_template("ringstat: {msg} {wide_bar} {pos}/{len}");
            let bar = ProgressBar::new(total).with_message(self.what);
            self.bar = Some(match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            });
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// A line without an end in sight.
    pub fn line(&mut self, text: String) {
        if !self.wanted || self.since.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("ringstat: {msg}");
            style.map_or_else(
                |_| ProgressBar::new_spinner(),
                |style| ProgressBar::new_spinner().with_style(style),
            )
        });
        bar.set_message(text);
        bar.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// "1 sample", "2 samples".
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_some_that_are_waited_for() {
        let mut hosts = HostProgress::default();
        (hosts.hosts, hosts.bytes) = (7, 5 << 20);
        hosts.awaited = ["a", "b", "c"].map(str::to_owned).into();
        hosts.done = 2;
        let expected = "ready: 2 of 7 hosts, 5 MB, waiting for a, b, c and 2 more";
        assert_eq!(of_hosts(&hosts, "ready:"), expected);
        (hosts.done, hosts.awaited) = (7, Vec::new());
        assert_eq!(of_hosts(&hosts, "fetched from"), "fetched from 7 of 7 hosts, 5 MB");
    }
}
