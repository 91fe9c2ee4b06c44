//! setup: the doctor. Says what is missing on this machine and how it is had; changes nothing.

use anyhow::Result;
use clap::{ArgMatches, Command};
use serde_json::json;

use crate::cli::flags::value;
use crate::cli::format::{Template, json as written};
use crate::cli::run_flags::one;
use crate::cli::{Session, out};
use crate::engine::{doctor, machine};

pub(in crate::cli) fn args(command: Command) -> Command {
    command.arg(value("format", Some('f'), "TEMPLATE", "json or a Go template")).after_help(
        "Exit code 0 says that nothing is missing. The commands are for root; none of them is run here.",
    )
}

pub(in crate::cli) fn setup(matches: &ArgMatches, session: &mut Session) -> Result<u8> {
    let mut engine = session.engine()?;
    let refused = doctor::enter(&mut engine.host);
    engine.store.ids.clone_from(&engine.host.ids);
    let findings = doctor::examine(&machine::facts(&engine, refused.as_ref())?);
    let is_well = findings.iter().all(|f| f.is_well);
    let all: Vec<_> = findings
        .iter()
        .map(|f| json!({"Name": f.name, "OK": f.is_well, "Text": f.text, "Fix": f.fix}))
        .collect();
    let value = json!({"OK": is_well, "Findings": all});
    let shown = match one(matches, "format") {
        None | Some("") => {
            let mut text = String::new();
            for finding in &findings {
                let mark = if finding.is_well { "ok" } else { "missing" };
                text.push_str(&format!("{mark:<8}{}: {}\n", finding.name, finding.text));
                finding.fix.iter().for_each(|line| text.push_str(&format!("{:8}# {line}\n", "")));
            }
            text
        }
        Some("json") => written::compact(&value) + "\n",
        Some(template) => Template::parse(template)?.render(&value)? + "\n",
    };
    out::out(&shown)?;
    Ok(u8::from(!is_well))
}
