//! SELinux labels and CRIU, which knows them only where it was built so.

use anyhow::{Context, Result, bail, ensure};

use crate::checkpoint::{self, Asked};
use crate::launch::identity::{self, NO_SELINUX};
use crate::spec::Process;

/// The label that the CRIU of this machine would not save. Where the policy is enforced, it would also end the processes in the attempt:
/// they may not talk to it.
pub fn unsaved(process: Option<&Process<'_>>) -> Result<Option<String>> {
    let label = process.and_then(Process::selinux_label).filter(|_| identity::selinux_enabled());
    let Some(label) = label else { return Ok(None) };
    let program = checkpoint::find_program(std::env::var_os("PATH").as_deref())?;
    Ok((!checkpoint::knows_selinux(&program)?).then(|| label.to_string()))
}

/// Before anything is stopped: a label that can be saved, or none.
pub fn require_known(id: &str, process: Option<&Process<'_>>) -> Result<()> {
    let Some(label) = unsaved(process)? else { return Ok(()) };
    bail!(
        "cannot checkpoint {id:?}: its SELinux label {label:?} is beyond this criu, which was built without SELinux"
    );
}

/// Before anything is restored: a label that this machine can give at all.
pub fn possible(process: &Process<'_>) -> Result<()> {
    ensure!(process.selinux_label().is_none() || identity::selinux_enabled(), NO_SELINUX);
    Ok(())
}

/// Before what was restored runs: its first process has the label that the command line or config.json asks for.
pub fn given_back(process: &Process<'_>, asked: &Asked, pid: i32) -> Result<()> {
    let expected = match asked.lsm_profile.as_deref() {
        Some(profile) => profile.strip_prefix("selinux:"),
        None => process.selinux_label().map(|label| &**label),
    };
    let Some(expected) = expected else { return Ok(()) };
    let label = std::fs::read_to_string(format!("/proc/{pid}/attr/current"));
    let label = label.context("read the SELinux label of what was restored")?;
    let label = label.trim_end_matches(['\0', '\n']);
    if label != expected {
        bail!("criu restored it with the SELinux label {label:?} instead of {expected:?}");
    }
    Ok(())
}
