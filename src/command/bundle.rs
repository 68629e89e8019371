//! The bundle on disk: config.json and where it lies.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::cli;
use crate::container;
use crate::spec::{self, Spec};
use crate::sys::{Fault, Reason, fs, leak};

pub struct Bundle {
    pub path: PathBuf,
    pub config: Vec<u8>,
    file: PathBuf,
}

impl Bundle {
    pub fn of(options: &cli::Launch) -> Result<Self> {
        Self::read(options.bundle.as_deref(), options.config.as_deref())
    }

    pub fn read(bundle: Option<&Path>, config: Option<&Path>) -> Result<Self> {
        let given = bundle.unwrap_or(Path::new("."));
        let path = container::absolute(given, std::env::current_dir)?;
        let file = config.map_or_else(|| path.join("config.json"), Path::to_owned);
        let config = read(&file)?;
        Ok(Self { path, config, file })
    }

    pub fn spec(&self) -> Result<Spec<'_>> {
        let spec = spec::load(&self.config).with_context(|| format!("{:?}", self.file))?;
        spec::validate(&spec).with_context(|| format!("{:?}", self.file))?;
        Ok(spec)
    }
}

/// A JSON file, unless it is larger than any can be. Nearly all are read in one call.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    const USUAL: usize = 64 << 10;
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let failed = |what: &str, fault: Fault| anyhow!("{what} {path:?}: {}", Reason(fault.errno));
    let file = fs::openat(fs::CWD, &c_path, fs::OFlags::RDONLY, fs::Mode::empty());
    let file = leak(file.map_err(|fault| failed("open", fault))?);
    let mut bytes = Vec::new();
    loop {
        bytes.reserve(USUAL);
        match fs::read_spare(file, &mut bytes).map_err(|fault| failed("read", fault))? {
            0 => return Ok(bytes),
            // A regular file that gives less than it was asked for has no more.
            length if length < USUAL && is_complete(&bytes) => return Ok(bytes),
            _ if bytes.len() > spec::LARGEST => return Ok(bytes),
            _ => {}
        }
    }
}

/// A pipe may stop short anywhere; the end of a JSON object says that it is whole.
fn is_complete(bytes: &[u8]) -> bool {
    bytes.trim_ascii_end().last() == Some(&b'}')
}
