//! The study of an architecture: data containers, servers that use their volumes and are linked to each other, one set of
//! seven for each environment, with the same names in each. Real programs: Apache, git, slapd, cron.
//!
//! ```text
//! client --apache.cont--> apache.cont --apache.gitolite.cont--> gitolite.cont --volumes--> gitolite.repos <--volumes-- cron.cont
//!                              '------- apache.ldap.cont -----> ldap.cont     --volumes--> ldap.data
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::capability::needs;
use crate::own_host::{self, V4};
use crate::sandbox::Sandbox;
use crate::user::User;
use crate::{forward, images, leftovers, wait};

for_users_with_many_ids!(three_environments);

/// The environments, and by how much the ports of each are moved.
pub const ENVIRONMENTS: [(&str, u16); 3] = [("dev", 0), ("test", 100), ("live", 200)];

const SCRIPTS: [(&str, &str); 10] = [
    ("ldap.sh", include_str!("study/ldap.sh")),
    ("gitolite.sh", include_str!("study/gitolite.sh")),
    ("gitolite.conf", include_str!("study/gitolite.conf")),
    ("apache.sh", include_str!("study/apache.sh")),
    ("apache.conf", include_str!("study/apache.conf")),
    ("common.conf", include_str!("study/common.conf")),
    ("cron.sh", include_str!("study/cron.sh")),
    ("ambassador.sh", include_str!("study/ambassador.sh")),
    ("ambassador.conf", include_str!("study/ambassador.conf")),
    ("loop.sh", include_str!("study/loop.sh")),
];

fn three_environments(s: &Sandbox) {
    needs!("root", "apt", "ip", "nft");
    // Made where packages are to be had.
    let image = images::debian_servers();
    own_host::enter();
    s.dhow(["import", "-", "servers"]).stdin_file(image).patiently().ok();
    for (name, text) in SCRIPTS {
        s.file(&format!("study/{name}"), text);
    }
    for (environment, offset) in ENVIRONMENTS {
        s.dhow(["network", "create", environment]).ok();
        let set = Set { s, environment, prefix: environment, is_live: true };
        set.data("gitolite.repos", "/home/git/repositories");
        set.start(&set.name("gitolite.repos"), offset);
        set.leaf("client", &["--link", "apache.cont:shop"], &["sleep", "10000"]);
    }
    assert_eq!(s.dhow(["ps", "-aq"]).ok().lines().count(), 21);
    let sets =
        ENVIRONMENTS.map(|(environment, _)| Set { s, environment, prefix: environment, is_live: true });
    for (set, (_, offset)) in sets.iter().zip(ENVIRONMENTS) {
        set.is_ready();
        used_from_everywhere(set, offset);
    }
    for set in &sets {
        pushed_and_saved(set);
    }
    crate::study_changes::a_set_is_replaced(&sets[0]);
    crate::study_changes::an_ambassador_is_replaced(&sets[0], &sets[1]);
    nothing_remains(s);
}

/// The containers of one environment, or those that will take their place.
pub struct Set<'a> {
    pub s: &'a Sandbox,
    /// Which is also the network.
    pub environment: &'a str,
    /// With which the containers' own names begin.
    pub prefix: &'a str,
    /// They are who is meant by the names on the network.
    pub is_live: bool,
}

impl Set<'_> {
    /// The name of one of them: on the network it is called `part` alone.
    pub fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.prefix)
    }

    /// A container that has a volume and never runs.
    pub fn data(&self, part: &str, dir: &str) {
        self.s.dhow(["create", "--name", &self.name(part), "-v", dir, "servers", "true", dir]).ok();
    }

    /// Those that serve: all but the repositories and the client.
    pub fn start(&self, repositories: &str, offset: u16) {
        self.data("ldap.data", "/var/lib/ldap");
        let data = self.name("ldap.data");
        self.leaf("ldap.cont", &["--volumes-from", &data, "--expose", "389"], &["/study/ldap.sh"]);
        let flags = ["--volumes-from", repositories, "--expose", "8080"];
        self.leaf("gitolite.cont", &flags, &["/study/gitolite.sh"]);
        // To Apache this says: answer what you have begun to, then go.
        let mut flags = vec!["--stop-signal", "SIGWINCH"];
        // One that comes in the place of another must be sure of its own.
        let targets = ["ldap.cont", "gitolite.cont"].map(|part| match self.is_live {
            true => format!("{part}:apache.{part}"),
            false => format!("{}:apache.{part}", self.name(part)),
        });
        let ports = [(6043, 8543), (6053, 8553)].map(|(host, inside)| format!("{}:{inside}", host + offset));
        flags.extend(targets.iter().flat_map(|link| ["--link", link]));
        flags.extend(ports.iter().flat_map(|port| ["-p", port]));
        self.leaf("apache.cont", &flags, &["/study/apache.sh"]);
        let volumes = format!("{repositories}:ro");
        self.leaf("cron.cont", &["--init", "--volumes-from", &volumes, "-v", "/backup"], &["/study/cron.sh"]);
    }

    /// One of them.
    pub fn leaf(&self, part: &str, flags: &[&str], words: &[&str]) {
        let (name, variable) = (self.name(part), format!("ENVIRONMENT={}", self.environment));
        let scripts = format!("{}:/study:ro", self.s.work.join("study").display());
        // slapd has room for as many connections as it may have.
        let own = ["--network", self.environment, "--ulimit", "nofile=1024", "-v", &scripts, "-e", &variable];
        let run = self.s.dhow(["run", "-d", "--name", &name]).args(own).args(flags);
        let run = if self.is_live { run.args(["--network-alias", part]) } else { run };
        let words = if words[0].ends_with(".sh") { [&["bash"], words].concat() } else { words.to_vec() };
        let output = run.arg("servers").args(words).output().exits(0);
        self.s.note(output.text(), &output);
    }

    /// What a script says in one of them.
    #[track_caller]
    pub fn exec(&self, part: &str, script: &str) -> String {
        self.s.dhow(["exec", &self.name(part), "bash", "-ec", script]).ok()
    }

    /// Waits until its servers answer each other.
    pub fn is_ready(&self) {
        let ask = "for to in apache.ldap.cont/389 apache.gitolite.cont/8080 localhost/8543 localhost/8553; do : <>/dev/tcp/$to; done";
        let name = self.name("apache.cont");
        let is_ready = || self.s.dhow(["exec", &name, "bash", "-ec", ask]).output().code == 0;
        wait::until("the servers", || is_ready().then_some(()));
    }

    /// What /hello says where it is published.
    #[track_caller]
    pub fn hello(&self) -> String {
        let id = self.s.inspect(&self.name("apache.cont"), "{{.Id}}");
        format!("hello from {} by {}", self.environment, &id[..12])
    }

    /// Where its repository is for who may write; `shop` or `apache.cont`.
    pub fn url(&self, host: &str) -> String {
        format!("http://ann:secret-of-{}@{host}:8543/study.git", self.environment)
    }
}

/// By HTTP from the machine.
#[track_caller]
pub fn get(address: &str, port: u16) -> String {
    let mut stream = TcpStream::connect((address, port)).unwrap_or_else(|e| panic!("{address}:{port}: {e}"));
    stream.set_read_timeout(Some(wait::SOON)).unwrap();
    stream.write_all(b"GET /hello HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.lines().last().unwrap_or_default().to_owned()
}

fn used_from_everywhere(set: &Set<'_>, offset: u16) {
    for address in [V4, "127.0.0.1"] {
        assert_eq!(get(address, 6053 + offset), set.hello(), "{address}");
    }
    // The same names mean others in each environment.
    let ask = "exec 3<>/dev/tcp/$0/8553; printf 'GET /hello HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3";
    for name in ["apache.cont", "shop", &set.name("apache.cont")] {
        let said = set.s.dhow(["exec", &set.name("client"), "bash", "-ec", ask, name]).ok();
        assert_eq!(said, set.hello(), "{name}");
    }
    let of = |part: &str| {
        let format = format!("{{{{.NetworkSettings.Networks.{}.IPAddress}}}}", set.environment);
        set.s.inspect(&set.name(part), &format)
    };
    let environment = set.exec("apache.cont", "env | grep ^APACHE | sort");
    for (link, part, port) in [("LDAP", "ldap.cont", 389), ("GITOLITE", "gitolite.cont", 8080)] {
        for (variable, value) in [
            ("NAME", format!("/{}/apache.{part}", set.name("apache.cont"))),
            ("PORT", format!("tcp://{}:{port}", of(part))),
            (&format!("PORT_{port}_TCP_ADDR"), of(part)),
            ("ENV_ENVIRONMENT", set.environment.to_owned()),
        ] {
            let line = format!("APACHE.{link}.CONT_{variable}={value}");
            assert!(environment.lines().any(|l| l == line), "{line}\n{environment}");
        }
    }
}

fn pushed_and_saved(set: &Set<'_>) {
    let (url, other) = (set.url("apache.cont"), set.url("apache.cont").replace(set.environment, "elsewhere"));
    let script = format!(
        "git init -q -b main /tmp/work; cd /tmp/work
        git config user.email ann@study; git config user.name Ann
        echo {} >file; git add file; git commit -qm first
        ! git push -q {other} main 2>/dev/null
        git push -q {url} main
        git clone -q {url} /tmp/clone; cmp file /tmp/clone/file
        git rev-parse main",
        set.environment
    );
    let head = set.exec("client", &script);
    let saved = || set.s.dhow(["exec", &set.name("cron.cont"), "cat", "/backup/head"]).output();
    assert_eq!(wait::until("the backup", || Some(saved()).filter(|o| o.code == 0)).text(), head);
    let alone =
        set.exec("cron.cont", "! touch /home/git/repositories/x 2>/dev/null; ls /home/git/repositories");
    assert_eq!(alone, "study.git", "it may only read");
}

fn nothing_remains(s: &Sandbox) {
    let all = s.dhow(["ps", "-aq"]).ok();
    s.dhow(["rm", "-f", "-v"]).args(all.lines()).ok();
    s.dhow(["network", "rm"]).args(ENVIRONMENTS.map(|(environment, _)| environment)).ok();
    s.assert_nothing_left();
    wait::until("the forwarder to end", || forward::forwarders(s).is_empty().then_some(()));
    assert_eq!(s.dhow(["volume", "ls", "-q"]).ok(), "");
    assert_eq!(leftovers::names(&s.store.join("networks/claims")), [] as [&str; 0]);
    // In the name space of this thread.
    let tell = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    wait::until("the links to go", || {
        let links = tell(&["ip", "-o", "link", "show"]);
        (links.lines().count() == 3).then_some(())
    });
    if s.user == User::Root {
        assert_eq!(tell(&["nft", "list", "ruleset"]), "");
    }
    for (_, offset) in ENVIRONMENTS {
        TcpStream::connect(("127.0.0.1", 6053 + offset)).expect_err("nobody is there");
    }
}
