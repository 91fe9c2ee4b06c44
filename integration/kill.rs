//! kill -9 of whatever there is, at a random moment of whatever goes on: afterwards nothing runs that should not, nothing is
//! left but what was asked for, and its name works. The seed is printed; `DHOW_TEST_SEED` repeats a run.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::sandbox::{NONE, Sandbox};
use crate::{images, leftovers, wait};

for_each_user!(
    of_anything_at_any_moment,
    of_the_command_ends_the_container_only_in_the_foreground,
    removal_cut_short,
    rm_of_a_container_that_is_being_started,
    start_beside_those_who_wait,
    real_time_signals_under_init,
);

/// A small generator: what matters is that a run can be repeated.
struct Random(u64);

impl Random {
    fn seeded() -> Random {
        let seed = match std::env::var("DHOW_TEST_SEED") {
            Ok(text) => text.parse().unwrap(),
            Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        println!("DHOW_TEST_SEED={seed}");
        Random(seed | 1)
    }

    /// Below `limit` (xorshift64*).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn pause(&mut self, most: Duration) {
        wait::within(Duration::from_micros(self.below(most.as_micros() as u64)), || None::<()>);
    }
}

/// The processes that belong to the sandbox, this test's own children left out only if they do too.
fn processes(s: &Sandbox) -> Vec<Pid> {
    let found = leftovers::find(&s.dir, &Default::default());
    let pid = |l: &leftovers::Leftover| match l {
        leftovers::Leftover::Process(pid, _) => Pid::from_raw(*pid),
        _ => None,
    };
    found.iter().filter_map(pid).collect()
}

/// cgroup directories named after a container of the sandbox, also one that is long gone from its store.
#[track_caller]
fn no_cgroup_left(ids: &[String]) {
    fn walk(dir: &Path, depth: u32, ids: &[String], found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if depth > 6 || !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if ids.iter().any(|id| entry.file_name().as_bytes() == id.as_bytes()) {
                found.push(entry.path().display().to_string());
            }
            walk(&entry.path(), depth + 1, ids, found);
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 0, ids, &mut found);
    assert!(found.is_empty(), "cgroups left: {found:?}");
}

fn of_anything_at_any_moment(s: &Sandbox) {
    let mut random = Random::seeded();
    let mut ids: Vec<String> = Vec::new();
    for round in 0..40 {
        let flags: &[&str] = [&[][..], &["--rm"], &["-d"], &["-d", "--rm"], &["--init"], &["--rm", "--init"]]
            [random.below(6) as usize];
        let verb = random.below(4);
        let mut doing = if verb == 0 {
            s.dhow(["import", "-", "again"]).stdin_file(images::busybox()).spawn_with(|_| ())
        } else {
            let run = s.dhow(["run", "--name", "c1"]).args(flags);
            run.args(["busybox", "sh", "-c", "sleep 1000 & sleep 1000"]).spawn_with(|_| ())
        };
        random.pause(Duration::from_millis(40));
        if verb == 3 {
            // The other end of its life.
            let _ = s.dhow(["rm", "-f", "c1"]).spawn_with(|_| ());
            random.pause(Duration::from_millis(20));
        }
        // The command itself, or any process of the container.
        let mut pids = processes(s);
        pids.push(doing.pid());
        let victim = pids[random.below(pids.len() as u64) as usize];
        let _ = kill_process(victim, Signal::KILL);
        random.pause(Duration::from_millis(10));
        let _ = kill_process(doing.pid(), Signal::KILL);
        doing.code();
        ids.extend(
            leftovers::names(&s.store.join("containers")).iter().map(|n| n.to_string_lossy().into_owned()),
        );
        let about = format!("round {round}, verb {verb}, run {flags:?}");

        let listed = s.dhow(["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).output();
        assert!(listed.code == 0 && listed.stderr.is_empty(), "{about}: {}", listed.report());
        let removed = s.dhow(["rm", "-f", "c1"]).output();
        assert!(removed.code == 0, "{about}: {}", removed.report());
        let next = s.dhow(["run", "--rm", "--name", "c1", "busybox", "echo", "well"]).output();
        assert!(next.code == 0 && next.text() == "well", "{about}: {}", next.report());
        println!("{about}");
        s.assert_nothing_left();
        assert!(leftovers::names(&s.store.join("ephemeral")).is_empty(), "{about}: a marker is left");
        no_cgroup_left(&ids);
    }
}

fn of_the_command_ends_the_container_only_in_the_foreground(s: &Sandbox) {
    s.detached(["--name", "c1"], ["sleep", "1000"]);
    for flags in [&[][..], &["-t"]] {
        let exec = s.dhow(["exec"]).args(flags).args(["c1", "sleep", "1001"]).spawn_with(|_| ());
        let runs = || s.dhow(["exec", "c1", "ps", "-o", "args"]).ok().lines().any(|l| l == "sleep 1001");
        wait::until("the exec to run", || runs().then_some(()));
        exec.signal(Signal::KILL);
        drop(exec);
        wait::until("the exec to end", || (!runs()).then_some(()));
    }
    // Others beside it do not mind.
    assert_eq!(s.inspect("c1", "{{.State.Running}}"), "true");
    s.dhow(["rm", "-f", "c1"]).ok();
    s.assert_nothing_left();
}

fn removal_cut_short(s: &Sandbox) {
    // As a kill leaves it: out of `containers`, its name not yet free, half of its files gone, the lock not held.
    for half in [&["config.json"][..], &["config.json", "record.json", "hosts"]] {
        let id = s.dhow(["create", "--rm", "--name", "c1", "busybox", "true"]).ok();
        let grave = s.store.join("tmp").join(format!("removed-{id}"));
        std::fs::rename(s.store.join("containers").join(&id), &grave).unwrap();
        for name in half {
            std::fs::remove_file(grave.join(name)).unwrap();
        }
        assert_eq!(s.dhow(["ps", "-aq"]).ok(), "");
        assert_eq!(s.dhow(["run", "--rm", "--name", "c1", "busybox", "echo", "free"]).ok(), "free");
        s.assert_nothing_left();
        assert!(leftovers::names(&s.store.join("ephemeral")).is_empty());
    }
}

fn rm_of_a_container_that_is_being_started(s: &Sandbox) {
    let mut random = Random::seeded();
    for _ in 0..10 {
        let run = s.dhow(["run", "-d", "--name", "c1", "busybox", "sleep", "1000"]).spawn_with(|_| ());
        random.pause(Duration::from_millis(25));
        s.dhow(["rm", "-f", "c1"]).ok();
        drop(run);
        s.dhow(["rm", "-f", "c1"]).ok();
        // What the killed command was making is swept by the next that makes something.
        s.dhow(["run", "--rm", "--name", "c1", "busybox", "true"]).ok();
        s.assert_nothing_left();
    }
}

fn real_time_signals_under_init(s: &Sandbox) {
    // They have no names in nix: the reaper panicked at one, and never saw the end of a program that one had ended.
    assert_eq!(s.sh(["--init"], "kill -40 1; sleep 100").output().code, 128 + 40);
    let out = s.sh(["--init"], "trap 'exit 43' 37; kill -37 1; sleep 100 & wait").output();
    assert_eq!(out.code, 43, "{}", out.report());
}

fn start_beside_those_who_wait(s: &Sandbox) {
    // Who waits for a container's end holds its lock for a moment when it comes: a start must not take that for a run.
    s.dhow(["create", "--name", "c1", "busybox", "sleep", "1000"]).ok();
    for _ in 0..5 {
        s.dhow(["start", "c1"]).ok();
        let waiting: Vec<_> = (0..4).map(|_| s.dhow(["wait", "c1"]).spawn_with(|_| ())).collect();
        s.dhow(["stop", "-t", "0", "c1"]).ok();
        s.dhow(["start", "c1"]).ok();
        assert_eq!(s.inspect("c1", "{{.State.Running}}"), "true");
        drop(waiting);
        s.dhow(["stop", "-t", "0", "c1"]).ok();
        assert_eq!(s.inspect("c1", "{{.State.ExitCode}}"), "137");
    }
    s.dhow(["rm", "c1"]).args(NONE).ok();
}
