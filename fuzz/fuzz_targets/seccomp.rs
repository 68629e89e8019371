//! Any profile: the compiled program answers every call as the profile reads. `cargo test --test seccomp`
//! runs the same comparison on a few hundred inputs.
#![no_main]

#[path = "../../tests/support/seccomp.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    support::check(bytes);
});
