//! Processes as the kernel sees them: their time, their memory, their core.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// CPU time used so far, by all threads, in user and system mode.
pub(crate) fn cpu(id: u32) -> Result<Duration> {
    let mut total = 0;
    for thread in threads(id)? {
        // Nanoseconds on a processor, then waiting for one, then turns.
        let stat = std::fs::read_to_string(format!("/proc/{id}/task/{thread}/schedstat"))?;
        let on_cpu = stat
            .split_whitespace()
            .next()
            .context("an empty schedstat")?;
        total += on_cpu.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory in MiB.
pub(crate) fn rss(id: u32) -> Result<f64> {
    mebibytes(id, "VmRSS:")
}

/// The most resident memory since [`forget_peak`], in MiB.
pub(crate) fn peak(id: u32) -> Result<f64> {
    mebibytes(id, "VmHWM:")
}

/// What is resident now is the peak from here on.
pub(crate) fn forget_peak(id: u32) -> Result<()> {
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").context("cannot forget a peak")
}

fn mebibytes(id: u32, name: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .context("a status without memory")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// The processes that this one has started, and theirs.
pub(crate) fn descendants(id: u32) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for thread in threads(id)? {
        // A thread that ends meanwhile has no children.
        let told = std::fs::read_to_string(format!("/proc/{id}/task/{thread}/children"));
        for child in told.unwrap_or_default().split_whitespace() {
            let child = child.parse()?;
            all.push(child);
            all.extend(descendants(child).unwrap_or_default());
        }
    }
    Ok(all)
}

/// Puts this thread, and what it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None::<Pid>, &set)
        .with_context(|| format!("cannot run on core {core}; this takes two"))
}

fn threads(id: u32) -> Result<Vec<u32>> {
    std::fs::read_dir(format!("/proc/{id}/task"))
        .with_context(|| format!("process {id} has ended"))?
        .map(|thread| {
            let name = thread?.file_name();
            Ok(name.to_str().context("a thread's number")?.parse()?)
        })
        .collect()
}
