//! Which names a container may have: those runc allows, but for a dot at the beginning, which is for what deja itself
//! keeps beside the containers. They are names of directories and part of cgroup names, so nothing else gets through.

use anyhow::Result;

use crate::error::Failure;

const LONGEST: usize = 255;

pub fn check_id(id: &str) -> Result<()> {
    if id.is_empty() {
        return Err(Failure::usage("container id cannot be empty").into());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    if id.starts_with('.') || id.len() > LONGEST || !id.bytes().all(allowed) {
        return Err(Failure::usage(format!("invalid container ID format: {id:?}")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for id in ["a", "A-b_c+d.e", "a...", "-x", &"x".repeat(255)] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", ".a", "a/b", "/", "a b", "a\nb", "ä", "a\0", "a:b", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }
}
