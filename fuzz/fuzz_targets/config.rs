//! Any bytes: a config is read or refused, never a panic; and a profile in it compiles or is refused.
#![no_main]

use deja::launch::seccomp::{Arch, compile};
use deja::spec::Spec;
use deja::spec::seccomp::Seccomp;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = serde_json::from_slice::<Spec>(bytes) else { return };
    let profile = spec.linux.as_ref().and_then(|linux| linux.seccomp);
    if let Some(Ok(profile)) = profile.map(|raw| serde_json::from_str::<Seccomp>(raw.get())) {
        drop(compile(&profile, Arch::native()));
    }
});
