//! What the operating system says: CPU time and memory of a process, and what machine this is.
//!
//! Takes a process id, reads `/proc`, and sends signals. It knows nothing of what the process does.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::Failure;

/// The field of `/proc/PID/status` for the memory that a process has now.
pub(crate) const RESIDENT: &str = "VmRSS";

/// And for the most it has had.
pub(crate) const PEAK: &str = "VmHWM";

/// A process, by its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// User and system time of its threads, those that have ended included (proc(5), fields 14 and 15 of `stat`, in ticks
    /// of 10 ms).
    pub(crate) fn cpu_time(self) -> Result<Duration, Failure> {
        let mut fields = self.stat()?.into_iter().skip(11);
        let mut ticks = || -> Result<u64, Failure> { Ok(fields.next().ok_or(UNREADABLE)?.parse()?) };
        Ok(Duration::from_millis((ticks()? + ticks()?) * 10))
    }

    /// The same with that of its children: those there are, and those that have ended (fields 16 and 17).
    pub(crate) fn cpu_time_of_family(self) -> Result<Duration, Failure> {
        let ticks = self.stat()?.into_iter().skip(11).take(4).map(|field| field.parse::<u64>());
        let mut all = Duration::from_millis(ticks.sum::<Result<u64, _>>()? * 10);
        for child in self.children()? {
            // One that has just ended is counted with its parent from then on.
            all += child.cpu_time().unwrap_or_default();
        }
        Ok(all)
    }

    /// Whose child it is: field 4.
    pub(crate) fn parent(self) -> Result<Self, Failure> {
        Ok(Self(self.stat()?.get(1).ok_or(UNREADABLE)?.parse()?))
    }

    /// What its program is called.
    pub(crate) fn name(self) -> Result<String, Failure> {
        Ok(std::fs::read_to_string(format!("/proc/{}/comm", self.0))?.trim_end().to_owned())
    }

    /// Whoever is its child now.
    pub(crate) fn children(self) -> Result<Vec<Self>, Failure> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has just ended is nobody's child.
            if Self(id).parent().is_ok_and(|parent| parent.0 == self.0) {
                found.push(Self(id));
            }
        }
        Ok(found)
    }

    /// A field of its `status` in octets: [`RESIDENT`], [`PEAK`].
    pub(crate) fn memory(self, field: &str) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field in /proc/PID/status")?;
        let kilobytes = line.trim_start_matches([':', ' ', '\t']).trim_end_matches(" kB");
        Ok(kilobytes.parse::<u64>()? * 1_024)
    }

    /// Sends it a signal. One that has just ended needs none.
    pub(crate) fn signal(self, signal: Signal) -> Result<(), Failure> {
        let id = i32::try_from(self.0).ok().and_then(Pid::from_raw).ok_or("a process without an id")?;
        match kill_process(id, signal) {
            Err(error) if error != Errno::SRCH => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// What comes after the name, which may hold anything.
    fn stat(self) -> Result<Vec<String>, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        Ok(stat.rsplit_once(") ").ok_or(UNREADABLE)?.1.split(' ').map(str::to_owned).collect())
    }
}

const UNREADABLE: &str = "unreadable /proc/PID/stat";

/// The CPU time of this thread, whatever else the machine does.
pub(crate) fn thread_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs() as u32)
}

/// An address that nobody listens at: taken and given back, because servers that name each other have to be told.
pub(crate) fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// How many processes wanted a core in the last minute, on average.
pub(crate) fn load_average() -> Result<f64, Failure> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().ok_or("unreadable /proc/loadavg")?.parse()?)
}

/// What machine this is.
pub(crate) fn facts() -> Result<Value, Failure> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or("unknown");
    Ok(json!({
        "cpu": model.trim_start_matches(['\t', ' ', ':']),
        "cores": std::thread::available_parallelism()?.get(),
        "memory": total.trim(),
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
    }))
}
