//! CRIU's requests and answers as data, and their numbers on the wire. Pure.

use anyhow::{Context, Result};

use super::wire::{Message, fields};

/// How cgroups are treated. deja puts the container where it belongs itself, so CRIU has nothing to do by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupMode {
    #[default]
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}

/// How the network is held while connections are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    Iptables = 1,
    Nftables = 2,
    Skip = 3,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageServer {
    pub address: String,
    pub port: u16,
}

/// What CRIU is asked to do, by the words of its own command line.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    pub images_dir_fd: i32,
    pub work_dir_fd: Option<i32>,
    pub log_file: String,
    pub log_level: u32,
    pub pid: Option<i32>,
    pub root: Option<String>,
    pub leave_running: bool,
    pub leave_stopped: bool,
    pub ext_unix_sk: bool,
    pub tcp_established: bool,
    pub tcp_skip_in_flight: bool,
    pub tcp_close: bool,
    pub evasive_devices: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub link_remap: bool,
    pub auto_dedup: bool,
    pub track_mem: bool,
    pub parent_img: Option<String>,
    pub page_server: Option<PageServer>,
    pub lazy_pages: bool,
    pub rst_sibling: bool,
    pub orphan_pts_master: bool,
    pub ext_masters: bool,
    /// Mount points in the container, and what they are called (dump) or made of (restore).
    pub ext_mnt: Vec<(String, String)>,
    pub external: Vec<String>,
    /// Names in the image, and the descriptors that stand for them now.
    pub inherit_fd: Vec<(String, i32)>,
    pub join_ns: Vec<(String, String)>,
    /// Bits of the namespaces whose content is left out.
    pub empty_ns: u32,
    pub manage_cgroups: CgroupMode,
    pub freeze_cgroup: Option<String>,
    pub network_lock: Option<NetworkLock>,
    pub config_file: Option<String>,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

impl Options {
    fn message(&self) -> Message {
        let mut m = Message::default();
        m.signed(1, self.images_dir_fd);
        optional(self.pid, |pid| m.signed(2, pid));
        let flags = [
            (3, self.leave_running),
            (4, self.ext_unix_sk),
            (5, self.tcp_established),
            (6, self.evasive_devices),
            (7, self.shell_job),
            (8, self.file_locks),
            (12, true),
            (15, self.track_mem),
            (16, self.auto_dedup),
            (18, self.link_remap),
            (26, self.rst_sibling),
            (30, self.ext_masters),
            (46, self.tcp_skip_in_flight),
            (48, self.lazy_pages),
            (50, self.orphan_pts_master),
            (52, self.tcp_close),
            (69, self.leave_stopped),
        ];
        flags.into_iter().for_each(|(field, on)| m.flag(field, on));
        m.number(9, self.log_level.into());
        m.text(10, &self.log_file);
        let texts = [
            (13, &self.root),
            (14, &self.parent_img),
            (44, &self.freeze_cgroup),
            (51, &self.config_file),
            (53, &self.lsm_profile),
            (63, &self.lsm_mount_context),
        ];
        texts.into_iter().for_each(|(field, text)| optional(text.as_deref(), |text| m.text(field, text)));
        optional(self.page_server.as_ref(), |server| {
            let mut inner = Message::default();
            inner.text(1, &server.address);
            inner.number(2, server.port.into());
            m.message(11, &inner);
        });
        optional(self.work_dir_fd, |fd| m.signed(17, fd));
        self.ext_mnt.iter().for_each(|(key, value)| m.message(23, &pair(key, value)));
        for (key, fd) in &self.inherit_fd {
            let mut inner = Message::default();
            inner.text(1, key);
            inner.signed(2, *fd);
            m.message(27, &inner);
        }
        m.number(34, self.manage_cgroups as u64);
        self.external.iter().for_each(|name| m.text(37, name));
        m.number(38, self.empty_ns.into());
        self.join_ns.iter().for_each(|(kind, path)| m.message(39, &pair(kind, path)));
        optional(self.network_lock, |lock| m.number(64, lock as u64));
        m
    }
}

fn optional<T>(value: Option<T>, put: impl FnOnce(T)) {
    if let Some(value) = value {
        put(value);
    }
}

fn pair(key: &str, value: &str) -> Message {
    let mut message = Message::default();
    message.text(1, key);
    message.text(2, value);
    message
}

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dump = 1,
    Restore = 2,
    Notify = 6,
    /// One, after which CRIU does not wait for more.
    PreDump = 13,
}

pub fn request(kind: Kind, options: &Options) -> Vec<u8> {
    let mut message = Message::default();
    message.number(1, kind as u64);
    message.message(2, &options.message());
    message.into_bytes()
}

/// The answer to a notice: go on, or give up.
pub fn acknowledgement(go_on: bool) -> Vec<u8> {
    let mut message = Message::default();
    message.number(1, Kind::Notify as u64);
    message.number(3, go_on.into());
    message.into_bytes()
}

/// What CRIU says.
#[derive(Debug, Default, PartialEq)]
pub struct Response {
    kind: u64,
    pub success: bool,
    pub restored_pid: Option<i32>,
    pub script: String,
    pub pid: Option<i32>,
    pub errno: i32,
    pub message: Option<String>,
}

impl Response {
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut response = Response::default();
        fields(bytes, |field, value| {
            match field {
                1 => response.kind = value.number()?,
                2 => response.success = value.number()? != 0,
                4 => fields(value.bytes()?, |field, value| {
                    if field == 1 {
                        response.restored_pid = Some(value.number()? as i32);
                    }
                    Ok(())
                })?,
                5 => fields(value.bytes()?, |field, value| {
                    match field {
                        1 => response.script = value.text()?,
                        2 => response.pid = Some(value.number()? as i32),
                        _ => (),
                    }
                    Ok(())
                })?,
                7 => response.errno = value.number()? as i32,
                9 => response.message = Some(value.text()?),
                _ => (),
            }
            Ok(())
        })
        .context("read CRIU's answer")?;
        Ok(response)
    }

    pub fn is_notice(&self) -> bool {
        self.kind == Kind::Notify as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Value;
    use super::*;

    fn sent(options: &Options) -> Vec<(u64, String)> {
        let bytes = request(Kind::Dump, options);
        let mut found = Vec::new();
        fields(&bytes, |field, value| {
            if field == 2 {
                return fields(value.bytes()?, |field, value| {
                    found.push((
                        field,
                        match value {
                            Value::Number(number) => number.to_string(),
                            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                        },
                    ));
                    Ok(())
                });
            }
            assert_eq!((field, value.number().unwrap()), (1, Kind::Dump as u64));
            Ok(())
        })
        .unwrap();
        found.sort();
        found
    }

    #[test]
    fn every_option_has_its_number() {
        let bare = sent(&Options { log_file: "l".into(), ..Options::default() });
        let text = |text: &str| text.to_owned();
        assert_eq!(
            bare,
            [
                (1, text("0")),
                (9, text("0")),
                (10, text("l")),
                (12, text("1")),
                (34, text("0")),
                (38, text("0"))
            ]
        );
        let full = Options {
            images_dir_fd: 5,
            work_dir_fd: Some(6),
            log_level: 4,
            pid: Some(42),
            root: Some(text("/r")),
            leave_running: true,
            leave_stopped: true,
            ext_unix_sk: true,
            tcp_established: true,
            tcp_skip_in_flight: true,
            tcp_close: true,
            evasive_devices: true,
            shell_job: true,
            file_locks: true,
            link_remap: true,
            auto_dedup: true,
            track_mem: true,
            parent_img: Some(text("../p")),
            page_server: Some(PageServer { address: text("a"), port: 7 }),
            lazy_pages: true,
            rst_sibling: true,
            orphan_pts_master: true,
            ext_masters: true,
            ext_mnt: vec![(text("k"), text("v"))],
            external: vec![text("net[1]:n")],
            inherit_fd: vec![(text("n"), 9)],
            join_ns: vec![(text("ipc"), text("/n"))],
            empty_ns: 0x4000_0000,
            manage_cgroups: CgroupMode::Soft,
            freeze_cgroup: Some(text("/c")),
            network_lock: Some(NetworkLock::Skip),
            config_file: Some(text("/f")),
            lsm_profile: Some(text("selinux:x")),
            lsm_mount_context: Some(text("c")),
            log_file: text("l"),
        };
        let numbers: Vec<u64> = sent(&full).iter().map(|(field, _)| *field).collect();
        let expected = [
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 23, 26, 27, 30, 34, 37, 38, 39,
            44, 46, 48, 50, 51, 52, 53, 63, 64, 69,
        ];
        assert_eq!(numbers, expected);
    }

    #[test]
    fn answers_are_read() {
        let mut inner = Message::default();
        inner.text(1, "post-restore");
        inner.number(2, 42);
        let mut message = Message::default();
        message.number(1, Kind::Notify as u64);
        message.number(2, 1);
        message.message(5, &inner);
        message.number(99, 1);
        let response = Response::read(&message.into_bytes()).unwrap();
        assert!(response.is_notice() && response.success);
        assert_eq!((response.script.as_str(), response.pid), ("post-restore", Some(42)));
        assert!(Response::read(b"\x2a\x03\x08").unwrap_err().to_string().contains("read CRIU's answer"));
    }
}
