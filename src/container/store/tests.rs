use super::super::{VERSION, record::CgroupPlace};
use super::*;
use crate::sys::process;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("root/below"), false);
    (dir, store)
}

fn record(id: &str) -> Record {
    Record { version: VERSION, id: id.to_owned(), ..Record::default() }
}

fn living(id: &str) -> Record {
    let pid = std::process::id() as i32;
    let start_time = life(pid).unwrap().unwrap().start_time;
    Record { pid, start_time, ..record(id) }
}

fn status(container: &Container) -> Status {
    container.status(None, |_| Ok(false)).unwrap()
}

fn complete(reservation: Reservation, record: Record) -> Container {
    reservation.write(&record).unwrap();
    reservation.commit(record).unwrap()
}

#[test]
fn an_id_is_taken_once_and_given_back() {
    let (_dir, store) = store();
    let reservation = store.reserve("web").unwrap();
    let error = store.reserve("web").err().unwrap();
    assert_eq!(error.to_string(), "container with given ID already exists");
    reservation.save_config(b"{}").unwrap();
    reservation.write(&record("web")).unwrap();
    drop(reservation);
    store.reserve("web").unwrap();
}

#[test]
fn status_follows_from_what_there_is() {
    let (_dir, store) = store();
    let reservation = store.reserve("web").unwrap();
    reservation.write(&record("web")).unwrap();
    assert_eq!(status(&store.load("web").unwrap()), Status::Creating);

    std::fs::write(reservation.path().join("start.sock"), "").unwrap();
    complete(reservation, living("web"));
    let container = store.load("web").unwrap();
    assert_eq!(status(&container), Status::Created);

    let lock = container.lock().unwrap();
    lock.remove_start_socket().unwrap();
    lock.remove_start_socket().unwrap();
    assert_eq!(status(&container), Status::Running);

    let mut frozen = store.load("web").unwrap();
    frozen.record.cgroup = Some(CgroupPlace::default());
    assert_eq!(frozen.status(None, |_| Ok(true)).unwrap(), Status::Paused);

    let mut other = store.load("web").unwrap();
    other.record.start_time += 1;
    assert_eq!(status(&other), Status::Stopped, "another process with the same pid");
}

#[test]
fn a_creator_that_died_leaves_a_stopped_container() {
    let (_dir, store) = store();
    let reservation = store.reserve("web").unwrap();
    reservation.write(&record("web")).unwrap();
    // What a killed creator leaves: the directory, and no lock.
    let Reservation { directory, .. } = &reservation;
    fs::flock(directory, FlockOperation::Unlock).unwrap();
    assert_eq!(status(&store.load("web").unwrap()), Status::Stopped);
    std::mem::forget(reservation);
}

#[test]
fn what_is_missing_does_not_exist() {
    let (_dir, store) = store();
    let said = |id: &str| store.load(id).err().unwrap().to_string();
    assert_eq!(said("web"), "container \"web\" does not exist");
    assert!(store.remains("web").unwrap().is_none());
    assert_eq!(store.list().unwrap(), None);
    let reservation = store.reserve("web").unwrap();
    assert_eq!(
        said("web"),
        "container \"web\" does not exist completely: remove what there is with delete --force"
    );
    drop(reservation);
    assert_eq!(store.list().unwrap(), Some(vec![]));
    assert_eq!(said("../web"), "invalid container ID format: \"../web\"");
}

#[test]
fn a_damaged_record_says_so_and_can_be_removed() {
    let (_dir, store) = store();
    complete(store.reserve("web").unwrap(), record("web"));
    let path = store.root().join("web/record.json");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let said = format!("{:#}", store.load("web").err().unwrap());
    assert!(said.contains("it is damaged"), "{said}");
    let remains = store.remains("web").unwrap().unwrap();
    remains.remove().unwrap();
    assert!(store.remains("web").unwrap().is_none());
}

#[test]
fn large_records_and_long_roots_work() {
    let (_dir, mut store) = store();
    for _ in 0..4 {
        store.root.push("x".repeat(60));
    }
    let mut large = record("web");
    large.annotations = (0..2000).map(|n| (format!("key.{n}"), "v".repeat(50))).collect();
    let reservation = store.reserve("web").unwrap();
    assert!(reservation.start_socket().as_bytes().len() < 108);
    complete(reservation, large.clone());
    assert_eq!(store.load("web").unwrap().record, large);
}

#[test]
fn ids_are_listed_in_order_and_strangers_passed_over() {
    let (_dir, store) = store();
    for id in ["b", "a", "c"] {
        complete(store.reserve(id).unwrap(), record(id));
    }
    std::fs::write(store.root().join("file"), "").unwrap();
    std::fs::create_dir(store.root().join("not an id")).unwrap();
    assert_eq!(store.list().unwrap().unwrap(), ["a", "b", "c"]);
}

#[test]
fn the_default_root_is_runcs_rule() {
    let run = Some(OsStr::new("/run/user/1000"));
    let root = Some(OsStr::new("root"));
    let user = || (PathBuf::from("/run/user/1000/deja"), true);
    let system = || (PathBuf::from("/run/deja"), false);
    assert_eq!(default_root(1000, run, None, || false), user());
    assert_eq!(default_root(1000, None, None, || false), system());
    assert_eq!(default_root(1000, Some(OsStr::new("")), None, || false), system());
    assert_eq!(default_root(0, run, None, || false), system());
    assert_eq!(default_root(0, run, root, || true), system());
    assert_eq!(default_root(0, run, None, || true), user());
    assert_eq!(default_root(0, run, Some(OsStr::new("jo")), || true), user());
}

#[test]
fn the_sticky_bit_keeps_a_users_root() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("deja"), true);
    store.reserve("web").unwrap();
    let mode = std::fs::metadata(store.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1700);
}

#[test]
fn paths_become_absolute_as_text() {
    for (path, clean) in [
        ("/a/../b/./c/", "/b/c"),
        ("x", "/here/x"),
        ("", "/here"),
        ("../../..", "/"),
        (".", "/here"),
        ("//a", "/a"),
    ] {
        assert_eq!(absolute(Path::new(path), || Ok("/here".into())).unwrap(), Path::new(clean), "{path}");
    }
}

/// The status of a container in a crowd: while its init lives, when that has ended, and when it is reaped. Its root is one whose
/// records no reboot outlives; `change` gets the record.
fn in_a_crowd(change: impl FnOnce(&mut Record)) -> [Status; 3] {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(dir.path().join("root"), false);
    let mut init = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    let pid = init.id() as i32;
    let pidfd = process::pidfd_open(process::Pid::from_child(&init)).unwrap();
    let start_time = life(pid).unwrap().unwrap().start_time;
    let pid_inode = fs::fstat(&pidfd).unwrap().st_ino;
    let mut asked = Record { pid, start_time, pid_inode, ..record("web") };
    change(&mut asked);
    complete(store.reserve("web").unwrap(), asked);
    let crowd = store.crowd().unwrap();
    let status = || store.load_of(&crowd, "web").unwrap().status(Some(&crowd), |_| Ok(false)).unwrap();
    let living = status();
    init.kill().unwrap();
    while !process::has_ended(&pidfd).unwrap() {
        std::thread::yield_now();
    }
    let ended = status();
    init.wait().unwrap();
    [living, ended, status()]
}

#[test]
fn one_of_a_crowd_is_found_by_its_number_or_in_proc() {
    use Status::{Running, Stopped};
    assert_eq!(in_a_crowd(|_| ()), [Running, Stopped, Stopped]);
    assert_eq!(in_a_crowd(|record| record.pid_inode = 0), [Running, Stopped, Stopped], "an older record");
    assert_eq!(
        in_a_crowd(|record| record.pid_inode += 1),
        [Running, Stopped, Stopped],
        "/proc has the last word"
    );
    let another = |record: &mut Record| (record.pid_inode, record.start_time) = (1, 1);
    assert_eq!(in_a_crowd(another), [Stopped; 3]);
    let straight = |record: &mut Record| record.straight = true;
    assert_eq!(in_a_crowd(straight), [Running, Stopped, Stopped]);
}

#[test]
fn numbers_are_not_believed_where_records_outlive_the_machine() {
    let shared = tempfile::tempdir_in("/dev/shm").unwrap();
    let pid_inode = fs::fstat(process::pidfd_open(process::own_pid()).unwrap()).unwrap().st_ino;
    let own = Record { pid_inode, ..living("web") };
    let sees = |root: &Path| Store::open(root.to_owned(), false).crowd().unwrap().sees(&own).unwrap();
    assert!(!sees(Path::new("/sys")));
    // Kernels before 6.9 give processes no number.
    let pidfs = fs::file_system(process::pidfd_open(process::own_pid()).unwrap()).unwrap() == 0x5049_4446;
    assert_eq!(sees(shared.path()), pidfs);
}
