//! Getting one layer of an image: its bytes are fetched, hashed, decompressed and unpacked as one stream.
//!
//! One that comes packed goes to a partial, which becomes its blob, and is unpacked behind the writer's back. One that
//! comes as it is is unpacked and nothing else: see `store::layer::remnant` for what is left of it by an interruption.

use std::io::Read;

use anyhow::{Context, Result, bail};

use crate::error::is_disk_full;
use crate::event::Pulling;
use crate::store::Store;
use crate::store::blob;
use crate::store::layer;
use crate::store::layer::remnant::{self, Remnant};
use crate::store::partial::Partial;

use super::compression;
use super::compression::{Compression, Windows};
use super::download::{Follower, Mark, WrongDigest, download};
use super::fetch::{Fetch, Open, Stop, Stopped};
use super::layers::{Got, OpenLayer, Wanted};
use super::parallel::Progress;
use super::places::Places;
use super::telling::{Teller, Told};

/// What the threads share.
pub(super) struct Shared<'a> {
    pub(super) store: &'a Store,
    pub(super) open: OpenLayer<'a>,
    pub(super) stop: Stop,
    pub(super) unpackers: Places,
    pub(super) windows: Windows,
}

/// Gets a layer that the store lacks, by its partial.
pub(super) fn get_one(
    shared: &Shared<'_>,
    layer: &Wanted,
    partial: Partial,
    progress: &Progress,
) -> Result<Got> {
    let about = || format!("cannot use blob {}", layer.digest);
    if layer.is_plain() {
        let unpacked = get_plain(shared, layer, &partial, progress).with_context(about)?;
        return Ok(Got { layers: vec![unpacked], blobs: Vec::new(), held: vec![partial] });
    }
    if let Some(file) = blob::open(shared.store, &layer.digest)? {
        let _place = shared.unpackers.take();
        match unpack(shared, layer, Told::new(file, layer, progress)) {
            Err(_) if blob::verify(shared.store, &layer.digest).is_err() => {
                blob::remove(shared.store, &layer.digest)?
            }
            unpacked => {
                let layers = vec![unpacked.with_context(about)?];
                return Ok(Got { layers, blobs: Vec::new(), held: vec![partial] });
            }
        }
    }
    // What is there already is not known to be right: a power cut may have left holes, an earlier registry lies.
    let is_suspect = !partial.is_empty()?;
    let unpacked = match get_packed(shared, layer, &partial, progress) {
        Err(error) if is_suspect && error.is::<WrongDigest>() => {
            partial.clear()?;
            get_packed(shared, layer, &partial, progress)
        }
        other => other,
    };
    match unpacked {
        Ok(unpacked) => {
            let sealed = partial.seal(layer.size)?;
            Ok(Got { layers: vec![unpacked], blobs: vec![sealed], held: Vec::new() })
        }
        Err(error) => {
            // Bytes that are whole and wrong, or right and no layer, are of no use to the next one either.
            if partial.len()? == layer.size && !error.is::<Stopped>() {
                partial.clear()?;
            }
            Err(error)
        }
    }
}

/// A layer whose bytes go to a partial, and from there to the unpacker.
fn get_packed(
    shared: &Shared<'_>,
    layer: &Wanted,
    partial: &Partial,
    progress: &Progress,
) -> Result<layer::Unpacked> {
    let mark = Mark::default();
    let open = |from| (shared.open)(layer, from);
    let (downloaded, unpacked) = std::thread::scope(|scope| {
        let fetching = std::thread::Builder::new().spawn_scoped(scope, || {
            let mut teller = Teller::new(layer, progress);
            let mut tell = |done| teller.tell(|total| Pulling::Downloading { done, total });
            download(partial, layer.size, &open, &shared.stop, &mark, &mut tell)?;
            let _ = progress.send(layer.event(Pulling::Downloaded));
            anyhow::Ok(())
        });
        let fetching = match fetching {
            Ok(fetching) => fetching,
            Err(error) => return (Err(error).context("cannot start a thread"), Err(Stopped.into())),
        };
        let unpacked = {
            let _place = shared.unpackers.take();
            unpack(shared, layer, Told::new(Follower::new(partial.file(), &mark), layer, progress))
        };
        if unpacked.as_ref().is_err_and(is_disk_full) {
            // No need to see the rest; the others cannot go on either.
            shared.stop.set();
        }
        (fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), unpacked)
    });
    let about = || format!("cannot use blob {}", layer.digest);
    match (downloaded, unpacked) {
        (Ok(()), unpacked) => unpacked.with_context(about),
        (Err(stopped), Err(error)) if stopped.is::<Stopped>() && is_disk_full(&error) => {
            Err(error).with_context(about)
        }
        // That wrong bytes cannot be unpacked is no news.
        (Err(error), _) => Err(error),
    }
}

/// A layer whose bytes are not kept: they go straight to the unpacker.
fn get_plain(
    shared: &Shared<'_>,
    layer: &Wanted,
    partial: &Partial,
    progress: &Progress,
) -> Result<layer::Unpacked> {
    let _place = shared.unpackers.take();
    let remnant = remnant::take(partial)?;
    let is_suspect = remnant.is_some();
    match unpack_plain(shared, layer, partial, remnant, progress) {
        Ok(unpacked) => Ok(unpacked),
        // What is there is gone on with by the next one.
        Err(Ended::Cut(error)) => Err(error),
        Err(Ended::Wrong(error)) => {
            partial.clear()?;
            if !is_suspect || is_disk_full(&error) {
                return Err(error);
            }
            let again = unpack_plain(shared, layer, partial, None, progress);
            again.map_err(|(Ended::Cut(error) | Ended::Wrong(error))| error)
        }
    }
}

/// Why a layer was not unpacked.
enum Ended {
    /// The registry gave no more.
    Cut(anyhow::Error),
    /// It cannot be unpacked, or it is not what it should be.
    Wrong(anyhow::Error),
}

fn unpack_plain(
    shared: &Shared<'_>,
    layer: &Wanted,
    partial: &Partial,
    remnant: Option<Remnant>,
    progress: &Progress,
) -> Result<layer::Unpacked, Ended> {
    let open = |from| (shared.open)(layer, from);
    let open: Open<'_> = &open;
    // One that is longer than the whole is not what it is called, and will be found to be so.
    let from = remnant.as_ref().map_or(0, Remnant::length).min(layer.size);
    let mut fetch = Fetch::new(&layer.digest, layer.size, from, open, &shared.stop);
    let bytes: Box<dyn Read + Send> = match remnant {
        Some(remnant) => Box::new(remnant.chain(&mut fetch)),
        None => Box::new(&mut fetch),
    };
    let tar = tar_of(shared, layer, Told::new(bytes, layer, progress));
    let unpacked = tar.and_then(|tar| layer::extract_beside(shared.store, tar, partial));
    match (fetch.error(), unpacked) {
        (Some(error), _) => Err(Ended::Cut(error)),
        (None, Err(error)) => Err(Ended::Wrong(error)),
        (None, Ok(unpacked)) => {
            partial.clear_remnant().map_err(Ended::Wrong)?;
            Ok(unpacked)
        }
    }
}

fn unpack(shared: &Shared<'_>, layer: &Wanted, packed: impl Read + Send) -> Result<layer::Unpacked> {
    layer::extract(shared.store, tar_of(shared, layer, packed)?, Some(&layer.diff_id))
}

fn tar_of<'r>(
    shared: &Shared<'_>,
    layer: &Wanted,
    packed: impl Read + Send + 'r,
) -> Result<Box<dyn Read + Send + 'r>> {
    let (compression, tar) = compression::decompress(packed, &shared.windows)?;
    if compression != layer.compression {
        bail!("its media type says {}, but it is {}", named(layer.compression), named(compression));
    }
    Ok(tar)
}

fn named(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "not compressed",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Ids;
    use crate::image::fetch::Opened;
    use crate::image::layers;
    use crate::oci::{DiffId, Digest};
    use crate::store::image;
    use crate::store::partial;
    use crate::store::pin::Pins;
    use crate::store::tests::Scratch;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A layer that comes as it is: large and small files, one that is replaced, a link.
    fn plain() -> (Wanted, Vec<u8>) {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, size: usize| {
            let mut header = tar::Header::new_ustar();
            header.set_size(size as u64);
            header.set_mode(0o644);
            let content: Vec<u8> = (0..size).map(|n| (n * n % 251) as u8).collect();
            tar.append_data(&mut header, name, &content[..]).unwrap();
        };
        add("large", 3_000_000);
        add("again", 5000);
        (0..300).for_each(|n| add(&format!("dir/small{n}"), 7777));
        add("again", 2_000_000);
        add("last", 3_000_000);
        let mut link = tar::Header::new_ustar();
        link.set_entry_type(tar::EntryType::Link);
        link.set_size(0);
        tar.append_link(&mut link, "linked", "large").unwrap();
        let tar = tar.into_inner().unwrap();
        let digest = Digest::of(&tar);
        let wanted = Wanted {
            digest: digest.clone(),
            size: tar.len() as u64,
            diff_id: DiffId(digest),
            compression: Compression::None,
            urls: Vec::new(),
        };
        (wanted, tar)
    }

    /// A pull from a registry that is gone after the first `there` bytes; returns how many it sent, and what became of it.
    fn pull(scratch: &Scratch, wanted: &Wanted, bytes: &[u8], there: usize) -> (u64, Result<()>) {
        let store = &scratch.store;
        let pins = Pins::new(store).unwrap();
        pins.hold(store, &wanted.digest).unwrap();
        let sent = AtomicU64::new(0);
        let open = |_: &Wanted, from: u64| {
            let rest =
                bytes[..there].get(from as usize..).filter(|rest| !rest.is_empty() || there == bytes.len());
            let rest = rest.context("the registry is gone")?.to_vec();
            sent.fetch_add(rest.len() as u64, Ordering::Relaxed);
            Ok(Opened { from, total: Some(wanted.size), body: Box::new(std::io::Cursor::new(rest)) })
        };
        let got = layers::get(store, vec![wanted.clone()], &open, &mut |_| {});
        let published =
            got.and_then(|Got { layers, blobs, held: _held }| image::publish_parts(store, blobs, layers));
        (sent.into_inner(), published)
    }

    fn is_whole(scratch: &Scratch, wanted: &Wanted, bytes: &[u8]) {
        let mut out = Vec::new();
        layer::write_tar(&scratch.store, &wanted.diff_id, &mut out).unwrap();
        assert!(out == bytes);
        let left = crate::fs::read_dir(&scratch.store.data.join("partial")).unwrap();
        assert!(left.is_empty() && scratch.is_tidy(), "{left:?}");
    }

    #[test]
    fn what_came_of_a_plain_layer_does_not_come_again() {
        let (wanted, bytes) = plain();
        let scratch = Scratch::new(Ids::Root);
        let mut had = 0;
        // In the middle of a file, of the small ones, and of one that replaces another.
        for there in [1_500_000, 4_500_000, 6_500_000] {
            let (sent, end) = pull(&scratch, &wanted, &bytes, there);
            assert!(crate::error::chain(&end.unwrap_err()).contains("gone"));
            assert!(sent <= there as u64 - had, "{sent} bytes were sent, {had} were there");
            assert_eq!(partial::list(&scratch.store).unwrap(), std::slice::from_ref(&wanted.digest));
            let partial = partial::claim(&scratch.store, &wanted.digest).unwrap().unwrap();
            let remnant = remnant::take(&partial).unwrap().unwrap();
            // What was read ahead when the stream broke, and what was not yet written out.
            assert!(remnant.length() + (128 << 10) > there as u64, "{there}: {}", remnant.length());
            had = remnant.length();
            let mut read = Vec::new();
            { remnant }.read_to_end(&mut read).unwrap();
            assert!(read == bytes[..had as usize], "{there}");
        }
        let (sent, end) = pull(&scratch, &wanted, &bytes, bytes.len());
        end.unwrap();
        assert_eq!(sent, wanted.size - had);
        is_whole(&scratch, &wanted, &bytes);
    }

    #[test]
    fn what_was_damaged_meanwhile_is_fetched_again() {
        let (wanted, bytes) = plain();
        let scratch = Scratch::new(Ids::Root);
        let split = |ending: &str| format!("partial/{}.{ending}/split", wanted.digest.hex());
        let damages: [&dyn Fn(&str); 3] = [
            &|tree| crate::fs::write(&scratch.store.data.join(tree).join("diff/large"), b"other").unwrap(),
            &|tree| crate::fs::write(&scratch.store.data.join(tree).join("split"), b"").unwrap(),
            &|tree| {
                let large = scratch.store.data.join(tree).join("diff/large");
                let mut content = crate::fs::read(&large).unwrap();
                content[77] ^= 1;
                crate::fs::write(&large, &content).unwrap();
            },
        ];
        for damage in damages {
            let (_, end) = pull(&scratch, &wanted, &bytes, 5_000_000);
            assert!(end.is_err() && scratch.store.data.join(split("tree")).exists());
            damage(split("tree").strip_suffix("/split").unwrap());
            pull(&scratch, &wanted, &bytes, bytes.len()).1.unwrap();
            is_whole(&scratch, &wanted, &bytes);
            layer::remove(&scratch.store, &wanted.diff_id).unwrap();
        }
        // What nobody goes on with is swept, and counted.
        let (_, end) = pull(&scratch, &wanted, &bytes, 5_000_000);
        assert!(end.is_err());
        assert_eq!(partial::sweep(&scratch.store, partial::KEPT).unwrap(), 0);
        assert!(partial::sweep(&scratch.store, std::time::Duration::ZERO).unwrap() > 3_000_000);
        assert!(crate::fs::read_dir(&scratch.store.data.join("partial")).unwrap().is_empty());
    }
}
