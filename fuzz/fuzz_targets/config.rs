//! Any bytes: a config is read or refused, and everything that follows from it is planned or refused; never a panic.
#![no_main]

use deja::cgroup::devices::Filter;
use deja::cgroup::limits;
use deja::launch::namespaces::Namespaces;
use deja::launch::seccomp::{Arch, compile};
use deja::launch::{identity, idmap, netdev, rootfs, sysctl};
use deja::spec::seccomp::Seccomp;
use deja::spec::{Linux, Process, Spec, load, validate};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = load(bytes) else { return };
    if validate(&spec).is_err() {
        return;
    }
    let (Some(linux), Some(process)) = (&spec.linux, &spec.process) else { return };
    if let Some(Ok(profile)) = linux.seccomp.map(|raw| serde_json::from_str::<Seccomp>(raw.get())) {
        drop(compile(&profile, Arch::native()));
    }
    if let Some(resources) = &linux.resources {
        drop(limits::writes(resources, &limits::Facts::default()));
        if let Ok(filter) = Filter::new(&resources.devices) {
            assert!(filter.program().len() < 1 << 20);
        }
    }
    for privileged in [true, false] {
        let Ok(namespaces) = Namespaces::plan(linux, privileged) else { return };
        drop(idmap::plan(linux, idmap::Facts { uid: 1000, gid: 1000, may_map: privileged }));
        plan_root(&spec, namespaces.all(), privileged);
        plan_identity(&spec, process, linux, privileged);
    }
    drop(netdev::plan(&linux.net_devices));
});

fn plan_root(spec: &Spec, namespaces: u64, privileged: bool) {
    for no_pivot in [false, true] {
        let facts = rootfs::Facts {
            bundle: "/bundle",
            root: "/bundle/rootfs",
            namespaces,
            user_namespace: None,
            privileged,
            cgroup: Some("/sys/fs/cgroup/fuzz"),
            selinux: false,
            no_pivot,
            mountinfo: "21 1 0:19 / / rw - ext4 /dev/vda rw\n22 21 0:20 / /proc rw - proc proc rw\n",
        };
        if let Ok(plan) = rootfs::plan(spec, &facts) {
            // Every step says what it is.
            plan.prepare.iter().chain(&plan.finish).for_each(|step| assert!(!step.to_string().is_empty()));
        }
    }
}

fn plan_identity(spec: &Spec, process: &Process, linux: &Linux, root: bool) {
    let asked = identity::Asked {
        process,
        init: true,
        hostname: &spec.hostname,
        domainname: &spec.domainname,
        sysctl: &linux.sysctl,
        private: sysctl::Private { ipc: true, network: true, uts: true, user: root },
        new_network: true,
        personality: linux.personality.as_ref(),
        memory_policy: linux.memory_policy.as_ref(),
        keyring: Some("fuzz"),
        keep_groups: false,
        seccomp: linux.seccomp.is_some(),
        find_executable: true,
        listen_fds: 0,
        preserve_fds: 0,
    };
    let user_namespace = identity::UserNamespace::New { root, groups: root };
    let facts = identity::Facts { user_namespace, root, permitted: u64::MAX, apparmor: true, selinux: false };
    drop(identity::plan(&asked, &facts));
}
