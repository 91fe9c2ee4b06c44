//! What a registry says of what it sends: sizes and media types that are not so are errors at once, which name what they
//! are about.

use crate::hostile_registry::{Deed, Hostile};
use crate::image_made::{Image, Layer, Packing};
use crate::registry_bad_days::{recovers, refused};
use crate::sandbox::Sandbox;

for_root!(sizes_are_told_at_once, media_types_of_manifests, media_types_in_manifests);

fn sizes_are_told_at_once(s: &Sandbox) {
    let registry = Hostile::start();
    for (n, packing) in [Packing::Gzip, Packing::Zstd, Packing::Plain].into_iter().enumerate() {
        let image = Image::new(&[Layer::random(packing, "f", n as u64, 50_000)]);
        let (layer, config) = (&image.layers[0], &image.config);
        for off in [-100, -1, 1, 1000] {
            let check = |name: &str, image: &Image, digest: &str, size: u64| {
                registry.put(name, "v1", image);
                registry.forget();
                let (is, said) = (format!("has {size} bytes"), format!("not {}", size as i64 + off));
                refused(s, &registry.name(&format!("{name}:v1")), &[digest, &is, &said]);
                let asked = registry.count(|r| r.is_blob() && r.path.ends_with(digest));
                assert_eq!(asked, 1, "no use in asking again: {:?}", registry.seen());
            };
            let said = |size: u64| serde_json::json!(size as i64 + off);
            let lies = image.with_manifest(|m| m["layers"][0]["size"] = said(layer.len()));
            check(&format!("layer{n}"), &lies, &layer.digest, layer.len());
            let lies = image.with_manifest(|m| m["config"]["size"] = said(config.len()));
            check(&format!("config{n}"), &lies, &config.digest, config.len());
        }
        // A part of it is there already: then the answer to a Range tells.
        let short = image.with_manifest(|m| m["layers"][0]["size"] = (layer.len() + 1000).into());
        registry.put("range", "v1", &short);
        let reference = registry.name("range:v1");
        let of_layer = layer.clone();
        registry.behave(move |r| match r.is_of(&of_layer) && r.nth == 0 {
            // Without a length, so that only the end tells.
            true => Deed::cut(20_000).header("Content-Length", ""),
            false => Deed::serve(),
        });
        registry.forget();
        refused(s, &reference, &[&layer.digest, &format!("has {} bytes", layer.len())]);
        let asked = registry.count(|r| r.is_of(layer));
        assert_eq!(asked, 2, "{:?}", registry.seen());
        // And where all of it is there.
        let of_layer = layer.clone();
        registry.behave(move |r| match r.is_of(&of_layer) && r.nth == 0 {
            true => Deed::cut(of_layer.len()).header("Content-Length", ""),
            false => Deed::serve(),
        });
        registry.forget();
        refused(s, &reference, &[&layer.digest, &format!("{} ", layer.len())]);
        assert!(registry.count(|r| r.is_of(layer)) <= 3, "{:?}", registry.seen());
        registry.behave(|_| Deed::serve());
    }
}

fn media_types_of_manifests(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 1, 1000);
    registry.put("typed", "v1", &image);
    let reference = registry.name("typed:v1");
    for lie in ["text/html", "application/xml", "application/vnd.oci.image.config.v1+json", "junk"] {
        registry.behave(move |r| match r.is_manifest() {
            true => Deed::serve().header("Content-Type", lie),
            false => Deed::serve(),
        });
        refused(s, &reference, &["typed:v1", lie]);
    }
    // What says nothing is no lie.
    for (n, said) in ["", "application/json", "application/octet-stream", "text/plain; charset=utf-8"]
        .into_iter()
        .enumerate()
    {
        let name = format!("said{n}");
        registry.put(&name, "v1", &image);
        registry.behave(move |r| match r.is_manifest() {
            true => Deed::serve().header("Content-Type", said),
            false => Deed::serve(),
        });
        s.dhow(["pull", "-q", &registry.name(&format!("{name}:v1"))]).ok();
    }
    recovers(s, &registry, &reference);
}

fn media_types_in_manifests(s: &Sandbox) {
    let registry = Hostile::start();
    let image = Image::small(1, 1, 1000);
    for (n, lie) in ["text/html", "application/vnd.oci.image.layer.v1.tar"].into_iter().enumerate() {
        let mut lies = image.with_manifest(|m| m["mediaType"] = lie.into());
        lies.manifest.media_type = crate::image_made::OCI_MANIFEST.to_owned();
        let name = format!("inside{n}");
        registry.put(&name, "v1", &lies);
        refused(s, &registry.name(&format!("{name}:v1")), &[&name, lie]);
    }
}
