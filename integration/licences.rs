//! The licences of what is linked in: each must allow a binary under Apache-2.0. Asks cargo's own metadata, offline.

use std::process::Command;

use serde_json::Value;

/// What may be linked in. MPL-2.0 is copyleft for its own files only; CDLA-Permissive-2.0 covers root certificates.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression is met by the allowed licences: one side of each OR, every side of each AND.
fn is_allowed(expression: &str) -> bool {
    // Old manifests write `MIT/Apache-2.0` for OR. OR binds weaker than AND; parentheses are taken from the inside out.
    let mut text = expression.replace('/', " OR ");
    while let Some(open) = text.rfind('(') {
        let Some(length) = text[open..].find(')') else { return false };
        let inner = if is_allowed_flat(&text[open + 1..open + length]) { "MIT" } else { "none" };
        text.replace_range(open..=open + length, inner);
    }
    is_allowed_flat(&text)
}

fn is_allowed_flat(text: &str) -> bool {
    text.split(" OR ").any(|any| any.split(" AND ").all(|all| ALLOWED.contains(&all.trim())))
}

#[test]
fn expressions() {
    let check = |text: &str, expected: bool| assert_eq!(is_allowed(text), expected, "{text}");
    check("MIT", true);
    check("MIT/Apache-2.0", true);
    check("GPL-3.0", false);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0 AND MIT", false);
    check("(MIT OR GPL-3.0) AND Unicode-3.0", true);
    check("(LGPL-2.1 OR GPL-3.0) AND Unicode-3.0", false);
    check("MIT AND (ISC", false);
    check("Apache-2.0 WITH LLVM-exception OR Apache-2.0", true);
    check("", false);
}

#[test]
fn of_every_dependency_are_allowed() {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 10, "cargo metadata lists {} packages", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|p| !is_allowed(p["license"].as_str().unwrap_or_default()))
        .map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"]))
        .collect();
    assert!(refused.is_empty(), "licences that are not on the list:\n{}", refused.join("\n"));
}
