//! Getting the layers of an image: fetched, hashed, decompressed and unpacked as one stream each, several side by side.
//!
//! 1. [`get`] claims the partial of every layer that the store lacks. One that another process has claimed is left to it.
//! 2. The own ones: more threads than processors fetch, as many as there are processors unpack, the largest first.
//! 3. If there were others', what was got is published, so that nobody waits for us while we wait; then the first of the
//!    others' partials is awaited, and all is looked at again: mostly everything is there by then, and where the other
//!    died, we go on with what it had.
//!
//! Invariant: nobody waits for a partial while holding another, so no two pulls can wait for each other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use crate::error::is_disk_full;
use crate::event::{Event, Pulling, Sink};
use crate::oci::DiffId;
use crate::oci::Digest;
use crate::store::Store;
use crate::store::blob;
use crate::store::image;
use crate::store::layer;
use crate::store::partial;
use crate::store::partial::Partial;

use super::compression::Compression;
use super::fetch::{Opened, Stop, Stopped};
use super::one_layer::{Shared, get_one};
use super::parallel;
use super::places::Places;

/// So many connections more than layers that are unpacked.
const MORE_FETCHING: usize = 3;

/// A layer of an image, as manifest and config have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The digest of the bytes as they are shipped.
    pub digest: Digest,
    /// The number of these bytes.
    pub size: u64,
    /// The digest of the tar.
    pub diff_id: DiffId,
    /// How it says that it is packed.
    pub compression: Compression,
    /// Where else it can be had.
    pub urls: Vec<String>,
}

impl Wanted {
    /// Whether the bytes are the tar itself: then the store has the layer only, and no blob.
    pub(super) fn is_plain(&self) -> bool {
        self.digest == self.diff_id.0
    }

    /// Whether the store has all of it.
    pub fn is_there(&self, store: &Store) -> Result<bool> {
        Ok(layer::exists(store, &self.diff_id)? && (self.is_plain() || blob::exists(store, &self.digest)?))
    }

    pub(super) fn event(&self, state: Pulling) -> Event {
        Event::Pulling { what: self.digest.short().to_owned(), state }
    }
}

/// Opens a layer's blob at an offset.
pub type OpenLayer<'a> = &'a (dyn Fn(&Wanted, u64) -> Result<Opened> + Sync);

/// What was got and is not yet published. Nobody else gets the same while this lives.
#[derive(Debug, Default)]
pub struct Got {
    /// Unpacked layers.
    pub layers: Vec<layer::Unpacked>,
    /// Compressed layers.
    pub blobs: Vec<blob::Sealed>,
    /// What is held and became no blob.
    pub held: Vec<Partial>,
}

impl Got {
    fn add(&mut self, other: Got) {
        self.layers.extend(other.layers);
        self.blobs.extend(other.blobs);
        self.held.extend(other.held);
    }
}

/// Gets the layers that the store lacks. The caller has pinned all of them.
pub fn get(store: &Store, wanted: Vec<Wanted>, open: OpenLayer<'_>, events: Sink<'_>) -> Result<Got> {
    let mut todo = missing(store, wanted, events)?;
    for layer in &todo {
        events(layer.event(Pulling::Queued));
    }
    let mut got = Got::default();
    let mut awaited = None;
    while !todo.is_empty() {
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for layer in todo {
            let is_awaited = awaited.as_ref().is_some_and(|p: &Partial| p.digest == layer.digest);
            let claimed = if is_awaited { awaited.take() } else { partial::claim(store, &layer.digest)? };
            match claimed {
                // Somebody may have got it meanwhile.
                Some(_) if layer.is_there(store)? => events(layer.event(Pulling::Done)),
                Some(partial) => own.push((layer, partial)),
                None => others.push(layer),
            }
        }
        let new = get_own(store, own, open, events)?;
        todo = others;
        if let Some(first) = todo.first() {
            image::publish_parts(store, new.blobs, new.layers)?;
            drop(new.held);
            events(first.event(Pulling::Waiting));
            awaited = Some(partial::wait(store, &first.digest)?);
        } else {
            got = new;
        }
    }
    Ok(got)
}

/// The layers that the store lacks, each once.
fn missing(store: &Store, wanted: Vec<Wanted>, events: Sink<'_>) -> Result<Vec<Wanted>> {
    let mut seen: HashMap<Digest, Wanted> = HashMap::new();
    let mut missing = Vec::new();
    for layer in wanted {
        if let Some(same) = seen.get(&layer.digest) {
            if (&same.diff_id, same.size, same.compression) != (&layer.diff_id, layer.size, layer.compression)
            {
                bail!("cannot use blob {}: it is said to be two different things", layer.digest);
            }
            continue;
        }
        seen.insert(layer.digest.clone(), layer.clone());
        if layer.is_there(store)? {
            events(layer.event(Pulling::Exists));
        } else {
            missing.push(layer);
        }
    }
    Ok(missing)
}

fn get_own(
    store: &Store,
    mut own: Vec<(Wanted, Partial)>,
    open: OpenLayer<'_>,
    events: Sink<'_>,
) -> Result<Got> {
    // What takes longest is not to begin last.
    own.sort_by_key(|(layer, _)| std::cmp::Reverse(layer.size));
    let digests: Vec<Digest> = own.iter().map(|(layer, _)| layer.digest.clone()).collect();
    let n_unpackers = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let (unpackers, windows) = (Places::new(n_unpackers), layer::windows(store));
    let shared = Shared { store, open, stop: Stop::default(), unpackers, windows };
    let has_failed = AtomicBool::new(false);
    let all = parallel::map_on(n_unpackers + MORE_FETCHING, own, events, |(layer, partial), progress| {
        match get_one(&shared, &layer, partial, progress) {
            Ok(got) => {
                let _ = progress.send(layer.event(Pulling::Done));
                Ok(Some(got))
            }
            Err(error) => {
                shared.stop.set();
                // Only the first has something to say.
                let is_told = error.is::<Stopped>() || has_failed.swap(true, Ordering::Relaxed);
                if is_told { Ok(None) } else { Err(error) }
            }
        }
    });
    match all {
        Ok(all) => {
            let mut got = Got::default();
            all.into_iter().flatten().for_each(|one| got.add(one));
            Ok(got)
        }
        Err(error) => {
            if is_disk_full(&error) {
                give_room_back(store, &digests);
            }
            layer::explain(error)
        }
    }
}

/// A full disk is everybody's trouble; what was fetched can be fetched again.
fn give_room_back(store: &Store, digests: &[Digest]) {
    for digest in digests {
        if let Ok(Some(partial)) = partial::claim(store, digest) {
            let _ = partial.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::image::compression;
    use crate::store::pin::Pins;
    use crate::store::tests::Scratch;
    use std::io;
    use std::sync::atomic::AtomicU64;

    fn layer(n: usize) -> (Wanted, Vec<u8>) {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        let content = format!("content {n} ").repeat(1000 * n + 1);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("file{n}"), content.as_bytes()).unwrap();
        let tar = tar.into_inner().unwrap();
        let mut packed = Vec::new();
        compression::encode(Compression::Gzip, &mut packed, |out| Ok(out.write_all(&tar)?)).unwrap();
        let wanted = Wanted {
            digest: Digest::of(&packed),
            size: packed.len() as u64,
            diff_id: DiffId(Digest::of(&tar)),
            compression: Compression::Gzip,
            urls: Vec::new(),
        };
        (wanted, packed)
    }

    /// Gets the layers with these numbers and publishes them; what was sent is added to `sent`.
    fn pull(
        scratch: &Scratch,
        layers: &[(Wanted, Vec<u8>)],
        numbers: &[usize],
        sent: &AtomicU64,
    ) -> Result<()> {
        let store = &scratch.store;
        let pins = Pins::new(store)?;
        let wanted: Vec<Wanted> = numbers.iter().map(|n| layers[*n].0.clone()).collect();
        for one in &wanted {
            pins.hold(store, &one.digest)?;
            pins.hold(store, &one.diff_id.0)?;
        }
        let open = |wanted: &Wanted, from: u64| {
            let (_, bytes) = layers.iter().find(|(w, _)| w.digest == wanted.digest).unwrap();
            let rest = bytes[from as usize..].to_vec();
            sent.fetch_add(rest.len() as u64, Ordering::Relaxed);
            Ok(Opened { from, total: Some(wanted.size), body: Box::new(io::Cursor::new(rest)) })
        };
        let Got { layers, blobs, held: _held } = get(store, wanted, &open, &mut |_| {})?;
        image::publish_parts(store, blobs, layers)
    }

    #[test]
    fn crowds_that_want_the_same_in_any_order_share_it() {
        let scratch = Scratch::new(Ids::Root);
        let layers: Vec<_> = (0..6).map(layer).collect();
        let sent = AtomicU64::new(0);
        let orders: [&[usize]; 6] =
            [&[0, 1, 2, 3], &[3, 2, 1, 0], &[2, 3, 4, 5], &[5, 4, 0], &[1, 1, 5], &[0, 1, 2, 3, 4, 5]];
        std::thread::scope(|scope| {
            for order in orders {
                scope.spawn(|| pull(&scratch, &layers, order, &sent).unwrap());
            }
        });
        assert_eq!(sent.into_inner(), layers.iter().map(|(wanted, _)| wanted.size).sum::<u64>());
        assert!(layers.iter().all(|(wanted, _)| wanted.is_there(&scratch.store).unwrap()));
        assert!(partial::list(&scratch.store).unwrap().is_empty() && scratch.is_tidy());
    }

    #[test]
    fn a_blob_that_was_damaged_is_fetched_again() {
        let scratch = Scratch::new(Ids::Root);
        let layers: Vec<_> = (0..2).map(layer).collect();
        let sent = AtomicU64::new(0);
        pull(&scratch, &layers, &[0, 1], &sent).unwrap();
        let all = sent.swap(0, Ordering::Relaxed);
        assert_eq!(all, layers[0].0.size + layers[1].0.size);
        for (wanted, _) in &layers {
            layer::remove(&scratch.store, &wanted.diff_id).unwrap();
        }
        let blob = scratch.store.data.join("blobs/sha256").join(layers[1].0.digest.hex());
        crate::fs::write(&blob, &layers[1].1[..100]).unwrap();
        pull(&scratch, &layers, &[0, 1], &sent).unwrap();
        assert_eq!(sent.into_inner(), layers[1].0.size, "the other was still good");
        assert!(layers.iter().all(|(wanted, _)| wanted.is_there(&scratch.store).unwrap()));
    }

    #[test]
    fn what_is_wrong_names_the_blob_and_leaves_nothing() {
        let scratch = Scratch::new(Ids::Root);
        let (good, bytes) = layer(1);
        let other = layer(2).0;
        let check = |wanted: Wanted, want: &str| {
            let digest = wanted.digest.to_string();
            let error = pull(&scratch, &[(wanted, bytes.clone())], &[0], &AtomicU64::new(0)).unwrap_err();
            let text = crate::error::chain(&error);
            assert!(text.contains(want) && text.contains(&digest), "{text}");
            assert!(partial::list(&scratch.store).unwrap().is_empty() && scratch.is_tidy(), "{text}");
        };
        check(Wanted { digest: other.digest.clone(), ..good.clone() }, "its content has digest");
        check(Wanted { diff_id: other.diff_id.clone(), ..good.clone() }, "its content has digest");
        check(Wanted { compression: Compression::Zstd, ..good.clone() }, "says zstd, but it is gzip");
        check(
            Wanted { compression: Compression::None, ..good.clone() },
            "says not compressed, but it is gzip",
        );
        let twice =
            [(good.clone(), bytes.clone()), (Wanted { diff_id: other.diff_id, ..good }, bytes.clone())];
        let error = pull(&scratch, &twice, &[0, 1], &AtomicU64::new(0)).unwrap_err();
        assert!(error.to_string().contains("two different things"));
    }
}
