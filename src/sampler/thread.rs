//! How the sampler's thread is run: scheduling policy, nice value, CPU, timer slack. Everything
//! is tried and what was really obtained is reported; nothing here can fail a recording. One of
//! the few files with `unsafe` in it.

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use std::fmt;
use std::num::NonZeroU64;

/// Scheduling policy of a thread (`sched(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `SCHED_IDLE`: below every nice value.
    Idle,
    /// `SCHED_BATCH`: does not preempt on wake-up.
    Batch,
    /// `SCHED_OTHER`: like any other thread.
    Other,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 3] = [Policy::Idle, Policy::Batch, Policy::Other];

    /// Its name on the command line and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Idle => "idle",
            Policy::Batch => "batch",
            Policy::Other => "other",
        }
    }

    fn number(self) -> libc::c_int {
        match self {
            Policy::Idle => libc::SCHED_IDLE,
            Policy::Batch => libc::SCHED_BATCH,
            Policy::Other => libc::SCHED_OTHER,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which CPU a thread is pinned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuChoice {
    /// The last one beside those that the process is confined to; none if there is none beside.
    Auto,
    /// None: wherever the process may run.
    Unpinned,
    /// This one.
    Cpu(usize),
}

/// How a thread is to be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadSettings {
    /// Scheduling policy.
    pub policy: Policy,
    /// Nice value, -20 to 19; `None` leaves it.
    pub nice: Option<i32>,
    /// CPU.
    pub cpu: CpuChoice,
}

/// How a thread is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Scheduling policy.
    pub policy: Policy,
    /// Nice value.
    pub nice: i32,
    /// The CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// Timer slack, ns.
    pub timer_slack_ns: u64,
    /// What could not be had.
    pub notes: Vec<String>,
}

/// The kernel's default (`init/init_task.c`), ns.
const DEFAULT_TIMER_SLACK_NS: u64 = 50_000;

/// Applies `settings` to the calling thread, which is to wake up on time.
pub fn apply(settings: &ThreadSettings) -> InForce {
    let mut notes = Vec::new();
    // The least there is: 0 would mean "the default".
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        notes.push(format!("timer slack of 1 ns was refused: {error}"));
    }
    schedule(settings, notes)
}

/// Makes the calling thread one that works for the sampler out of the benchmark's way, and need
/// not be on time: its wake-ups may be put together with others.
pub fn stay_behind() -> InForce {
    let mut notes = Vec::new();
    // Said as a number: "the default" is what the thread had that started this one
    // (PR_SET_TIMERSLACK(2const)), and that may be the sampler.
    let inherited_ns = rustix::thread::current_timer_slack().unwrap_or(0);
    let slack_ns = NonZeroU64::new(inherited_ns.max(DEFAULT_TIMER_SLACK_NS));
    if let Err(error) = rustix::thread::set_current_timer_slack(slack_ns) {
        notes.push(format!("a larger timer slack was refused: {error}"));
    }
    // Not SCHED_IDLE, which under load might starve it.
    let policy = Policy::Batch;
    schedule(&ThreadSettings { policy, nice: Some(19), cpu: CpuChoice::Unpinned }, notes)
}

fn schedule(settings: &ThreadSettings, mut notes: Vec<String>) -> InForce {
    let cpu = pin(settings.cpu, &mut notes);
    let timer_slack_ns = rustix::thread::current_timer_slack().unwrap_or(0);
    let policy = match set_policy(settings.policy) {
        Ok(()) => settings.policy,
        Err(error) => {
            notes.push(format!("scheduling policy {} was refused: {error}", settings.policy));
            current_policy()
        }
    };
    // In Linux a nice value is a thread's own; process 0 is the calling thread (setpriority(2)).
    if let Some(nice) = settings.nice
        && let Err(error) = rustix::process::setpriority_process(None, nice)
    {
        notes.push(format!("nice value {nice} was refused: {error}; below 0 needs CAP_SYS_NICE"));
    }
    let nice = rustix::process::getpriority_process(None).unwrap_or(0);
    InForce { policy, nice, cpu, timer_slack_ns, notes }
}

/// What [`apply`] would come to on the calling thread, which is left as it is.
pub fn rehearse(settings: ThreadSettings) -> InForce {
    let rehearsal = std::thread::Builder::new().spawn(move || apply(&settings));
    let in_force = rehearsal.ok().and_then(|thread| thread.join().ok());
    in_force.unwrap_or_else(|| InForce {
        policy: current_policy(),
        nice: rustix::process::getpriority_process(None).unwrap_or(0),
        cpu: None,
        timer_slack_ns: rustix::thread::current_timer_slack().unwrap_or(0),
        notes: vec!["the thread could not be set up: there can be no more threads".to_owned()],
    })
}

/// Lifts thread `thread` of this process out of a low priority, as far as that is permitted: what
/// it has still to do is being waited for.
pub fn hurry(thread: Pid) {
    let _ = set_policy_of(thread.as_raw_nonzero().get(), Policy::Other);
    if rustix::process::getpriority_process(Some(thread)).is_ok_and(|nice| nice > 0) {
        let _ = rustix::process::setpriority_process(Some(thread), 0);
    }
}

/// Locks what the process has in memory now, and what it touches later of it; whether that was
/// permitted (`RLIMIT_MEMLOCK` counts the whole address space, see mlockall(2)).
pub fn lock_process() -> bool {
    use rustix::mm::{MlockAllFlags as Flags, mlockall};
    mlockall(Flags::CURRENT | Flags::ONFAULT).is_ok()
}

/// Whether a time service keeps the host's wall clock right, as the kernel has it; `None` if it does not
/// say. A call to the kernel that no crate of ours has, and no other file may make.
pub fn is_clock_synchronised() -> Option<bool> {
    let mut timex = std::mem::MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: `adjtimex` reads and writes one `timex`, for which there is room. All its fields are
    // numbers, for which zeros are valid; with `modes` 0 nothing is set, see adjtimex(2).
    let (state, timex) = unsafe { (libc::adjtimex(timex.as_mut_ptr()), timex.assume_init()) };
    (state >= 0).then_some(state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0)
}

/// Whether a thread of this process may be pinned to `cpu`.
pub fn can_pin(cpu: usize) -> bool {
    // On a thread of its own: affinity is a thread's, and it is gone with it.
    std::thread::spawn(move || pin_to(cpu)).join().unwrap_or(false)
}

/// CPUs that the calling thread may run on.
pub fn allowed_cpus() -> Vec<usize> {
    sched_getaffinity(None).map(|set| cpus_of(&set)).unwrap_or_default()
}

fn cpus_of(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

fn pin(choice: CpuChoice, notes: &mut Vec<String>) -> Option<usize> {
    let cpu = match choice {
        CpuChoice::Unpinned => return None,
        CpuChoice::Cpu(cpu) => cpu,
        CpuChoice::Auto => {
            let own = sched_getaffinity(None).ok()?;
            auto(&cpus_of(&own), &reachable_cpus(&own))?
        }
    };
    if pin_to(cpu) {
        return Some(cpu);
    }
    notes.push(format!("pinning to CPU {cpu} was refused; the sampler runs where the process may"));
    None
}

/// Whether the calling thread is now pinned to `cpu`. `core_affinity` drops the kernel's answer
/// for CPUs beyond its set, so the result is read back.
fn pin_to(cpu: usize) -> bool {
    cpu < CpuSet::MAX_CPU
        && core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
        && allowed_cpus() == [cpu]
}

/// CPUs that the calling thread could be moved to: those of its cpuset, whatever it is confined
/// to by `taskset` or a launcher. Leaves the thread as it was.
fn reachable_cpus(own: &CpuSet) -> Vec<usize> {
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    // The kernel cuts the set down to the cpuset's (sched_setaffinity(2)).
    let reachable = match sched_setaffinity(None, &all) {
        Ok(()) => allowed_cpus(),
        Err(_) => cpus_of(own),
    };
    let _ = sched_setaffinity(None, own);
    reachable
}

/// The rule of `--cpu auto`. The command runs where ringstat was started, on `own`; the sampler
/// could go to `reachable`.
///
/// If there are CPUs beside those that the command is confined to, the sampler is pinned to the
/// last of them and takes nothing from the command. Otherwise every CPU is the command's: the
/// sampler is not pinned, so that it runs on whichever is free at the moment, and is bound to
/// wait behind none.
pub fn auto(own: &[usize], reachable: &[usize]) -> Option<usize> {
    reachable.iter().rev().find(|cpu| !own.contains(cpu)).copied()
}

fn set_policy(policy: Policy) -> std::io::Result<()> {
    set_policy_of(0, policy)
}

/// Of the thread of that number; 0 is the calling one.
fn set_policy_of(thread: libc::pid_t, policy: Policy) -> std::io::Result<()> {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: `sched_setscheduler` reads `param`, which outlives the call, and changes nothing
    // but the scheduling of one thread, see sched_setscheduler(2).
    let result = unsafe { libc::sched_setscheduler(thread, policy.number(), &raw const param) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn current_policy() -> Policy {
    // SAFETY: `sched_getscheduler` takes a number and returns one, see sched_getscheduler(2).
    let number = unsafe { libc::sched_getscheduler(0) } & !libc::SCHED_RESET_ON_FORK;
    Policy::ALL.into_iter().find(|policy| policy.number() == number).unwrap_or(Policy::Other)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn auto_leaves_the_cpus_of_a_confined_command_alone() {
        assert_eq!(auto(&[0], &[0, 1, 2]), Some(2));
        assert_eq!(auto(&[2, 3], &[0, 1, 2, 3]), Some(1));
        assert_eq!(auto(&[0, 1], &[0, 1]), None, "all CPUs are the command's");
        assert_eq!(auto(&[0], &[0]), None);
    }

    #[test]
    fn what_is_reported_is_what_the_kernel_says() {
        let settings =
            ThreadSettings { policy: Policy::Batch, nice: Some(3), cpu: CpuChoice::Unpinned };
        std::thread::spawn(move || {
            let before = allowed_cpus();
            let in_force = apply(&settings);
            assert_eq!((in_force.policy, in_force.nice), (Policy::Batch, 3));
            assert_eq!((in_force.cpu, in_force.timer_slack_ns), (None, 1));
            assert_eq!(in_force.notes, Vec::<String>::new());
            assert_eq!(current_policy(), Policy::Batch);
            assert_eq!(allowed_cpus(), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn only_the_sampler_wakes_up_to_the_nanosecond() {
        let settings =
            ThreadSettings { policy: Policy::Other, nice: None, cpu: CpuChoice::Unpinned };
        let (sampler, helper) = std::thread::spawn(move || {
            let sampler = apply(&settings);
            // As the watch is: started by the sampler.
            (sampler, std::thread::spawn(stay_behind).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(sampler.timer_slack_ns, 1);
        assert!(helper.timer_slack_ns >= DEFAULT_TIMER_SLACK_NS, "{helper:?}");
        assert_eq!((helper.policy, helper.nice), (Policy::Batch, 19));
        assert_eq!(helper.notes, Vec::<String>::new());
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused_and_noted() {
        assert!(can_pin(allowed_cpus()[0]));
        assert!(!can_pin(CpuSet::MAX_CPU - 1) && !can_pin(usize::MAX));
        let settings =
            ThreadSettings { policy: Policy::Other, nice: None, cpu: CpuChoice::Cpu(1023) };
        let in_force = std::thread::spawn(move || apply(&settings)).join().unwrap();
        assert_eq!((in_force.cpu, in_force.notes.len()), (None, 1));
    }
}
