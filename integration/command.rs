//! One run of a program: built up, run, judged. Whatever was expected and did not come is reported with the command, its
//! directory, its status and both its streams.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::leftovers;
use crate::user::Account;
use crate::wait;

/// No single command of a test takes this long, unless it hangs or says otherwise.
const DEADLINE: Duration = Duration::from_secs(180);

/// A command to run.
pub struct Cmd {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: PathBuf,
    account: Account,
    stdin: Input,
    deadline: Duration,
}

enum Input {
    Nothing,
    Bytes(Vec<u8>),
    File(File),
}

/// What came of it.
pub struct Output {
    /// The exit code, or 128 + signal where a signal ended the command itself.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    line: String,
}

/// A command that is running. Killed when dropped.
pub struct Running {
    pub child: Child,
    pub line: String,
}

impl Cmd {
    pub fn new(program: impl Into<PathBuf>, account: &Account, dir: &Path) -> Cmd {
        let (program, dir, account) = (program.into(), dir.to_owned(), account.clone());
        Cmd { program, args: vec![], env: vec![], dir, account, stdin: Input::Nothing, deadline: DEADLINE }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Cmd {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Cmd {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Cmd {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn env_remove(mut self, name: &str) -> Cmd {
        self.env.retain(|(n, _)| n != name);
        self
    }

    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Cmd {
        self.dir = dir.into();
        self
    }

    /// Runs it by way of another program, which gets this one as its last arguments.
    pub fn under(mut self, wrapper: &[&str]) -> Cmd {
        let program = std::mem::replace(&mut self.program, wrapper[0].into());
        let mut args: Vec<OsString> = wrapper[1..].iter().map(OsString::from).collect();
        args.push(program.into());
        args.append(&mut self.args);
        self.args = args;
        self
    }

    /// Lets it take longer than a command should.
    pub fn patiently(mut self) -> Cmd {
        self.deadline = 5 * DEADLINE;
        self
    }

    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Cmd {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    pub fn stdin_file(mut self, path: &Path) -> Cmd {
        self.stdin = Input::File(File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
        self
    }

    /// The bare command, for what this type does not offer. Standard input is what was asked for, or /dev/null.
    pub fn command(self) -> (Command, String, Option<Vec<u8>>) {
        let line = self.to_string();
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(&self.dir).env_clear().envs(self.env);
        if rustix::process::geteuid().is_root() && self.account.uid != 0 {
            // std gives up the supplementary groups too when root sets a uid.
            command.gid(self.account.gid).uid(self.account.uid);
        }
        let (stdin, bytes) = match self.stdin {
            Input::Nothing => (Stdio::null(), None),
            Input::File(file) => (file.into(), None),
            Input::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
        };
        command.stdin(stdin);
        (command, line, bytes)
    }

    /// Starts it, with both output streams thrown away unless the caller's closure says otherwise.
    #[track_caller]
    pub fn spawn_with(self, set: impl FnOnce(&mut Command)) -> Running {
        let (mut command, line, _) = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        set(&mut command);
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot run {line}: {e}"));
        leftovers::is_awaited(&child);
        Running { child, line }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn output(self) -> Output {
        let deadline = self.deadline;
        let (mut command, line, bytes) = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {line}: {e}"));
        let stdin = child.stdin.take().zip(bytes);
        let feeder = thread::spawn(move || {
            if let Some((mut pipe, bytes)) = stdin {
                // A command that does not read all its input closes the pipe: not our failure.
                let _ = pipe.write_all(&bytes);
            }
        });
        let out = collect(child.stdout.take().unwrap());
        let err = collect(child.stderr.take().unwrap());
        let ended = wait::within(deadline, || child.try_wait().unwrap());
        let Some(status) = ended else {
            let _ = child.kill();
            panic!("still running after {deadline:?}: {line}");
        };
        let (stdout, stderr) = (out.join().unwrap(), err.join().unwrap());
        feeder.join().unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Output { code, stdout, stderr, line }
    }

    /// Runs it; it must succeed. Standard output, without the last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        self.output().exits(0).text()
    }

    /// Runs it; it must end with `code`. Standard error.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        self.output().exits(code).error_text()
    }
}

impl fmt::Display for Cmd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cd {} && (as {}) env -i", self.dir.display(), self.account.name)?;
        for (name, value) in &self.env {
            write!(f, " {}={:?}", name.to_string_lossy(), value.to_string_lossy())?;
        }
        write!(f, " {}", self.program.display())?;
        self.args.iter().try_for_each(|arg| write!(f, " {:?}", arg.to_string_lossy()))
    }
}

/// Reads a stream to its end on a thread of its own, so that neither stream blocks the other.
fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

impl Output {
    /// The exit code must be this one.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert!(self.code == code, "exit code {} where {code} was expected\n{}", self.code, self.report());
        self
    }

    /// Something must hold of this run.
    #[track_caller]
    pub fn expect(self, what: &str, holds: impl FnOnce(&Output) -> bool) -> Output {
        assert!(holds(&self), "not so: {what}\n{}", self.report());
        self
    }

    /// Standard error must contain this.
    #[track_caller]
    pub fn complains(self, about: &str) -> Output {
        self.expect(&format!("stderr says {about:?}"), |o| o.error_text().contains(about))
    }

    /// Standard output as text, without the last newline.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stdout).into_owned();
        text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
    }

    /// Standard error as text.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Everything about this run, for the reader of a failed test.
    pub fn report(&self) -> String {
        let part = |name: &str, bytes: &[u8]| {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(8192)]).into_owned();
            format!("--- {name} ({} bytes)\n{shown}\n", bytes.len())
        };
        let status = self.code;
        format!(
            "$ {}\nstatus {status}\n{}{}",
            self.line,
            part("stdout", &self.stdout),
            part("stderr", &self.stderr)
        )
    }
}

impl Running {
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Sends a signal to the command alone.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end; the exit code, 128 + signal where a signal ended it.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        let line = self.line.clone();
        let status = wait::until(&format!("the end of {line}"), || self.child.try_wait().unwrap());
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        leftovers::is_waited_for(&self.child);
    }
}
