//! deja, a low-level OCI container runtime. This page is the map of the house.
//!
//! # Words
//! One meaning per word, everywhere:
//! *spec* what config.json asked · *plan* what deja intends · *step* one action of the child · *record* what
//! is on disk about a container · *status* of a container · *parent* the deja that forks, *child* the process
//! between clone and exec, *init* the container's first process · *fault* a failed system call ·
//! "state" only for the OCI verb and for a session's states.
//!
//! # Who may import whom
//! `tests/tidy.rs` reads this table; an import that is not listed fails the build's tests.
//! ```text
//! main      -> cli command error log sys
//! command   -> cli container launch cgroup systemd rdt hook fair checkpoint session oci doctor plot regex spec error removal sys tar time log trial
//! launch    -> cgroup hook spec error sys
//! rdt       -> spec error sys
//! session   -> oci error plot removal sys tar time trial
//! hook      -> spec error sys
//! doctor    -> checkpoint cgroup rdt sys
//! fair      -> cgroup error plot sys
//! checkpoint -> sys tar
//! systemd   -> cgroup sys
//! oci       -> sys tar
//! tar       -> removal sys
//! plot      ->
//! regex     ->
//! cgroup    -> spec error sys
//! container -> error removal sys
//! spec      -> error
//! cli       -> error
//! log       -> error time
//! error     ->
//! removal   -> sys
//! time      ->
//! trial     -> sys
//! sys       ->
//! ```
//!
//! # What a verb does
//! Read facts, decide, act. Deciding is pure and returns data: `launch` turns spec and facts into a plan, a
//! list of steps complete before the clone; the child performs it and only makes system calls; when a step
//! fails it sends the step's number and the fault, and the parent, who still holds the plan, explains.
//!
//! # What is deliberately absent
//! - No heap, lock or formatting in the child: the allocator aborts there (`sys::heap`).
//! - No string path resolved inside a rootfs: descriptors and `openat2` only.
//! - No thread before the clone, no second copy of the binary, no environment or argument used as a channel.
//! - No printing outside `main` and `command`; no `unsafe`, libc, nix or rustix outside `sys`.
//! - No container name inside `launch`, no container at all inside `cgroup`.

pub mod cgroup;
pub mod checkpoint;
pub mod cli;
pub mod command;
pub mod container;
pub mod doctor;
pub mod error;
pub mod fair;
pub mod hook;
pub mod launch;
pub mod log;
pub mod oci;
pub mod plot;
pub mod rdt;
pub mod regex;
pub mod removal;
pub mod session;
pub mod spec;
#[allow(unsafe_code)]
pub mod sys;
pub mod systemd;
pub mod tar;
pub mod time;
pub mod trial;
