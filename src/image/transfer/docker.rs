//! A docker archive as a target: every layer is decompressed on the way, and found to be what the config says.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::event::{Event, Pushing, Sink};
use crate::image::compression;
use crate::image::compression::Windows;
use crate::image::manifest;
use crate::image::manifest::LayerEntry;
use crate::image::save;
use crate::oci::Digest;
use crate::oci::Reference;
use crate::registry::Manifest;
use crate::store::image::{Document, parse_config};

use super::archive_file::ArchiveFile;
use super::fetch::{Hashed, Verified};
use super::read_manifest;
use super::source::Source;

/// Writes one image as docker 25 and later do, which is an OCI layout too. Returns the digest of its manifest in there.
pub(super) fn write(
    source: &Source<'_>,
    image: &Manifest,
    (path, name): (&Path, Option<&Reference>),
    windows: &Windows,
    events: Sink<'_>,
) -> Result<Digest> {
    let parsed = read_manifest(image)?;
    let config = source.config(&manifest::digest(parsed.config())?, parsed.config().size())?;
    let (_, diff_ids) = parse_config(&config.bytes).context("cannot read the config")?;
    if diff_ids.len() != parsed.layers().len() {
        bail!("its manifest has {} layers, its config {}", parsed.layers().len(), diff_ids.len());
    }
    let archive = ArchiveFile::create(path)?;
    let mut layers: Vec<LayerEntry> = Vec::new();
    for (descriptor, diff_id) in parsed.layers().iter().zip(diff_ids) {
        let digest = manifest::digest(descriptor)?;
        let size = match layers.iter().find(|l| l.digest == diff_id.0) {
            Some(same) => same.size,
            None => layer(source, &archive, &digest, descriptor.size(), &diff_id.0, windows)
                .with_context(|| format!("cannot copy blob {digest}"))?,
        };
        layers.push(LayerEntry { media_type: manifest::LAYER_TAR.to_owned(), digest: diff_id.0, size });
        events(Event::Pushing { what: digest.short().to_owned(), state: Pushing::Pushed });
    }
    let manifest = Document::of(manifest::build(&config.bytes, &layers));
    // As the manifest names it.
    let config = Document::of(config.bytes);
    for Document { digest, bytes } in [&config, &manifest] {
        let member = format!("blobs/{}", digest.path());
        archive.member(&member, bytes.len() as u64, bytes.as_slice())?;
    }
    let digest = manifest.digest.clone();
    let saved = save::Saved { names: name.cloned().into_iter().collect(), manifest, config, layers };
    for (name, bytes) in save::documents(&[saved], save::Format::DockerArchive) {
        archive.member(name, bytes.len() as u64, bytes.as_slice())?;
    }
    archive.finish()?;
    Ok(digest)
}

/// Writes a layer's tar; returns its size.
fn layer(
    source: &Source<'_>,
    archive: &ArchiveFile,
    digest: &Digest,
    size: u64,
    diff_id: &Digest,
    windows: &Windows,
) -> Result<u64> {
    let mut packed = Verified::new(source.blob(digest, 0)?, digest, size);
    let mut hashed = Hashed::new(std::io::sink(), diff_id.algorithm());
    let (_, tar) = compression::decompress(&mut packed, windows)?;
    let member = format!("blobs/{}", diff_id.path());
    let written = archive.measured(&member, Tee { input: tar, copy: &mut hashed })?;
    // What a decompressor leaves over belongs to the blob all the same.
    std::io::copy(&mut packed, &mut std::io::sink())?;
    let (_, found, _) = hashed.end();
    if found != *diff_id {
        bail!("its content has digest {found}, not {diff_id}");
    }
    Ok(written)
}

/// Reads, and writes what was read.
struct Tee<'a, R, W> {
    input: R,
    copy: &'a mut W,
}

impl<R: Read, W: std::io::Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.copy.write_all(&buffer[..n])?;
        Ok(n)
    }
}
