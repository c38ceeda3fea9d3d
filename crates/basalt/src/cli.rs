//! The verbs and their arguments, as clap reads them. The help texts teach: each verb has a sentence and an example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::edge::EdgeArgs;

/// Immutable infrastructure in one binary.
///
/// A stack file goes in; running, routed, watched and replaceable instances come out. Nothing that runs is ever
/// modified: every change is a new release, brought up beside the old one, proven, given traffic, and only then is the
/// old one discarded.
#[derive(Debug, Parser)]
#[command(
    name = "basalt",
    version,
    max_term_width = 100,
    propagate_version = false,
    disable_help_subcommand = true,
    after_help = "\
Start here:
  basalt init hello          write a small stack to hello/stack.hcl
  basalt up hello            run it, and follow until it serves
  basalt status              see what runs
  basalt down                end it all

Exit codes: 0 done; 1 internal error; 2 changes present (plan --detailed-exitcode); 3 rolled back or aborted;
4 invalid stack or usage; 5 the controller can't be reached."
)]
pub struct Cli {
    /// What is the same for all verbs.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What is the same for all verbs.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Directory of everything that Basalt keeps [default: /var/lib/basalt for root, ~/.local/share/basalt for others]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "BASALT_DATA",
        hide_env_values = true,
        help_heading = "Global"
    )]
    pub data: Option<PathBuf>,
    /// How results are written
    #[arg(long, global = true, value_name = "FORM", default_value = "text", help_heading = "Global")]
    pub output: Form,
    /// When to use colour; NO_COLOR turns it off as well
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global")]
    pub color: When,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// For programs: documented and stable.
    Json,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// What there is to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write a small commented stack to start from
    #[command(after_help = "Example: basalt init hello && basalt up hello")]
    Init {
        /// The folder to write `stack.hcl` to
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Check a stack and show all its faults at once
    #[command(after_help = "Example: basalt validate examples/shop --var greeting=hi")]
    Validate(StackArgs),
    /// Bring HCL files into their usual form
    #[command(after_help = "\
Only white space changes. With --check, exits with 2 if a file is not in that form, and writes none.

Examples:
  basalt fmt
  basalt fmt --check examples/shop
  basalt fmt - < shop.hcl")]
    Fmt {
        /// Files, folders of them, or `-` for standard input
        #[arg(default_value = ".")]
        paths: Vec<PathBuf>,
        /// Only name the files that are not in that form
        #[arg(long)]
        check: bool,
    },
    /// Print the JSON Schema of stacks in YAML and JSON
    #[command(after_help = "Example: basalt schema > stack.schema.json")]
    Schema,
    /// Show what an apply would change, without changing anything
    #[command(after_help = "\
Examples:
  basalt plan examples/shop
  basalt plan examples/shop --out shop.plan && basalt apply shop.plan
  basalt plan examples/shop --detailed-exitcode    exits with 2 if there are changes")]
    Plan(PlanArgs),
    /// Make a stack or a saved plan the one that runs, where Basalt already runs
    #[command(after_help = "\
A saved plan is refused if what is recorded has changed since it was made.

Example: basalt apply shop.plan")]
    Apply(ApplyArgs),
    /// Start what is missing, apply a stack, and follow until it runs as declared
    #[command(after_help = "\
Applying an unchanged stack does nothing. If a rollout is rolled back, the old release serves on and the exit code is 3.

Example: basalt up examples/shop --http 127.0.0.1:8080 --var greeting=hi")]
    Up(UpArgs),
    /// Drain and stop everything, then end Basalt's own processes
    #[command(
        after_help = "Volumes, secrets, images and the journal stay in the data directory.\n\nExample: basalt down"
    )]
    Down,
    /// Show what is recorded and what is seen
    #[command(after_help = "Example: basalt status --output json | jq '.services[].rollout'")]
    Status,
    /// Show the status and keep it up to date
    #[command(after_help = "Example: basalt watch")]
    Watch,
    /// Show what the gateway does: requests, errors and times by release, over a second
    #[command(after_help = "Example: basalt traffic")]
    Traffic,
    /// Show what instances have written
    #[command(after_help = "\
Examples:
  basalt logs                      all services and jobs
  basalt logs web -f               a service, and what it writes from now on
  basalt logs web-7-2 --tail 20    the last lines of one instance")]
    Logs(LogsArgs),
    /// List the releases that are kept
    #[command(after_help = "Example: basalt releases web")]
    Releases {
        /// Only of this service
        service: Option<String>,
    },
    /// Show how two releases of a service differ, field by field
    #[command(after_help = "\
Without numbers: the release that served before, and the one that serves now (or is being rolled out).

Example: basalt diff web 6 7")]
    Diff {
        /// The service
        service: String,
        /// The earlier release
        #[arg(value_parser = release_number)]
        from: Option<u32>,
        /// The later release
        #[arg(value_parser = release_number)]
        to: Option<u32>,
    },
    /// Show what was decided and what happened
    #[command(after_help = "Example: basalt events --output json | jq -r .kind")]
    Events(EventsArgs),
    /// Go back to an earlier release as a whole: image, configuration, secret versions, routes
    #[command(after_help = "Example: basalt rollback web --to 6")]
    Rollback {
        /// The service
        service: String,
        /// The release to go back to [default: the one kept warm, else the one that served before]
        #[arg(long, value_name = "N", value_parser = release_number)]
        to: Option<u32>,
        /// Return at once instead of following
        #[arg(long)]
        detach: bool,
    },
    /// Approve the step of a rollout, or end its hold
    #[command(after_help = "Example: basalt promote web")]
    Promote {
        /// The service
        service: String,
    },
    /// Keep a rollout where it stands; failures still bring it back
    #[command(after_help = "Example: basalt pause web")]
    Pause {
        /// The service
        service: String,
    },
    /// Let a paused rollout go on
    #[command(after_help = "Example: basalt resume web")]
    Resume {
        /// The service
        service: String,
    },
    /// Give up a rollout: the old release serves on
    #[command(after_help = "Example: basalt abort web")]
    Abort {
        /// The service
        service: String,
    },
    /// Change how many instances run, until the next apply says otherwise
    #[command(after_help = "Example: basalt scale web=8 api=4")]
    Scale {
        /// SERVICE=N
        #[arg(required = true, value_name = "SERVICE=N")]
        counts: Vec<String>,
        /// Return at once instead of following
        #[arg(long)]
        detach: bool,
    },
    /// Keep secrets, encrypted; a release pins their versions
    #[command(subcommand, after_help = "Example: basalt secret set db-password < password.txt")]
    Secret(SecretVerb),
    /// Keep images, content-addressed
    #[command(subcommand, after_help = "Example: basalt image import oci-archive:web.tar")]
    Image(ImageVerb),
    /// Turn files of other tools into stacks
    #[command(subcommand, after_help = "Example: basalt import compose compose.yaml --out stack.hcl")]
    Import(ImportVerb),
    /// Run the controller in the foreground, or start all of Basalt in the background
    #[command(after_help = "\
Starts keeper and gateway where they do not run. SIGTERM ends the controller alone; instances and gateway go on.
At boot, `basalt serve --detach` brings back everything that is recorded.

Example: basalt serve --data /var/lib/basalt --http 0.0.0.0:80")]
    Serve {
        /// Arguments of any role.
        #[command(flatten)]
        args: ServeArgs,
        /// Start what does not run in the background, and return once it answers
        #[arg(long)]
        detach: bool,
    },
    /// Write a completion script for a shell
    #[command(after_help = "Example: basalt completions bash > /etc/bash_completion.d/basalt")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The process that owns the instances
    #[command(hide = true)]
    Keeper(ServeArgs),
    /// The process that takes requests
    #[command(hide = true)]
    Gateway(ServeArgs),
}

/// A stack and what it is evaluated with.
#[derive(Debug, Clone, Args)]
pub struct StackArgs {
    /// A stack file in HCL, YAML or JSON, a folder of them, or `-` for standard input
    pub stack: PathBuf,
    /// Environment whose variables are taken
    #[arg(short, long, value_name = "NAME")]
    pub environment: Option<String>,
    /// Value of a variable; wins over BASALT_VAR_NAME and --var-file
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub vars: Vec<String>,
    /// File of variables
    #[arg(long = "var-file", value_name = "FILE")]
    pub var_files: Vec<PathBuf>,
}

/// Arguments of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// The stack.
    #[command(flatten)]
    pub stack: StackArgs,
    /// Save the plan, so that exactly this can be applied
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Exit with 2 if there are changes
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// Arguments of `apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// The stack, or a plan that `plan --out` has saved.
    #[command(flatten)]
    pub stack: StackArgs,
    /// Return at once instead of following until the end state is observed
    #[arg(long)]
    pub detach: bool,
}

/// Arguments of `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// The stack.
    #[command(flatten)]
    pub stack: StackArgs,
    /// What the gateway is told.
    #[command(flatten)]
    pub edge: EdgeArgs,
    /// Return at once instead of following until the end state is observed
    #[arg(long)]
    pub detach: bool,
}

/// Arguments of the long-lived roles.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// What the gateway is told.
    #[command(flatten)]
    pub edge: EdgeArgs,
}

/// Arguments of `logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// A service, a job, or an instance
    #[arg(value_name = "SERVICE|INSTANCE")]
    pub of: Option<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
}

/// Arguments of `events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub after: u64,
}

/// What can be done with secrets.
#[derive(Debug, Subcommand)]
pub enum SecretVerb {
    /// Store a new version, read from standard input as it is (a line feed at its end included)
    #[command(after_help = "Example: printf %s \"$PASSWORD\" | basalt secret set db-password")]
    Set {
        /// The secret
        name: String,
        /// What people type by mistake, and what is then refused without repeating it.
        #[arg(hide = true)]
        content: Option<String>,
    },
    /// Store a new version of a secret that is there already, read from standard input
    #[command(after_help = "\
Earlier versions are kept, for releases that pin them and for rollbacks.

Example: openssl rand -hex 24 | basalt secret rotate db-password && basalt apply shop")]
    Rotate {
        /// The secret
        name: String,
        /// What people type by mistake, and what is then refused without repeating it.
        #[arg(hide = true)]
        content: Option<String>,
    },
    /// List names and versions; contents are never shown
    List,
    /// Remove a secret with all its versions; refused while something runs with it
    Remove {
        /// The secret
        name: String,
        /// Also while something runs with it: an instance that dies can't be replaced then
        #[arg(long)]
        force: bool,
    },
}

/// What can be turned into stacks.
#[derive(Debug, Subcommand)]
pub enum ImportVerb {
    /// Turn a Docker Compose file into a stack, and name everything that has no counterpart
    #[command(after_help = "\
The stack goes to standard output, what is to be known about it to standard error.

Examples:
  basalt import compose compose.yaml
  basalt import compose compose.yaml --out stack.hcl --profile debug
  basalt import compose compose.yaml --output json | jq '.findings[]'")]
    Compose(ImportComposeArgs),
}

/// Arguments of `import compose`.
#[derive(Debug, Clone, Args)]
pub struct ImportComposeArgs {
    /// The Compose file
    pub file: PathBuf,
    /// Write the stack to this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// File of variables for `${…}` [default: .env beside the Compose file]
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_files: Vec<PathBuf>,
    /// Take in the services of this profile; `*` means all
    #[arg(long = "profile", value_name = "NAME")]
    pub profiles: Vec<String>,
}

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// List the images that are kept, and the releases that need them
    #[command(after_help = "Example: basalt image list")]
    List,
    /// Show all that is known of an image
    #[command(after_help = "Example: basalt image inspect 3f29c1")]
    Inspect {
        /// Its digest, or the beginning of it
        image: String,
    },
    /// Bake the images of a stack
    #[command(after_help = "Example: basalt image bake examples/shop")]
    Bake {
        /// The stack
        #[command(flatten)]
        stack: StackArgs,
        /// Run programs again, although nothing that went into them has changed
        #[arg(long)]
        no_cache: bool,
    },
    /// Write the locks of Debian bases anew: the versions that the archive has now
    #[command(after_help = "Example: basalt image lock examples/shop")]
    Lock(StackArgs),
    /// Read an image from an archive, a layout or a bare root
    #[command(after_help = "\
Archives may be packed as a whole with gzip or zstd.

Examples:
  basalt image import docker-archive:web.tar      written by `docker save` or `podman save`
  basalt image import oci:layout:v1               a folder as skopeo, umoci and buildah write it
  basalt image import dir:/srv/root               a root, for example made by mmdebstrap
  basalt image import tar:root.tar.zst")]
    Import {
        /// `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, `dir:DIR` or `tar:FILE`
        reference: String,
    },
    /// Write an image to an OCI archive, for other tools to read
    #[command(after_help = "Example: basalt image export 3f29c1 web.tar --tag v1")]
    Export {
        /// Its digest, or the beginning of it
        image: String,
        /// The file to write
        file: PathBuf,
        /// The tag to write it under
        #[arg(long)]
        tag: Option<String>,
    },
    /// Remove an image that no kept release needs
    #[command(after_help = "Example: basalt image remove 3f29c1")]
    Remove {
        /// Its digest, or the beginning of it
        image: String,
    },
    /// Remove all that no kept release needs and nobody used within a day
    #[command(after_help = "\
The controller does this every hour by itself.

Example: basalt image gc --all")]
    Gc {
        /// Also what was used within a day; a stack that is being applied at this moment may need it
        #[arg(long)]
        all: bool,
    },
    /// Bring an image of a registry into the depot
    #[command(after_help = "\
Logins are those of docker, podman and skopeo. registries.conf, auth.json and certs.d in the data directory go before theirs.
A stack's images are pulled by themselves; this is for having one beforehand.

Example: basalt image pull registry.example.com/team/web:1.2")]
    Pull {
        /// `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`; without a host, Docker Hub's
        reference: String,
    },
    /// Send an image of the depot to a registry, byte for byte
    #[command(after_help = "Example: basalt image push sha256:3f29c1 registry.example.com/team/web:1.2")]
    Push {
        /// Its digest or the beginning of it, or what it was pulled as
        image: String,
        /// `[HOST[:PORT]/]NAME[:TAG]`
        reference: String,
    },
    /// Check every kept image against its digests
    #[command(after_help = "Example: basalt image verify --repair")]
    Verify {
        /// Remove what is damaged, and rebuild it from the layers
        #[arg(long)]
        repair: bool,
    },
}
/// Reads the number of a release, as it is written in all output: `7` or `#7`.
fn release_number(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix('#').unwrap_or(text).parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "a release is given by its number alone, as in 7 or #7; `basalt releases` lists them".into())
}

#[cfg(test)]
mod tests {
    use super::release_number;

    #[test]
    fn releases_are_given_by_number() {
        assert_eq!((release_number("7"), release_number("#7")), (Ok(7), Ok(7)));
        for text in ["web#7", "0", "-1", "", "seven"] {
            assert!(release_number(text).unwrap_err().contains("basalt releases"), "{text}");
        }
    }
}
