//! The config.json that `spec` writes: a shell in a read-only root, with every namespace that needs no setup.

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    Root,
    /// For a user without privileges, who becomes root in a user namespace.
    Rootless {
        uid: u32,
        gid: u32,
    },
}

/// The text of a config.json.
pub fn template(kind: Template) -> String {
    match kind {
        Template::Root => include_str!("template.json").to_owned(),
        Template::Rootless { uid, gid } => include_str!("template-rootless.json")
            .replace("@UID@", &uid.to_string())
            .replace("@GID@", &gid.to_string()),
    }
}
