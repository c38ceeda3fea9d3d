//! What may stand where: every block and key of the language, its kind of value, and what it is for.
//!
//! One table for three uses: it tells blocks from values in YAML and JSON, it is the JSON Schema that `basalt schema` prints,
//! and a test compares it with what the decoder asks for, so that neither can drift from the other.

/// What may stand in a block.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What it is called in the JSON Schema.
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [Key],
    pub(crate) blocks: &'static [Inner],
    /// What the values of keys of the author's choosing are, if there may be such.
    pub(crate) others: Option<Of>,
}

/// A key of a block.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) of: Of,
    pub(crate) required: bool,
    pub(crate) about: &'static str,
}

/// A block in a block.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) word: &'static str,
    /// What its label says; `None` if it has none.
    pub(crate) label: Option<&'static str>,
    pub(crate) shape: &'static Shape,
    pub(crate) about: &'static str,
}

/// A kind of value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of {
    /// Anything.
    Any,
    /// A string; numbers and bools are written out.
    Text,
    Bool,
    /// A whole number of a range.
    Integer(u32, u32),
    /// `"30s"`.
    Duration,
    /// `"128MiB"`, or bytes.
    Size,
    /// `"500m"`, or cores.
    Cpu,
    /// `2`, or `"25%"`.
    Share,
    /// A percentage.
    Weight,
    /// `"0644"`.
    Mode,
    /// One of these words.
    Words(&'static [&'static str]),
    /// `${image.NAME}` or a reference to an image elsewhere.
    Image,
    /// `${service.NAME}` and its like.
    Reference,
    /// A type constraint.
    Type,
    List(&'static Of),
    Map(&'static Of),
    /// An object of these keys.
    Object(&'static Shape),
}

/// The word of blocks that make other blocks.
pub(crate) const DYNAMIC: &str = "dynamic";

impl Shape {
    /// Returns the block of a kind that may stand in it.
    pub(crate) fn block(&self, word: &str) -> Option<&'static Inner> {
        self.blocks.iter().find(|inner| inner.word == word)
    }

    /// Returns what may stand in a block of a kind in it: anything, if there is no such kind.
    pub(crate) fn inner(&self, word: &str) -> &'static Shape {
        self.block(word).map_or(&OPEN, |inner| inner.shape)
    }
}

const fn key(name: &'static str, of: Of, about: &'static str) -> Key {
    Key { name, of, required: false, about }
}

const fn must(name: &'static str, of: Of, about: &'static str) -> Key {
    Key { name, of, required: true, about }
}

const fn plain(word: &'static str, shape: &'static Shape, about: &'static str) -> Inner {
    Inner { word, label: None, shape, about }
}

const fn labelled(word: &'static str, label: &'static str, shape: &'static Shape, about: &'static str) -> Inner {
    Inner { word, label: Some(label), shape, about }
}

const fn shape(name: &'static str, keys: &'static [Key], blocks: &'static [Inner]) -> Shape {
    Shape { name, keys, blocks, others: None }
}

const TEXTS: Of = Of::List(&Of::Text);
const TEXT_MAP: Of = Of::Map(&Of::Text);
const IMAGES: Of = Of::Map(&Of::Image);
const REFERENCES: Of = Of::List(&Of::Reference);

/// A block that nothing is known about.
pub(crate) static OPEN: Shape = Shape { name: "anything", keys: &[], blocks: &[], others: Some(Of::Any) };

/// A `dynamic` block; what its `content` may hold depends on its label.
pub(crate) static OF_DYNAMIC: Shape = shape(
    "dynamic",
    &[
        must("for_each", Of::Any, "A list or map: one block is made for each of its elements."),
        key("iterator", Of::Text, "The name by which `content` refers to the element; else the kind of block."),
        key("labels", TEXTS, "The labels of the blocks made."),
    ],
    &[plain("content", &OPEN, "What the blocks hold.")],
);

/// A whole stack.
pub(crate) static STACK: Shape = shape(
    "stack",
    &[key("stack", Of::Text, "The stack's name; else that of its file or folder.")],
    &[
        labelled("variable", "name", &VARIABLE, "A value given from outside."),
        plain("locals", &LOCALS, "Values to refer to as `local.NAME`."),
        labelled("environment", "name", &ENVIRONMENT, "A place that the stack is applied to, and its variables."),
        labelled("module", "name", &MODULE, "Another folder of stack files, taken in with these inputs."),
        labelled("output", "name", &OUTPUT, "A value to show, or to hand to the stack that takes this one in."),
        labelled("image", "name", &IMAGE, "An image to bake."),
        labelled("service", "name", &SERVICE, "Something long-running with a number of identical instances."),
        labelled("job", "name", &JOB, "Something that runs to its end once."),
    ],
);

static VARIABLE: Shape = shape(
    "variable",
    &[
        key(
            "type",
            Of::Type,
            "What it may hold: `string`, `number`, `bool`, `list(string)`, `object({ … })` and so on.",
        ),
        key("default", Of::Any, "Its value where none is given."),
        key("description", Of::Text, "What it is for."),
        key("sensitive", Of::Bool, "Whether its value must never be shown."),
        key("nullable", Of::Bool, "Whether it may be null; true unless said otherwise."),
    ],
    &[plain("validation", &VALIDATION, "A condition that its value must meet.")],
);

static VALIDATION: Shape = shape(
    "validation",
    &[
        must("condition", Of::Bool, "True for values that are allowed."),
        must("error_message", Of::Text, "What to say of others."),
    ],
    &[],
);

static LOCALS: Shape = Shape { name: "locals", keys: &[], blocks: &[], others: Some(Of::Any) };

static ENVIRONMENT: Shape = shape(
    "environment",
    &[
        key("description", Of::Text, "What it is for."),
        key("variables", Of::Map(&Of::Any), "Values of variables, in place of their defaults."),
    ],
    &[],
);

static MODULE: Shape = Shape {
    name: "module",
    keys: &[
        must("source", Of::Text, "Its folder or file, a path that begins with `./`, `../` or `/`."),
        key("for_each", Of::Any, "A list or map: the module is taken in once for each element."),
    ],
    blocks: &[],
    others: Some(Of::Any),
};

static OUTPUT: Shape = shape(
    "output",
    &[
        must("value", Of::Any, "The value."),
        key("description", Of::Text, "What it is for."),
        key("sensitive", Of::Bool, "Whether it must never be shown."),
    ],
    &[],
);

static IMAGE: Shape = shape(
    "image",
    &[
        key("for_each", Of::Any, "A list or map: one image `NAME-KEY` is baked for each element."),
        key(
            "from",
            Of::Image,
            "What it starts from: `\"scratch\"`, or another image. This, `base`, `dockerfile` or `build`.",
        ),
        key("dockerfile", Of::Text, "A Dockerfile that it starts from; its folder is the context."),
        key("command", TEXTS, "Program and arguments that it runs."),
        key("env", TEXT_MAP, "Environment variables."),
        key("user", Of::Text, "Who it runs as: `user`, `uid`, `user:group` or `uid:gid`."),
        key("workdir", Of::Text, "Its working directory."),
        key("labels", TEXT_MAP, "Labels."),
        key("expose", TEXTS, "Ports that it says it listens on: `8080`, `\"53/udp\"`. For people only."),
    ],
    &[
        labelled("base", "kind", &BASE, "Packages that it starts from: `\"debian\"`."),
        plain("build", &BUILD, "A Dockerfile that it starts from, and how it is built."),
        labelled(
            "copy",
            "path",
            &COPY,
            "Copies a file or folder in, from the stack's folder unless the path is absolute.",
        ),
        labelled("file", "path", &FILE, "Writes a file."),
        labelled("link", "path", &LINK, "Makes a symbolic link."),
        labelled("directory", "path", &DIRECTORY, "Makes a directory, with what is missing above it."),
        plain("run", &RUN, "Runs a program over the root."),
        labelled("provision", "with", &PROVISION, "Runs a provisioner over the root: `shell`, `ansible` or `puppet`."),
    ],
);

static BASE: Shape = shape(
    "base",
    &[
        must("suite", Of::Text, "The release of Debian: `bookworm`."),
        key("packages", TEXTS, "Packages besides the required ones and `apt`."),
        key("components", TEXTS, "Sections of the archive; `[\"main\"]` unless said otherwise."),
        key("mirror", Of::Text, "The archive; where this machine's packages come from unless said otherwise."),
        key("snapshot", Of::Text, "The archive as it was at a time: `20260101T000000Z`. This or `lock`."),
        key("lock", Of::Text, "A file of versions and hashes, written by `basalt image lock`."),
    ],
    &[],
);

static BUILD: Shape = shape(
    "build",
    &[
        key("dockerfile", Of::Text, "The Dockerfile; `Dockerfile` unless said otherwise."),
        key("context", Of::Text, "The folder that COPY takes from; that of the Dockerfile unless said otherwise."),
        key("target", Of::Text, "The stage to build; the last one unless said otherwise."),
        key("args", TEXT_MAP, "Build arguments."),
        key("network", Of::Bool, "Whether RUN reaches the network; true unless said otherwise."),
        key("images", IMAGES, "Images that stand for names in FROM and `COPY --from`."),
    ],
    &[],
);

static DIRECTORY: Shape = shape("directory", &[], &[]);

static RUN: Shape = shape(
    "run",
    &[
        must("command", Of::Any, "A line for `/bin/sh -e`, or a list: program and arguments."),
        key("env", TEXT_MAP, "Environment variables, over those of the image."),
        key("user", Of::Text, "Who it runs as; root unless said otherwise."),
        key("workdir", Of::Text, "Where it runs; where the image says unless said otherwise."),
        key("network", Of::Bool, "Whether it reaches the network, as this machine does; false unless said otherwise."),
        key("timeout", Of::Duration, "How long it may take; for ever unless said otherwise."),
    ],
    &[],
);

static PROVISION: Shape = shape(
    "provision",
    &[
        key("inline", TEXTS, "`shell`: lines of a script."),
        key("script", Of::Text, "`shell`: a script; its first line says what reads it."),
        key("arguments", TEXTS, "`shell`: arguments of the script."),
        key("playbook", Of::Text, "`ansible`: a playbook; its folder is seen with it."),
        key("vars", Of::Any, "`ansible`: extra variables, a map."),
        key("groups", TEXTS, "`ansible`: groups that the image is in."),
        key("tags", TEXTS, "`ansible`: only plays and tasks with these tags."),
        key("manifest", Of::Text, "`puppet`: a manifest, or a folder of them."),
        key("modules", Of::Text, "`puppet`: a folder of modules."),
        key("env", TEXT_MAP, "Environment variables."),
        key("user", Of::Text, "Who it runs as; root unless said otherwise."),
        key("workdir", Of::Text, "Where it runs."),
        key("network", Of::Bool, "Whether it reaches the network; false unless said otherwise."),
        key("timeout", Of::Duration, "How long it may take; for ever unless said otherwise."),
    ],
    &[],
);

static COPY: Shape = shape(
    "copy",
    &[
        must("to", Of::Text, "Where it goes, an absolute path; with a `/` at its end a folder for it."),
        key("mode", Of::Mode, "Permission bits of its files."),
        key("owner", Of::Text, "Who it belongs to: `user`, `user:group` or numbers; root unless said otherwise."),
        key("exclude", TEXTS, "Patterns of what is left out, as in `.dockerignore`."),
        key("exclude_file", Of::Text, "A file of such patterns."),
        key("image", Of::Image, "The image to copy from, instead of this machine."),
    ],
    &[],
);

static FILE: Shape = shape(
    "file",
    &[
        must("content", Of::Text, "What it holds."),
        key("mode", Of::Mode, "Permission bits; 0644 unless said otherwise."),
        key("owner", Of::Text, "Who it belongs to: `user`, `user:group` or numbers; root unless said otherwise."),
    ],
    &[],
);

static LINK: Shape = shape("link", &[must("to", Of::Text, "What it points to.")], &[]);

static SERVICE: Shape = shape(
    "service",
    &[
        key("for_each", Of::Any, "A list or map: one service `NAME-KEY` runs for each element."),
        must("image", Of::Image, "Its image: `image.NAME`, or a reference."),
        key("instances", Of::Integer(0, 10_000), "How many run at once; 1 unless said otherwise."),
        key("command", TEXTS, "Replaces what the image says to run."),
        key("env", TEXT_MAP, "Environment variables; they win over those of the image."),
        key("user", Of::Text, "Replaces the user that the image names."),
        key("workdir", Of::Text, "Replaces the working directory that the image names."),
        key("scratch", TEXTS, "Paths that are empty and writable, and die with the instance."),
        key("capabilities", TEXTS, "Capabilities it keeps (capabilities(7)); all others are dropped."),
        key("egress", Of::Bool, "Whether it may reach addresses outside the machine."),
        key("connects_to", REFERENCES, "Services that it may reach by name."),
        key("depends_on", REFERENCES, "Jobs that must have ended well before it starts."),
        key("drain", Of::Duration, "How long an instance that gets no new requests may finish those it has; 30s."),
        key("stop_within", Of::Duration, "How long it may take from SIGTERM to its end; 10s."),
    ],
    &[
        labelled("config", "path", &CONFIG, "A read-only file."),
        labelled("secret", "path", &SECRET, "A read-only file with a secret."),
        labelled("volume", "path", &VOLUME, "A directory that survives instances."),
        labelled("port", "name", &PORT, "A port that it listens on."),
        plain("limits", &LIMITS, "What it may use."),
        plain("health", &HEALTH, "When it counts as healthy."),
        plain("route", &ROUTE, "Requests from outside that it answers."),
        plain("traffic", &TRAFFIC, "How its instances share requests; a change of it is no new release."),
        labelled("rollout", "strategy", &ROLLOUT, "How it passes to a new release."),
    ],
);

static JOB: Shape = shape(
    "job",
    &[
        key("for_each", Of::Any, "A list or map: one job `NAME-KEY` runs for each element."),
        must("image", Of::Image, "Its image: `image.NAME`, or a reference."),
        key("command", TEXTS, "Replaces what the image says to run."),
        key("env", TEXT_MAP, "Environment variables; they win over those of the image."),
        key("user", Of::Text, "Replaces the user that the image names."),
        key("workdir", Of::Text, "Replaces the working directory that the image names."),
        key("scratch", TEXTS, "Paths that are empty and writable, and die with the instance."),
        key("capabilities", TEXTS, "Capabilities it keeps (capabilities(7)); all others are dropped."),
        key("egress", Of::Bool, "Whether it may reach addresses outside the machine."),
        key("connects_to", REFERENCES, "Services that it may reach by name."),
        key("depends_on", REFERENCES, "Jobs that must have ended well before it starts."),
        key("retries", Of::Integer(0, 100), "How often it is tried again after a failure; 0."),
        key("timeout", Of::Duration, "How long one try may take; 10m."),
    ],
    &[
        labelled("config", "path", &CONFIG, "A read-only file."),
        labelled("secret", "path", &SECRET, "A read-only file with a secret."),
        labelled("volume", "path", &VOLUME, "A directory that survives instances."),
        plain("limits", &LIMITS, "What it may use."),
    ],
);

static CONFIG: Shape = shape(
    "config",
    &[
        must("content", Of::Text, "What it holds."),
        key("mode", Of::Mode, "Permission bits; 0444 unless said otherwise."),
    ],
    &[],
);

static SECRET: Shape = shape(
    "secret",
    &[
        must("from", Of::Reference, "The secret."),
        key("mode", Of::Mode, "Permission bits; 0444 unless said otherwise."),
    ],
    &[],
);

static VOLUME: Shape = shape(
    "volume",
    &[
        must("name", Of::Text, "The volume's name."),
        key("shared", Of::Bool, "Whether several instances may have it at once."),
    ],
    &[],
);

static PORT: Shape = shape(
    "port",
    &[
        must("container", Of::Integer(1, 65_535), "The port inside the instance."),
        key("protocol", Of::Words(&["http", "tcp"]), "What is spoken there; http unless said otherwise."),
        key(
            "proxy_protocol",
            Of::Words(&["v1", "v2"]),
            "tcp: each connection begins with this version of the PROXY protocol's header, which tells whose it is; none.",
        ),
    ],
    &[],
);

static LIMITS: Shape = shape(
    "limits",
    &[
        key("cpu", Of::Cpu, "Processor time: cores, or thousandths of one (\"500m\")."),
        key("memory", Of::Size, "Memory, swap included."),
        key("pids", Of::Integer(1, 4_194_304), "Processes and threads; 1024."),
    ],
    &[],
);

static HEALTH: Shape = shape(
    "health",
    &[
        key("command", TEXTS, "A program run in the instance: healthy if it ends with status 0."),
        key("interval", Of::Duration, "Time between two checks; 1s."),
        key("timeout", Of::Duration, "Time after which a check has failed; 500ms."),
        key("healthy_after", Of::Integer(1, 1000), "Successes in a row that make an instance healthy; 2."),
        key("unhealthy_after", Of::Integer(1, 1000), "Failures in a row that make it unhealthy; 3."),
        key("start_within", Of::Duration, "Time within which a new instance must be healthy; 30s."),
    ],
    &[
        plain("http", &HEALTH_HTTP, "Healthy if `GET path` is answered with a status of 200 to 399."),
        plain("tcp", &HEALTH_TCP, "Healthy if a connection is accepted."),
        plain("grpc", &HEALTH_GRPC, "Healthy if `grpc.health.v1.Health/Check` answers `SERVING`."),
    ],
);

static HEALTH_HTTP: Shape = shape(
    "health_http",
    &[
        key("path", Of::Text, "What is asked for; `/` unless said otherwise."),
        key("port", Of::Text, "The port's name; `http`, else the first."),
    ],
    &[],
);

static HEALTH_TCP: Shape =
    shape("health_tcp", &[key("port", Of::Text, "The port's name; `http`, else the first.")], &[]);

static HEALTH_GRPC: Shape = shape(
    "health_grpc",
    &[
        key("service", Of::Text, "The service that is asked for; all of the server unless said otherwise."),
        key("port", Of::Text, "The port's name; `http`, else the first."),
    ],
    &[],
);

static ROUTE: Shape = shape(
    "route",
    &[
        key("host", Of::Text, "The host name, or `*.` and one: any unless said otherwise."),
        key("path", Of::Text, "A path prefix at segment borders; `/` unless said otherwise."),
        key("exact", Of::Bool, "Whether it is the whole path and no prefix."),
        key("port", Of::Text, "The port's name; `http`, else the first."),
        key("methods", TEXTS, "Methods; any unless said otherwise. `GET` answers `HEAD` too."),
        key("headers", TEXT_MAP, "Headers that a request must have, and their values; `*` is any."),
        key("query", TEXT_MAP, "Query parameters that it must have, and their values; `*` is any."),
        key("rewrite", Of::Text, "Takes the place of `path` before an instance sees it."),
        key(
            "request_headers",
            TEXT_MAP,
            "Headers that an instance sees, in place of a client's, written with `-` or `_`; an empty value takes one away.",
        ),
        key("response_headers", TEXT_MAP, "Headers that a client sees; an empty value takes one away."),
        key("compress", Of::Bool, "Whether texts are compressed for clients that take gzip, brotli or zstd; false."),
        key("timeout", Of::Duration, "How long an instance may be silent before it has failed; any time."),
        key("retries", Of::Integer(0, 10), "How often a request that may be repeated is sent again; 2."),
        key(
            "hedge_after",
            Of::Duration,
            "After so long without an answer, a `GET` or `HEAD` goes to a second instance too, and the first answer counts; never.",
        ),
        key("body_limit", Of::Size, "The largest body of a request (413 beyond it); any size."),
    ],
    &[
        plain("redirect", &REDIRECT, "Sends clients elsewhere; no instance is asked."),
        plain("respond", &RESPOND, "Answers by itself; no instance is asked."),
        plain("rate_limit", &RATE_LIMIT, "How many requests each client may send (429 beyond it)."),
        labelled("error_page", "status", &ERROR_PAGE, "What the gateway says for a status of its own (`503`, `5xx`)."),
        plain("tls", &TLS, "Serves the host over TLS, at the address of `--https`."),
    ],
);

static REDIRECT: Shape = shape(
    "redirect",
    &[
        must(
            "to",
            Of::Text,
            "Where to; `{scheme}`, `{host}`, `{path}`, `{rest}` (behind `path`) and `{query}` (with its `?`) are filled in.",
        ),
        key("status", Of::Integer(301, 308), "301, 302, 303, 307 or 308; 308 unless said otherwise."),
    ],
    &[],
);

static RESPOND: Shape = shape(
    "respond",
    &[
        key("status", Of::Integer(200, 599), "The status; 200 unless said otherwise."),
        key("body", Of::Text, "What it says, up to 64KiB."),
        key("type", Of::Text, "The media type; HTML if the body begins with `<`, else text."),
    ],
    &[],
);

static RATE_LIMIT: Shape = shape(
    "rate_limit",
    &[
        must("requests", Of::Integer(1, 1_000_000), "So many requests of one address (IPv6: one /64)."),
        key("per", Of::Duration, "In this time, on average; 1s."),
        key("burst", Of::Integer(1, 1_000_000), "So many at once; as many as `requests`."),
    ],
    &[],
);

static ERROR_PAGE: Shape = shape(
    "error_page",
    &[
        key("body", Of::Text, "What it says, up to 64KiB."),
        key("type", Of::Text, "The media type; HTML if the body begins with `<`, else text."),
    ],
    &[],
);

static TLS: Shape = shape(
    "tls",
    &[
        key("certificate", Of::Text, "The path of a PEM file with the certificate and those that lead to its root."),
        key("key", Of::Text, "The path of a PEM file with the private key. Both are read again when they change."),
        key("acme", Of::Bool, "Whether an authority issues the certificate instead (RFC 8555; by ports 80 or 443)."),
        key("redirect", Of::Bool, "Whether requests without TLS are sent to `https:`; true unless said otherwise."),
        key("hsts", Of::Duration, "How long browsers are to insist on TLS (RFC 6797)."),
    ],
    &[plain(
        "clients",
        &CLIENTS,
        "Clients have certificates of their own; instances see them in `Client-Cert` (RFC 9440).",
    )],
);

static CLIENTS: Shape = shape(
    "clients",
    &[
        must("authorities", Of::Text, "The path of a PEM file with the authorities that sign them."),
        key("required", Of::Bool, "Whether clients without one are refused; true unless said otherwise."),
    ],
    &[],
);

static TRAFFIC: Shape = shape(
    "traffic",
    &[
        key("maintenance", Of::Any, "Answers all requests from outside with 503: `true`, or what to say."),
        key("slow_start", Of::Duration, "Over how long an instance that is new gets more and more requests; at once."),
        key("panic_below", Of::Weight, "If fewer of a release's instances are healthy, all of them are used; never."),
        key("hash_on", Of::Text, "Equal requests meet the same instance: `client`, `header:NAME` or `cookie:NAME`."),
    ],
    &[
        plain("sticky", &STICKY, "Keeps a client at its instance by a signed cookie."),
        plain("eject", &EJECT, "When an instance gets no requests for a while, by what its requests have met."),
    ],
);

static STICKY: Shape = shape(
    "sticky",
    &[
        key("cookie", Of::Text, "The cookie's name; `basalt_` and the service's name."),
        key("lasts", Of::Duration, "How long a browser keeps it; until it is closed."),
    ],
    &[],
);

static EJECT: Shape = shape(
    "eject",
    &[
        key(
            "consecutive",
            Of::Integer(0, 1000),
            "After so many failures in a row: broken, 502, 503 or 504; 5. 0 is never.",
        ),
        key("error_rate", Of::Weight, "If this part of at least 20 requests within 10 s failed (500 and more); never."),
        key(
            "slower",
            Of::Any,
            "If it is so many times as slow as the median of them all, with at least 20 requests within 10 s each: 1.1 to 1000; never.",
        ),
        key("lasts", Of::Duration, "For how long, and longer each time in a row; 10s."),
        key("at_most", Of::Weight, "This part of a release's instances at once; 50%."),
    ],
    &[],
);

static ROLLOUT: Shape = shape(
    "rollout",
    &[
        key("deadline", Of::Duration, "Time within which it must be done; else it is rolled back."),
        key("hold", Of::Duration, "How long the new release is watched with all traffic before the rollout is done."),
        key("keep_old", Of::Duration, "How long the old release stays warm for a rollback."),
        key("max_surge", Of::Share, "rolling: instances above the wanted number."),
        key("max_unavailable", Of::Share, "rolling: instances below the wanted number."),
        key("instances", Of::Share, "canary: how many instances of the new release run from its first step on."),
        key("steps", Of::List(&Of::Object(&STEP)), "canary: the weights it passes through."),
    ],
    &[],
);

static STEP: Shape = shape(
    "step",
    &[
        must("weight", Of::Weight, "The part of all traffic, a percentage."),
        key("hold", Of::Duration, "How long the step is watched."),
        key("approval", Of::Bool, "Whether it waits for `basalt promote`."),
    ],
    &[],
);

/// Takes down what the decoder asked of a block, for the test that compares it with the table.
#[cfg(test)]
pub(crate) fn asked(shape: &'static Shape, keys: &[&'static str], blocks: &[&'static str]) {
    tests::asked(shape, keys, blocks);
}

#[cfg(test)]
mod docs;
#[cfg(test)]
#[path = "../tests/memory/mod.rs"]
mod memory;
#[cfg(test)]
mod tests;
