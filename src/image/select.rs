//! Which image of an index is wanted: by platform, attestations and other artifacts left aside. Pure.

use anyhow::{Result, bail};

use crate::oci::image::{Descriptor, ImageIndex};

use super::Platform;

/// The image for a platform.
pub fn select<'a>(index: &'a ImageIndex, wanted: &Platform) -> Result<&'a Descriptor> {
    let images: Vec<&Descriptor> = index.manifests().iter().filter(|d| is_image(d)).collect();
    let platform = |d: &Descriptor| d.platform().as_ref().map(Platform::from);
    let best = images.iter().filter_map(|d| Some((fit(wanted, &platform(d)?)?, *d)));
    // Of equals the first, as the specification says.
    if let Some((_, found)) = best.min_by_key(|(fit, _)| *fit) {
        return Ok(found);
    }
    // An index that says nothing of platforms has nothing to choose from.
    if let [only] = images[..]
        && only.platform().is_none()
    {
        return Ok(only);
    }
    let mut there: Vec<String> = images.iter().filter_map(|d| platform(d)).map(|p| p.to_string()).collect();
    there.dedup();
    match there.is_empty() {
        true => bail!("there is no image for {wanted}: the index lists none with a platform"),
        false => bail!("there is no image for {wanted}: there is {}", there.join(", ")),
    }
}

/// Attestations and other artifacts lie in an index like images, with a platform that is none.
pub fn is_image(descriptor: &Descriptor) -> bool {
    let unknown = |p: &crate::oci::image::Platform| p.architecture().to_string() == "unknown";
    let key = "vnd.docker.reference.type";
    let annotated = descriptor.annotations().as_ref().is_some_and(|a| a.contains_key(key));
    !annotated && !descriptor.platform().as_ref().is_some_and(unknown)
}

/// How well an image for `there` does for `wanted`, 0 the best; `None` if not at all. What an older variant runs, a newer
/// one runs too.
pub fn fit(wanted: &Platform, there: &Platform) -> Option<u32> {
    if wanted.os != there.os || wanted.architecture != there.architecture {
        return None;
    }
    let level = |p: &Platform| match &p.variant {
        None => Some(0),
        Some(v) => v.trim_start_matches('v').split('.').next()?.parse::<u32>().ok(),
    };
    match (&wanted.variant, &there.variant) {
        (wanted, there) if wanted == there => Some(0),
        // Any was asked for: the most modest runs everywhere.
        (None, _) => Some(level(there)?.saturating_add(1)),
        (Some(_), _) => level(wanted)?.checked_sub(level(there)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(platforms: &[&str], wanted: &str, want: Result<usize, &str>) {
        let digest = |n: usize| format!("sha256:{}", format!("{n:x}").repeat(64));
        let entry = |(n, text): (usize, &&str)| {
            let mut entry = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7, "digest": digest(n)});
            match text.split('/').collect::<Vec<_>>()[..] {
                [os, arch] => entry["platform"] = json!({"os": os, "architecture": arch}),
                [os, arch, variant] => {
                    entry["platform"] = json!({"os": os, "architecture": arch, "variant": variant});
                }
                _ => {}
            }
            entry
        };
        let manifests: Vec<_> = platforms.iter().enumerate().map(entry).collect();
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        let index: ImageIndex = serde_json::from_value(index).unwrap();
        let found = select(&index, &wanted.parse().unwrap());
        match (found, want) {
            (Ok(found), Ok(n)) => assert_eq!(found.digest().to_string(), digest(n), "{platforms:?} {wanted}"),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, want) => panic!("{platforms:?} {wanted}: {found:?} {want:?}"),
        }
    }

    #[test]
    fn the_best_of_those_that_fit_is_chosen() {
        let usual = ["linux/amd64", "linux/arm/v5", "linux/arm/v7", "linux/arm64/v8", "unknown/unknown"];
        check(&usual, "linux/amd64", Ok(0));
        check(&usual, "linux/arm64", Ok(3));
        check(&usual, "linux/arm/v7", Ok(2));
        check(&usual, "linux/arm/v6", Ok(1));
        check(&usual, "linux/arm", Ok(1));
        check(&usual, "linux/s390x", Err("linux/amd64, linux/arm/v5, linux/arm/v7, linux/arm64"));
        check(&usual, "windows/amd64", Err("no image for windows/amd64"));
        check(&["linux/amd64/v3", "linux/amd64"], "linux/amd64", Ok(1));
        check(&["linux/amd64/v3", "linux/amd64"], "linux/amd64/v2", Ok(1));
        check(&["linux/amd64/v3", "linux/amd64"], "linux/amd64/v4", Ok(0));
        check(&["linux/amd64", "linux/amd64"], "linux/amd64", Ok(0));
    }

    #[test]
    fn an_index_may_say_nothing_of_platforms() {
        check(&["x"], "linux/amd64", Ok(0));
        check(&["x", "y"], "linux/amd64", Err("none with a platform"));
        check(&["unknown/unknown"], "linux/amd64", Err("none with a platform"));
        check(&[], "linux/amd64", Err("none with a platform"));
    }
}
