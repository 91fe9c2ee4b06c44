//! The promise of one file: the binary needs nothing but the kernel.

use std::process::Command;

use crate::sandbox::dhow;

#[test]
fn ldd_says_not_dynamic() {
    let output = Command::new("ldd").arg(dhow()).output().expect("ldd is in libc-bin");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let is_static = said.contains("not a dynamic executable") || said.contains("statically linked");
    assert!(is_static, "ldd {}: {said}", dhow().display());
}

#[test]
fn there_is_no_interpreter() {
    let bytes = std::fs::read(dhow()).unwrap();
    let loader = b"/ld-linux";
    // The path of the dynamic loader stands in PT_INTERP, within the first page.
    assert!(
        !bytes[..4096].windows(loader.len()).any(|w| w == loader),
        "the binary asks for a dynamic loader"
    );
}
