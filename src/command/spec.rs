//! `spec`: a config.json to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result, bail};

use crate::cli;
use crate::spec::{self, Template};
use crate::sys::credential::effective_gid;
use crate::sys::process::effective_uid;

pub fn run(arguments: &cli::Spec) -> Result<()> {
    let file = arguments.file.clone().unwrap_or_else(|| "config.json".into());
    let path = arguments.bundle.clone().unwrap_or_default().join(&file);
    let template = match arguments.rootless {
        true => Template::Rootless { uid: effective_uid(), gid: effective_gid() },
        false => Template::Root,
    };
    let mut written = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(written) => written,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("create {path:?}")),
    };
    written.write_all(spec::template(template).as_bytes()).with_context(|| format!("write {path:?}"))
}
