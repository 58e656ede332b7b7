//! What the kernel says a process uses (proc_pid_stat(5), proc_pid_status(5)).

use std::error::Error;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// CPU time that the process has used, user and system, in steps of a kernel's tick (mostly 10 ms).
///
/// # Errors
/// There is no such process.
pub fn cpu(process: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may hold anything; behind its bracket come the state, and at places 12 and 13 user and system time.
    let (_, rest) = stat.rsplit_once(')').ok_or("an unreadable stat")?;
    let mut times = rest.split_whitespace().skip(11).map(str::parse::<u32>);
    let (Some(user), Some(system)) = (times.next(), times.next()) else {
        return Err("an unreadable stat".into());
    };
    let per_second = u32::try_from(rustix::param::clock_ticks_per_second())?;
    Ok(Duration::from_secs(1) * (user? + system?) / per_second)
}

/// Resident memory of the process in MiB.
///
/// # Errors
/// There is no such process.
pub fn rss_mib(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
