//! The images that tests run, made once and kept under target/dhow-test-images: a busybox root (with the probe in it) and
//! a Debian root. Both are plain tar archives, imported by each sandbox through standard input, since the checkout may
//! lie where another user cannot go.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use sha2::Digest as _;

/// The cache: beside the build, so that `cargo clean` takes it along.
pub fn cache() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_dhow"));
    let target = built
        .ancestors()
        .filter(|a| a.join("CACHEDIR.TAG").exists())
        .last()
        .unwrap_or(built.parent().unwrap());
    let dir = target.join("dhow-test-images");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Sixteen digits that stand for the bytes.
pub fn short_hash(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().take(8).fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// The tar archive of the busybox root: sh and its friends, `/probe`, and the users `root`, `daemon` and `app`.
pub fn busybox() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| {
        let (busybox, probe) = (static_busybox(), probe());
        let key =
            short_hash(&[fs::read(&busybox).unwrap(), fs::read(&probe).unwrap(), SHAPE.into()].concat());
        let tar = cache().join(format!("busybox-{key}.tar"));
        if !tar.exists() {
            let root = Dir::new("busybox");
            write_busybox(&root.path, &busybox, &probe);
            archive(&root.path, &tar);
        }
        tar
    })
}

/// What else is in the busybox root; changing this text makes a new archive.
const SHAPE: &str = "root daemon app(1000:1000, extra 2000 2001); /etc/motd; sticky /tmp; set-uid /bin/su; 2";

fn write_busybox(root: &Path, busybox: &Path, probe: &Path) {
    for dir in ["bin", "etc", "dev", "proc", "sys", "tmp", "root", "home/app", "var/empty"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    install(busybox, &root.join("bin/busybox"), 0o755);
    install(probe, &root.join("probe"), 0o755);
    // Symbols make most of it, and each sandbox unpacks it anew; without strip(1) it only takes longer.
    let _ = Command::new("strip").arg(root.join("probe")).status();
    let list = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|a| !matches!(*a, "busybox" | "su"))
    {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    // A copy of its own, since set-uid on the one binary would make every applet set-uid.
    install(busybox, &root.join("bin/su"), 0o4755);
    let write = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
    write(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\napp:x:1000:1000::/home/app:/bin/sh\n",
    );
    write("etc/group", "root:x:0:\ndaemon:x:1:\napp:x:1000:\nextra:x:2000:app\nmore:x:2001:daemon,app\n");
    write("etc/motd", "hello\n");
    write("etc/not-executable", "#!/bin/sh\necho never\n");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700)).unwrap();
}

fn install(from: &Path, to: &Path, mode: u32) {
    fs::copy(from, to).unwrap_or_else(|e| panic!("cannot copy {}: {e}", from.display()));
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
}

/// A tar of a directory in which everything belongs to root; whole or not there at all.
fn archive(root: &Path, tar: &Path) {
    let half = tar.with_extension(format!("half{}", std::process::id()));
    let made = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "-C"])
        .arg(root)
        .arg("-cf")
        .arg(&half)
        .arg(".")
        .output()
        .unwrap();
    assert!(made.status.success(), "tar: {}", String::from_utf8_lossy(&made.stderr));
    fs::rename(half, tar).unwrap();
}

fn static_busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|p| p.exists())
        .expect("the tests need Debian's busybox-static: make prepare")
}

/// The probe, built by cargo beside this test; built now where only this test was asked for.
pub fn probe() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/probe.rs");
    let built = Path::new(env!("CARGO_BIN_EXE_dhow")).with_file_name("examples").join("probe");
    let time = |p: &Path| fs::metadata(p).and_then(|m| m.modified()).ok();
    if time(&built) < time(&source) {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let status = Command::new(cargo)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--example", "probe", "--quiet"])
            .status()
            .unwrap();
        assert!(status.success(), "cannot build the probe");
    }
    built
}

/// The tar archive of a Debian root with python3 and procps, made by mmdebstrap with this machine's own apt sources.
/// Only where `needs!("apt")` said that it can be made.
pub fn debian() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    TAR.get_or_init(|| debian_with("debian-bookworm-2.tar", "python3-minimal,procps", &[]))
}

/// The same with servers in it: Apache, git, slapd, cron.
pub fn debian_servers() -> &'static Path {
    static TAR: OnceLock<PathBuf> = OnceLock::new();
    let slim = ["doc", "man", "locale"].map(|dir| format!("--dpkgopt=path-exclude=/usr/share/{dir}/*"));
    TAR.get_or_init(|| debian_with("debian-servers-1.tar", "apache2,git,slapd,cron", &slim))
}

fn debian_with(name: &str, packages: &str, flags: &[String]) -> PathBuf {
    let tar = cache().join(name);
    // Another run of the tests may be making it: one does, the others wait.
    let lock = fs::File::create(cache().join("debian.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    if !tar.exists() {
        make_debian(&tar, packages, flags);
    }
    tar
}

fn make_debian(tar: &Path, packages: &str, flags: &[String]) {
    let half = tar.with_extension("half.tar");
    let mut command = Command::new("mmdebstrap");
    if !rustix::process::geteuid().is_root() {
        command.arg("--mode=unshare");
    }
    let made = command
        .args(["--variant=minbase", &format!("--include={packages}"), "--quiet"])
        .arg("--aptopt=Acquire::Retries \"5\"")
        .args(flags)
        .args(["--setup-hook=mkdir -p \"$1/etc/apt/apt.conf.d\"; cp /etc/apt/apt.conf.d/*proxy* \"$1/etc/apt/apt.conf.d\" 2>/dev/null || true"])
        .arg("bookworm")
        .arg(&half)
        .args(apt_sources())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("the tests need mmdebstrap: make prepare");
    assert!(made.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&made.stderr));
    fs::rename(half, tar).unwrap();
}

/// The archives in nine Debian packages, as dpkg would unpack them: layers to put on `debian`. Made once, like that one.
pub fn debian_packages() -> Vec<PathBuf> {
    let names = ["tree", "hello", "ed", "less", "file", "libmagic1", "libmagic-mgc", "jq", "libjq1"];
    let lock = fs::File::create(cache().join("debian.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let tar = |name: &str| cache().join(format!("package-{name}.tar"));
    if names.iter().all(|name| tar(name).exists()) {
        return names.map(tar).to_vec();
    }
    let dir = Dir::new("packages");
    let run = |command: &mut Command| {
        let output = command.current_dir(&dir.path).stdin(std::process::Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    // What jq needs goes into the layer of its library.
    run(Command::new("apt-get")
        .args(["download", "-qq", "-o", "APT::Sandbox::User=root", "libonig5"])
        .args(names));
    for name in names {
        let unpack = format!("dpkg-deb --fsys-tarfile {name}_*.deb");
        let script = match name {
            "libjq1" => {
                format!("{unpack} > a; dpkg-deb --fsys-tarfile libonig5_*.deb > b; tar -A -f a b; cat a")
            }
            _ => unpack,
        };
        fs::write(dir.path.join("tar"), run(Command::new("sh").args(["-ec", &script]))).unwrap();
        fs::rename(dir.path.join("tar"), tar(name)).unwrap();
    }
    names.map(tar).to_vec()
}

/// This machine's own Debian sources: what it can reach, the tests can reach.
fn apt_sources() -> Vec<PathBuf> {
    let known = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    known
        .iter()
        .map(PathBuf::from)
        .filter(|p| fs::read_to_string(p).is_ok_and(|text| text.contains("bookworm")))
        .take(1)
        .collect()
}

/// A directory that goes when it is no longer needed.
pub struct Dir {
    pub path: PathBuf,
}

impl Dir {
    pub fn new(name: &str) -> Dir {
        let path = cache().join(format!("{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Dir { path }
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
