//! From one stage to the steps of a bake, once it is known what the image that it starts from says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use basalt_model::{BakeStep, CopyFrom, CopyStep, FileStep, ImageConfig, ImageSource, RunInput, RunStep};

use crate::Fault;
use crate::expand::expand;
use crate::instruction::{Command, Copy, Instruction};
use crate::lines::Heredoc;
use crate::parse::{Dockerfile, stage_named};

/// Where a stage takes files from, and what its programs may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The folder that is copied from, by absolute path.
    pub folder: PathBuf,
    /// Patterns of what is left out of it.
    pub ignore: Vec<String>,
    /// Whether RUN may reach the network (unless it says `--network=none`).
    pub network: bool,
}

/// What a stage comes down to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What is done.
    pub steps: Vec<BakeStep>,
    /// What the image says, over that which it starts from.
    pub config: ImageConfig,
}

/// How an earlier stage is named as the source of a copy.
const STAGE: &str = "stage:";

/// Returns the number of the stage that the source of a copy names, if it is one.
pub fn stage_of(source: &ImageSource) -> Option<usize> {
    match source {
        ImageSource::Reference(text) => text.strip_prefix(STAGE)?.parse().ok(),
        ImageSource::Block(_) => None,
    }
}

impl Dockerfile {
    /// Returns the steps of a stage over an image that says `base`. What is copied from other stages is named so that
    /// [`stage_of`] knows it.
    ///
    /// # Errors
    /// What can't be done, with its line.
    pub fn plan(&self, stage: usize, base: &ImageConfig, context: &Context) -> Result<Planned, Fault> {
        let cmd = base.command.strip_prefix(&base.entrypoint[..]).unwrap_or(&base.command);
        let mut planner = Planner {
            file: self,
            stage,
            context,
            base,
            shell: vec!["/bin/sh".into(), "-c".into()],
            args: BTreeMap::new(),
            entrypoint: base.entrypoint.clone(),
            cmd: cmd.to_vec(),
            cmd_is_own: false,
            user: base.user.clone(),
            workdir: base.workdir.clone(),
            steps: Vec::new(),
            config: ImageConfig::default(),
        };
        for (line, instruction) in &self.stages[stage].instructions {
            planner.one(*line, instruction).map_err(|why| Fault::new(*line, why))?;
        }
        let Planner { entrypoint, cmd, user, workdir, steps, config, .. } = planner;
        let command = [entrypoint.clone(), cmd].concat();
        Ok(Planned { steps, config: ImageConfig { command, entrypoint, user, workdir, ..config } })
    }
}

struct Planner<'a> {
    file: &'a Dockerfile,
    stage: usize,
    context: &'a Context,
    base: &'a ImageConfig,
    shell: Vec<String>,
    args: BTreeMap<String, String>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    cmd_is_own: bool,
    user: String,
    workdir: String,
    steps: Vec<BakeStep>,
    config: ImageConfig,
}

impl Planner<'_> {
    fn one(&mut self, line: usize, instruction: &Instruction) -> Result<(), String> {
        match instruction {
            Instruction::From { .. } | Instruction::Noted(_) => {}
            Instruction::Arg(list) => {
                for (name, default) in list {
                    let given = self.file.given.get(name).or_else(|| self.file.globals.get(name)).cloned();
                    let value = match (given, default) {
                        (Some(given), _) => Some(given),
                        (None, Some(default)) => Some(self.text(default)?),
                        (None, None) => None,
                    };
                    self.args.extend(value.map(|value| (name.clone(), value)));
                }
            }
            Instruction::Env(pairs) => {
                // All of one line see what was before it.
                let values =
                    pairs.iter().map(|(k, v)| Ok((k.clone(), self.text(v)?))).collect::<Result<Vec<_>, String>>()?;
                self.config.env.extend(values);
            }
            Instruction::Label(pairs) => {
                let values = pairs
                    .iter()
                    .map(|(k, v)| Ok((self.text(k)?, self.text(v)?)))
                    .collect::<Result<Vec<_>, String>>()?;
                self.config.labels.extend(values);
            }
            Instruction::Run { command, heredocs, network } => self.run(line, command, heredocs, *network),
            Instruction::Copy(copy) => self.copy(copy)?,
            Instruction::Workdir(path) => {
                let path = self.text(path)?;
                self.workdir = self.absolute(&path)?;
                self.steps.push(BakeStep::Directory { path: self.workdir.clone() });
            }
            Instruction::User(user) => self.user = self.text(user)?,
            Instruction::Expose(ports) => {
                for port in ports {
                    let port = self.text(port)?;
                    self.config.expose.extend(exposed(&port)?);
                }
            }
            Instruction::Cmd(command) => {
                self.cmd = self.command(command);
                self.cmd_is_own = true;
            }
            Instruction::Entrypoint(command) => {
                self.entrypoint = self.command(command);
                if !self.cmd_is_own {
                    // What the image below gave as arguments was for its own program.
                    self.cmd.clear();
                }
            }
            Instruction::Shell(shell) => self.shell.clone_from(shell),
        }
        Ok(())
    }

    fn lookup(&self, name: &str) -> Option<String> {
        let env = self.config.env.get(name).or_else(|| self.base.env.get(name));
        env.or_else(|| self.args.get(name)).cloned()
    }

    fn text(&self, text: &str) -> Result<String, String> {
        expand(text, self.file.escape, &|name| self.lookup(name))
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(list) => list.clone(),
            Command::Shell(line) if line.is_empty() => Vec::new(),
            Command::Shell(line) => [self.shell.clone(), vec![line.clone()]].concat(),
        }
    }

    fn run(&mut self, line: usize, command: &Command, heredocs: &[Heredoc], network: bool) {
        let mut inputs = BTreeMap::new();
        let (list, said) = match (command, heredocs) {
            (Command::Shell(text), [only])
                if text.trim_start().starts_with("<<") && text.split_whitespace().count() == 1 =>
            {
                let said = only.content.lines().next().unwrap_or_default().to_owned();
                match only.content.strip_prefix("#!") {
                    Some(script) => {
                        let first = script.lines().next().unwrap_or_default().trim();
                        let mut list: Vec<String> = first.splitn(2, ' ').map(|part| part.trim().to_owned()).collect();
                        list.push("/dev/basalt/script".into());
                        inputs.insert("script".to_owned(), RunInput::Text(only.content.clone()));
                        (list, said)
                    }
                    None => ([self.shell.clone(), vec![only.content.clone()]].concat(), said),
                }
            }
            (Command::Shell(text), heredocs) => {
                // The shell of the image reads here-documents itself.
                let mut whole = text.clone();
                for heredoc in heredocs {
                    whole.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
                }
                ([self.shell.clone(), vec![whole]].concat(), text.clone())
            }
            (Command::Exec(list), _) => (list.clone(), list.join(" ")),
        };
        let mut env = self.args.clone();
        env.extend(self.base.env.clone());
        env.extend(self.config.env.clone());
        self.steps.push(BakeStep::Run(RunStep {
            title: title(line, &said),
            command: list,
            env,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            network: network && self.context.network,
            inputs,
            ..RunStep::default()
        }));
    }

    fn copy(&mut self, copy: &Copy) -> Result<(), String> {
        let to = self.text(&copy.to)?;
        let folder = to.ends_with('/') || to == "." || to.ends_with("/.");
        let mut to = self.absolute(&to)?;
        if folder && !to.ends_with('/') {
            to.push('/');
        }
        let owner = copy.owner.as_deref().map(|owner| self.text(owner)).transpose()?;
        let mode = copy.mode.as_deref().map(|mode| self.mode(mode)).transpose()?;
        for heredoc in &copy.heredocs {
            let content = if heredoc.expands { self.inner(&heredoc.content)? } else { heredoc.content.clone() };
            let path = if to.ends_with('/') { format!("{to}{}", heredoc.name) } else { to.clone() };
            let mode = mode.unwrap_or(0o644);
            self.steps.push(BakeStep::File(FileStep { path, content, mode, owner: owner.clone() }));
        }
        let from = copy.from.as_deref().map(|from| self.text(from)).transpose()?;
        for source in &copy.sources {
            let source = self.text(source)?;
            let from = match &from {
                None => CopyFrom::Folder { folder: self.context.folder.clone(), pattern: source },
                Some(from) => {
                    let image = match stage_named(&self.file.stages[..self.stage], from) {
                        Some(n) => format!("{STAGE}{n}"),
                        None if stage_named(&self.file.stages, from).is_some() => {
                            return Err(format!("the stage `{from}` comes later; one can copy from earlier ones only"));
                        }
                        None => from.clone(),
                    };
                    let path = format!("/{}", source.trim_start_matches('/'));
                    CopyFrom::Image { image: ImageSource::Reference(image), path }
                }
            };
            let mut exclude =
                if matches!(from, CopyFrom::Folder { .. }) { self.context.ignore.clone() } else { vec![] };
            exclude.extend(copy.exclude.clone());
            let (to, owner) = (to.clone(), owner.clone());
            self.steps.push(BakeStep::Copy(CopyStep { from, to, mode, owner, exclude, unpack: copy.unpack }));
        }
        Ok(())
    }

    /// Replaces variables in a here-document, where quotes mean nothing.
    fn inner(&self, content: &str) -> Result<String, String> {
        let quoted: String = content
            .chars()
            .flat_map(|c| if matches!(c, '\'' | '"') { vec![self.file.escape, c] } else { vec![c] })
            .collect();
        self.text(&quoted)
    }

    fn mode(&self, mode: &str) -> Result<u32, String> {
        let text = self.text(mode)?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
        mode.ok_or_else(|| format!("`--chmod={text}` is not taken: write an octal number, such as 0755"))
    }

    /// Returns a path made absolute against the working directory, with `.` and `..` taken out.
    fn absolute(&self, path: &str) -> Result<String, String> {
        let whole = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.workdir) };
        let mut parts: Vec<&str> = Vec::new();
        for part in whole.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        if whole.contains('\0') { Err("a path has a zero byte".into()) } else { Ok(format!("/{}", parts.join("/"))) }
    }
}

fn title(line: usize, text: &str) -> String {
    /// The most characters of a command that stand in a title.
    const LONGEST: usize = 60;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = text.char_indices().nth(LONGEST).map_or(text.clone(), |(end, _)| format!("{}…", &text[..end]));
    format!("Dockerfile:{line} RUN {cut}")
}

/// Reads `8080`, `53/udp` or a range of ports.
fn exposed(text: &str) -> Result<BTreeSet<String>, String> {
    let wrong = || format!("`{text}` is not a port: write 8080, 53/udp or 7000-7010");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(wrong());
    }
    Ok((number(first)?..=number(last)?).map(|port| format!("{port}/{protocol}")).collect())
}
