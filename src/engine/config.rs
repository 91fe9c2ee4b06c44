//! A container's `Config`, from its image and the flags.

use crate::oci::image::ImageConfiguration;
use crate::spec::options::Options;
use crate::store::config::Config;

/// What both came to; `args` is the command line that the bundle has.
pub(super) fn of(image: Option<&ImageConfiguration>, options: &Options, args: &[String]) -> Config {
    let image = image.and_then(|i| i.config().as_ref());
    let or_none = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
    let entrypoint = match &options.entrypoint {
        Some(own) => or_none(own),
        None => image.and_then(|c| c.entrypoint().as_ref()).and_then(or_none),
    };
    // An entrypoint of one's own takes the image's command away.
    let of_image = image.and_then(|c| c.cmd().as_ref()).filter(|_| options.entrypoint.is_none());
    let cmd = or_none(&options.command).or_else(|| of_image.and_then(or_none));
    let exposed = image.and_then(|c| c.exposed_ports().clone()).unwrap_or_default();
    Config {
        args: args.to_vec(),
        entrypoint,
        cmd,
        exposed_ports: exposed
            .into_iter()
            .chain(options.expose.iter().cloned())
            .chain(options.publish.iter().map(|p| format!("{}/{}", p.container_port, p.protocol)))
            .map(|port| with_protocol(&port))
            .collect(),
        stop_signal: options.stop_signal.clone().or_else(|| image.and_then(|c| c.stop_signal().clone())),
    }
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_count_more_than_the_image() {
        let image: ImageConfiguration = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
                "config":{"Entrypoint":["/e"],"Cmd":["c"],"ExposedPorts":{"80":{},"53/udp":{}},"StopSignal":"INT"}}"#,
        )
        .unwrap();
        let words = |text: &str| -> Option<Vec<String>> {
            (!text.is_empty()).then(|| text.split(' ').map(str::to_owned).collect())
        };
        let check = |entrypoint: Option<&str>, command: &str, want: (&str, &str)| {
            let options = Options {
                entrypoint: entrypoint.map(|e| words(e).unwrap_or_default()),
                command: words(command).unwrap_or_default(),
                ..Options::default()
            };
            let config = of(Some(&image), &options, &[]);
            assert_eq!(
                (config.entrypoint, config.cmd),
                (words(want.0), words(want.1)),
                "{entrypoint:?} {command}"
            );
        };
        check(None, "", ("/e", "c"));
        check(None, "x y", ("/e", "x y"));
        check(Some("/o"), "", ("/o", ""));
        check(Some("/o"), "x", ("/o", "x"));
        check(Some(""), "x", ("", "x"));
        let config = of(Some(&image), &Options::default(), &["/e".into(), "c".into()]);
        assert_eq!(config.exposed_ports.iter().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!((config.stop_signal.as_deref(), config.args.len()), (Some("INT"), 2));
        assert_eq!(of(None, &Options::default(), &[]), Config::default());
    }
}
