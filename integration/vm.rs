//! A virtual machine for tests that need another kernel set-up than ours: Debian's kernel, emulated, with an initramfs
//! of busybox and the caller's files. Says what appeared on the console; judges nothing.
//!
//! Its kernel has all controllers in cgroup v2. There is no network; there is a disk where one is asked for, and its
//! power can be cut. A boot takes a few seconds. Two do not run at the same time: they would be slow together.
#![expect(clippy::disallowed_methods, reason = "a test reads files and runs programs as it likes")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/bin/busybox";
/// The last line of a script that ran to its end.
const END: &str = "vm: end of script";

/// A machine that got no time from a busy host is not to tell of it, in emergency's voice, in the middle of a script's words.
const NO_WATCHDOGS: &str = "nowatchdog nosoftlockup workqueue.watchdog_thresh=0";

/// (emulator, its machine options, the kernel's name of the serial console).
const MACHINE: (&str, &[&str], &str) = if cfg!(target_arch = "aarch64") {
    ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "max"], "ttyAMA0")
} else {
    ("qemu-system-x86_64", &["-machine", "q35", "-cpu", "max"], "ttyS0")
};

/// Why there can be no virtual machine here, or `None` if there can.
pub fn missing() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join(MACHINE.0).exists()) {
        return Some(format!("there is no {}", MACHINE.0));
    }
    if !Path::new(BUSYBOX).exists() {
        return Some(format!("there is no {BUSYBOX} (package busybox-static)"));
    }
    kernel().is_none().then(|| "there is no readable /boot/vmlinuz-* (package linux-image-amd64)".to_owned())
}

fn kernel() -> Option<PathBuf> {
    let names = std::fs::read_dir("/boot").ok()?.filter_map(|e| Some(e.ok()?.path()));
    let is_kernel = |p: &PathBuf| {
        p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-"))
            && std::fs::File::open(p).is_ok()
    };
    names.filter(is_kernel).max()
}

/// What is to be booted, and until when.
pub struct Vm<'a> {
    /// Here, path there; executable.
    pub files: Vec<(PathBuf, &'a str)>,
    /// A file with an ext4 file system, which is mounted on /disk.
    pub disk: Option<&'a Path>,
    /// Modules of Debian's kernel to load, with what they need.
    pub modules: &'a [&'a str],
    /// The power goes when this appears on the console.
    pub cut_at: Option<&'a str>,
    /// For all of it.
    pub deadline: Duration,
}

/// Boots with `files` and runs a script; see [`Vm::run`].
#[allow(dead_code, reason = "one of the two that include this file has other wishes")]
pub fn run_in_vm(files: &[(PathBuf, &str)], init_script: &str, deadline: Duration) -> String {
    Vm { files: files.to_vec(), disk: None, modules: &[], cut_at: None, deadline }.run(init_script)
}

impl Vm<'_> {
    /// Boots, runs `script` (busybox ash; /proc, /sys, /dev, /tmp and cgroup v2 on /sys/fs/cgroup are mounted; root is
    /// user 0 and there is user 1000, `user`), powers off, and returns what appeared on the console. Panics with the
    /// console's text if the script does not come to its end, or to the power cut, within the deadline.
    pub fn run(&self, script: &str) -> String {
        static ONE: Mutex<u32> = Mutex::new(0);
        let mut n = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *n += 1;
        let end = Instant::now() + self.deadline;
        let image = std::env::temp_dir().join(format!("dhow-vm-{}-{n}.cpio", std::process::id()));
        std::fs::write(&image, self.initramfs(script)).expect("the initramfs can be written");
        let (console, ended) = self.boot(&image, end);
        let _ = std::fs::remove_file(&image);
        assert!(ended, "the virtual machine did not come to the end of its script; its console:\n{console}");
        console
    }

    fn boot(&self, image: &Path, end: Instant) -> (String, bool) {
        let (emulator, machine, serial) = MACHINE;
        let mut command = Command::new(emulator);
        command
            .args(machine)
            .args(["-accel", "tcg", "-m", "512", "-smp", "1", "-display", "none", "-monitor", "none"])
            .args(["-serial", "stdio", "-no-reboot", "-nic", "none", "-no-user-config", "-nodefaults"])
            .arg("-kernel")
            .arg(kernel().expect("`missing` was asked"))
            .arg("-initrd")
            .arg(image)
            .args([
                "-append",
                &format!(
                    "console={serial} loglevel=1 panic=-1 cgroup_no_v1=all mitigations=off {NO_WATCHDOGS}"
                ),
            ]);
        if let Some(disk) = self.disk {
            command.arg("-drive").arg(format!("file={},format=raw,if=virtio", disk.display()));
        }
        let mut vm = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the emulator can be run");
        let console = self.watch(vm.stdout.take().expect("it is piped"), end);
        let _ = vm.kill();
        let _ = vm.wait();
        let ended = console.lines().any(|line| line == END)
            || self.cut_at.is_some_and(|text| console.lines().any(|l| l.starts_with(text)));
        (console, ended)
    }

    /// What appears on the console, until the machine has powered off, the power is to be cut, or it is late.
    fn watch(&self, mut stdout: ChildStdout, end: Instant) -> String {
        let (send, receive) = mpsc::channel();
        // It ends when the machine does, which the caller sees to.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stdout.read(&mut buffer) {
                if send.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut console = Vec::new();
        while let Ok(part) = receive.recv_timeout(end.saturating_duration_since(Instant::now())) {
            console.extend(part);
            let text = String::from_utf8_lossy(&console);
            if self.cut_at.is_some_and(|cut| text.lines().any(|line| line.starts_with(cut))) {
                break;
            }
        }
        String::from_utf8_lossy(&console).replace('\r', "")
    }

    fn initramfs(&self, script: &str) -> Vec<u8> {
        let modules = self.module_files();
        let load: String = modules.iter().map(|(_, there)| format!("insmod {there}\n")).collect();
        let disk = if self.disk.is_some() { "mkdir -p /disk; mount -t ext4 /dev/vda /disk\n" } else { "" };
        // The initramfs itself cannot be left by pivot_root(2), so it hands over to a tmpfs.
        let first = "#!/bin/busybox sh\n\
             /bin/busybox mkdir -p /proc /sys /dev /tmp /sbin /usr/bin /usr/sbin /new\n\
             /bin/busybox --install -s\n\
             mount -t tmpfs new /new; for f in /*; do case $f in /new | /init) ;; *) mv $f /new ;; esac; done\n\
             exec /new/bin/busybox switch_root /new /second\n";
        let second = format!(
            "#!/bin/busybox sh\n\
             export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
             mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
             exec </dev/console >/dev/console 2>&1\n\
             mkdir -p /dev/pts; mount -t devpts pts /dev/pts\n\
             mount -t tmpfs -o mode=1777 tmp /tmp; mount -t cgroup2 cgroup2 /sys/fs/cgroup\n\
             {load}{disk}\
             (\n{script}\n) </dev/null 2>&1\n\
             echo; echo '{END}'\n\
             poweroff -f\n"
        );
        let mut archive = Archive::default();
        for dir in ["bin", "dev", "etc", "root"] {
            archive.entry(dir, 0o040_755, 0, &[]);
        }
        // The kernel opens it for the first process before anything is mounted.
        archive.entry("dev/console", 0o020_600, 5 << 8 | 1, &[]);
        archive.entry(
            "etc/passwd",
            0o100_644,
            0,
            b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n",
        );
        archive.entry("etc/group", 0o100_644, 0, b"root:x:0:\nuser:x:1000:\n");
        archive.entry("bin/busybox", 0o100_755, 0, &std::fs::read(BUSYBOX).expect("`missing` was asked"));
        archive.entry("init", 0o100_755, 0, first.as_bytes());
        archive.entry("second", 0o100_755, 0, second.as_bytes());
        let files = self.files.iter().map(|(here, there)| (here.clone(), (*there).to_owned()));
        for (here, there) in files.chain(modules) {
            let there = there.trim_start_matches('/');
            for (at, _) in there.match_indices('/') {
                archive.entry(&there[..at], 0o040_755, 0, &[]);
            }
            archive.entry(there, 0o100_755, 0, &content(&here));
        }
        archive.finish()
    }

    /// The modules with what they need, in the order of loading. One that is not there is built in.
    fn module_files(&self) -> Vec<(PathBuf, String)> {
        let kernel = kernel().expect("`missing` was asked");
        let release = kernel.file_name().expect("it has one").to_string_lossy().replace("vmlinuz-", "");
        let dir = Path::new("/lib/modules").join(release);
        let dependencies = std::fs::read_to_string(dir.join("modules.dep")).unwrap_or_default();
        let disk: &[&str] = if self.disk.is_some() { &["virtio_pci", "virtio_blk"] } else { &[] };
        let mut files: Vec<(PathBuf, String)> = Vec::new();
        for wanted in disk.iter().chain(self.modules) {
            let is_it = |l: &&str| l.split(".ko").next().is_some_and(|p| p.ends_with(&format!("/{wanted}")));
            let Some(line) = dependencies.lines().find(is_it) else { continue };
            // module: what it needs, the last first.
            for path in line.replace(':', " ").split_whitespace().rev() {
                let here = dir.join(path);
                if !files.iter().any(|(known, _)| *known == here) {
                    let name = path.rsplit('/').next().and_then(|n| n.split(".ko").next()).unwrap_or(path);
                    files.push((here, format!("/modules/{name}")));
                }
            }
        }
        files
    }
}

/// The bytes of a file; those of a compressed module without the compression, which busybox does not know.
fn content(path: &Path) -> Vec<u8> {
    let unpack = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display())),
    };
    let output =
        Command::new(unpack).arg("-dc").arg(path).output().unwrap_or_else(|e| panic!("{unpack}: {e}"));
    output.stdout
}

/// A cpio archive in the kernel's dialect ("newc", Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    n_entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, device: u32, content: &[u8]) {
        // Each entry has its own inode number, or the kernel would take them for hard links.
        self.n_entries += 1;
        let size = content.len() as u32;
        let name_size = name.len() as u32 + 1;
        let fields = [self.n_entries, mode, 0, 0, 1, 0, size, 0, 0, device >> 8, device & 0xff, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 0, &[]);
        self.bytes
    }
}
