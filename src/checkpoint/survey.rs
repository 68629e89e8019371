//! Reads from /proc what `check` decides about. Processes that end meanwhile are passed over.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use anyhow::Result;

use super::check::{OpenFile, Process, Survey};
use super::mounts::Mounted;
use crate::sys::fs::{self, FileType};

const NAMESPACES: [&str; 3] = ["pid_for_children", "user", "time_for_children"];

/// Everything about the processes `pids`, the first of which is `init`.
pub fn survey(init: i32, pids: &[i32], mounted: &[Mounted]) -> Result<Survey> {
    let mounts: BTreeSet<u64> = mounted.iter().map(|mount| u64::from(mount.id)).collect();
    let root = mounted.iter().find(|mount| mount.point == "/");
    Ok(Survey {
        processes: pids.iter().filter_map(|pid| process(*pid, init, &mounts)).collect(),
        root_is_overlay: root.is_some_and(|root| root.kind == "overlay"),
        connections: connections(init),
        locks: locks(&std::fs::read_to_string("/proc/locks").unwrap_or_default()),
        unsaved_label: None,
        idmapped: mounted.iter().filter(|mount| mount.idmapped).map(|mount| mount.point.clone()).collect(),
    })
}

fn process(pid: i32, init: i32, mounts: &BTreeSet<u64>) -> Option<Process> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let status = read("status")?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    let link = |pid: i32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
    let differs = |kind: &&&str| match (link(pid, kind), link(init, kind)) {
        (Some(own), Some(other)) => own != other,
        // Before its first child is born a new pid namespace has no link.
        (None, Some(_)) => **kind == "pid_for_children",
        _ => false,
    };
    let word = |kind: &&str| kind.trim_end_matches("_for_children").to_owned();
    Some(Process {
        pid,
        command: read("comm")?.trim_end().to_owned(),
        traced: tracer.is_some_and(|pid| pid.trim() != "0"),
        namespaces: NAMESPACES.iter().filter(differs).map(word).collect(),
        files: files(pid, mounts),
    })
}

fn files(pid: i32, mounts: &BTreeSet<u64>) -> Vec<OpenFile> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| {
        let link = std::fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        let path = CString::new(entry.path().as_os_str().as_bytes()).ok()?;
        let stat = fs::statat(fs::CWD, &path, fs::AtFlags::empty()).ok()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        Some(OpenFile {
            number,
            link: link.to_string_lossy().into_owned(),
            size: stat.st_size.try_into().unwrap_or(0),
            device: is_device.then(|| fs::device_parts(stat.st_rdev)),
            inside: mounts.contains(&mount),
        })
    };
    entries.filter_map(one).collect()
}

/// In the network namespace of `pid`; those that listen are none.
fn connections(pid: i32) -> usize {
    let tables = ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")));
    tables.iter().flatten().map(|table| established(table)).sum()
}

fn established(table: &str) -> usize {
    const ESTABLISHED: &str = "01";
    table.lines().skip(1).filter(|line| line.split_whitespace().nth(3) == Some(ESTABLISHED)).count()
}

/// The holders in a table of locks; those who wait for one have an arrow in front.
fn locks(table: &str) -> Vec<i32> {
    let holder = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let kind = fields.next().filter(|kind| *kind != "->")?;
        // Neither is something a process does to a file by itself.
        (kind != "LEASE" && kind != "DELEG").then(|| fields.nth(2)?.parse().ok())?
    };
    table.lines().filter_map(holder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_read() {
        let table = "  sl  local_address rem_address   st\n   0: 0100007F:1388 00000000:0000 0A 0\n   \
             1: 0100007F:1388 0100007F:A000 01 0\n   2: 0100007F:A000 0100007F:1388 01 0\n";
        assert_eq!(established(table), 2);
        let table = "1: FLOCK  ADVISORY  WRITE 42 00:1c:5 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 43 00:1c:5 0 EOF\n\
             2: POSIX  ADVISORY  READ 44 00:1c:6 0 EOF\n3: LEASE  ACTIVE    READ 45 00:1c:6 0 EOF\n";
        assert_eq!(locks(table), [42, 44]);
    }

    #[test]
    fn this_process_is_surveyed() {
        let own = std::process::id() as i32;
        let survey = survey(own, &[own], &[]).unwrap();
        let [process] = &survey.processes[..] else { panic!("{survey:?}") };
        assert!(process.namespaces.is_empty() && !process.traced && !process.files.is_empty());
    }
}
