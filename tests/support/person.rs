//! Somebody in a world who is not root: a name, a home, user ids to hand out, and, where systemd runs, a manager
//! and a bus of the own session.

use super::{Deja, Finished, World, eventually};
use std::path::PathBuf;

/// Who lives in a world has the world's own lists of names. Logging in without a login manager: the directory of
/// the session is made by hand, and of the machine's services the manager waits for none.
const MOVE_IN: &str = r#"
set -e
mkdir /run/people
for list in passwd group subuid subgid; do cp "/etc/$list" "/run/people/$list"; done
sed -i '/:1000:/d' /run/people/passwd /run/people/group
echo 'person:*:1000:1000::/home/person:/bin/bash' >>/run/people/passwd
echo person:x:1000: >>/run/people/group
echo person:100000:65536 | tee /run/people/subuid >/run/people/subgid
for list in passwd group subuid subgid; do mount --bind "/run/people/$list" "/etc/$list"; done
mount -t tmpfs -o mode=755 tmpfs /home
install -d -o person -g person /home/person
install -d -m 755 /run/user
install -d -m 700 -o person -g person /run/user/1000
"#;

const LOG_IN: &str = r#"
set -e
for unit in user user-runtime-dir; do
    mkdir -p "/run/systemd/system/$unit@.service.d"
    printf '[Unit]\nDefaultDependencies=no\n' >"/run/systemd/system/$unit@.service.d/world.conf"
done
printf '[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\n' >>/run/systemd/system/user@.service.d/world.conf
printf '[Service]\nExecStart=\nExecStart=test -d /run/user/%%i\nExecStop=\n' \
    >>/run/systemd/system/user-runtime-dir@.service.d/world.conf
systemctl daemon-reload
systemctl start user@1000.service || { systemctl status user@1000.service >&2; exit 1; }
"#;

const AS_PERSON: &str = r#"cd /home/person && exec setpriv --reuid 1000 --regid 1000 --init-groups --reset-env \
    env XDG_RUNTIME_DIR=/run/user/1000 PATH="$PATH" TERM="$TERM" bash -c "$LINE""#;

pub struct Person<'w> {
    world: &'w World,
    cgroup: PathBuf,
}

impl<'w> Person<'w> {
    /// Has a cgroup of the own to do with as wanted, and nobody to ask for one.
    #[track_caller]
    pub fn new(world: &'w World) -> Self {
        world.ok(MOVE_IN);
        let unique = tempfile::Builder::new().prefix("deja-test-").tempdir().expect("a unique name");
        let own = world.cgroups().join(unique.path().file_name().expect("a name"));
        Self { world, cgroup: own.join("commands") }.moved_in()
    }

    /// Has a session: a manager of systemd's, the bus, and a part of the tree of cgroups that is delegated.
    #[track_caller]
    pub fn logged_in(world: &'w World) -> Self {
        world.ok(MOVE_IN);
        world.ok(LOG_IN);
        let service = world.cgroups().join("user.slice/user-1000.slice/user@1000.service");
        let person = Self { world, cgroup: service.join("commands") }.moved_in();
        let state = || person.command("systemctl --user is-system-running").output().stdout();
        eventually("the manager of the session", || (state() == "running\n").then_some(()));
        person
    }

    fn moved_in(self) -> Self {
        std::fs::create_dir_all(&self.cgroup).expect("make a cgroup");
        let own = self.cgroup.parent().expect("a cgroup above");
        for directory in [own, &self.cgroup] {
            for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                std::os::unix::fs::chown(directory.join(file), Some(1000), Some(1000)).expect("delegate");
            }
        }
        self
    }

    /// A command of the person's, as a shell reads it.
    pub fn command(&self, line: &str) -> Deja {
        self.world.enter_in(&self.cgroup, "env", &[], AS_PERSON).env("LINE", line)
    }

    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        self.command(line).ok().stdout().trim_end().to_owned()
    }

    #[track_caller]
    pub fn fails(&self, line: &str, code: i32) -> Finished {
        self.command(line).output().assert_code(code)
    }

    /// The small root file system as an image called `busy`.
    #[track_caller]
    pub fn import(&self) {
        let tar = super::rootfs();
        self.world.ok(&format!("tar -C {} -cf /run/busy.tar . && chmod 644 /run/busy.tar", tar.display()));
        self.ok(r#"podman import --change 'CMD ["/bin/sh"]' /run/busy.tar busy"#);
    }
}
