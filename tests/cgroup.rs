//! The cgroup module against the kernel: real cgroups with real processes in them.

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deja::cgroup::devices::Filter;
use deja::cgroup::limits::{Facts, Write, controllers, writes};
use deja::cgroup::usage::Usage;
use deja::cgroup::{Attached, Cgroup, Change, Mount, Request, Watch, apply, attach, remove, replace};
use deja::spec::{DeviceRule, Resources, Str};
use support::requires;

const SOON: Duration = Duration::from_secs(10);

fn mount() -> Mount {
    Mount::find().expect("a cgroup2 mount")
}

/// A name nothing else uses, below one parent so that leftovers are found.
fn unique(name: &str) -> String {
    format!("deja-test/{name}-{}", std::process::id())
}

fn request<'a>(path: &'a str, controllers: &'a [&'a str]) -> Request<'a> {
    Request { path, named: true, controllers, rootless: &|| false, announce: &|_| Ok(()) }
}

fn create(mount: &Mount, path: &str) -> Cgroup {
    Cgroup::create(mount, &request(path, &[])).expect("create").expect("a cgroup")
}

fn directory(cgroup: &Cgroup) -> PathBuf {
    PathBuf::from(cgroup.full())
}

fn read(cgroup: &Cgroup, file: &str) -> String {
    let path = directory(cgroup).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path:?}: {error}")).trim_end().to_owned()
}

/// A process in the cgroup that is killed with the test.
struct Inside(Child);

impl Inside {
    fn shell(cgroup: &Cgroup, script: &str) -> Self {
        let script = format!("echo $$ > {:?}/cgroup.procs && {script}", directory(cgroup));
        let child = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn().expect("spawn sh");
        Self(child)
    }

    fn sleeper(cgroup: &Cgroup) -> Self {
        let sleeper = Self::shell(cgroup, "exec sleep 1000");
        support::eventually("the process joins", || cgroup.is_populated().unwrap().then_some(()));
        sleeper
    }

    fn code(&mut self) -> Option<i32> {
        self.0.wait().expect("wait").code()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.0.kill();
        self.0.wait().expect("wait");
    }
}

#[test]
fn a_new_cgroup_undoes_itself_unless_kept() {
    requires!(bed);
    let (mount, path) = (mount(), unique("undo"));
    let inner = format!("{path}/a/b");
    let mut cgroup = create(&mount, &inner);
    assert!(cgroup.is_new());
    let made: Vec<&str> = cgroup.made().iter().map(String::as_str).collect();
    assert!(made.ends_with(&[&path, &format!("{path}/a"), &inner]), "{made:?}");
    let (full, outer) = (directory(&cgroup), mount.full(&path));
    assert!(full.is_dir());
    let _inside = Inside::sleeper(&cgroup);
    cgroup.keep();
    drop(cgroup);
    assert!(full.is_dir());
    let again = Cgroup::create(&mount, &request(&inner, &[])).err().expect("refused").to_string();
    assert_eq!(again, "container's cgroup is not empty: 1 process(es) found");
    assert!(full.is_dir(), "a cgroup that was there is not undone");
    Cgroup::open(&mount, &inner).unwrap().unwrap().kill_all().unwrap();
    remove(&mount, &path, SOON).unwrap();
    assert!(!PathBuf::from(outer).exists());
    remove(&mount, &path, SOON).expect("removing what is gone is no error");

    let cgroup = create(&mount, &inner);
    let _inside = Inside::sleeper(&cgroup);
    drop(cgroup);
    assert!(!full.exists(), "a failed create leaves nothing, not even what runs");
}

#[test]
fn a_place_is_found() {
    requires!(bed);
    let mount = mount();
    assert_eq!(mount.place("/a/../b", "c").unwrap(), "b");
    assert!(mount.place("", "c").unwrap().ends_with('c'));
}

#[test]
fn a_frozen_cgroup_is_refused_and_frozen_processes_stand_still() {
    requires!(bed);
    let (mount, path) = (mount(), unique("freeze"));
    let cgroup = create(&mount, &path);
    let mut inside = Inside::shell(&cgroup, "trap 'exit 3' TERM; while :; do :; done");
    support::eventually("the process joins", || cgroup.is_populated().unwrap().then_some(()));
    // Until the trap is set.
    std::thread::sleep(Duration::from_millis(200));
    // As a deja leaves it that is killed before the kernel has stopped everything.
    fs::write(directory(&cgroup).join("cgroup.freeze"), "1").unwrap();
    assert!(cgroup.is_frozen().unwrap());
    cgroup.freeze(SOON).unwrap();
    assert!(cgroup.is_frozen().unwrap());
    assert_eq!(cgroup.signal_all(15).unwrap(), 1);
    assert!(cgroup.is_frozen().unwrap(), "signals leave a frozen cgroup frozen");
    std::thread::sleep(Duration::from_millis(50));
    assert!(inside.0.try_wait().unwrap().is_none(), "a frozen process handles no signal");
    cgroup.thaw().unwrap();
    assert_eq!(inside.code(), Some(3));
    assert!(cgroup.wait_empty(SOON).unwrap());
    assert!(!cgroup.is_frozen().unwrap());
    cgroup.freeze(SOON).expect("nothing to stop");
    let refused = Cgroup::create(&mount, &request(&path, &[])).err().expect("refused").to_string();
    assert_eq!(refused, "container's cgroup unexpectedly frozen");
    cgroup.thaw().unwrap();
}

#[test]
fn everything_below_is_counted_killed_and_removed() {
    requires!(bed);
    let (mount, path) = (mount(), unique("kill"));
    let mut cgroup = create(&mount, &path);
    // Not in the cgroup itself: one that hands controllers down holds no processes.
    let mut children = ["a", "b/c"].map(|name| create(&mount, &format!("{path}/{name}")));
    let mut inside = children.each_ref().map(Inside::sleeper);
    children.iter_mut().for_each(Cgroup::keep);
    let mut pids = cgroup.processes().unwrap();
    pids.sort_unstable();
    let mut expected = inside.each_ref().map(|process| process.0.id() as i32);
    expected.sort_unstable();
    assert_eq!(pids, expected);

    let stuck = remove(&mount, &path, Duration::from_millis(50)).unwrap_err().to_string();
    let named = format!("{} (sleep)", children[1].processes().unwrap()[0]);
    assert!(stuck.contains("device or resource busy: 2 process(es) left in it:"), "{stuck}");
    assert!(stuck.contains(&named), "{stuck}");

    cgroup.freeze(SOON).unwrap();
    cgroup.kill_all().unwrap();
    cgroup.keep();
    remove(&mount, &path, SOON).unwrap();
    for process in &mut inside {
        assert_eq!(process.code(), None, "killed by a signal");
    }
    assert!(!cgroup.is_populated().unwrap(), "what is gone is empty");
    assert!(cgroup.wait_empty(SOON).unwrap());
    assert_eq!(cgroup.signal_all(9).unwrap(), 0);
    cgroup.kill_all().unwrap();
}

#[test]
fn a_process_is_found_where_it_went() {
    requires!(bed);
    let (mount, path) = (mount(), unique("find"));
    let cgroup = create(&mount, &path);
    let inside = Inside::sleeper(&cgroup);
    let found = Cgroup::of_process(&mount, inside.0.id() as i32).unwrap();
    assert_eq!(found.path(), path);
    assert!(!found.is_new());
    assert!(Cgroup::open(&mount, &format!("{path}/nothing")).unwrap().is_none());
}

fn rule(allow: bool, major: i64, minor: i64, access: &'static str) -> DeviceRule<'static> {
    let (major, minor) = (Some(major), Some(minor));
    DeviceRule { allow, kind: Str::new("c"), major, minor, access: Str::new(access) }
}

/// Whether a process in the cgroup may read from /dev/zero and from /dev/kmsg.
fn reads(cgroup: &Cgroup) -> (bool, bool) {
    let try_read = |device: &str| {
        Inside::shell(cgroup, &format!("exec dd if={device} of=/dev/null bs=1 count=0 2>/dev/null")).code()
            == Some(0)
    };
    (try_read("/dev/zero"), try_read("/dev/kmsg"))
}

#[test]
fn the_device_program_decides_and_is_replaced_in_place() {
    requires!(bed, cap "SYS_ADMIN", path "/dev/kmsg");
    let (mount, path) = (mount(), unique("devices"));
    let cgroup = create(&mount, &path);
    let everything = DeviceRule { allow: true, access: Str::new("rwm"), ..DeviceRule::default() };
    let nothing = DeviceRule { allow: false, ..everything.clone() };
    assert_eq!(reads(&cgroup), (true, true));

    let filter = Filter::new(std::slice::from_ref(&nothing)).unwrap();
    assert_eq!(attach(&cgroup, &filter, || false).unwrap(), Attached::Yes);
    assert_eq!(reads(&cgroup), (true, false));

    // From here on the cgroup is one that was there: what is attached is replaced.
    let opened = Cgroup::open(&mount, &path).unwrap().unwrap();
    let allowed = Filter::new(&[nothing, rule(true, 1, 11, "r")]).unwrap();
    attach(&opened, &allowed, || false).unwrap();
    assert_eq!(reads(&cgroup), (true, true), "the old program is gone");
    let denied = Filter::new(&[everything, rule(false, 1, 11, "r")]).unwrap();
    attach(&opened, &denied, || false).unwrap();
    assert_eq!(reads(&cgroup), (true, false));
}

#[test]
fn a_replacement_leaves_no_moment_without_a_program() {
    requires!(bed, cap "SYS_ADMIN", path "/dev/kmsg");
    let (mount, path) = (mount(), unique("gap"));
    let cgroup = create(&mount, &path);
    let nothing = DeviceRule { allow: false, access: Str::new("rwm"), ..DeviceRule::default() };
    let filter = Filter::new(&[nothing]).unwrap();
    attach(&cgroup, &filter, || false).unwrap();
    // Ends with 1 as soon as the forbidden device opens or the allowed one does not.
    let script = "while :; do true < /dev/kmsg && exit 1; true < /dev/zero || exit 1; done";
    let mut prober = Inside::shell(&cgroup, script);
    let opened = Cgroup::open(&mount, &path).unwrap().unwrap();
    let until = Instant::now() + Duration::from_millis(500);
    while Instant::now() < until {
        attach(&opened, &filter, || false).unwrap();
    }
    assert!(prober.0.try_wait().unwrap().is_none(), "a gap was seen");
}

#[test]
fn the_end_of_the_last_process_is_announced() {
    requires!(bed);
    let (mount, path) = (mount(), unique("watch"));
    let cgroup = create(&mount, &path);
    let mut inside = Inside::sleeper(&cgroup);
    let mut watch = Watch::new(&cgroup).unwrap();
    assert_eq!(watch.next(Instant::now() + Duration::from_millis(20)).unwrap(), Change::Nothing);
    inside.0.kill().unwrap();
    assert_eq!(watch.next(Instant::now() + SOON).unwrap(), Change::Empty);
    inside.0.wait().unwrap();
    drop(cgroup);
    assert_eq!(watch.next(Instant::now() + SOON).unwrap(), Change::Empty, "also when it was removed");
}

#[test]
fn usage_is_read_with_whatever_controllers_there_are() {
    requires!(bed);
    let (mount, path) = (mount(), unique("usage"));
    let cgroup = create(&mount, &path);
    let _inside = Inside::shell(&cgroup, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000");
    support::eventually("time is used", || (Usage::read(&cgroup).unwrap().cpu.usage.total > 0).then_some(()));
    let usage = Usage::read(&cgroup).unwrap();
    assert_eq!(usage.pids.current, 1);
    let text = serde_json::to_string(&usage).unwrap();
    assert!(text.starts_with(r#"{"cpu":{"usage":{"total":"#), "{text}");
}

#[test]
fn a_limit_without_its_controller_says_so() {
    requires!(bed);
    let (mount, path) = (mount(), unique("absent"));
    let cgroup = create(&mount, &path);
    let error = apply(&cgroup, &[Write::new("nonsense.max", "1")]).unwrap_err().to_string();
    let expected = format!("write \"1\" to \"{}/nonsense.max\": no such file or directory", cgroup.full());
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.contains("(controller \"nonsense\" not available; this cgroup has: "), "{error}");
}

/// Creates a cgroup, applies resources as a create does, then updates as an update does.
fn applied(mount: &Mount, path: &str, created: &str, updates: &[&str]) -> Cgroup {
    let resources: Resources = serde_json::from_str(created).unwrap();
    let list = writes(&resources, &Facts::default()).unwrap();
    let cgroup = Cgroup::create(mount, &request(path, &controllers(&list))).unwrap().unwrap();
    apply(&cgroup, &list).unwrap();
    for update in updates {
        let resources: Resources = serde_json::from_str(update).unwrap();
        let facts = Facts::read(&cgroup, &resources).unwrap();
        apply(&cgroup, &writes(&resources, &facts).unwrap()).unwrap_or_else(|e| panic!("{update}: {e:#}"));
    }
    cgroup
}

#[test]
fn cpu_limits_arrive_and_updates_keep_the_rest() {
    requires!(bed, cgroup "cpu");
    let mount = mount();
    let start = r#"{"cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 40000}}"#;
    let cgroup = applied(&mount, &unique("cpu"), start, &[]);
    assert_eq!(read(&cgroup, "cpu.weight"), "59");
    assert_eq!(read(&cgroup, "cpu.max"), "50000 200000");
    assert_eq!(read(&cgroup, "cpu.max.burst"), "40000");
    let table = [
        (r#"{"cpu": {"period": 100000}}"#, "50000 100000", "40000"),
        (r#"{"cpu": {"quota": 60000}}"#, "60000 100000", "40000"),
        // Both up and both down: each order is wrong for one of the two.
        (r#"{"cpu": {"quota": 90000, "burst": 80000}}"#, "90000 100000", "80000"),
        (r#"{"cpu": {"quota": 20000, "burst": 10000}}"#, "20000 100000", "10000"),
        (r#"{"cpu": {"quota": -1, "burst": 0}}"#, "max 100000", "0"),
    ];
    for (update, max, burst) in table {
        let resources: Resources = serde_json::from_str(update).unwrap();
        let facts = Facts::read(&cgroup, &resources).unwrap();
        apply(&cgroup, &writes(&resources, &facts).unwrap()).unwrap_or_else(|e| panic!("{update}: {e:#}"));
        assert_eq!(read(&cgroup, "cpu.max"), max, "{update}");
        assert_eq!(read(&cgroup, "cpu.max.burst"), burst, "{update}");
    }
    assert_eq!(read(&cgroup, "cpu.weight"), "59");
    let idle = [r#"{"cpu": {"idle": 1}}"#, r#"{"cpu": {"idle": 0, "shares": 1024}}"#];
    let cgroup = applied(&mount, &unique("idle"), "{}", &idle);
    assert_eq!((read(&cgroup, "cpu.idle"), read(&cgroup, "cpu.weight")), ("0".into(), "100".into()));
}

#[test]
fn memory_limits_arrive_and_are_checked_before_an_update() {
    requires!(bed, cgroup "memory");
    let mount = mount();
    let start = r#"{"memory": {"limit": 33554432, "reservation": 25165824, "swap": 50331648}}"#;
    let cgroup = applied(&mount, &unique("memory"), start, &[r#"{"memory": {"swap": 67108864}}"#]);
    assert_eq!(read(&cgroup, "memory.max"), "33554432");
    assert_eq!(read(&cgroup, "memory.low"), "25165824");
    assert_eq!(read(&cgroup, "memory.swap.max"), "33554432");
    let lower: Resources =
        serde_json::from_str(r#"{"memory": {"limit": 4096, "checkBeforeUpdate": true}}"#).unwrap();
    let _inside = Inside::sleeper(&cgroup);
    let refused = support::eventually("memory is in use", || {
        writes(&lower, &Facts::read(&cgroup, &lower).unwrap()).err().map(|error| error.to_string())
    });
    assert!(refused.starts_with("rejecting memory limit 4096 <= usage "), "{refused}");
    let usage = Usage::read(&cgroup).unwrap();
    assert_eq!(usage.memory.usage.limit, 33554432);
    assert_eq!(usage.memory.swap.limit, 67108864);
    assert!(usage.memory.usage.usage > 0 && usage.memory.raw.contains_key("anon"));
    let unlimited: Resources = serde_json::from_str(r#"{"memory": {"limit": -1}}"#).unwrap();
    apply(&cgroup, &writes(&unlimited, &Facts::default()).unwrap()).unwrap();
    assert_eq!((read(&cgroup, "memory.max"), read(&cgroup, "memory.swap.max")), ("max".into(), "max".into()));
}

#[test]
fn an_update_that_fails_takes_back_what_it_did() {
    requires!(bed, cgroup "memory", cgroup "pids", cgroup "cpuset");
    let start =
        r#"{"memory": {"limit": 33554432}, "pids": {"limit": 7}, "cpu": {"quota": 5000, "burst": 10}}"#;
    let cgroup = applied(&mount(), &unique("undone"), start, &[]);
    let update = r#"{"cpu": {"quota": 9000, "burst": 9000, "cpus": "0"}, "memory": {"limit": 44040192},
        "pids": {"limit": -1}, "unified": {"memory.max": "nonsense"}}"#;
    let update: Resources = serde_json::from_str(update).unwrap();
    let error = replace(&cgroup, &writes(&update, &Facts::default()).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("write \"nonsense\" to "), "{error}");
    let table = [
        ("memory.max", "33554432"),
        ("pids.max", "7"),
        ("cpu.max", "5000 100000"),
        ("cpu.max.burst", "10"),
        ("cpuset.cpus", ""),
    ];
    for (file, value) in table {
        assert_eq!(read(&cgroup, file), value, "{file}");
    }
}

#[test]
fn a_kill_for_lack_of_memory_is_announced() {
    requires!(bed, cgroup "memory");
    let (mount, path) = (mount(), unique("oom"));
    let cgroup = applied(&mount, &path, r#"{"memory": {"limit": 8388608, "swap": 8388608}}"#, &[]);
    let _holder = Inside::sleeper(&cgroup);
    let mut watch = Watch::new(&cgroup).unwrap();
    assert_eq!(cgroup.oom_kills(), Some(0));
    let mut eater = Inside::shell(&cgroup, "exec head -c 100000000 /dev/zero | tail >/dev/null");
    assert_eq!(watch.next(Instant::now() + support::patience()).unwrap(), Change::OutOfMemory);
    assert!(cgroup.oom_kills() > Some(0));
    eater.0.wait().unwrap();
}

#[test]
fn the_other_limits_arrive() {
    requires!(bed, cgroup "pids", cgroup "cpuset");
    let mount = mount();
    let start = r#"{"pids": {"limit": 0}, "cpu": {"cpus": "0", "mems": "0"}}"#;
    let cgroup = applied(&mount, &unique("pids"), start, &[]);
    assert_eq!(read(&cgroup, "pids.max"), "1");
    assert_eq!(read(&cgroup, "cpuset.cpus"), "0");
    let cgroup = applied(&mount, &unique("unified"), r#"{"unified": {"pids.max": "99"}}"#, &[]);
    assert_eq!(read(&cgroup, "pids.max"), "99");
}

#[test]
fn huge_page_limits_arrive() {
    requires!(bed, cgroup "hugetlb");
    let start = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#;
    let cgroup = applied(&mount(), &unique("hugetlb"), start, &[]);
    assert_eq!(read(&cgroup, "hugetlb.2MB.max"), "4194304");
    assert_eq!(read(&cgroup, "hugetlb.2MB.rsvd.max"), "4194304");
    assert!(Usage::read(&cgroup).unwrap().hugetlb.contains_key("2MB"));
}

#[test]
fn weights_reach_whichever_scheduler_there_is() {
    requires!(bed, cgroup "io");
    let cgroup = applied(&mount(), &unique("io"), r#"{"blockIO": {"weight": 750}}"#, &[]);
    let bfq = fs::read_to_string(directory(&cgroup).join("io.bfq.weight"));
    match bfq {
        Ok(text) => assert!(text.starts_with("default 750"), "{text}"),
        Err(_) => assert_eq!(read(&cgroup, "io.weight"), "default 7475"),
    }
}

#[test]
fn the_descriptor_of_a_cgroup_is_a_directory() {
    requires!(bed);
    let cgroup = create(&mount(), &unique("descriptor"));
    let file = cgroup.as_fd().try_clone_to_owned().unwrap();
    assert!(fs::File::from(file).metadata().unwrap().is_dir());
}
