//! Who the caller is in a container: `--userns`, and mounts that are to be theirs.

use anyhow::{Result, anyhow};

use super::Engine;
use crate::error::ResultExt;
use crate::host::{Ids, InnerIds};
use crate::spec::mount::Mount;
use crate::spec::options::{Options, Userns};
use crate::store::container::{Caller, ContainerDir};

/// What the record is to say of it. Themselves inside is also whom the container runs as, if nobody else was named.
pub fn plan(engine: &Engine, options: &mut Options) -> Result<(Option<InnerIds>, Option<Caller>)> {
    let host = &engine.host;
    let inner = match options.userns.clone() {
        Userns::Host | Userns::Auto { .. } | Userns::Mapped(_) => None,
        Userns::KeepId { uid, gid } if host.is_rootless() => {
            let ids = InnerIds { uid: uid.or(Some(host.uid)), gid: gid.or(Some(host.gid)) };
            let text = |id: Option<u32>| id.unwrap_or(0);
            options.user.get_or_insert_with(|| format!("{}:{}", text(ids.uid), text(ids.gid)));
            Some(ids)
        }
        // Root is who they are already.
        Userns::KeepId { uid: None | Some(0), gid: None | Some(0) } => {
            options.user.get_or_insert_with(|| "0:0".to_owned());
            None
        }
        Userns::KeepId { .. } => {
            return Err(anyhow!("cannot map root to another user in a container"))
                .hint("give root what another user of the container writes by -v SOURCE:TARGET:own");
        }
        Userns::NoMap if !host.is_rootless() => {
            return Err(anyhow!("cannot use --userns nomap as root: only a user's id can be left out"));
        }
        Userns::NoMap if engine.store.ids == Ids::Single => {
            return Err(anyhow!(
                "cannot use --userns nomap: this user has one id, and without it there is none"
            ))
            .hint("give this user subordinate ids in /etc/subuid and /etc/subgid");
        }
        Userns::NoMap => Some(InnerIds { uid: None, gid: None }),
        Userns::Container(id) => {
            let inner = ContainerDir::of(&engine.store, &id).record()?.inner;
            if let Some(InnerIds { uid: Some(uid), gid }) = inner {
                options.user.get_or_insert_with(|| format!("{uid}:{}", gid.unwrap_or(0)));
            }
            inner
        }
    };
    let is_own = options.mounts.iter().any(|mount| matches!(mount, Mount::Bind { own: true, .. }));
    let caller = (inner.is_some() || is_own).then(|| caller(engine));
    Ok((inner, caller))
}

/// Who called us; behind sudo(8) that is who called it.
fn caller(engine: &Engine) -> Caller {
    let host = &engine.host;
    let number = |name: &str| host.env(name).and_then(|v| v.to_str()).and_then(|v| v.parse::<u32>().ok());
    let name = |fallback: u32| host.user.clone().unwrap_or_else(|| fallback.to_string());
    match (number("SUDO_UID"), number("SUDO_GID")) {
        (Some(uid), Some(gid)) if !host.is_rootless() => Caller { uid, gid, name: uid.to_string() },
        _ => Caller { uid: host.uid, gid: host.gid, name: name(host.uid) },
    }
}
