//! A small disk of its own, from which the power can be taken: what was not put on it is lost.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An ext4 of 128 MiB without a file in it. Making one takes tools that not every bed has.
const EMPTY: &[u8] = include_bytes!("../data/ext4.zst");

/// A mounted file system, in a `file` and `shown` somewhere.
pub struct Disk {
    file: PathBuf,
    shown: PathBuf,
}

impl Disk {
    /// An empty ext4 in the directory `place`.
    #[track_caller]
    pub fn new(place: &Path) -> Self {
        let path = place.join("disk");
        let mut bytes = Vec::new();
        let mut decoder = ruzstd::decoding::StreamingDecoder::new(EMPTY).expect("the compressed disk");
        decoder.read_to_end(&mut bytes).expect("the compressed disk");
        write_sparse(&path, &bytes);
        Self::show(path, place.join("shown"))
    }

    /// A tmpfs of `kib` KiB.
    #[track_caller]
    pub fn in_memory(place: &Path, kib: u64) -> Self {
        let disk = Self { file: place.join("memory"), shown: place.join("shown") };
        std::fs::create_dir(&disk.shown).expect("a directory");
        mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"], &disk.shown);
        disk
    }

    /// Nothing is written by itself before five minutes have passed: only what somebody puts on the disk gets there.
    fn show(path: PathBuf, shown: PathBuf) -> Self {
        std::fs::create_dir_all(&shown).expect("a directory");
        let file = path.to_str().expect("a path").to_owned();
        mount(&["-t", "ext4", "-o", "loop,commit=300", &file], &shown);
        Self { file: path, shown }
    }

    pub fn shown(&self) -> &Path {
        &self.shown
    }

    /// The disk as it would be found if the power went now, in the directory `place`. The file holds what has reached the
    /// disk; what the kernel still has in memory for it is not in the copy.
    #[track_caller]
    pub fn without_power(&self, place: &Path) -> Self {
        std::fs::create_dir_all(place).expect("a directory");
        let path = place.join("disk");
        write_sparse(&path, &std::fs::read(&self.file).expect("read the disk"));
        Self::show(path, place.join("shown"))
    }

    /// Gives a tmpfs another size.
    #[track_caller]
    pub fn resize(&self, kib: u64) {
        mount(&["-o", &format!("remount,size={kib}k"), "tmpfs"], &self.shown);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever a killed deja has left may still stand in it.
        let status = Command::new("umount").arg("--lazy").arg(&self.shown).status();
        assert!(std::thread::panicking() || status.is_ok_and(|status| status.success()), "umount failed");
    }
}

fn mount(words: &[&str], at: &Path) {
    let output =
        Command::new("mount").args(words).arg(at).stdin(Stdio::null()).output().expect("start mount");
    assert!(output.status.success(), "mount {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const EMPTY_BLOCK: [u8; 4096] = [0; 4096];

fn write_sparse(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = File::create(path).expect("create a disk");
    file.set_len(bytes.len() as u64).expect("give a disk its size");
    for (number, block) in bytes.chunks(4096).enumerate() {
        if block != &EMPTY_BLOCK[..block.len()] {
            file.write_all_at(block, number as u64 * 4096).expect("write a disk");
        }
    }
}
