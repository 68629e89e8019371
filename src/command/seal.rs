//! Before a container is entered: nobody in it may be able to write to this program's file.
//!
//! A process of the container can become a process of deja for a moment, by `#!/proc/self/exe`, and another can
//! then reach deja's file through /proc/PID/exe: whoever is root in the container and on the host could overwrite
//! it (CVE-2019-5736). A file that no one can write to, because its mount is read-only or because it is immutable
//! or protected by fs-verity, needs nothing. Any other is executed once more through a read-only mount of its
//! own that is attached nowhere, or, without the right to mount, from a sealed copy in memory.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, anyhow, bail};

use crate::sys::clone::StringArray;
use crate::sys::{AsFd, leak, seal};

/// `arguments` are those deja was called with.
pub fn ensure(arguments: &[OsString]) -> Result<()> {
    if seal::is_on_read_only_mount().context("look at \"/proc/self/exe\"")? {
        return Ok(());
    }
    let file = leak(seal::own_executable().context("open \"/proc/self/exe\"")?);
    if seal::is_write_protected(file).context("look at \"/proc/self/exe\"")? || !seal::is_writable(file) {
        return Ok(());
    }
    let view = match seal::read_only_view(file) {
        Ok(view) => view,
        Err(_) => seal::sealed_copy(file).context("copy deja to memory")?,
    };
    // Otherwise this would go on for ever.
    if !seal::is_write_protected(view.as_fd()).context("look at deja's sealed file")? {
        bail!("deja's file could be overwritten from a container, and cannot be protected");
    }
    let strings = |list: Vec<Vec<u8>>| list.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
    let arguments = arguments.iter().cloned().map(OsStringExt::into_vec).collect();
    let variable = |(name, value): (OsString, OsString)| [name.into_vec(), value.into_vec()].join(&b"="[..]);
    let environment = std::env::vars_os().map(variable).collect();
    let (arguments, environment) =
        (StringArray::new(strings(arguments)?), StringArray::new(strings(environment)?));
    let fault = seal::execute(view.as_fd(), &arguments, &environment);
    Err(anyhow!("execute deja from a sealed view of its file: {fault}"))
}
