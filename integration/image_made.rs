//! Images made in memory, byte for byte as the test wants them: manifest, configuration, layers of any size and compression.
//! The same arguments give the same image. Nothing here knows a registry or a store.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::Digest as _;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Bytes with their name.
#[derive(Debug, Clone)]
pub struct Blob {
    pub digest: String,
    pub bytes: Arc<[u8]>,
    pub media_type: String,
}

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A layer: the blob, and the digest of the tar archive inside.
#[derive(Debug, Clone)]
pub struct Layer {
    pub blob: Blob,
    pub diff_id: String,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Image {
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
}

/// `sha256:HEX` of the bytes.
pub fn digest(bytes: &[u8]) -> String {
    digest_by("sha256", bytes)
}

/// `ALGORITHM:HEX` of the bytes.
pub fn digest_by(algorithm: &str, bytes: &[u8]) -> String {
    let hash = match algorithm {
        "sha384" => sha2::Sha384::digest(bytes).to_vec(),
        "sha512" => sha2::Sha512::digest(bytes).to_vec(),
        _ => sha2::Sha256::digest(bytes).to_vec(),
    };
    hash.iter().fold(format!("{algorithm}:"), |text, byte| text + &format!("{byte:02x}"))
}

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// This many bytes, which do not compress.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = Vec::with_capacity(n + 8);
        while bytes.len() < n {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(n);
        bytes
    }
}

impl Blob {
    pub fn new(bytes: impl Into<Arc<[u8]>>, media_type: &str) -> Blob {
        let bytes = bytes.into();
        Blob { digest: digest(&bytes), bytes, media_type: media_type.to_owned() }
    }

    /// The same by another digest.
    pub fn by(&self, algorithm: &str) -> Blob {
        Blob { digest: digest_by(algorithm, &self.bytes), ..self.clone() }
    }

    /// What a manifest says of it.
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }

    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl Layer {
    /// A layer of these files.
    pub fn of_files<'a>(packing: Packing, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Layer {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, bytes).unwrap();
        }
        Layer::of_tar(packing, &tar.into_inner().unwrap())
    }

    /// A layer out of a tar archive, or of what claims to be one.
    pub fn of_tar(packing: Packing, tar: &[u8]) -> Layer {
        let (bytes, suffix) = match packing {
            Packing::Plain => (tar.to_vec(), ""),
            Packing::Gzip => (gzip(tar), "+gzip"),
            Packing::Zstd => (zstd::encode_all(tar, 1).unwrap(), "+zstd"),
        };
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        Layer { blob: Blob::new(bytes, &media_type), diff_id: digest(tar) }
    }

    /// One file `name` of so many bytes that do not compress.
    pub fn random(packing: Packing, name: &str, seed: u64, size: usize) -> Layer {
        let bytes = Random(seed).bytes(size);
        Layer::of_files(packing, [(name, &bytes[..])])
    }

    /// The busybox root of the tests.
    pub fn busybox() -> Layer {
        Layer::of_tar(Packing::Gzip, &std::fs::read(crate::images::busybox()).unwrap())
    }

    /// A gzip stream of a hundredth of a percent: `gib` GiB of zeros in one file. It is of many members (RFC 1952 section
    /// 2.2), so that making it takes no longer than compressing one of them. The digest of the archive is not known.
    pub fn bomb(gib: u64) -> Layer {
        let mut header = tar::Header::new_ustar();
        header.set_path("zeros").unwrap();
        header.set_size(gib << 30);
        header.set_mode(0o644);
        header.set_cksum();
        let member = gzip(&vec![0; 64 << 20]);
        let mut bytes = gzip(header.as_bytes());
        (0..gib * 16).for_each(|_| bytes.extend(&member));
        bytes.extend(gzip(&[0; 1024]));
        let blob = Blob::new(bytes, "application/vnd.oci.image.layer.v1.tar+gzip");
        Layer { blob, diff_id: digest(b"not known") }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Image {
    /// An image of these layers for this machine's platform.
    pub fn new(layers: &[Layer]) -> Image {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Image::for_platform(layers, architecture)
    }

    /// The same for another architecture of Linux.
    pub fn for_platform(layers: &[Layer], architecture: &str) -> Image {
        let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": { "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = Blob::new(config.to_string().into_bytes(), OCI_CONFIG);
        let layers: Vec<Blob> = layers.iter().map(|l| l.blob.clone()).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        Image { manifest: Blob::new(manifest.to_string().into_bytes(), OCI_MANIFEST), config, layers }
    }

    /// Small, and another for every seed: so many layers of so many bytes each, of all packings in turn.
    pub fn small(seed: u64, n_layers: usize, size: usize) -> Image {
        let packings = [Packing::Gzip, Packing::Zstd, Packing::Plain];
        let layer = |n: usize| {
            let seed = seed.wrapping_mul(1000).wrapping_add(n as u64);
            Layer::random(packings[n % 3], &format!("file{n}"), seed, size)
        };
        Image::new(&(0..n_layers).map(layer).collect::<Vec<_>>())
    }

    /// The same image with everything but the diff ids by other digests.
    pub fn by(&self, algorithm: &str) -> Image {
        let config = self.config.by(algorithm);
        let layers: Vec<Blob> = self.layers.iter().map(|layer| layer.by(algorithm)).collect();
        let image = self.with_manifest(|m| {
            m["config"] = config.descriptor();
            m["layers"] = layers.iter().map(Blob::descriptor).collect();
        });
        Image { manifest: image.manifest.by(algorithm), config, layers }
    }

    /// The same image with another manifest: `edit` changes what it says.
    pub fn with_manifest(&self, edit: impl FnOnce(&mut Value)) -> Image {
        let mut manifest: Value = serde_json::from_slice(&self.manifest.bytes).unwrap();
        edit(&mut manifest);
        let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
        let manifest = Blob::new(manifest.to_string().into_bytes(), &media_type);
        Image { manifest, ..self.clone() }
    }

    /// The same as Docker's schema 2.
    pub fn as_docker(&self) -> Image {
        self.with_manifest(|m| {
            m["mediaType"] = DOCKER_MANIFEST.into();
            m["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
            for layer in m["layers"].as_array_mut().unwrap() {
                layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
            }
        })
    }

    /// An index of these images by architecture.
    pub fn index(images: &[(&str, &Image)]) -> Blob {
        let entry = |(architecture, image): &(&str, &Image)| {
            let mut entry = image.manifest.descriptor();
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            entry
        };
        let manifests: Vec<Value> = images.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        Blob::new(index.to_string().into_bytes(), OCI_INDEX)
    }

    /// Everything but the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}
