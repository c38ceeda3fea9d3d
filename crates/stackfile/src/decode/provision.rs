//! `run` and `provision` blocks: programs over the root being baked.

use std::collections::BTreeMap;
use std::path::Path;

use basalt_model::{BakeStep, RunInput, RunStep, Tools};

use super::image::user;
use super::service::positive;
use crate::fault::{Eval, Fault};
use crate::functions::json;
use crate::read;
use crate::reader::Reader;
use crate::suggest::did_you_mean;
use crate::tree::Block;
use crate::value::{Data, Value};

/// How the shell is called: it ends at the first command that fails.
const SHELL: [&str; 2] = ["/bin/sh", "-e"];

/// What provisioners there are.
const PROVISIONERS: [&str; 3] = ["shell", "ansible", "puppet"];

/// The most characters of a command that stand in its title.
const TITLE: usize = 60;

/// What a program of the image with several provisioners' names is told where it may write without leaving anything.
const VOLATILE: &str = "/dev/shm";

/// Decodes a `run` block.
pub(super) fn run(image: &Reader, block: &Block, env: &BTreeMap<String, String>) -> Option<BakeStep> {
    let mut reader = Reader::block(image.ev, block, format!("`run` of {}", image.what));
    if !block.labels.is_empty() {
        reader.report(Fault::at(reader.at, "a `run` block has no label").help("write run { command = … }"));
    }
    let command =
        reader.required("command", "command = \"…\" for a shell, or [\"program\", \"argument\"]", |value| match &value
            .data
        {
            Data::Text(text) if text.trim().is_empty() => Err(Fault::at(value.at, "there is nothing to run").into()),
            Data::Text(_) => Ok(shell(read::text(value)?)),
            _ => read::command(value),
        });
    let step = common(&mut reader, env);
    reader.finish();
    let command = command?;
    let said = if command[..2.min(command.len())] == SHELL { &command[3..] } else { &command[..] };
    Some(BakeStep::Run(RunStep { title: title("run", &said.join(" ")), command, ..step }))
}

/// Decodes a `provision` block.
pub(super) fn provision(image: &Reader, block: &Block, env: &BTreeMap<String, String>) -> Option<BakeStep> {
    let ev = image.ev;
    let (label, label_at) = Reader::single_label(ev, block)?;
    let mut reader = Reader::block(ev, block, format!("`provision` of {}", image.what));
    let step = match label.as_str() {
        "shell" => with_shell(&mut reader),
        "ansible" => with_ansible(&mut reader),
        "puppet" => with_puppet(&mut reader),
        _ => {
            let fault = Fault::at(label_at, format!("nothing provisions with `{}`", label.escape_debug()));
            let help = did_you_mean(&label, PROVISIONERS);
            image.report(fault.help("there are `shell`, `ansible` and `puppet`").maybe_help(help));
            return None;
        }
    };
    let given = common(&mut reader, env);
    reader.finish();
    let step = step?;
    let env = step.env.into_iter().chain(given.env).collect();
    let tools = step.tools;
    let user = if tools == Tools::Image { given.user } else { String::new() };
    Some(BakeStep::Run(RunStep { env, user, network: given.network, timeout: given.timeout, ..step }))
}

/// Reads what all programs of a bake have in common.
fn common(reader: &mut Reader, env: &BTreeMap<String, String>) -> RunStep {
    let mut env = env.clone();
    env.extend(reader.get("env", read::environment).unwrap_or_default());
    RunStep {
        env,
        user: reader.get("user", user).unwrap_or_default(),
        workdir: reader.get("workdir", |v| read::path(&read::text(v)?, v.at)).unwrap_or_default(),
        network: reader.get("network", read::boolean).unwrap_or_default(),
        timeout: reader.get("timeout", positive),
        ..RunStep::default()
    }
}

fn shell(script: String) -> Vec<String> {
    SHELL.iter().map(|part| (*part).to_owned()).chain(["-c".to_owned(), script]).collect()
}

fn title(what: &str, text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TITLE) {
        Some((end, _)) => format!("{what} {}…", &line[..end]),
        None => format!("{what} {line}"),
    }
}

fn with_shell(reader: &mut Reader) -> Option<RunStep> {
    let cx = reader.ev.cx;
    let at = reader.at;
    let inline = reader.get("inline", read::texts);
    let script = reader.get("script", |value| {
        let path = cx.resolve(&read::text(value)?);
        let text = cx.read_text(&path).map_err(|why| Fault::at(value.at, why))?;
        Ok((path, text))
    });
    let arguments = reader.get("arguments", read::texts).unwrap_or_default();
    match (inline, script) {
        (Some(lines), None) => {
            let text = lines.join("\n");
            let command = [shell(text.clone()), vec!["sh".to_owned()], arguments].concat();
            Some(RunStep { title: title("provision shell", &text), command, ..RunStep::default() })
        }
        (None, Some((path, text))) => {
            // The file need not be executable: its first line says what reads it.
            let interpreter = text.lines().next().and_then(|line| line.strip_prefix("#!"));
            let mut command: Vec<String> = match interpreter.map(str::trim).filter(|i| !i.is_empty()) {
                Some(line) => line.splitn(2, ' ').map(|part| part.trim().to_owned()).collect(),
                None => SHELL.iter().map(|part| (*part).to_owned()).collect(),
            };
            command.push("/dev/basalt/script".to_owned());
            command.extend(arguments);
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let inputs = BTreeMap::from([("script".to_owned(), RunInput::Text(text))]);
            Some(RunStep { title: title("provision shell", &name), command, inputs, ..RunStep::default() })
        }
        (Some(_), Some(_)) => {
            reader.report(Fault::at(at, "a script in a file and one in the stack are two").help("keep one of them"));
            None
        }
        (None, None) => {
            if !reader.has("inline") && !reader.has("script") {
                let fault = Fault::at(at, format!("{} has nothing to run", reader.what));
                reader.report(fault.help("write inline = [\"…\"], or script = \"FILE\""));
            }
            None
        }
    }
}

/// Ansible runs with this machine's programs in a throw-away root, and reaches the image by `chroot`.
fn with_ansible(reader: &mut Reader) -> Option<RunStep> {
    let cx = reader.ev.cx;
    let playbook = reader.required("playbook", "playbook = \"site.yml\"", |value| {
        let path = cx.resolve(&read::text(value)?);
        existing_file(cx.files.exists(&path) && !cx.files.is_folder(&path), &path, value)?;
        Ok(path)
    });
    let vars = reader.get("vars", |value| match &value.data {
        Data::Map(_) => json(value),
        _ => Err(value.wrong_type("a map").help("write { name = value }").into()),
    });
    let groups = reader.get("groups", |v| read::list(v, group)).unwrap_or_default();
    let tags = reader.get("tags", read::texts).unwrap_or_default();
    let path = playbook?;
    let (folder, file) = (path.parent().unwrap_or(Path::new("/")), path.file_name()?.to_str()?.to_owned());
    let mut inventory = String::from(
        "image ansible_host=/image ansible_connection=community.general.chroot \
         ansible_python_interpreter=auto_silent ansible_remote_tmp=/dev/shm/.ansible\n",
    );
    for group in &groups {
        inventory.push_str(&format!("\n[{group}]\nimage\n"));
    }
    let mut command = vec!["ansible-playbook".to_owned(), "-i".into(), "/dev/basalt/inventory".into()];
    if let Some(vars) = vars {
        command.extend(["--extra-vars".to_owned(), vars]);
    }
    if !tags.is_empty() {
        command.extend(["--tags".to_owned(), tags.join(",")]);
    }
    command.push(file.clone());
    let env = [
        ("ANSIBLE_LOCAL_TEMP", "/tmp/ansible"),
        ("ANSIBLE_NOCOLOR", "1"),
        ("ANSIBLE_RETRY_FILES_ENABLED", "0"),
        ("ANSIBLE_LOCALHOST_WARNING", "0"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
    ];
    Some(RunStep {
        title: title("provision ansible", &file),
        command,
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        workdir: "/dev/basalt/playbook".to_owned(),
        tools: Tools::Machine,
        inputs: BTreeMap::from([
            ("playbook".to_owned(), RunInput::Path(folder.to_owned())),
            ("inventory".to_owned(), RunInput::Text(inventory)),
        ]),
        ..RunStep::default()
    })
}

fn group(value: &Value) -> Eval<String> {
    let text = read::text(value)?;
    if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !text.is_empty() {
        return Ok(text);
    }
    let fault = Fault::at(value.at, format!("{} is not the name of a group", value.shown()));
    Err(fault.help("letters, digits and `_` belong in it").into())
}

/// Puppet has no way into another root, and so is the image's own.
fn with_puppet(reader: &mut Reader) -> Option<RunStep> {
    let cx = reader.ev.cx;
    let manifest = reader.required("manifest", "manifest = \"site.pp\"", |value| {
        let path = cx.resolve(&read::text(value)?);
        existing_file(cx.files.exists(&path), &path, value)?;
        Ok(path)
    });
    let modules = reader.get("modules", |value| {
        let path = cx.resolve(&read::text(value)?);
        existing_file(cx.files.is_folder(&path), &path, value)?;
        Ok(path)
    });
    let manifest = manifest?;
    let name = manifest.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Status 2 says that something was changed. Its own state is of no use in an image, and has the time in it.
    let script = format!(
        "PATH=$PATH:/opt/puppetlabs/bin\n\
         command -v puppet >/dev/null || {{ echo 'the image has no puppet: put the package puppet-agent into it' >&2; exit 127; }}\n\
         d={VOLATILE}/puppet; mkdir -p $d/var/state\n\
         set -- apply --detailed-exitcodes --color=false --confdir=$d/conf --vardir=$d/var --rundir=$d/run --logdir=$d/log --lastrunfile=$d/var/state/summary \
         --modulepath=/dev/basalt/modules /dev/basalt/manifest\n\
         puppet \"$@\" || {{ s=$?; [ $s = 2 ] || exit $s; }}"
    );
    let mut inputs = BTreeMap::from([("manifest".to_owned(), RunInput::Path(manifest))]);
    inputs.extend(modules.map(|modules| ("modules".to_owned(), RunInput::Path(modules))));
    let env = BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]);
    Some(RunStep { title: title("provision puppet", &name), command: shell(script), env, inputs, ..RunStep::default() })
}

fn existing_file(there: bool, path: &Path, value: &Value) -> Eval<()> {
    if there {
        return Ok(());
    }
    let fault = Fault::at(value.at, format!("there is no `{}`", path.display()));
    Err(fault.help("paths that are not absolute begin at the stack's folder").into())
}
