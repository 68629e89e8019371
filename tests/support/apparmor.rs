//! AppArmor profiles of a test's own. The kernel has one list of them for all: names are unique, and go at the end.

use super::Deja;

pub struct Profile {
    name: String,
}

impl Profile {
    /// Loads a profile that allows everything but to open this file.
    #[track_caller]
    pub fn forbids(path: &str) -> Self {
        let unique = tempfile::Builder::new().prefix("deja-test-").tempdir().expect("a unique name");
        let name = unique.path().file_name().expect("a name").to_string_lossy().into_owned();
        let profile = Self { name };
        profile.tell("--replace", &format!("audit deny {path} rwklx,")).ok();
        profile
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What /proc/self/attr/current says under it.
    pub fn enforced(&self) -> String {
        format!("{} (enforce)", self.name)
    }

    fn tell(&self, what: &str, rule: &str) -> Deja {
        let all = "file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, userns,";
        let text =
            format!("profile {} flags=(attach_disconnected,mediate_deleted) {{ {all} {rule} }}", self.name);
        Deja::other("apparmor_parser").args(["--skip-cache", what]).stdin(text)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // A test that has failed already says more than this would.
        drop(self.tell("--remove", "").output());
    }
}
