//! Debian's docker-registry for one test: on a free port of the loopback, with storage, keys and passwords in a directory of
//! its own beside the sandboxes (so that it is nobody's leftover), ended by process id when dropped.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::{leftovers, sandbox, wait};

/// How a registry is to be. The default is plain HTTP and no password.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// TLS, with a certificate for 127.0.0.1 and localhost of a certificate authority made for this registry alone.
    pub tls: bool,
    /// Basic authentication, with this one user and password.
    pub htpasswd: Option<(&'a str, &'a str)>,
}

/// A registry that runs. Needs `docker-registry`, and `openssl` and `htpasswd` for what they make.
pub struct Registry {
    server: Child,
    dir: PathBuf,
    port: u16,
}

impl Registry {
    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(options: Options) -> Registry {
        leftovers::adopt_orphans();
        static N: AtomicU32 = AtomicU32::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let dir = sandbox::base().join(format!("registry-{}-{n}", std::process::id()));
        fs::create_dir_all(dir.join("storage")).unwrap();
        for open in [&sandbox::base(), &dir] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(dir.join("config.yml"), configuration(&dir, options)).unwrap();
        let log = File::create(dir.join("log")).unwrap();
        // Where this whole program is killed, nobody drops anything: the kernel ends the registry then.
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(dir.join("config.yml"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("setpriv is in the package util-linux");
        leftovers::is_awaited(&server);
        let mut registry = Registry { server, dir, port: 0 };
        // It says which port the kernel gave it: nobody else can take that one in between.
        let port = wait::within(Duration::from_secs(30), || {
            let log = registry.log();
            let said = log.lines().find_map(|line| line.split("listening on 127.0.0.1:").nth(1))?;
            said.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        registry.port =
            port.unwrap_or_else(|| panic!("docker-registry does not come up: {}", registry.log()));
        registry
    }

    /// `127.0.0.1:PORT`.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.addr())
    }

    /// The certificate of its authority, where it has TLS: what a client has to trust.
    pub fn ca_path(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A directory as `--cert-dir` wants it: only the authority's certificate.
    pub fn cert_dir(&self) -> PathBuf {
        let dir = self.dir.join("certs");
        fs::create_dir_all(&dir).unwrap();
        fs::copy(self.ca_path(), dir.join("ca.crt")).unwrap();
        dir
    }

    /// Everything below its storage, in bytes.
    pub fn storage_bytes(&self) -> u64 {
        let mut bytes = 0;
        walk(&self.storage(), &mut |path| bytes += fs::metadata(path).map_or(0, |m| m.len()));
        bytes
    }

    /// Where it stores: blobs are `docker/registry/v2/blobs/sha256/XX/HEX/data` below.
    pub fn storage(&self) -> PathBuf {
        self.dir.join("storage")
    }

    /// The file in which it keeps the blob of this digest.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("only sha256");
        self.storage().join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// What it has logged: also one line in Apache's format for each request.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The requests it was asked, as `METHOD PATH STATUS`, in order of their ends.
    pub fn requests(&self) -> Vec<String> {
        let of = |line: &str| {
            let (_, rest) = line.split_once("] \"")?;
            let (request, rest) = rest.split_once("\" ")?;
            let (request, _) = request.rsplit_once(' ')?;
            Some(format!("{request} {}", rest.split(' ').next()?))
        };
        self.log().lines().filter_map(of).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It keeps nothing in memory that its storage lacks: no need to ask it politely.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The configuration file; makes what it names.
fn configuration(dir: &Path, options: Options) -> String {
    let at = |name: &str| dir.join(name).display().to_string();
    // It says where it listens at the level info.
    let mut text = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n",
        at("storage")
    );
    text += "http:\n  addr: 127.0.0.1:0\n  secret: of this test\n";
    if options.tls {
        make_certificates(dir);
        text += &format!("  tls: {{certificate: {}, key: {}}}\n", at("server.crt"), at("server.key"));
    }
    if let Some((user, password)) = options.htpasswd {
        // The cost of 4 is bcrypt's least; the registry takes no other kind of hash.
        let made = run(dir, "htpasswd", &["-nbBC", "4", user, password]);
        fs::write(dir.join("htpasswd"), made).unwrap();
        text += &format!("auth:\n  htpasswd: {{realm: tests, path: {}}}\n", at("htpasswd"));
    }
    text
}

/// `ca.crt`, and `server.crt` signed by it with `server.key`.
fn make_certificates(dir: &Path) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let subject = |name: &'static str| ["-subj", name];
    let authority = [
        &["req", "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt"][..],
        &key,
        &subject("/CN=authority of a test"),
        &["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    ];
    run(dir, "openssl", &authority.concat());
    let request = [
        &["req", "-keyout", "server.key", "-out", "server.csr"][..],
        &key,
        &subject("/CN=registry of a test"),
    ];
    run(dir, "openssl", &request.concat());
    let extensions =
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n";
    fs::write(dir.join("extensions"), extensions).unwrap();
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
    let sign = [&sign[..], &["-days", "2", "-extfile", "extensions", "-out", "server.crt"]].concat();
    run(dir, "openssl", &sign);
}

#[track_caller]
fn run(dir: &Path, program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).current_dir(dir).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}; make prepare installs it"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn walk(dir: &Path, each: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), each);
        } else {
            each(&entry.path());
        }
    }
}
