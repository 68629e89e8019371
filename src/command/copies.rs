//! `restore --copies`: many containers of one image, which only differ in their number.
//!
//! Each is a restore of its own, in a process of its own, with a cgroup, namespaces and changes of its own; some of them
//! at the same time.

use std::ffi::OsString;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::bundle::Bundle;
use crate::cli;
use crate::error::Failure;
use crate::spec::{NamespaceKind, Spec};

/// CRIU waits for the disk and the kernel about as long as it computes.
const FOR_EACH_PROCESSOR: usize = 2;

/// What the container is called, also as one of many.
pub fn id(arguments: &cli::Restore) -> String {
    match arguments.copy {
        Some(copy) => format!("{}-{copy}", arguments.id),
        None => arguments.id.clone(),
    }
}

pub fn run(arguments: &cli::Restore, number: u32, words: &[OsString]) -> Result<()> {
    check(arguments, number, words)?;
    let bundle = Bundle::read(arguments.bundle.as_deref(), None)?;
    check_spec(&bundle.spec()?)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut failed, mut running) = (0, Vec::new());
    for copy in 1..=number {
        if running.len() >= FOR_EACH_PROCESSOR * processors {
            failed += u32::from(!ended_well(running.remove(0))?);
        }
        running.push(start(words, copy)?);
    }
    for child in running {
        failed += u32::from(!ended_well(child)?);
    }
    match failed {
        0 => Ok(()),
        failed => bail!("{failed} of {number} copies could not be made; the others run"),
    }
}

/// It says itself what it could not do.
fn start(words: &[OsString], copy: u32) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.args(words.iter().skip(1)).arg(format!("--copy={copy}")).stdin(Stdio::inherit());
    command.spawn().context("start deja for a copy")
}

fn ended_well(mut child: Child) -> Result<bool> {
    Ok(child.wait().context("wait for a copy")?.success())
}

fn check(arguments: &cli::Restore, number: u32, words: &[OsString]) -> Result<()> {
    let reason = if number == 0 {
        "--copies 0 makes nothing"
    } else if !arguments.detach {
        "--copies needs --detach: nobody can stand for many containers"
    } else if arguments.import.is_some() {
        "--copies does not go with --import: unpack the archive and name its directory checkpoint by --image-path"
    } else if arguments.pid_file.is_some() {
        "--copies does not go with --pid-file: state and list tell the pids"
    } else if arguments.tcp_established {
        "--copies does not go with --tcp-established: only one of many can go on with a connection"
    } else if words.iter().any(|word| word == "--") {
        "--copies does not go with --"
    } else {
        return Ok(());
    };
    Err(Failure::usage(reason).into())
}

/// What only one can have.
fn check_spec(spec: &Spec<'_>) -> Result<()> {
    let linux = spec.linux.as_ref().context("config.json: linux is missing")?;
    for kind in [NamespaceKind::Pid, NamespaceKind::Network] {
        let own = linux
            .namespaces
            .iter()
            .any(|one| one.kind == kind && one.path.as_ref().is_none_or(|path| path.is_empty()));
        if !own {
            let word = kind.word();
            return Err(Failure::input(format!(
                "linux.namespaces: --copies needs a new {word} namespace for each container"
            ))
            .into());
        }
    }
    Ok(())
}
