//! connect, disconnect and reload: networks of a container that exists.

use anyhow::{Context, Result, anyhow, bail};

use super::network::find;
use super::{Engine, inspect_network, reap};
use crate::endpoint::{self, Endpoint};
use crate::error::ResultExt;
use crate::store::container::{ContainerDir, Record};
use crate::store::journal::{self, Event};
use crate::supervisor::{self, Control};

/// Joins a container to one more network, at once if it runs.
pub fn connect(engine: &Engine, wanted: &str, container: &str, asked: Endpoint) -> Result<()> {
    let about = || format!("cannot connect container {container} to network {wanted}");
    refuse_builtin(wanted).with_context(about)?;
    let network = find(engine, wanted).with_context(about)?;
    let dir = engine.find(container).with_context(about)?;
    let asked = Endpoint { network: network.name.clone(), ..asked };
    let change = |record: &mut Record| {
        check_own(record)?;
        if record.wiring.endpoints.iter().any(|end| end.network == network.name) {
            bail!("endpoint with name {} already exists in network {}", record.name, network.name);
        }
        record.wiring.endpoints.push(asked.clone());
        Ok(())
    };
    let name = network.name.as_str();
    let undo = |record: &mut Record| record.wiring.endpoints.retain(|end| end.network != name);
    rewire(engine, &dir, &change, &undo).with_context(about)?;
    journal::note(&engine.store, &Event::of_network(&network, "connect").with("container", dir.id()));
    Ok(())
}

/// Takes a container out of a network, at once if it runs.
pub fn disconnect(engine: &Engine, wanted: &str, container: &str) -> Result<()> {
    let about = || format!("cannot disconnect container {container} from network {wanted}");
    refuse_builtin(wanted).with_context(about)?;
    let network = find(engine, wanted).with_context(about)?;
    let dir = engine.find(container).with_context(about)?;
    let before = dir.record().with_context(about)?.wiring.endpoints;
    let change = |record: &mut Record| {
        check_own(record)?;
        if !record.wiring.endpoints.iter().any(|end| end.network == network.name) {
            bail!("container {} is not connected to network {}", record.id, network.name);
        }
        record.wiring.endpoints.retain(|end| end.network != network.name);
        Ok(())
    };
    let undo = |record: &mut Record| record.wiring.endpoints.clone_from(&before);
    rewire(engine, &dir, &change, &undo).with_context(about)?;
    journal::note(&engine.store, &Event::of_network(&network, "disconnect").with("container", dir.id()));
    Ok(())
}

/// Makes again what somebody else took away of a running container's networks: links, addresses, rules. Its id; `None` of one
/// that does not run, or has no networks of ours.
pub fn reload(engine: &Engine, container: &str) -> Result<Option<String>> {
    let about = || format!("cannot reload the networks of container {container}");
    let dir = engine.find(container).with_context(about)?;
    let status = reap::decided(&engine.store, &dir).with_context(about)?;
    let is_own = inspect_network::wiring(&dir.record()?).network == endpoint::Network::Own;
    if status.run().is_none() || !is_own {
        return Ok(None);
    }
    supervisor::ask(&dir, &Control::Rewire).with_context(about)?;
    Ok(Some(dir.id()))
}

fn refuse_builtin(wanted: &str) -> Result<()> {
    match wanted {
        "host" => {
            Err(anyhow!("container cannot be disconnected from host network or connected to host network"))
        }
        "none" => Err(anyhow!(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )),
        _ => Ok(()),
    }
}

/// Only a container with networks of ours can have more, or fewer.
fn check_own(record: &Record) -> Result<()> {
    match &inspect_network::wiring(record).network {
        endpoint::Network::Own => Ok(()),
        endpoint::Network::Host => {
            Err(anyhow!("container cannot be disconnected from host network or connected to host network"))
        }
        endpoint::Network::None => Err(anyhow!(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )),
        endpoint::Network::Container(_) => Err(anyhow!(
            "container sharing network namespace with another container or host cannot be connected to any other network"
        )),
    }
    .hint("make the container anew, with --network")
}

/// Changes what a container asks of networks, and brings that about if it runs. What cannot be brought about is taken back.
fn rewire(
    engine: &Engine,
    dir: &ContainerDir,
    change: &dyn Fn(&mut Record) -> Result<()>,
    undo: &dyn Fn(&mut Record),
) -> Result<()> {
    let is_alive = reap::decided(&engine.store, dir)?.is_alive();
    dir.change_record(&engine.store, |record| change(record))?;
    if !is_alive {
        return Ok(());
    }
    if let Err(error) = supervisor::ask(dir, &Control::Rewire) {
        let undone = dir.change_record(&engine.store, |record| {
            undo(record);
            Ok(())
        });
        // It is as it was, and is told so.
        let _ = undone.and_then(|_| supervisor::ask(dir, &Control::Rewire));
        return Err(error);
    }
    Ok(())
}
