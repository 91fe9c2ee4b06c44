//! Manifests with other words than they came with: in the specification's words where they were in docker's, or with other
//! layers. What is not touched stays as it was and where it was; the result has another digest all the same.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::manifest;
use super::manifest::LayerEntry;

const OCI_FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// A manifest in the specification's words; one that is so already comes back byte for byte.
pub fn to_oci(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut document = object(bytes)?;
    if !is_docker(&document) {
        return Ok(bytes.to_vec());
    }
    translate(&mut document)?;
    Ok(Value::Object(document).to_string().into_bytes())
}

/// The manifest with these layers in the place of its own, where they differ, in the specification's words.
pub fn with_layers(bytes: &[u8], layers: &[LayerEntry]) -> Result<Vec<u8>> {
    let mut document = object(bytes)?;
    translate(&mut document)?;
    let Some(own) = document.get_mut("layers").and_then(Value::as_array_mut) else {
        bail!("cannot read the manifest: it has no layers");
    };
    if own.len() != layers.len() {
        bail!("cannot change the manifest: it has {} layers, not {}", own.len(), layers.len());
    }
    for (own, new) in own.iter_mut().zip(layers) {
        if own["digest"] != new.digest.to_string() {
            own["mediaType"] = json!(new.media_type);
            own["digest"] = json!(new.digest.to_string());
            own["size"] = json!(new.size);
        }
    }
    Ok(Value::Object(document).to_string().into_bytes())
}

/// Whether a layer of this media type is not to be shipped, but to be had from where its `urls` say.
pub fn is_foreign(media_type: &str) -> bool {
    media_type.starts_with(OCI_FOREIGN) || media_type.starts_with(DOCKER_FOREIGN)
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).context("cannot read the manifest")
}

fn is_docker(document: &Map<String, Value>) -> bool {
    document.get("mediaType").and_then(Value::as_str) == Some(manifest::DOCKER_MANIFEST)
}

fn translate(document: &mut Map<String, Value>) -> Result<()> {
    document.insert("mediaType".to_owned(), json!(manifest::MANIFEST));
    let config = document.get_mut("config").context("cannot read the manifest: it has no config")?;
    if config["mediaType"] == DOCKER_CONFIG {
        config["mediaType"] = json!(manifest::CONFIG);
    }
    for layer in document.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(media_type) = layer["mediaType"].as_str() else { continue };
        let translated = match media_type.strip_prefix(DOCKER_FOREIGN) {
            Some(".gzip") => format!("{OCI_FOREIGN}+gzip"),
            Some(_) => OCI_FOREIGN.to_owned(),
            // A layer of another kind is as good as it was.
            None => manifest::oci_layer(media_type).unwrap_or(media_type).to_owned(),
        };
        layer["mediaType"] = json!(translated);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn layer(text: &[u8]) -> LayerEntry {
        LayerEntry { media_type: manifest::LAYER_GZIP.to_owned(), digest: Digest::of(text), size: 5 }
    }

    #[test]
    fn the_specifications_words_are_left_alone() {
        let bytes = br#"{ "schemaVersion": 2, "config": {}, "layers": [] }"#;
        assert_eq!(to_oci(bytes).unwrap(), bytes);
        assert!(to_oci(b"[]").is_err());
    }

    #[test]
    fn dockers_words_are_translated() {
        let docker = json!({
            "schemaVersion": 2, "mediaType": manifest::DOCKER_MANIFEST,
            "config": {"mediaType": DOCKER_CONFIG, "size": 1, "digest": "d"},
            "layers": [
                {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 2, "digest": "e"},
                {"mediaType": format!("{DOCKER_FOREIGN}.gzip"), "size": 2, "digest": "f", "urls": ["u"]},
            ],
            "annotations": {"a": "b"},
        });
        let found: Value = serde_json::from_slice(&to_oci(docker.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(found["mediaType"], manifest::MANIFEST);
        assert_eq!(found["config"], json!({"mediaType": manifest::CONFIG, "size": 1, "digest": "d"}));
        assert_eq!(found["layers"][0]["mediaType"], manifest::LAYER_GZIP);
        assert_eq!(found["layers"][1]["mediaType"], format!("{OCI_FOREIGN}+gzip"));
        assert_eq!(found["layers"][1]["urls"], json!(["u"]));
        assert_eq!(found["annotations"], json!({"a": "b"}));
        assert!(is_foreign(found["layers"][1]["mediaType"].as_str().unwrap()));
    }

    #[test]
    fn only_layers_that_differ_are_replaced() {
        let old = manifest::build(b"{}", &[layer(b"1"), layer(b"2")]);
        assert_eq!(with_layers(&old, &[layer(b"1"), layer(b"2")]).unwrap(), old);
        let new = with_layers(&old, &[layer(b"1"), layer(b"3")]).unwrap();
        assert_eq!(new, manifest::build(b"{}", &[layer(b"1"), layer(b"3")]));
        assert!(with_layers(&old, &[layer(b"1")]).is_err());
    }
}
