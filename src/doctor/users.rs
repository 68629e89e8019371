//! User namespaces, and whose ids a user may give to containers.

use super::{Finding, list};

#[derive(Debug, Default)]
pub struct Users {
    pub name: String,
    /// Why none could be made, when that was so.
    pub refused: Option<String>,
    /// Numbers in /proc/sys, where they are.
    pub most: Option<u64>,
    pub unprivileged: Option<u64>,
    pub apparmor_restricts: Option<u64>,
    /// How many ids /etc/subuid and /etc/subgid give to this user.
    pub subordinate: [u64; 2],
    pub mappers: [(&'static str, Mapper); 2],
}

/// A program that writes a map for somebody without privileges.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Mapper {
    #[default]
    Absent,
    /// It is there, and may not do it.
    Powerless,
    Able,
}

/// Root and 65535 others, which images take for granted.
const USUAL: u64 = 65536;

pub fn judge(users: &Users, privileged: bool) -> Vec<Finding> {
    let mut findings = vec![namespaces(users, privileged)];
    if !privileged {
        findings.push(ids(users));
    }
    findings
}

/// The ids the lines of /etc/subuid give to a user, who stands there by name or by number: the first, and how many.
pub fn ranges(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (owner == name || owner == number).then_some((first, count))
    };
    text.lines().filter_map(range).collect()
}

/// How many ids that are.
pub fn granted(text: &str, name: &str, uid: u32) -> u64 {
    ranges(text, name, uid).into_iter().map(|(_, count)| u64::from(count)).sum()
}

fn namespaces(users: &Users, privileged: bool) -> Finding {
    const CHECK: &str = "user namespaces";
    let next = if users.most == Some(0) {
        "sysctl -w user.max_user_namespaces=15000"
    } else if users.unprivileged == Some(0) {
        "sysctl -w kernel.unprivileged_userns_clone=1"
    } else if users.apparmor_restricts == Some(1) {
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that lets deja and the engine make them"
    } else {
        "use a kernel with CONFIG_USER_NS; inside a container, let its seccomp profile allow them"
    };
    match (&users.refused, privileged) {
        (Some(why), true) => Finding::warning(CHECK, format!("containers cannot have one: {why}"), next),
        (Some(why), false) => {
            Finding::missing(CHECK, format!("without privileges no container runs without one: {why}"), next)
        }
        // Root may where others may not.
        (None, true) if users.unprivileged == Some(0) || users.apparmor_restricts == Some(1) => {
            Finding::warning(CHECK, "there, but not for users without privileges", next)
        }
        (None, _) => Finding::ok(CHECK, "there"),
    }
}

fn ids(users: &Users) -> Finding {
    const CHECK: &str = "id ranges";
    let short: Vec<&str> = ["/etc/subuid", "/etc/subgid"]
        .into_iter()
        .zip(users.subordinate)
        .filter(|(_, count)| *count < USUAL)
        .map(|(file, _)| file)
        .collect();
    if !short.is_empty() {
        let what =
            format!("containers of {} have one user only: too few ids in {}", users.name, list(&short));
        let add = "usermod --add-subuids 100000-165535 --add-subgids 100000-165535";
        return Finding::warning(CHECK, what, format!("{add} {}", users.name));
    }
    let those = |wanted: Mapper| -> Vec<&str> {
        users.mappers.iter().filter(|(_, mapper)| *mapper == wanted).map(|(name, _)| *name).collect()
    };
    let (absent, powerless) = (those(Mapper::Absent), those(Mapper::Powerless));
    if !absent.is_empty() {
        let what = format!("containers have one user only: no {} in $PATH", list(&absent));
        return Finding::warning(CHECK, what, "apt install uidmap");
    }
    if !powerless.is_empty() {
        let what = format!("containers have one user only: {} may not write maps", list(&powerless));
        return Finding::warning(
            CHECK,
            what,
            "apt install --reinstall uidmap (they are setuid root, or have cap_setuid)",
        );
    }
    Finding::ok(CHECK, format!("{} ids for {}", users.subordinate[0], users.name))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::{Missing, Ok as Fine, Warning};
    use super::*;

    fn users() -> Users {
        Users {
            name: "jo".to_owned(),
            most: Some(15000),
            subordinate: [65536; 2],
            mappers: [("newuidmap", Mapper::Able), ("newgidmap", Mapper::Able)],
            ..Users::default()
        }
    }

    #[test]
    fn ranges_are_counted_by_name_and_number() {
        let text = "jo:100000:65536\nann:165536:65536\n1000:300000:10\nbroken\njo:x:y\n";
        assert_eq!(granted(text, "jo", 1000), 65546);
        assert_eq!(granted(text, "bob", 7), 0);
        assert_eq!(granted("", "jo", 1000), 0);
    }

    #[test]
    fn who_may_make_namespaces_and_who_not() {
        let why = || Some("clone3: operation not permitted".to_owned());
        for (facts, privileged, verdict, next) in [
            (users(), true, Fine, ""),
            (users(), false, Fine, ""),
            (Users { most: Some(0), refused: why(), ..users() }, true, Warning, "user.max_user_namespaces"),
            (
                Users { unprivileged: Some(0), refused: why(), ..users() },
                false,
                Missing,
                "unprivileged_userns_clone=1",
            ),
            (Users { unprivileged: Some(0), ..users() }, true, Warning, "unprivileged_userns_clone=1"),
            (Users { apparmor_restricts: Some(1), ..users() }, true, Warning, "AppArmor profile"),
            (Users { refused: why(), ..users() }, false, Missing, "CONFIG_USER_NS"),
        ] {
            let found = judge(&facts, privileged).swap_remove(0);
            assert_eq!(found.verdict, verdict, "{facts:?}");
            assert!(found.next.contains(next), "{found:?}");
        }
    }

    #[test]
    fn ids_of_an_ordinary_user() {
        let next = |facts: &Users| judge(facts, false).swap_remove(1).next;
        assert_eq!(next(&users()), "");
        assert!(
            next(&Users { subordinate: [65536, 0], ..users() }).ends_with("--add-subgids 100000-165535 jo")
        );
        let with = |mapper| [("newuidmap", Mapper::Able), ("newgidmap", mapper)];
        assert_eq!(next(&Users { mappers: with(Mapper::Absent), ..users() }), "apt install uidmap");
        assert!(next(&Users { mappers: with(Mapper::Powerless), ..users() }).contains("--reinstall"));
        assert_eq!(judge(&Users::default(), true).len(), 1);
    }
}
