//! File systems that are made new: opened, configured and mounted detached, one setting per call so that an error
//! tells which one.
//!
//! Making one uses no heap: the child makes those that belong to its namespaces, the parent could make the others.

use std::ffi::{CStr, CString};

use super::options::Setting;
use super::source::Source;
use crate::sys::mount;
use crate::sys::{AsFd, BorrowedFd, Errno, Lingering, OwnedFd, Result, fs};

#[derive(Debug, PartialEq)]
pub struct FileSystem {
    pub kind: CString,
    pub source: Option<CString>,
    pub settings: Vec<Setting>,
    pub attributes: u64,
    /// What is shown instead where the kernel refuses one of its own to this user namespace.
    pub substitute: Option<Source>,
    /// The SELinux label of the root, for a file system that does not take one as a setting.
    pub label: Option<CString>,
    /// The new root has the permissions of the directory it hides.
    pub inherit_mode: bool,
    /// The new root has the content of the directory it hides.
    pub copy_up: bool,
    /// All settings as one text, where one of them is too long for a call of its own.
    pub text: Option<CString>,
}

/// The longest value of one setting, as the kernel has it.
const LONGEST: usize = 255;

impl FileSystem {
    pub fn new(kind: &CStr) -> Self {
        Self {
            kind: kind.to_owned(),
            source: None,
            settings: Vec::new(),
            attributes: 0,
            substitute: None,
            label: None,
            inherit_mode: false,
            copy_up: false,
            text: None,
        }
    }

    /// The SELinux label of what is in it.
    pub fn label(&self) -> Option<&CStr> {
        let context = self.settings.iter().find(|setting| setting.key.as_c_str() == c"context");
        self.label.as_deref().or_else(|| context?.value.as_deref())
    }

    /// Writes the settings as one text if they can only be given like that, as an overlay's long list of layers.
    pub fn with_text(mut self) -> anyhow::Result<Self> {
        let long =
            |setting: &Setting| setting.value.as_ref().is_some_and(|value| value.as_bytes().len() > LONGEST);
        if self.settings.iter().any(long) {
            let mut text = Vec::new();
            for setting in &self.settings {
                if !text.is_empty() {
                    text.push(b',');
                }
                text.extend_from_slice(setting.key.as_bytes());
                if let Some(value) = &setting.value {
                    text.push(b'=');
                    text.extend_from_slice(value.as_bytes());
                }
            }
            self.text = Some(CString::new(text)?);
        }
        Ok(self)
    }

    /// Mounts on `place` with the settings as one text.
    pub fn mount_on(&self, place: BorrowedFd<'_>, text: &CStr) -> Result<()> {
        // The call takes a path; the one to a descriptor that is the current directory is safe to take.
        fs::fchdir(place)?;
        mount::mount(self.source.as_deref().unwrap_or(c"none"), c".", &self.kind, self.attributes, text)
    }

    /// An empty tmpfs that is and stays read-only, made without anything planned.
    pub fn empty() -> Result<OwnedFd> {
        let context = Lingering::new(mount::fsopen(c"tmpfs")?);
        mount::fsconfig_flag(&context, c"ro")?;
        mount::fsconfig_create(&context)?;
        mount::fsmount(&context, mount::attribute::RDONLY)
    }

    /// A detached mount. `hidden` is the directory it will be mounted on, where that matters.
    pub fn create(&self, hidden: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
        let mounted = match (self.mount(hidden), &self.substitute) {
            (Err(fault), Some(substitute)) if [Errno::PERM, Errno::BUSY].contains(&fault.errno) => {
                // Where the substitute cannot be had either, the refusal is the better explanation.
                return substitute.open(None).map_err(|_| fault);
            }
            (result, _) => result?,
        };
        if let Some(label) = &self.label {
            fs::setxattr(fs::FdPath::new(mounted.as_fd()).as_c_str(), c"security.selinux", label.as_bytes())?;
        }
        if let (true, Some(hidden)) = (self.copy_up, hidden) {
            super::copyup::copy(hidden, mounted.as_fd())?;
        }
        Ok(mounted)
    }

    fn mount(&self, hidden: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
        let context = Lingering::new(mount::fsopen(&self.kind)?);
        if let Some(source) = &self.source {
            mount::fsconfig_string(&context, c"source", source)?;
        }
        if let (true, Some(hidden)) = (self.inherit_mode, hidden) {
            let mode = Octal::new(fs::fstat(hidden)?.st_mode & 0o7777);
            mount::fsconfig_string(&context, c"mode", mode.as_c_str())?;
        }
        for setting in &self.settings {
            let result = match &setting.value {
                Some(value) => mount::fsconfig_string(&context, &setting.key, value),
                None => mount::fsconfig_flag(&context, &setting.key),
            };
            match result {
                Err(fault) if setting.optional && fault.errno == Errno::INVAL => {}
                result => result?,
            }
        }
        mount::fsconfig_create(&context)?;
        mount::fsmount(&context, self.attributes)
    }
}

/// Permissions as the text of a `mode=` setting.
struct Octal([u8; 6]);

impl Octal {
    fn new(mode: u32) -> Self {
        let mut text = [0; 6];
        for (place, digit) in text[..5].iter_mut().enumerate() {
            *digit = b'0' + (mode >> (12 - 3 * place) & 7) as u8;
        }
        Self(text)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_written_in_octal() {
        assert_eq!(Octal::new(0o1777).as_c_str(), c"01777");
        assert_eq!(Octal::new(0o5).as_c_str(), c"00005");
    }
}
