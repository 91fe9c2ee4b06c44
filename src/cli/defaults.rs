//! Defaults of flags from config.toml: put into the command line, right after the verb, as if they had been typed there.
//! So they are read and refused as flags are, and what is really typed comes later and wins.

use std::ffi::OsString;

use crate::config::{Config, Pull};

/// What can be told of the command line before it is parsed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Typed {
    /// The value of --root.
    pub(super) root: Option<OsString>,
    /// The place and name of the verb.
    verb: Option<(usize, String)>,
}

impl Typed {
    /// Walks over the options that stand before the verb.
    pub(super) fn read(args: &[OsString]) -> Typed {
        let mut typed = Typed::default();
        let mut words = args.iter().enumerate().skip(1);
        while let Some((at, word)) = words.next() {
            let text = word.to_string_lossy();
            match text.split_once('=').unwrap_or((&text, "")) {
                ("--root", _) if text.len() > 6 => {
                    typed.root = Some(text["--root=".len()..].into());
                }
                ("--root", _) => typed.root = words.next().map(|(_, value)| value.clone()),
                ("--storage-opt", _) if !text.contains('=') => drop(words.next()),
                ("container", _) => {}
                (option, _) if option.starts_with('-') => {}
                _ => {
                    typed.verb = Some((at, text.into_owned()));
                    break;
                }
            }
        }
        typed
    }

    /// Puts the defaults for the verb in.
    pub(super) fn add_defaults(&self, args: &mut Vec<OsString>, config: &Config) {
        let Some((at, verb)) = &self.verb else { return };
        let flags = flags(config).into_iter().filter(|(name, _)| takes(verb, name));
        let words: Vec<OsString> = flags.map(|(name, value)| format!("--{name}={value}").into()).collect();
        args.splice(at + 1..at + 1, words);
    }
}

/// Whether a verb has this flag, and takes its default from the file.
fn takes(verb: &str, flag: &str) -> bool {
    match verb {
        "run" => true,
        "create" => flag != "detach-keys",
        // It is always on there, and there are never any.
        "shell" => !matches!(flag, "init" | "detach-keys"),
        "start" | "exec" | "attach" => flag == "detach-keys",
        _ => false,
    }
}

/// The flags that the file sets.
pub(super) fn flags(config: &Config) -> Vec<(&'static str, String)> {
    let run = &config.run;
    let mut flags = Vec::new();
    let mut add = |name: &'static str, value: Option<String>| flags.extend(value.map(|v| (name, v)));
    add("default-network", run.network.clone());
    add("log-driver", run.log_driver.clone());
    for (key, value) in &run.log_opts {
        add("log-opt", Some(format!("{key}={value}")));
    }
    add("detach-keys", run.detach_keys.clone());
    add("init", run.init.map(|on| on.to_string()));
    add(
        "pull",
        run.pull.map(|pull| match pull {
            Pull::Always => "always".into(),
            Pull::Missing => "missing".into(),
            Pull::Newer => "newer".into(),
            Pull::Never => "never".into(),
        }),
    );
    add("tz", run.tz.clone());
    add("stop-timeout", run.stop_timeout.map(|n| n.to_string()));
    for limit in run.ulimits.iter().flatten() {
        add("ulimit", Some(limit.clone()));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_flag() {
        let config: Config = toml::from_str(
            "[run]\nnetwork='n'\nlog-driver='n'\nlog-opts={a='b'}\ndetach-keys='a'\ninit=true\npull='never'\ntz='t'\n\
             stop-timeout=1\nulimits=['a=1']\n",
        )
        .unwrap();
        for verb in super::super::verbs::TOP {
            let mut command = (verb.flags)(clap::Command::new(verb.name));
            command.build();
            for (flag, _) in flags(&config).iter().filter(|(flag, _)| takes(verb.name, flag)) {
                let has = command.get_arguments().any(|arg| arg.get_long() == Some(flag));
                assert!(has, "{} has no --{flag}", verb.name);
            }
        }
        assert_eq!(flags(&config).len(), 9);
    }

    #[test]
    fn the_verb_is_found() {
        let check = |line: &str, root: Option<&str>, verb: Option<(usize, &str)>| {
            let args: Vec<OsString> = line.split(' ').map(Into::into).collect();
            let verb = verb.map(|(at, name)| (at, name.to_owned()));
            assert_eq!(Typed::read(&args), Typed { root: root.map(Into::into), verb }, "{line}");
        };
        check("dhow", None, None);
        check("dhow run x", None, Some((1, "run")));
        check("dhow --root /r run x --root /s", Some("/r"), Some((3, "run")));
        check("dhow --root=/r=x --storage-opt a=b container run", Some("/r=x"), Some((5, "run")));
        check("dhow --storage-opt=a=b image ls", None, Some((2, "image")));
        check("dhow --version", None, None);
        check("dhow --root", None, None);
    }

    #[test]
    fn what_is_typed_comes_later() {
        let mut config = Config::default();
        config.run.network = Some("none".into());
        config.run.detach_keys = Some("ctrl-x".into());
        let with = |line: &str| {
            let mut args: Vec<OsString> = line.split(' ').map(Into::into).collect();
            Typed::read(&args).add_defaults(&mut args, &config);
            args.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            with("dhow run --network host x"),
            "dhow run --default-network=none --detach-keys=ctrl-x --network host x"
        );
        assert_eq!(with("dhow container create x"), "dhow container create --default-network=none x");
        assert_eq!(with("dhow exec x y"), "dhow exec --detach-keys=ctrl-x x y");
        assert_eq!(with("dhow ps"), "dhow ps");
        assert_eq!(with("dhow"), "dhow");
    }
}
