//! Which of the paths of /proc and /sys that are hidden, or read-only, by default stay so (`--security-opt unmask`). Pure.

use super::Options;

/// Those of `paths` that nobody asked to leave as they are.
pub(super) fn paths(paths: Vec<String>, options: &Options) -> Vec<String> {
    if options.privileged || options.unmask {
        return Vec::new();
    }
    let is_unmasked = |path: &String| options.unmasked.iter().any(|pattern| fits(pattern, path));
    paths.into_iter().filter(|path| !is_unmasked(path)).collect()
}

/// Whether a path fits a pattern, name by name: `*` is any text and `?` any character, without a slash.
pub fn fits(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut names) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), names.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if name_fits(pattern.as_bytes(), name.as_bytes()) => {}
            _ => return false,
        }
    }
}

fn name_fits(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on when what follows the last star does not fit: one character further.
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(c) if *c == b'?' || *c == name[from] => (at, from) = (at + 1, from + 1),
            _ => match star {
                Some((star_at, taken)) => {
                    star = Some((star_at, taken + 1));
                    (at, from) = (star_at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_names() {
        for (pattern, path, want) in [
            ("/proc/kcore", "/proc/kcore", true),
            ("/proc/kcore", "/proc/kcore2", false),
            ("/proc/*", "/proc/kcore", true),
            ("/proc/*", "/proc", false),
            ("/*", "/proc/kcore", false),
            ("/proc/s*s", "/proc/scsi/x", false),
            ("/proc/?csi", "/proc/scsi", true),
            ("/proc/*c*i", "/proc/scsi", true),
            ("/proc/**", "/proc/sys", true),
            ("", "/proc", false),
            ("*****************************x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(fits(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_named_is_left_alone() {
        let all = || vec!["/proc/kcore".to_owned(), "/sys/firmware".to_owned()];
        let left = |options: Options| paths(all(), &options);
        assert_eq!(left(Options::default()), all());
        assert_eq!(
            left(Options { unmasked: vec!["/proc/*".into()], ..Options::default() }),
            ["/sys/firmware"]
        );
        assert!(left(Options { unmask: true, ..Options::default() }).is_empty());
        assert!(left(Options { privileged: true, ..Options::default() }).is_empty());
    }
}
