//! What a virtual machine is given: dhow, the busybox image, a disk, scripts. And how its console is read: a script
//! says `== NAME` in front of each part of what it does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::capability;
use crate::images::{self, Dir};
use crate::vm::{self, Vm};

/// A machine to boot, again and again with the same disk.
pub struct Guest {
    dir: Dir,
    /// More files: (here, path there).
    pub files: Vec<(PathBuf, String)>,
}

impl Guest {
    /// Skips aloud where there can be no virtual machine.
    pub fn new(name: &str) -> Option<Guest> {
        if let Some(why) = vm::missing() {
            capability::skip("vm", &why);
            return None;
        }
        if !capability::has("mkfs.ext4") {
            return None;
        }
        let dir = Dir::new(name);
        let disk = dir.path.join("disk");
        std::fs::File::create(&disk).unwrap().set_len(256 << 20).unwrap();
        let made = Command::new("/sbin/mkfs.ext4").arg("-qF").arg(&disk).status().unwrap();
        assert!(made.success(), "mkfs.ext4 failed");
        let files = vec![
            (dhow().to_owned(), "/usr/bin/dhow".into()),
            (images::busybox().to_owned(), "/busybox.tar".into()),
        ];
        Some(Guest { dir, files })
    }

    /// A script that others are to call, or any other file.
    pub fn add(&mut self, there: &str, content: &[u8]) {
        let here = self.dir.path.join(there.trim_start_matches('/').replace('/', "_"));
        std::fs::write(&here, content).unwrap();
        self.files.push((here, there.to_owned()));
    }

    /// Boots and runs the script to its end.
    pub fn run(&self, script: &str) -> Console {
        self.boot(script, None)
    }

    /// Boots, and cuts the power when this appears on the console.
    pub fn run_until(&self, cut_at: &str, script: &str) -> Console {
        self.boot(script, Some(cut_at))
    }

    fn boot(&self, script: &str, cut_at: Option<&str>) -> Console {
        let files = self.files.iter().map(|(here, there)| (here.clone(), there.as_str())).collect();
        let disk = self.dir.path.join("disk");
        let vm = Vm {
            files,
            disk: Some(&disk),
            modules: &["overlay"],
            cut_at,
            deadline: Duration::from_secs(900),
        };
        Console(vm.run(&format!("chmod 666 /dev/null /dev/zero /dev/full /dev/*random /dev/tty\n{script}")))
    }
}

/// What appeared.
pub struct Console(pub String);

impl Console {
    /// What the part that begins with `== NAME` said; a report with all of it where there is none.
    #[track_caller]
    pub fn part(&self, name: &str) -> &str {
        let start = format!("== {name}\n");
        let Some(at) = self.0.find(&start) else { panic!("no part {name} in:\n{}", self.0) };
        let rest = &self.0[at + start.len()..];
        rest.split("== ").next().unwrap().trim_end()
    }

    /// That a part said just this.
    #[track_caller]
    pub fn says(&self, name: &str, expected: &str) {
        assert_eq!(self.part(name), expected, "part {name} of:\n{}", self.0);
    }
}

/// The program without what only a debugger reads, which is most of it.
fn dhow() -> &'static Path {
    static DHOW: OnceLock<PathBuf> = OnceLock::new();
    DHOW.get_or_init(|| {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_dhow"));
        let stripped = images::cache().join("dhow-for-guests");
        let time = |p: &Path| std::fs::metadata(p).and_then(|m| m.modified()).ok();
        if time(&stripped) > time(&built) {
            return stripped;
        }
        let half = stripped.with_extension(std::process::id().to_string());
        match Command::new("strip").arg("-o").arg(&half).arg(&built).status() {
            Ok(status) if status.success() => {
                std::fs::rename(half, &stripped).unwrap();
                stripped
            }
            _ => built,
        }
    })
}
