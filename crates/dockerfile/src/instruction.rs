//! Instructions, understood as far as that is possible without knowing any variable.

use crate::Fault;
use crate::expand::words;
use crate::lines::{Heredoc, Raw};

/// A command: an argument list, or a line for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Exec(Vec<String>),
    Shell(String),
}

/// One instruction. Texts still have their quotes and variables in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    From {
        image: String,
        platform: Option<String>,
        name: Option<String>,
    },
    Arg(Vec<(String, Option<String>)>),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Run {
        command: Command,
        heredocs: Vec<Heredoc>,
        network: bool,
    },
    Copy(Copy),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Cmd(Command),
    Entrypoint(Command),
    Shell(Vec<String>),
    /// Has no part in an image here; the text says what to do instead.
    Noted(&'static str),
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) from: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) sources: Vec<String>,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) to: String,
    pub(crate) unpack: bool,
}

/// Understands an instruction.
pub(crate) fn understand(raw: &Raw, escape: char) -> Result<Instruction, Fault> {
    let fault = |message: String| Fault::new(raw.line, message);
    let (flags, rest) = flags(&raw.rest);
    let known: &[&str] = match raw.word.as_str() {
        "FROM" => &["platform"],
        "RUN" => &["network"],
        "COPY" => &["from", "chown", "chmod", "link", "exclude"],
        "ADD" => &["chown", "chmod", "link", "exclude"],
        _ => &[],
    };
    let takes_flags = ["FROM", "RUN", "COPY", "ADD"].contains(&raw.word.as_str());
    if let Some((name, _)) = flags.iter().find(|(name, _)| !known.contains(&name.as_str())).filter(|_| takes_flags) {
        return Err(fault(format!("`--{name}` of {} is not taken{}", raw.word, reason(name))));
    }
    let flag = |name: &str| flags.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    // Only what takes flags loses what looks like one.
    let rest = if takes_flags { rest } else { raw.rest.as_str() };
    if rest.is_empty() && !matches!(raw.word.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(fault(format!("{} says nothing", raw.word)));
    }
    let list = || words(rest, escape);
    Ok(match raw.word.as_str() {
        "FROM" => {
            let parts = list();
            let (image, name) = match &parts[..] {
                [image] => (image, None),
                [image, word, name] if word.eq_ignore_ascii_case("as") => (image, Some(name.to_ascii_lowercase())),
                _ => return Err(fault("FROM is `FROM IMAGE` or `FROM IMAGE AS NAME`".into())),
            };
            Instruction::From { image: image.clone(), platform: flag("platform"), name }
        }
        "ARG" => {
            let split = |word: &String| match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.clone(), None),
            };
            Instruction::Arg(list().iter().map(split).collect())
        }
        "ENV" => Instruction::Env(pairs(rest, escape).map_err(fault)?),
        "LABEL" => Instruction::Label(pairs(rest, escape).map_err(fault)?),
        "RUN" => {
            let network = match flag("network").as_deref() {
                None | Some("default" | "host") => true,
                Some("none") => false,
                Some(other) => return Err(fault(format!("there is no network `{other}`"))),
            };
            Instruction::Run { command: command(rest), heredocs: raw.heredocs.clone(), network }
        }
        "COPY" | "ADD" => Instruction::Copy(copy(raw, rest, escape, &flags).map_err(fault)?),
        "WORKDIR" => Instruction::Workdir(rest.to_owned()),
        "USER" => Instruction::User(rest.to_owned()),
        "EXPOSE" => Instruction::Expose(list()),
        "CMD" => Instruction::Cmd(command(rest)),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
        "SHELL" => match command(rest) {
            Command::Exec(shell) if !shell.is_empty() => Instruction::Shell(shell),
            _ => return Err(fault("SHELL is a list: SHELL [\"/bin/bash\", \"-c\"]".into())),
        },
        "HEALTHCHECK" => Instruction::Noted("health is the service's: give it a `health` block"),
        "VOLUME" => Instruction::Noted("volumes are the service's: give it a `volume` or `scratch`"),
        "STOPSIGNAL" => Instruction::Noted("instances are ended by SIGTERM, and by SIGKILL after `drain`"),
        "MAINTAINER" => Instruction::Noted("it is deprecated: write a LABEL"),
        "ONBUILD" => return Err(fault("ONBUILD is not taken: write the instruction where it is to be done".into())),
        other => return Err(fault(format!("there is no instruction `{other}`"))),
    })
}

/// Says why a flag is not taken.
fn reason(flag: &str) -> &'static str {
    match flag {
        "mount" => {
            ": nothing outlives a step but what it puts into the image; write a `run` block, or copy what it needs"
        }
        "security" => ": every step is shut in alike",
        "checksum" | "keep-git-dir" => ": nothing is downloaded by ADD; download in a RUN, and check the hash there",
        "parents" => ": name the folder to copy to",
        _ => "",
    }
}

/// Splits the flags at the beginning from the rest.
fn flags(text: &str) -> (Vec<(String, String)>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, more) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        flags.push((name.to_owned(), value.trim_matches('"').to_owned()));
        rest = more.trim_start();
    }
    (flags, rest)
}

/// Reads a list in JSON, else a line for the shell.
fn command(text: &str) -> Command {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(list) => Command::Exec(list),
        Err(_) => Command::Shell(text.to_owned()),
    }
}

/// Reads `NAME=VALUE …`, or the old `NAME VALUE`.
fn pairs(text: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let parts = words(text, escape);
    if let Some(first) = parts.first()
        && !first.contains('=')
    {
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        if value.is_empty() {
            return Err(format!("`{name}` has no value"));
        }
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let split = |word: &String| {
        let pair = word.split_once('=').ok_or_else(|| format!("`{word}` is not NAME=VALUE"))?;
        Ok((pair.0.to_owned(), pair.1.to_owned()))
    };
    parts.iter().map(split).collect()
}

fn copy(raw: &Raw, rest: &str, escape: char, flags: &[(String, String)]) -> Result<Copy, String> {
    let flag = |name: &str| flags.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let mut list = match command(rest) {
        Command::Exec(list) => list,
        Command::Shell(_) => words(rest, escape),
    };
    let to = list.pop().filter(|_| !list.is_empty()).ok_or_else(|| format!("{} needs what, and where to", raw.word))?;
    list.retain(|source| raw.heredocs.is_empty() || !source.starts_with("<<"));
    let add = raw.word == "ADD";
    let is_remote =
        |s: &str| ["http://", "https://", "ftp://", "git@", "git://"].iter().any(|scheme| s.starts_with(scheme));
    if let Some(address) = list.iter().find(|source| add && is_remote(source)) {
        return Err(format!("ADD of `{address}` is not taken: download it in a RUN, and check its hash there"));
    }
    if list.len() + raw.heredocs.len() > 1 && !to.ends_with('/') && to != "." {
        return Err(format!("several files are copied, so `{to}` must be a folder: write `{to}/`"));
    }
    let exclude = flags.iter().filter(|(name, _)| name == "exclude").map(|(_, value)| value.clone()).collect();
    let (from, owner, mode) = (flag("from"), flag("chown"), flag("chmod"));
    Ok(Copy { from, owner, mode, exclude, sources: list, heredocs: raw.heredocs.clone(), to, unpack: add })
}
