//! `Config` of inspect: what the container is whatever host it is on.

use serde_json::{Map, Value, json};

use super::inspect_mounts;
use crate::oci::runtime::Spec;
use crate::spec::options::{Options, Streams};
use crate::store::container::{Record, Source};
use crate::store::health::{Healthcheck, OnFailure};

/// From the options, the record and the bundle.
pub(super) fn config(options: &Options, record: &Record, spec: &Spec) -> Value {
    let process = spec.process().as_ref();
    let kept = &record.config;
    let image = match &record.source {
        Source::Image { name, .. } => name.clone(),
        Source::Dir { path, .. } => path.display().to_string(),
    };
    // Records of older versions do not tell the entrypoint from the command.
    let cmd = if kept.args.is_empty() { process.and_then(|p| p.args().clone()) } else { kept.cmd.clone() };
    let attached =
        options.attached.unwrap_or(Streams { stdin: options.interactive, stdout: true, stderr: true });
    let mut shown = json!({
        "Hostname": spec.hostname().clone().unwrap_or_default(),
        "Domainname": options.domainname.clone().unwrap_or_default(),
        "User": record.user,
        "AttachStdin": attached.stdin,
        "AttachStdout": attached.stdout,
        "AttachStderr": attached.stderr,
    });
    let mut add = |key: &str, value: Value| shown[key] = value;
    if !kept.exposed_ports.is_empty() {
        let ports: Map<String, Value> =
            kept.exposed_ports.iter().map(|port| (port.clone(), json!({}))).collect();
        add("ExposedPorts", ports.into());
    }
    add("Tty", options.terminal.into());
    add("OpenStdin", options.interactive.into());
    add("StdinOnce", (options.interactive && attached.stdin).into());
    add("Env", json!(process.and_then(|p| p.env().clone()).unwrap_or_default()));
    add("Cmd", json!(cmd));
    add("Image", image.into());
    add("Volumes", inspect_mounts::config_volumes(options));
    add("WorkingDir", process.map(|p| p.cwd().display().to_string()).unwrap_or_default().into());
    add("Entrypoint", json!(kept.entrypoint));
    add("OnBuild", Value::Null);
    add("Labels", json!(record.labels));
    add("StopSignal", kept.stop_signal.clone().unwrap_or_else(|| "SIGTERM".to_owned()).into());
    if let Some(seconds) = options.stop_timeout {
        add("StopTimeout", seconds.into());
    }
    if let Some(check) = &record.healthcheck {
        // What is not docker's does not show.
        let startup = check.startup.clone();
        let check =
            Healthcheck { shell: Vec::new(), on_failure: OnFailure::None, startup: None, ..check.clone() };
        add("Healthcheck", json!(check));
        // Podman's.
        if let Some(startup) = startup {
            add("StartupHealthCheck", json!(startup));
        }
    }
    shown
}
