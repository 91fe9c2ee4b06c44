//! The names that are there right now. Read only, and nothing where there is no store yet.

use crate::cli::Session;
use crate::engine::list;
use crate::engine::shell::LABEL;
use crate::store::container::Status;
use crate::store::image::names;
use crate::store::network;
use crate::store::volume;

/// Where names come from.
pub(super) struct Names {
    /// Nothing is known without.
    pub(super) session: Option<Session>,
}

/// Which containers are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    All,
    Running,
    Paused,
    Resting,
    /// Boxes of `shell`.
    Boxes,
}

/// Name, and what it is.
type Named = (String, String);

impl Names {
    fn engine(&mut self) -> Option<crate::engine::Engine> {
        let session = self.session.as_mut()?;
        let is_there = crate::fs::metadata(&session.host.data.join("containers")).ok()?.is_some();
        if is_there { session.engine().ok() } else { None }
    }

    pub(super) fn containers(&mut self, which: Which) -> Vec<Named> {
        let Some(engine) = self.engine() else { return Vec::new() };
        let fits = |c: &&list::Listed| match which {
            Which::All => true,
            Which::Running => matches!(c.status, Status::Running(_)),
            Which::Paused => matches!(c.status, Status::Paused(_)),
            Which::Resting => !c.status.is_alive(),
            Which::Boxes => c.record.labels.contains_key(LABEL),
        };
        let all = list::list(&engine).unwrap_or_default();
        all.iter().filter(fits).map(|c| (c.record.name.clone(), c.image())).collect()
    }

    pub(super) fn images(&mut self) -> Vec<Named> {
        let Some(engine) = self.engine() else { return Vec::new() };
        let names = names::Names::visible(&engine.store).map(|names| names.named).unwrap_or_default();
        let short = |name: String| name.strip_suffix(":latest").map(str::to_owned).unwrap_or(name);
        names.iter().map(|named| (short(named.reference.familiar()), "image".to_owned())).collect()
    }

    /// Those that are always there, too.
    pub(super) fn networks(&mut self) -> Vec<Named> {
        let builtin = ["bridge", "host", "none"].map(|name| (name.to_owned(), "network".to_owned()));
        let Some(engine) = self.engine() else { return builtin.into() };
        let ours = network::list(&engine.store).unwrap_or_default().into_iter();
        let mut all: Vec<Named> = ours.map(|network| (network.name, "network".to_owned())).collect();
        all.extend(builtin);
        all.sort();
        all.dedup();
        all
    }

    pub(super) fn volumes(&mut self) -> Vec<Named> {
        let Some(engine) = self.engine() else { return Vec::new() };
        let volumes = volume::list(&engine.store).unwrap_or_default();
        volumes.into_iter().map(|volume| (volume.name, "volume".to_owned())).collect()
    }
}
