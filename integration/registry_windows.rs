//! zstd layers with windows as large as anybody takes: they are unpacked in the same memory as all others, by pull, load and
//! import, and what nobody takes is refused.

use std::io::Write;

use crate::hostile_registry::Hostile;
use crate::image_made::{Blob, Image, Layer, Random, digest};
use crate::registry_bad_days::{is_whole, measured, pull, refused};
use crate::sandbox::Sandbox;

for_root!(windows_of_128_mebibytes, windows_that_nobody_takes);
for_rootless!(one_window_of_128_mebibytes);

/// A layer of `mebibytes`, which repeats only at a quarter of that, in a frame that wants a window of two to the `log`.
fn layer(name: &str, seed: u64, mebibytes: usize, log: u32) -> Layer {
    let content = Random(seed).bytes(mebibytes << 18).repeat(4);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, &content[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    drop(content);
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(log).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(&tar).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(packed.len() < tar.len() / 2, "it refers back");
    let diff_id = digest(&tar);
    Layer { blob: Blob::new(packed, "application/vnd.oci.image.layer.v1.tar+zstd"), diff_id }
}

/// Every command that unpacks is `measured`: it may take no more memory than a pull of anything else.
fn windows_of_128_mebibytes(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::new(&[layer("a", 1, 136, 27), layer("b", 2, 136, 27), layer("c", 3, 136, 27)]);
    registry.put("windows", "v1", &image);
    let name = registry.name("windows:v1");
    pull(s, &name).exits(0);
    is_whole(s);
    measured(s, s.dhow(["image", "copy", "-q", &format!("docker://{name}"), "oci-archive:a.tar:v1"]))
        .exits(0);
    s.dhow(["rmi", &name]).ok();
    measured(s, s.dhow(["load", "-q", "-i", "a.tar"])).exits(0);
    is_whole(s);
    std::fs::write(s.work.join("layer.tar.zst"), &image.layers[0].bytes).unwrap();
    measured(s, s.dhow(["import", "layer.tar.zst", "imported"])).exits(0);
    let found = s.inspect("imported", "{{index .RootFS.Layers 0}}");
    let config: serde_json::Value = serde_json::from_slice(&image.config.bytes).unwrap();
    assert_eq!(found, config["rootfs"]["diff_ids"][0].as_str().unwrap());
}

fn one_window_of_128_mebibytes(s: &Sandbox) {
    let registry = Hostile::start();
    registry.put("windows", "v1", &Image::new(&[layer("a", 1, 136, 27)]));
    pull(s, &registry.name("windows:v1")).exits(0);
    is_whole(s);
}

fn windows_that_nobody_takes(s: &Sandbox) {
    // A frame's header asks for a window of 1 GiB (RFC 8878, section 3.1.1.1.2), which no more than these bytes follow.
    let bytes = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 20 << 3][..], &[1, 0, 0]].concat();
    let blob = Blob::new(bytes, "application/vnd.oci.image.layer.v1.tar+zstd");
    let registry = Hostile::start();
    let image = Image::new(&[Layer { diff_id: digest(b""), blob: blob.clone() }]);
    registry.put("huge", "v1", &image);
    refused(s, &registry.name("huge:v1"), &[&blob.digest, "too much memory"]);
}
