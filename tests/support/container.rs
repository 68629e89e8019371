//! A created container: its verbs as methods, and nothing of it left when it goes out of scope.

use super::{Bundle, Deja, Finished, eventually};
use rustix::process::{Pid, WaitOptions, set_child_subreaper, waitpid};
use serde_json::Value;

/// Makes this test the parent of every container it creates, as a shim is, so that it can read exit codes.
pub fn adopt_orphans() {
    set_child_subreaper(Some(Pid::INIT)).expect("become a child subreaper");
}

pub struct Container<'b> {
    bundle: &'b Bundle,
    id: String,
    created: Finished,
    init: i32,
}

impl<'b> Container<'b> {
    /// Takes over a container that `created` has just made.
    #[track_caller]
    pub fn adopt(bundle: &'b Bundle, id: &str, created: Finished) -> Self {
        let mut container = Self { bundle, id: id.to_string(), created, init: 0 };
        container.init = container.state()["pid"].as_i64().unwrap_or(0) as i32;
        container
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The process id of init as seen by the test.
    pub fn pid(&self) -> i32 {
        self.init
    }

    /// What the container wrote to standard output since `create`.
    pub fn stdout(&self) -> String {
        self.created.stdout()
    }

    pub fn stderr(&self) -> String {
        self.created.stderr()
    }

    /// A verb on this container with the flags that go before the id; arguments after it are still to come.
    pub fn verb(&self, verb: &str, flags: &[&str]) -> Deja {
        self.bundle.deja().arg(verb).args(flags).arg(&self.id)
    }

    #[track_caller]
    pub fn start(&self) -> Finished {
        self.verb("start", &[]).ok()
    }

    #[track_caller]
    pub fn kill(&self, signal: &str) -> Finished {
        self.verb("kill", &[]).arg(signal).ok()
    }

    #[track_caller]
    pub fn delete(&self) -> Finished {
        self.verb("delete", &[]).ok()
    }

    #[track_caller]
    pub fn exec(&self, words: &[&str]) -> Finished {
        self.exec_with(&[], words).output()
    }

    pub fn exec_with(&self, flags: &[&str], words: &[&str]) -> Deja {
        self.verb("exec", flags).args(words)
    }

    #[track_caller]
    pub fn state(&self) -> Value {
        self.verb("state", &[]).ok().json()
    }

    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status in the state").to_string()
    }

    #[track_caller]
    pub fn wait_status(&self, status: &str) {
        eventually(&format!("container {:?} to be {status}", self.id), || {
            (self.status() == status).then_some(())
        });
    }

    /// Waits until the container wrote `text` to standard output.
    #[track_caller]
    pub fn wait_stdout(&self, text: &str) {
        eventually(&format!("{text:?} on standard output"), || self.stdout().contains(text).then_some(()));
    }

    /// The exit code of init, 128 + signal when a signal ended it. Needs `adopt_orphans` before `create`.
    #[track_caller]
    pub fn exit_code(&self) -> i32 {
        let pid = Pid::from_raw(self.init).expect("the process id of init");
        let ended =
            eventually("init to end", || waitpid(Some(pid), WaitOptions::NOHANG).expect("wait for init"));
        let status = ended.1;
        status
            .exit_status()
            .or_else(|| status.terminating_signal().map(|signal| 128 + signal))
            .expect("an end")
    }

    /// Forgets the container: what is left of it is the test's business now.
    pub fn release(mut self) -> String {
        std::mem::take(&mut self.id)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        let done = self.verb("delete", &["--force"]).spawn();
        if std::thread::panicking() {
            // The test failed already; a second panic would hide why.
            drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| done.finish())));
        } else {
            // A container that the test deleted is gone already: that is no failure of the test.
            drop(done.finish());
        }
        if let Some(pid) = Pid::from_raw(self.init) {
            // ECHILD says that init was never ours to reap.
            waitpid(Some(pid), WaitOptions::NOHANG).ok();
        }
    }
}
