//! How much memory this process may use, as far as the host tells: the limits of its control groups, or all that the
//! machine has. What turns and requests may take of it is the [`Budget`].

use shared::budget::Budget;
use shared::config::GatewayConfig;
use std::fs;
use std::path::{Path, PathBuf};

/// Of a host that does not tell, so much is taken for granted: the guide's smallest machine has twice as much.
const UNKNOWN: u64 = 512 * 1024 * 1024;

/// The memory that the settings lend to work, or else a part of what the process may use.
pub(crate) fn budget(gateway: &GatewayConfig) -> Budget {
    match gateway.memory_budget {
        Some(bytes) => Budget::of(usize::try_from(bytes).unwrap_or(usize::MAX)),
        None => Budget::of_memory(allowed(Path::new("/")).unwrap_or(UNKNOWN)),
    }
}

/// The least of all limits that hold for this process; `root` is where the host's files are.
fn allowed(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().filter_map(group).flat_map(|(folder, file)| limits_of(root, &folder, file));
    limits.chain(machine(root)).min()
}

/// Where the memory limit of a line of `/proc/self/cgroup` stands: `0::/a/b` for version 2 of control groups,
/// `4:memory:/a/b` for version 1.
fn group(line: &str) -> Option<(PathBuf, &'static str)> {
    let mut parts = line.splitn(3, ':');
    let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let (base, file) = if number == "0" && controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    Some((Path::new(base).join(path.trim_start_matches('/')), file))
}

/// The limits of a group and of those that it is in. Within a container its own path may not be visible: then only the
/// outermost one is.
fn limits_of(root: &Path, folder: &Path, file: &str) -> Vec<u64> {
    let in_the_tree = folder.ancestors().take_while(|folder| folder.starts_with("sys/fs/cgroup"));
    // Without a limit, version 2 says `max`, version 1 a number beyond all memory.
    in_the_tree
        .filter_map(|folder| fs::read_to_string(root.join(folder).join(file)).ok()?.trim().parse().ok())
        .collect()
}

/// All memory of the machine: `MemTotal:  1014344 kB`.
fn machine(root: &Path) -> Option<u64> {
    let told = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these files.
    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_counts_in_either_version_of_control_groups() {
        let machine = ("proc/meminfo", "MemTotal:        1024 kB\nMemFree: 1 kB\n");
        let of = |files: &[(&str, &str)]| allowed(host(files).path());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[machine]), Some(1024 * 1024));
        let second = [
            machine,
            ("proc/self/cgroup", "0::/site/reef\n"),
            ("sys/fs/cgroup/site/memory.max", "700000\n"),
            ("sys/fs/cgroup/site/reef/memory.max", "max\n"),
        ];
        assert_eq!(of(&second), Some(700_000));
        let first = [
            machine,
            ("proc/self/cgroup", "5:devices:/\n4:cpu,memory:/reef\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/reef/memory.limit_in_bytes", "600000\n"),
        ];
        assert_eq!(of(&first), Some(600_000));
        let in_a_container = [
            machine,
            ("proc/self/cgroup", "4:memory:/docker/0123\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "500000\n"),
        ];
        assert_eq!(of(&in_a_container), Some(500_000));
    }
}
