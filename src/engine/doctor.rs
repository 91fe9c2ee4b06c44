//! The doctor: what this machine lacks for dhow to go the best way, each with the command that brings it. Changes nothing.
//!
//! [`super::machine`] looks, [`examine`] judges, and is pure.

use std::path::Path;

use super::machine::Facts;
use super::ways::Ways;
use crate::host::Host;
use crate::userns;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub is_well: bool,
    /// How it is.
    pub text: String,
    /// Commands, for root, that mend it.
    pub fix: Vec<String>,
}

/// Judges.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.is_rootless {
        findings.push(user_name_space(facts));
        findings.push(tools(facts));
        findings.push(subordinate_ids(facts));
    }
    let Some(ways) = &facts.ways else { return findings };
    findings.push(isolation(ways));
    findings.push(root_file_system(ways, facts));
    findings.push(cgroups(ways, facts));
    if facts.is_rootless && facts.has_systemd {
        findings.push(logind(facts));
    }
    findings
}

fn well(name: &'static str, text: impl Into<String>) -> Finding {
    Finding { name, is_well: true, text: text.into(), fix: Vec::new() }
}

fn missing(name: &'static str, text: impl Into<String>, fix: Vec<String>) -> Finding {
    Finding { name, is_well: false, text: text.into(), fix }
}

fn user_name_space(facts: &Facts) -> Finding {
    let name = "user name space";
    let Some(why) = &facts.refused else { return well(name, "can be made") };
    let set = |switch: &&str| {
        format!("echo {switch} >/etc/sysctl.d/50-dhow.conf && sysctl -p /etc/sysctl.d/50-dhow.conf")
    };
    let mut fix: Vec<String> = facts.switches.iter().map(set).collect();
    if facts.is_apparmor_strict {
        fix.push(profile(&facts.program));
    }
    let text = match fix[..] {
        [] => format!(
            "{why}: the sandbox around us forbids it; start it with --privileged, or with --security-opt seccomp=unconfined"
        ),
        _ => why.clone(),
    };
    missing(name, text, fix)
}

/// An AppArmor profile that does nothing but let the program have user name spaces, as Ubuntu gives to its own.
fn profile(program: &Path) -> String {
    format!(
        "printf 'abi <abi/4.0>,\\ninclude <tunables/global>\\nprofile dhow {} flags=(unconfined) {{\\n  userns,\\n}}\\n' >/etc/apparmor.d/dhow && apparmor_parser -r /etc/apparmor.d/dhow",
        program.display()
    )
}

fn tools(facts: &Facts) -> Finding {
    let name = "newuidmap and newgidmap";
    match &facts.tools {
        [Some((uid_tool, uid_is)), Some((gid_tool, gid_is))] => {
            let bare = [(uid_tool, uid_is), (gid_tool, gid_is)].into_iter().filter(|(_, is)| !**is);
            let fix: Vec<String> = bare.map(|(tool, _)| format!("chmod u+s {}", tool.display())).collect();
            if fix.is_empty() {
                well(name, "are here and privileged")
            } else {
                missing(name, "are not set-uid root", fix)
            }
        }
        _ => missing(
            name,
            "are not installed: one id is all that a container has",
            vec![install(&facts.systems)],
        ),
    }
}

fn install(systems: &str) -> String {
    let is = |wanted: &[&str]| systems.split_whitespace().any(|id| wanted.contains(&id));
    match () {
        () if is(&["alpine"]) => "apk add shadow-uidmap",
        () if is(&["arch"]) => "pacman -S shadow",
        () if is(&["fedora", "rhel", "centos"]) => "dnf install shadow-utils",
        () if is(&["suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed"]) => "zypper install shadow",
        () => "apt-get install uidmap",
    }
    .into()
}

/// As many as an image may use: beyond the 16 bits of old there is nothing in nearly all of them.
const ENOUGH: u64 = 65536;

fn subordinate_ids(facts: &Facts) -> Finding {
    let name = "subordinate ids";
    let own = facts.subordinate.each_ref().map(|text| count_of(text, &facts.user));
    let text = match own {
        [uids, gids] if uids >= ENOUGH && gids >= ENOUGH => {
            return well(name, format!("{uids} user ids, {gids} group ids"));
        }
        [0, _] => format!("/etc/subuid has no line for {}", facts.user),
        [_, 0] => format!("/etc/subgid has no line for {}", facts.user),
        [uids, gids] => format!("{uids} user ids and {gids} group ids are few: images use up to {ENOUGH}"),
    };
    let start = facts.subordinate.iter().map(|text| first_free(text)).max().unwrap_or(0);
    let end = start + ENOUGH - 1;
    let flags =
        [("--add-subuids", own[0]), ("--add-subgids", own[1])].into_iter().filter(|(_, n)| *n < ENOUGH);
    let flags: Vec<String> = flags.map(|(flag, _)| format!("{flag} {start}-{end}")).collect();
    missing(name, text, vec![format!("usermod {} {}", flags.join(" "), facts.user)])
}

fn ranges(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        Some((fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

fn count_of(text: &str, user: &str) -> u64 {
    ranges(text).filter(|(owner, ..)| *owner == user).map(|(_, _, count)| count).sum()
}

/// Above all that is given away, and where useradd begins.
fn first_free(text: &str) -> u64 {
    ranges(text).map(|(_, start, count)| start.saturating_add(count)).max().unwrap_or(0).max(100_000)
}

fn way<'a>(ways: &'a Ways, of: &str) -> (&'a str, &'a str) {
    ways.all.iter().find(|way| way.of == of).map_or(("", ""), |way| (&way.is, &way.why))
}

fn isolation(ways: &Ways) -> Finding {
    let (_, why) = way(ways, "isolation");
    if ways.has_name_spaces {
        return well("isolation", why);
    }
    let text = format!("{why}; {}", crate::runtime::chroot::HINT);
    missing("isolation", text, Vec::new())
}

fn root_file_system(ways: &Ways, facts: &Facts) -> Finding {
    let (is, why) = way(ways, "root file system");
    if is == "overlay" {
        return well("overlay", why);
    }
    let fix = if facts.refused.is_some() {
        Vec::new()
    } else {
        vec!["dhow --root DIR, with DIR on ext4, xfs or btrfs; or storage.root in config.toml".into()]
    };
    missing("overlay", why, fix)
}

fn cgroups(ways: &Ways, facts: &Facts) -> Finding {
    let name = "cgroups";
    let (_, why) = way(ways, name);
    let wanted = ["cpu", "memory", "pids"];
    let absent: Vec<&str> =
        wanted.into_iter().filter(|c| !ways.controllers.iter().any(|have| have == c)).collect();
    if absent.is_empty() {
        return well(name, why);
    }
    let text = format!("no limits of {}: {why}", absent.join(", "));
    let user = &facts.user;
    let fix = match ways.cgroup_version {
        "2" if facts.has_systemd && facts.is_rootless => vec![
            "mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' >/etc/systemd/system/user@.service.d/delegate.conf && systemctl daemon-reload".to_owned(),
            format!("systemctl restart user@$(id -u {user}).service"),
        ],
        "2" if facts.is_rootless => vec![format!(
            "mkdir -p /sys/fs/cgroup/{user} && chown -R {user} /sys/fs/cgroup/{user} && echo +cpu +memory +pids >/sys/fs/cgroup/cgroup.subtree_control && echo PID_OF_THE_SHELL >/sys/fs/cgroup/{user}/cgroup.procs"
        )],
        "1" if facts.is_rootless => vec![format!(
            "for c in {}; do mkdir -p /sys/fs/cgroup/$c/{user} && chown -R {user} /sys/fs/cgroup/$c/{user} && echo PID_OF_THE_SHELL >/sys/fs/cgroup/$c/{user}/cgroup.procs; done",
            absent.join(" ")
        )],
        "" => vec!["mount -t cgroup2 cgroup2 /sys/fs/cgroup".to_owned()],
        _ => Vec::new(),
    };
    missing(name, text, fix)
}

fn logind(facts: &Facts) -> Finding {
    if facts.kills_user_processes {
        let fix = vec![format!("loginctl enable-linger {}", facts.user)];
        return missing("logind", "ends containers in the background when their user logs out", fix);
    }
    well("logind", "leaves containers in the background alone")
}

/// Whether the caller's user name space can be had is found out by entering it, which cannot be undone: for commands that
/// do nothing else.
pub fn enter(host: &mut Host) -> Option<anyhow::Error> {
    userns::enter(host).err()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn facts() -> Facts {
        let tool = |name: &str| Some((PathBuf::from(name), true));
        Facts {
            user: "al".into(),
            is_rootless: true,
            subordinate: ["al:100000:65536\n".into(), "al:100000:65536\n".into()],
            tools: [tool("/usr/bin/newuidmap"), tool("/usr/bin/newgidmap")],
            program: "/opt/dhow".into(),
            ..Facts::default()
        }
    }

    /// The findings that are not well: names and commands.
    #[track_caller]
    fn check(facts: &Facts, want: &[(&str, &[&str])]) {
        let ill: Vec<Finding> = examine(facts).into_iter().filter(|f| !f.is_well).collect();
        let seen: Vec<(&str, Vec<&str>)> =
            ill.iter().map(|f| (f.name, f.fix.iter().map(String::as_str).collect())).collect();
        let want: Vec<(&str, Vec<&str>)> = want.iter().map(|(name, fix)| (*name, fix.to_vec())).collect();
        assert_eq!(seen, want);
    }

    #[test]
    fn ids_and_their_tools() {
        check(&facts(), &[]);
        let mut lacks = facts();
        lacks.subordinate = ["bo:100000:65536\nco:500000:65536".into(), String::new()];
        check(
            &lacks,
            &[("subordinate ids", &["usermod --add-subuids 565536-631071 --add-subgids 565536-631071 al"])],
        );
        let mut few = facts();
        few.subordinate[1] = "al:7:10\n".into();
        check(&few, &[("subordinate ids", &["usermod --add-subgids 165536-231071 al"])]);
        let mut none = facts();
        none.tools[0] = None;
        none.systems = "rocky rhel centos fedora".into();
        check(&none, &[("newuidmap and newgidmap", &["dnf install shadow-utils"])]);
        let mut bare = facts();
        bare.tools[1] = Some(("/usr/bin/newgidmap".into(), false));
        check(&bare, &[("newuidmap and newgidmap", &["chmod u+s /usr/bin/newgidmap"])]);
    }

    #[test]
    fn what_forbids_user_name_spaces() {
        let mut forbidden = facts();
        forbidden.refused = Some("cannot make a user name space: Operation not permitted".into());
        check(&forbidden, &[("user name space", &[])]);
        forbidden.switches = vec!["user.max_user_namespaces=15000"];
        check(
            &forbidden,
            &[(
                "user name space",
                &[
                    "echo user.max_user_namespaces=15000 >/etc/sysctl.d/50-dhow.conf && sysctl -p /etc/sysctl.d/50-dhow.conf",
                ],
            )],
        );
        forbidden.switches.clear();
        forbidden.is_apparmor_strict = true;
        let found = examine(&forbidden);
        assert!(
            found[0].fix[0].contains("profile dhow /opt/dhow flags=(unconfined) {\\n  userns,\\n}"),
            "{found:?}"
        );
        // With a profile that lets it, the switch is no obstacle.
        forbidden.refused = None;
        check(&forbidden, &[]);
    }

    #[test]
    fn limits_and_where_they_come_from() {
        let ways = |version, controllers: &[&str]| {
            let way = |of, is: &str| super::super::ways::Way { of, is: is.into(), why: "why".into() };
            Ways {
                driver: "overlay".into(),
                cgroup_version: version,
                controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
                has_seccomp: true,
                has_name_spaces: true,
                all: vec![
                    way("root file system", "overlay"),
                    way("cgroups", version),
                    way("isolation", "full"),
                ],
            }
        };
        let with = |ways: Ways, has_systemd| Facts { ways: Some(ways), has_systemd, ..facts() };
        check(&with(ways("2", &["cpu", "memory", "pids"]), true), &[]);
        let found = examine(&with(ways("2", &["memory", "pids"]), true));
        let cgroups = found.iter().find(|f| f.name == "cgroups").unwrap();
        assert!(
            cgroups.text.contains("no limits of cpu") && cgroups.fix[0].contains("Delegate="),
            "{cgroups:?}"
        );
        let found = examine(&with(ways("1", &[]), false));
        let cgroups = found.iter().find(|f| f.name == "cgroups").unwrap();
        assert!(cgroups.fix[0].contains("for c in cpu memory pids;"), "{cgroups:?}");
        let mut lacks = ways("2", &["cpu", "memory", "pids"]);
        lacks.has_name_spaces = false;
        lacks.all[0].is = "copy".into();
        let names: Vec<&str> =
            examine(&with(lacks, false)).iter().filter(|f| !f.is_well).map(|f| f.name).collect();
        assert_eq!(names, ["isolation", "overlay"]);
        let mut kills = with(ways("2", &["cpu", "memory", "pids"]), true);
        kills.kills_user_processes = true;
        check(&kills, &[("logind", &["loginctl enable-linger al"])]);
    }
}
