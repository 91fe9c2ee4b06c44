//! Which capabilities a container gets: docker's default set, `--cap-add`, `--cap-drop`, `ALL`. Pure.

use std::str::FromStr;

use anyhow::{Result, anyhow};

use crate::error::ResultExt;
use crate::oci::runtime::{Capabilities, Capability, LinuxCapabilities};

/// Docker's default set.
const DEFAULT: &[Capability] = &[
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The set for these flags. `all` is what the kernel knows and we hold.
pub fn choose(add: &[String], drop: &[String], privileged: bool, all: &Capabilities) -> Result<Capabilities> {
    let is_all = |words: &[String]| words.iter().any(|w| w.eq_ignore_ascii_case("ALL"));
    let named = |words: &[String]| -> Result<Vec<Capability>> {
        words.iter().filter(|w| !w.eq_ignore_ascii_case("ALL")).map(|w| parse(w)).collect()
    };
    let (added, dropped) = (named(add)?, named(drop)?);
    if privileged {
        return Ok(all.clone());
    }
    let mut set: Capabilities = match (is_all(add), is_all(drop)) {
        (true, _) => all.clone(),
        (false, true) => Capabilities::new(),
        (false, false) => DEFAULT.iter().copied().collect(),
    };
    for cap in dropped {
        set.remove(&cap);
    }
    set.extend(added);
    Ok(set.intersection(all).copied().collect())
}

/// Capabilities of `exec --privileged`: all that the caller can give.
pub fn everything(of: Option<&LinuxCapabilities>, all: Capabilities) -> Option<LinuxCapabilities> {
    let mut caps = of?.clone();
    caps.set_bounding(Some(all.clone()));
    caps.set_effective(Some(all.clone()));
    caps.set_permitted(Some(all));
    Some(caps)
}

fn parse(word: &str) -> Result<Capability> {
    let upper = word.to_ascii_uppercase();
    Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper))
        .map_err(|_| anyhow!("cannot use capability {word:?}: there is no such capability"))
        .hint("capabilities(7) lists them; write them with or without CAP_, or ALL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_choose_as_docker_does() {
        let all: Capabilities =
            DEFAULT.iter().copied().chain([Capability::SysAdmin, Capability::NetAdmin]).collect();
        let check = |add: &[&str], drop: &[&str], want: usize, has: &[Capability]| {
            let words = |w: &[&str]| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            let got = choose(&words(add), &words(drop), false, &all).unwrap();
            assert_eq!(got.len(), want, "{add:?} {drop:?}");
            assert!(has.iter().all(|c| got.contains(c)));
        };
        check(&[], &[], 14, &[Capability::Chown]);
        check(&["sys_admin"], &["CAP_CHOWN"], 14, &[Capability::SysAdmin]);
        check(&["NET_ADMIN"], &["all"], 1, &[Capability::NetAdmin]);
        check(&["ALL"], &["MKNOD"], 15, &[]);
        check(&["SYS_TIME"], &[], 14, &[]);
        assert!(choose(&["NO_SUCH".into()], &[], false, &all).is_err());
    }
}
