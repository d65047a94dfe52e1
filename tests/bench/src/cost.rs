//! What processes cost, from `/proc`.

/// User and system time of processes (`/proc/PID/stat`, fields 14 and 15), to the hundredth of a second.
pub fn cpu_seconds(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        let fields = after_name.split(' ').skip(11).take(2);
        fields.map(|field| field.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
    };
    pids.iter().map(of).sum()
}

/// Memory of processes now, in KiB.
pub fn rss_kib(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| status_kib(*pid, "VmRSS:")).sum()
}

/// The most memory this process ever had, in MiB.
pub fn own_peak_rss_mib() -> u64 {
    status_kib(std::process::id(), "VmHWM:") / 1024
}

/// User and system time of this process.
pub fn own_cpu_seconds() -> f64 {
    cpu_seconds(&[std::process::id()])
}

fn status_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
