//! A control group with a bound on memory (cgroups(7), version 1 or 2): what the guide's smallest machine leaves a
//! process.

use std::fs;
use std::path::{Path, PathBuf};

/// Environment variable: `watch` lets the test run where no group can be made, with an eye on the memory only.
const SWITCH: &str = "REEF_HOSTILE_CGROUP";

/// A group of our own; removed when dropped, if nobody is in it any more.
pub(crate) struct Group {
    folder: PathBuf,
    /// The file that counts kills for want of memory.
    kills: PathBuf,
}

impl Group {
    /// With this bound, in bytes; `None` if only watching was asked for.
    ///
    /// # Panics
    /// No group can be made, and nobody said that it need not be.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        if std::env::var(SWITCH).is_ok_and(|value| value == "watch") {
            return None;
        }
        match Self::make(bytes) {
            Ok(group) => Some(group),
            Err(problem) => panic!(
                "no control group with a bound on memory can be made here: {problem}. Run the test as root on a system \
                 with cgroups, or set {SWITCH}=watch to measure the memory without bounding it"
            ),
        }
    }

    fn make(bytes: u64) -> Result<Self, String> {
        let mounts = fs::read_to_string("/proc/mounts").map_err(|error| format!("/proc/mounts: {error}"))?;
        let mounted = mounts.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let (path, kind, options) = (PathBuf::from(words.get(1)?), *words.get(2)?, *words.get(3)?);
            let first = kind == "cgroup" && options.split(',').any(|option| option == "memory");
            let offers = || fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
            let second = kind == "cgroup2" && offers().split_whitespace().any(|name| name == "memory");
            (first || second).then_some((path, second))
        });
        let (root, is_second) =
            mounted.ok_or("no cgroup file system with the controller `memory` is mounted")?;
        clear(&root);
        let folder = root.join(format!("{PREFIX}{}", std::process::id()));
        let write = |path: PathBuf, text: &str| {
            fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        if is_second {
            write(root.join("cgroup.subtree_control"), "+memory")?;
        }
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let (bound, kills) = if is_second {
            ("memory.max", "memory.events")
        } else {
            ("memory.limit_in_bytes", "memory.oom_control")
        };
        let group = Self { kills: folder.join(kills), folder };
        write(group.folder.join(bound), &bytes.to_string())?;
        Ok(group)
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How many of its processes were killed for want of memory.
    pub(crate) fn kills(&self) -> u64 {
        let counts = fs::read_to_string(&self.kills).expect("the group's counts");
        let count = counts.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).expect("a count of kills")
    }
}

const PREFIX: &str = "reef-hostile-";

/// Removes the groups of runs that were killed; one with a process in it cannot be removed.
fn clear(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}
