//! The study of an architecture goes on: parts of it are replaced while a client that never rests uses them.

use crate::study::{Set, get};
use crate::wait;

/// All that serves in an environment is replaced, but for the data; the names are moved to the new ones.
pub fn a_set_is_replaced(old: &Set<'_>) {
    let s = old.s;
    let head = old.exec("client", "git -C /tmp/work rev-parse main");
    let (before, client) =
        (old.hello(), Client::start(old, "client", "GIT=1 bash /study/loop.sh apache.cont shop"));
    client.sees(&before);
    let new = Set { s, environment: old.environment, prefix: "next", is_live: false };
    new.start(&old.name("gitolite.repos"), 1000);
    new.is_ready();
    assert_eq!(get("127.0.0.1", 7053), new.hello());
    for part in ["ldap.cont", "gitolite.cont", "apache.cont", "cron.cont"] {
        s.dhow(["network", "alias", old.environment, &new.name(part), part]).ok();
    }
    client.sees(&new.hello());
    for part in ["apache.cont", "gitolite.cont", "ldap.cont", "cron.cont"] {
        s.dhow(["stop", &old.name(part)]).ok();
        s.dhow(["rm", "-v", &old.name(part)]).ok();
    }
    s.dhow(["rm", "-v", &old.name("ldap.data")]).ok();
    for part in ["ldap.cont", "gitolite.cont", "apache.cont", "cron.cont", "ldap.data"] {
        s.dhow(["rename", &new.name(part), &old.name(part)]).ok();
    }
    let after = old.hello();
    client.sees(&after);
    let heads = client.end(&[&before, &after]);
    assert!(!heads.is_empty() && heads.iter().all(|line| line.starts_with(&head)), "{head}: {heads:?}");
    // What is pushed now is where the old ones' data are.
    let script = format!(
        "cd /tmp/work; git commit -q --allow-empty -m second; git push -q {} main; git rev-parse main",
        old.url("shop")
    );
    let second = old.exec("client", &script);
    assert_eq!(
        old.exec(
            "gitolite.cont",
            "git -c safe.directory='*' --git-dir=/home/git/repositories/study.git rev-parse main"
        ),
        second
    );
}

/// A client of one environment uses a server of another by way of somebody who is in both, and who is replaced.
pub fn an_ambassador_is_replaced(server: &Set<'_>, user: &Set<'_>) {
    let s = server.s;
    let behind = format!("BEHIND=apache.cont.{}", server.environment);
    let flags = ["--stop-signal", "SIGWINCH", "-e", &behind];
    let [blue, green] = ["blue", "green"].map(|prefix| Set { s, prefix, is_live: false, ..*user });
    let both = [&flags[..], &["--network-alias", "door", "--network", server.environment]].concat();
    blue.leaf("door", &both, &["/study/ambassador.sh"]);
    user.leaf("visitor", &["--link", "door:shop"], &["sleep", "10000"]);
    let answers = |set: &Set<'_>| {
        let ask =
            "exec 3<>/dev/tcp/localhost/8553; printf 'GET /hello HTTP/1.0\\r\\n\\r\\n' >&3; tail -n 1 <&3";
        let asked = s.dhow(["exec", &set.name("door"), "bash", "-ec", ask]);
        (asked.output().text() == server.hello()).then_some(())
    };
    wait::until("the ambassador", || answers(&blue));
    let client = Client::start(user, "visitor", "bash /study/loop.sh door shop");
    client.sees(&server.hello());
    // It comes to the server's network while it runs, and finds the server there.
    green.leaf("door", &flags, &["/study/ambassador.sh"]);
    s.dhow(["network", "connect", server.environment, &green.name("door")]).ok();
    wait::until("the other ambassador", || answers(&green));
    s.dhow(["network", "alias", user.environment, &green.name("door"), "door"]).ok();
    client.outlasts(&blue, "door");
    client.end(&[&server.hello()]);
}

/// The client of a set, which asks all the time.
struct Client<'a> {
    set: &'a Set<'a>,
    part: &'a str,
}

impl Client<'_> {
    /// In this part of the set.
    fn start<'a>(set: &'a Set<'a>, part: &'a str, script: &str) -> Client<'a> {
        set.s.dhow(["exec", "-d", &set.name(part), "bash", "-c", script]).ok();
        Client { set, part }
    }

    fn answers(&self) -> Vec<String> {
        let log = self.set.exec(self.part, "grep hello /tmp/log || true");
        log.lines().filter_map(|line| Some(line.split_once(": ")?.1.to_owned())).collect()
    }

    /// Waits until it is answered so, by each of its names in turn and twice, where it asked after this was called.
    fn sees(&self, answer: &str) {
        let before = self.answers().len();
        wait::until(answer, || {
            let now = self.answers();
            // The next one may be under way.
            (now.len() > before + 4 && now[now.len() - 4..].iter().all(|said| said == answer)).then_some(())
        });
    }

    /// Waits until its names mean somebody else than this one, and ends that one.
    fn outlasts(&self, old: &Set<'_>, part: &str) {
        let set = self.set;
        let format = format!("{{{{.NetworkSettings.Networks.{}.IPAddress}}}}", set.environment);
        let address = set.s.inspect(&old.name(part), &format);
        let ask = format!("! getent ahostsv4 door shop | grep -F '{address} '");
        let is_gone = || set.s.dhow(["exec", &set.name(self.part), "bash", "-ec", &ask]).output().code == 0;
        wait::until("its names to lead elsewhere", || is_gone().then_some(()));
        let last = self.answers().pop().unwrap();
        self.sees(&last);
        set.s.dhow(["stop", &old.name(part)]).ok();
        set.s.dhow(["rm", "-v", &old.name(part)]).ok();
        self.sees(&last);
    }

    /// Ends it: it was never answered in another way than by one of these; what git said.
    fn end(self, answers: &[&str]) -> Vec<String> {
        self.set.exec(self.part, "touch /tmp/stop; until [ -e /tmp/stopped ]; do sleep 0.05; done");
        let log = self.set.exec(self.part, "cat /tmp/log");
        let mut heads = Vec::new();
        for line in log.lines() {
            let (_, said) = line.split_once(": ").unwrap_or(("", line));
            if let Some(head) = said.strip_suffix("\trefs/heads/main") {
                heads.push(head.to_owned());
            } else {
                assert!(answers.contains(&said), "a client saw {line:?}");
            }
        }
        heads
    }
}
