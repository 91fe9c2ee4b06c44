use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;

use super::*;
use crate::fs;
use crate::store::container::Source;
use crate::store::log_config::LogConfig;

struct Scratch {
    dir: ContainerDir,
    record: Record,
}

impl Scratch {
    fn new(name: &str, driver: &str, options: &[(&str, &str)]) -> Scratch {
        let path = std::env::temp_dir().join(format!("dhow-log-{}-{name}", std::process::id()));
        let _ = fs::remove_tree(&path);
        fs::create_dir_all(&path, 0o700).unwrap();
        let mut record: Record = serde_json::from_value(serde_json::json!({
            "id": "0123456789abcdef", "name": "web", "created": "2026-01-02T03:04:05Z",
            "source": { "Dir": { "path": "/root", "throw_away": false } }, "user": "", "has_home": true,
            "auto_remove": false, "terminal": false, "interactive": false, "init": false, "stop_signal": 15,
            "stop_timeout": 10, "labels": {"a": "1", "ab": "2", "c": "3"}, "strict_limits": false, "log": true,
            "options": null,
        }))
        .unwrap();
        assert_eq!(record.log_config, LogConfig::default(), "a record of before there were drivers");
        assert!(matches!(record.source, Source::Dir { .. }));
        record.log_config = config(driver, options);
        Scratch { dir: ContainerDir { path }, record }
    }

    fn open(&self) -> Writer {
        Writer::open(&self.dir, &self.record).unwrap()
    }

    fn all(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut each = |entry: Entry<'_>| {
            let to = if entry.stream == Stream::Out { &mut out } else { &mut err };
            to.extend_from_slice(entry.content);
            if entry.is_whole {
                to.push(b'\n');
            }
            Ok(())
        };
        let mut lines = reader(&self.dir, &self.record).unwrap().unwrap();
        lines.read(&mut entry::each_entry(&mut each)).unwrap();
        (out, err)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_tree(&self.dir.path);
    }
}

fn config(driver: &str, options: &[(&str, &str)]) -> LogConfig {
    let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    LogConfig { driver: driver.to_owned(), options }
}

#[test]
fn bytes_come_back_as_they_were_written() {
    let s = Scratch::new("bytes", "json-file", &[]);
    let mut log = s.open();
    let long = vec![b'x'; 40_000];
    log.write(Stream::Out, b"a\xff\0b\n\nhalf");
    log.write(Stream::Err, b"e\n");
    log.write(Stream::Out, b" line\n");
    log.write(Stream::Out, &long);
    log.finish();
    let (out, err) = s.all();
    assert_eq!(out, [b"a\xff\0b\n\nhalf line\n".as_slice(), &long].concat());
    assert_eq!(err, b"e\n");
}

#[test]
fn the_log_is_bounded() {
    for (name, options, most, least) in [
        ("default", &[][..], 30 << 20, 20 << 20),
        ("two", &[("max-size", "100k"), ("max-file", "2")], 200 << 10, 100 << 10),
        ("one", &[("max-size", "100k"), ("max-file", "1")], 100 << 10, 1),
    ] {
        let s = Scratch::new(&format!("bounded-{name}"), "json-file", options);
        let mut log = s.open();
        let line = [vec![b'y'; 7999], b"\n".to_vec()].concat();
        for _ in 0..5000 {
            log.write(Stream::Out, &line);
        }
        let sizes: Vec<u64> = fs::read_dir(&s.dir.path)
            .unwrap()
            .iter()
            .map(|name| fs::metadata(&s.dir.path.join(name)).unwrap().unwrap().len())
            .collect();
        let size: u64 = sizes.iter().sum();
        assert!(size <= most && size >= least, "{name}: {sizes:?}");
        assert!(!s.all().0.is_empty(), "{name}");
    }
}

#[test]
fn a_log_that_cannot_be_written_says_so_where_it_can_again() {
    let s = Scratch::new("full", "json-file", &[("max-size", "1k")]);
    let mut log = s.open();
    log.write(Stream::Out, b"before\n");
    // In the way of the next rotation, and not to be renamed over.
    fs::create_dir_all(&s.dir.path.join("log.1/x"), 0o700).unwrap();
    fs::create_dir_all(&s.dir.path.join("log.2/x"), 0o700).unwrap();
    log.write(Stream::Out, &[&[b'x'; 1000][..], b"\n"].concat());
    log.write(Stream::Out, &[&[b'y'; 1000][..], b"\n"].concat());
    fs::remove_tree(&s.dir.path.join("log.1")).unwrap();
    fs::remove_tree(&s.dir.path.join("log.2")).unwrap();
    log.write(Stream::Out, b"after\n");
    let (out, err) = s.all();
    assert_eq!(out, b"before\nafter\n");
    let err = String::from_utf8(err).unwrap();
    assert!(err.starts_with("[dhow: output is missing here: cannot rename"), "{err}");
}

#[test]
fn options_are_understood_or_refused() {
    for (driver, options, about) in [
        ("json-file", &[("max-size", "1m"), ("max-file", "5"), ("mode", "non-blocking")][..], ""),
        ("json-file", &[("max-size", "-1"), ("labels", "a"), ("env-regex", "^A")], ""),
        ("local", &[("max-size", "1m"), ("compress", "false")], ""),
        ("json-file", &[("max-size", "1m"), ("compress", "true")], ""),
        ("syslog", &[("syslog-address", "udp://127.0.0.1"), ("tag", "{{.Name}}/{{ .ID }}")], ""),
        ("journald", &[("cache-disabled", "true"), ("labels", "x")], ""),
        ("none", &[], ""),
        ("json-file", &[("nosuch", "1")], "unknown log opt 'nosuch'"),
        ("none", &[("max-size", "1m")], "unknown log opt 'max-size'"),
        ("json-file", &[("syslog-address", "udp://h")], "unknown log opt 'syslog-address'"),
        ("json-file", &[("max-size", "much")], "max-size"),
        ("json-file", &[("max-size", "0")], "max-size"),
        ("json-file", &[("max-file", "0")], "max-file"),
        ("json-file", &[("max-file", "x")], "max-file"),
        ("json-file", &[("compress", "true"), ("max-file", "1")], "compress"),
        ("json-file", &[("compress", "true"), ("max-size", "-1")], "compress"),
        ("json-file", &[("compress", "perhaps")], "compress"),
        ("json-file", &[("mode", "fast")], "mode"),
        ("json-file", &[("labels-regex", "(")], "labels-regex"),
        ("json-file", &[("tag", "{{.Nosuch}}")], "tag"),
        ("json-file", &[("tag", "{{.ID")], "tag"),
        ("syslog", &[("syslog-address", "h")], "syslog-address"),
        ("syslog", &[("syslog-facility", "x")], "syslog-facility"),
        ("syslog", &[("syslog-format", "x")], "syslog-format"),
        ("fluentd", &[], "no such driver"),
    ] {
        let result = Settings::of(&config(driver, options));
        match result {
            Ok(_) => assert_eq!(about, "", "{driver} {options:?}"),
            Err(error) => {
                let text = crate::error::chain(&error);
                assert!(!about.is_empty() && text.contains(about), "{driver} {options:?}: {text}");
            }
        }
    }
}

#[test]
fn tags_and_attributes() {
    let s = Scratch::new(
        "tags",
        "json-file",
        &[("tag", "{{.Name}}/{{.ID}}"), ("labels", "c,x"), ("labels-regex", "^ab$")],
    );
    let settings = Settings::of(&s.record.log_config).unwrap();
    assert_eq!(settings.tag(&s.record), "web/0123456789ab");
    let attributes: Vec<_> = settings.attributes(&s.dir, &s.record).unwrap().into_iter().collect();
    let expected = [("ab", "2"), ("c", "3"), ("tag", "web/0123456789ab")];
    assert_eq!(attributes, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn syslog_gets_lines_and_a_copy_is_kept() {
    let s = Scratch::new("syslog", "syslog", &[]);
    let path: PathBuf = s.dir.path.join("syslog");
    let server = UnixDatagram::bind(&path).unwrap();
    let address = format!("unixgram://{}", path.display());
    let record = Record {
        log_config: config("syslog", &[("syslog-address", &address), ("syslog-facility", "local0")]),
        ..s.record.clone()
    };
    let mut log = Writer::open(&s.dir, &record).unwrap();
    log.write(Stream::Out, b"one\ntw");
    log.write(Stream::Err, b"bad\n");
    log.finish();
    let mut buffer = [0; 1000];
    let mut receive = || {
        let n = server.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let messages = [receive(), receive(), receive()];
    assert!(messages[0].starts_with("<134>") && messages[0].ends_with("]: one"), "{messages:?}");
    assert!(messages[0].contains(" 0123456789ab["), "{messages:?}");
    assert!(messages[1].starts_with("<131>") && messages[1].ends_with("]: bad"), "{messages:?}");
    assert!(messages[2].ends_with("]: tw"), "{messages:?}");
    assert_eq!(s.all(), (b"one\ntw".to_vec(), b"bad\n".to_vec()));
}

#[test]
fn a_syslog_that_does_not_read_keeps_nobody_waiting() {
    let s = Scratch::new("slow", "syslog", &[]);
    let path = s.dir.path.join("syslog");
    let server = UnixListener::bind(&path).unwrap();
    let address = format!("unix://{}", path.display());
    let options = [("syslog-address", address.as_str()), ("cache-disabled", "true")];
    let record = Record { log_config: config("syslog", &options), ..s.record.clone() };
    let mut log = Writer::open(&s.dir, &record).unwrap();
    assert!(reader(&s.dir, &record).unwrap().is_none());
    let (mut stream, _) = server.accept().unwrap();
    let line = [vec![b'z'; 1000], b"\n".to_vec()].concat();
    // Far more than the queue and the socket hold.
    for _ in 0..5000 {
        log.write(Stream::Out, &line);
    }
    assert!(log.interest().is_some());
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
        text
    });
    while log.interest().is_some() {
        log.step();
    }
    log.write(Stream::Out, b"last\n");
    log.finish();
    drop(log);
    let text = reading.join().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with('<')), "no message is cut");
    assert!(lines.last().unwrap().ends_with(": last"));
    let lost = lines[lines.len() - 2];
    let (_, lost) = lost.split_once("[dhow: ").unwrap();
    let lost: usize = lost.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(lines.len() - 2 + lost, 5000);
}

#[test]
fn a_syslog_that_is_not_there_is_an_error_that_names_it() {
    let s = Scratch::new("absent", "syslog", &[("syslog-address", "unix:///nowhere/at/all")]);
    let error = crate::error::chain(&Writer::open(&s.dir, &s.record).unwrap_err());
    assert!(error.contains("cannot log to syslog") && error.contains("/nowhere/at/all"), "{error}");
}
