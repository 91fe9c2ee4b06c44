//! What an instruction does to an image's config: `--change` of import and commit, and the builder's metadata steps.
//!
//! The config is handled as JSON, because it has fields that the specification does not know (Healthcheck, OnBuild,
//! Shell) and must keep those that we do not know either.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Map, Value, json};

use crate::dockerfile;
use crate::dockerfile::Command;
use crate::dockerfile::ESCAPE;
use crate::dockerfile::Healthcheck;
use crate::dockerfile::Instruction;
use crate::dockerfile::expand::expand;

/// Applies the texts given as `--change`, in their order.
pub fn apply_texts(config: &mut Map<String, Value>, changes: &[String]) -> Result<()> {
    let mut cmd_is_ours = false;
    for change in changes {
        for (_, line) in dockerfile::lines::logical(&with_space(change), ESCAPE) {
            let about = || format!("cannot apply the change {line:?}");
            let instruction = dockerfile::instruction::parse(&line, ESCAPE).with_context(about)?;
            apply(config, &instruction, &mut cmd_is_ours).with_context(about)?;
        }
    }
    Ok(())
}

/// Podman's way to write a change is `CMD=/bin/sh`.
fn with_space(change: &str) -> String {
    match change.split_once('=') {
        Some((name, rest)) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic()) => {
            format!("{name} {rest}")
        }
        _ => change.to_owned(),
    }
}

/// Applies one instruction. An entry point without a command of the same stage drops the command that was inherited,
/// which belonged to another program; `cmd_is_ours` remembers whether there was one.
pub fn apply(
    config: &mut Map<String, Value>,
    instruction: &Instruction,
    cmd_is_ours: &mut bool,
) -> Result<()> {
    let env = environment(config);
    let expanded =
        |word: &str| expand(word, ESCAPE, &|name| env.get(name).cloned()).map_err(|why| anyhow!(why));
    match instruction {
        Instruction::Cmd(command) => {
            config.insert("Cmd".to_owned(), json!(command_line(config, command)));
            *cmd_is_ours = true;
        }
        Instruction::Entrypoint(command) => {
            let words = command_line(config, command);
            // An empty one is how a base image's is dropped.
            config.insert("Entrypoint".to_owned(), if words.is_empty() { Value::Null } else { json!(words) });
            if !*cmd_is_ours {
                config.insert("Cmd".to_owned(), Value::Null);
            }
        }
        Instruction::Env(pairs) => {
            for (name, value) in pairs {
                let (name, value) = (expanded(name)?, expanded(value)?);
                if name.is_empty() {
                    bail!("the name of the variable is empty");
                }
                set_variable(config, &name, &value);
            }
        }
        Instruction::Label(pairs) => {
            for (name, value) in pairs {
                let (name, value) = (expanded(name)?, expanded(value)?);
                object(config, "Labels").insert(name, Value::from(value));
            }
        }
        Instruction::Expose(words) => {
            for word in words {
                for port in expanded(word)?.split_whitespace() {
                    for port in ports(port)? {
                        object(config, "ExposedPorts").insert(port, json!({}));
                    }
                }
            }
        }
        Instruction::Volume(paths) => {
            for path in paths {
                object(config, "Volumes").insert(expanded(path)?, json!({}));
            }
        }
        Instruction::User(user) => set(config, "User", expanded(user)?),
        Instruction::Stopsignal(signal) => set(config, "StopSignal", expanded(signal)?),
        Instruction::Workdir(path) => {
            let old = config.get("WorkingDir").and_then(Value::as_str).unwrap_or_default();
            let path = joined(old, &expanded(path)?)?;
            set(config, "WorkingDir", path);
        }
        Instruction::Onbuild(trigger) => match config.get_mut("OnBuild").and_then(Value::as_array_mut) {
            Some(triggers) => triggers.push(Value::from(trigger.as_str())),
            None => _ = config.insert("OnBuild".to_owned(), json!([trigger])),
        },
        Instruction::Healthcheck(check) => _ = config.insert("Healthcheck".to_owned(), healthcheck(check)),
    }
    Ok(())
}

fn set(config: &mut Map<String, Value>, name: &str, value: String) {
    config.insert(name.to_owned(), Value::from(value));
}

/// The object in this field; made, or made one, where it is anything else.
pub(super) fn object<'a>(config: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let field = config.entry(name).or_insert(Value::Null);
    if !field.is_object() {
        *field = json!({});
    }
    field.as_object_mut().expect("it was made an object")
}

fn strings(config: &Map<String, Value>, name: &str) -> Vec<String> {
    let words = config.get(name).and_then(Value::as_array).into_iter().flatten();
    words.filter_map(|w| w.as_str().map(str::to_owned)).collect()
}

fn environment(config: &Map<String, Value>) -> BTreeMap<String, String> {
    let all = strings(config, "Env").into_iter();
    all.filter_map(|v| v.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))).collect()
}

/// Sets a variable of the environment, in its place if it is there.
pub(super) fn set_variable(config: &mut Map<String, Value>, name: &str, value: &str) {
    let mut all = strings(config, "Env");
    let entry = format!("{name}={value}");
    match all.iter_mut().find(|v| v.split_once('=').map_or(v.as_str(), |(n, _)| n) == name) {
        Some(old) => *old = entry,
        None => all.push(entry),
    }
    config.insert("Env".to_owned(), json!(all));
}

fn command_line(config: &Map<String, Value>, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(None) => Vec::new(),
        Command::Shell(Some(text)) => {
            let mut words = strings(config, "Shell");
            if words.is_empty() {
                words = vec!["/bin/sh".to_owned(), "-c".to_owned()];
            }
            words.push(text.clone());
            words
        }
    }
}

/// `80`, `80/udp`, `8000-8002/tcp` -> `80/tcp` and so on. A part before a colon would be a port of the host, of which an
/// image knows nothing; docker passes over it too.
fn ports(text: &str) -> Result<Vec<String>> {
    let bad = || anyhow!("{text:?} is not a port such as 80, 53/udp or 8000-8010");
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        bail!("{text:?} is not a port: the protocol must be tcp, udp or sctp");
    }
    let range = range.rsplit_once(':').map_or(range, |(_, container)| container);
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first == 0 || last < first {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A working directory, read from the one before, in its shortest form.
fn joined(old: &str, path: &str) -> Result<String> {
    if path.is_empty() {
        bail!("the directory is empty");
    }
    let base = if path.starts_with('/') { "" } else { old };
    let mut parts = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop(),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Docker's form: durations in nanoseconds, 0 and absent meaning the default.
fn healthcheck(check: &Healthcheck) -> Value {
    let Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } = check
    else {
        return json!({"Test": ["NONE"]});
    };
    let test = match command {
        Command::Exec(words) => {
            let mut test = vec!["CMD".to_owned()];
            test.extend(words.iter().cloned());
            test
        }
        Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone().unwrap_or_default()],
    };
    let mut value = json!({"Test": test});
    let periods = [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
    ];
    for (name, period) in periods {
        // The parser keeps durations within 63 bits of nanoseconds.
        if let Some(n) = period.map(|p| p.as_nanos() as u64).filter(|n| *n > 0) {
            value[name] = Value::from(n);
        }
    }
    if let Some(n) = retries.filter(|n| *n > 0) {
        value["Retries"] = Value::from(n);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: Value, changes: &[&str], after: Value) {
        let mut config = before.as_object().unwrap().clone();
        let changes: Vec<String> = changes.iter().map(|c| (*c).to_owned()).collect();
        apply_texts(&mut config, &changes).unwrap();
        assert_eq!(Value::Object(config), after, "{changes:?}");
    }

    #[test]
    fn changes_do_what_docker_does() {
        check(json!({}), &["CMD echo $X"], json!({"Cmd": ["/bin/sh", "-c", "echo $X"]}));
        check(json!({}), &[r#"CMD ["a","b"]"#], json!({"Cmd": ["a", "b"]}));
        check(json!({}), &["CMD=/bin/bash"], json!({"Cmd": ["/bin/sh", "-c", "/bin/bash"]}));
        check(
            json!({"Shell": ["/bin/bash", "-c"]}),
            &["CMD a"],
            json!({"Shell": ["/bin/bash", "-c"], "Cmd": ["/bin/bash", "-c", "a"]}),
        );
        check(json!({"Cmd": ["x"]}), &[r#"ENTRYPOINT ["e"]"#], json!({"Cmd": null, "Entrypoint": ["e"]}));
        check(json!({}), &["CMD [\"c\"]", r#"ENTRYPOINT ["e"]"#], json!({"Cmd": ["c"], "Entrypoint": ["e"]}));
        check(
            json!({"Entrypoint": ["e"], "Cmd": ["x"]}),
            &["ENTRYPOINT []"],
            json!({"Entrypoint": null, "Cmd": null}),
        );
        check(
            json!({"Env": ["A=1", "B=2"]}),
            &["ENV A='x y' C=$B$A", "ENV D ${C}"],
            json!({"Env": ["A=x y", "B=2", "C=21", "D=21"]}),
        );
        check(json!({}), &["ENV=A=b"], json!({"Env": ["A=b"]}));
        check(json!({"Labels": null}), &["LABEL a=b c=\"d e\""], json!({"Labels": {"a": "b", "c": "d e"}}));
        check(
            json!({"Env": ["P=80 81"]}),
            &["EXPOSE $P 90-91/udp 1:2"],
            json!({"Env": ["P=80 81"], "ExposedPorts": {"80/tcp": {}, "81/tcp": {}, "90/udp": {}, "91/udp": {}, "2/tcp": {}}}),
        );
        check(json!({}), &["VOLUME /a /b"], json!({"Volumes": {"/a": {}, "/b": {}}}));
        check(json!({}), &["USER a:b\nSTOPSIGNAL SIGINT"], json!({"User": "a:b", "StopSignal": "SIGINT"}));
        check(json!({}), &["WORKDIR /a", "WORKDIR b/../c"], json!({"WorkingDir": "/a/c"}));
        check(json!({}), &["ONBUILD RUN a", "ONBUILD USER b"], json!({"OnBuild": ["RUN a", "USER b"]}));
        check(json!({}), &["HEALTHCHECK NONE"], json!({"Healthcheck": {"Test": ["NONE"]}}));
        check(
            json!({}),
            &["HEALTHCHECK --interval=5s --retries=2 CMD [\"a\"]"],
            json!({"Healthcheck": {"Test": ["CMD", "a"], "Interval": 5_000_000_000u64, "Retries": 2}}),
        );
        check(json!({}), &["HEALTHCHECK CMD a b"], json!({"Healthcheck": {"Test": ["CMD-SHELL", "a b"]}}));
        check(
            json!({"Unknown": {"z": 1, "a": 2}}),
            &["USER x"],
            json!({"Unknown": {"z": 1, "a": 2}, "User": "x"}),
        );
    }

    #[test]
    fn bad_changes_say_why() {
        let check = |change: &str, why: &str| {
            let error = apply_texts(&mut Map::new(), &[change.to_owned()]).unwrap_err();
            assert!(crate::error::chain(&error).contains(why), "{change}: {error:#}");
        };
        check("RUN x", "RUN does not change only the config");
        check("EXPOSE http", "not a port such as");
        check("EXPOSE 1/icmp", "the protocol must be");
        check("EXPOSE 9-8", "not a port such as");
        check("USER 'a", "closing '");
        check("ENV $NONE=1", "name of the variable is empty");
        check("WORKDIR $NONE", "the directory is empty");
    }
}
