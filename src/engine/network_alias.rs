//! network alias: whom a name on a network means, changed while all run. This is what lets a container in the middle be
//! replaced without touching its clients: the name is moved to the new one, then the old one goes.

use anyhow::{Context, Result, anyhow};

use super::Engine;
use crate::endpoint::Endpoint;
use crate::error::ResultExt;
use crate::store::container::{ContainerDir, Record, Status};
use crate::store::network;
use crate::supervisor::{self, Control};
use crate::sys::lock::Kind;

/// What becomes of the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// They mean this container, and no other any more.
    Move,
    /// They mean this container, too: its address is one of several.
    Add,
    /// They no longer mean this container.
    Remove,
}

/// Changes what `aliases` mean on a network. There is no moment at which a name that is moved means nobody.
pub fn alias(
    engine: &Engine,
    wanted: &str,
    container: &str,
    aliases: &[String],
    change: Change,
) -> Result<()> {
    let about = || format!("cannot change what {} means on network {wanted}", aliases.join(", "));
    let name = match network::find(&engine.store, wanted) {
        // It is made when it is first used; a container can ask for it before.
        Err(_) if wanted == crate::endpoint::DEFAULT => wanted.to_owned(),
        found => found.with_context(about)?.name,
    };
    let dir = engine.find(container).with_context(about)?;
    // Of two who move a name at once, each would take it from the other's container.
    let _hold = network::hold(&engine.store, Kind::Exclusive).with_context(about)?;
    let not_there = || {
        Err(anyhow!("container {container} is not on it"))
            .hint(format!("connect it first: dhow network connect {wanted} {container}"))
    };
    let of = |record: &mut Record, change: &dyn Fn(&mut Endpoint)| -> bool {
        let end = record.wiring.endpoints.iter_mut().find(|end| end.network == name);
        end.map(change).is_some()
    };
    rename(engine, &dir, |record| {
        let is_there = of(record, &|end| {
            end.aliases.retain(|alias| !is_among(alias, aliases));
            if change != Change::Remove {
                end.aliases.extend(aliases.iter().cloned());
            }
        });
        if is_there { Ok(()) } else { not_there() }
    })
    .with_context(about)?;
    if change != Change::Move {
        return Ok(());
    }
    let own = dir.id();
    for (id, _) in network::users(&engine.store, &name).with_context(about)? {
        let other = ContainerDir::of(&engine.store, &id);
        let bears = |record: &Record| {
            let end = record.wiring.endpoints.iter().find(|end| end.network == name);
            end.is_some_and(|end| end.aliases.iter().any(|alias| is_among(alias, aliases)))
        };
        // One that was removed meanwhile has no names.
        if id == own || !other.record().is_ok_and(|record| bears(&record)) {
            continue;
        }
        let taken = rename(engine, &other, |record| {
            of(record, &|end| end.aliases.retain(|alias| !is_among(alias, aliases)));
            Ok(())
        });
        match taken {
            Err(error) if !super::is_not_found(&error) => return Err(error).with_context(about),
            _ => {}
        }
    }
    Ok(())
}

fn is_among(alias: &str, aliases: &[String]) -> bool {
    aliases.iter().any(|other| other.eq_ignore_ascii_case(alias))
}

/// Changes the record, and lets its supervisor know.
pub(super) fn rename(
    engine: &Engine,
    dir: &ContainerDir,
    change: impl FnOnce(&mut Record) -> Result<()>,
) -> Result<()> {
    dir.change_record(&engine.store, change)?;
    match dir.status() {
        Ok(Status::Running(_) | Status::Paused(_) | Status::Restarting(..)) => {
            supervisor::ask(dir, &Control::ReadAgain).map(drop)
        }
        _ => Ok(()),
    }
}
