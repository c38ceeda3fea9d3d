//! What has no counterpart in a stack: each key, what became of it, and what to do instead.

/// A key without a counterpart.
pub(crate) struct Row {
    pub(crate) key: &'static str,
    pub(crate) what: &'static str,
    pub(crate) instead: &'static str,
}

const fn row(key: &'static str, what: &'static str, instead: &'static str) -> Row {
    Row { key, what, instead }
}

/// Keys of a service.
pub(crate) const SERVICE: &[Row] = &[
    row("annotations", "annotations are left out: nothing reads them", ""),
    row("attach", "`attach` is left out: logs of all services are kept", "see them with `basalt logs`"),
    row("blkio_config", "limits of disk I/O are left out", ""),
    row("cgroup", "an instance always has a cgroup namespace of its own", ""),
    row("cgroup_parent", "an instance always has a cgroup of its own", ""),
    row("container_name", "the container's name is left out: instances are named by service, release and number", ""),
    row("cpu_count", "`cpu_count` is left out", "write `cpu` in `limits`"),
    row("cpu_percent", "`cpu_percent` is left out", "write `cpu` in `limits`"),
    row("cpu_period", "`cpu_period` is left out", "write `cpu` in `limits`"),
    row("cpu_quota", "`cpu_quota` is left out", "write `cpu` in `limits`"),
    row("cpu_rt_period", "real-time scheduling is left out", ""),
    row("cpu_rt_runtime", "real-time scheduling is left out", ""),
    row("cpu_shares", "shares of processor time are left out", "write an upper bound: `cpu` in `limits`"),
    row("cpuset", "pinning to processors is left out", "write `cpu` in `limits`"),
    row("credential_spec", "Windows credentials are left out", ""),
    row(
        "develop",
        "watching source files is left out: a change of source is a new image and a new release",
        "apply again",
    ),
    row("device_cgroup_rules", "devices are left out: an instance has none of the machine's", ""),
    row("devices", "devices are left out: an instance has none of the machine's", ""),
    row(
        "dns",
        "own name servers are left out: names of services are in /etc/hosts, others by the machine's resolver",
        "",
    ),
    row("dns_opt", "options of the resolver are left out", ""),
    row("dns_search", "search domains are left out", "write whole names"),
    row("domainname", "the domain name is left out: a service is reached as `NAME.internal`", ""),
    row("driver_opts", "options of a network driver are left out", ""),
    row("external_links", "links to containers of other projects are left out", "put both services into one stack"),
    row(
        "extra_hosts",
        "extra lines of /etc/hosts are left out: an instance's holds the services it connects to",
        "use names that a resolver knows",
    ),
    row("gpus", "GPUs are left out: an instance has no devices of the machine", ""),
    row("group_add", "additional groups are left out", "name the group in `user`: \"1000:1000\""),
    row("hostname", "the host name is left out: a service is reached as `NAME` and `NAME.internal`", ""),
    row("init", "an instance always has an init process", ""),
    row("ipc", "an instance always has an IPC namespace of its own", ""),
    row("isolation", "Windows isolation is left out", ""),
    row("label_file", "labels are left out: nothing reads them", ""),
    row("logging", "log drivers are left out: logs are kept, rotated, and shown by `basalt logs`", ""),
    row("mac_address", "the MAC address is left out: each instance has its own", ""),
    row(
        "mem_reservation",
        "memory reservations are left out: nothing is scheduled by them",
        "`memory` in `limits` is the upper bound",
    ),
    row("mem_swappiness", "swappiness is left out", ""),
    row("memswap_limit", "swap is part of `memory` in `limits`", ""),
    row("models", "AI models are left out", "run the model as a service"),
    row("oom_kill_disable", "an instance out of memory is always ended, and replaced", ""),
    row("oom_score_adj", "the out-of-memory score is left out", ""),
    row("pid", "an instance always has a PID namespace of its own", ""),
    row("platform", "the platform is left out: images are taken for the machine's own", ""),
    row(
        "post_start",
        "hooks after the start are left out: nothing runs in an instance but its release",
        "make it part of the command, or a `job`",
    ),
    row(
        "pre_stop",
        "hooks before the stop are left out",
        "handle SIGTERM in the program; `drain` takes requests away before it",
    ),
    row(
        "privileged",
        "privileges are left out: an instance has only the capabilities it names",
        "name what it needs in `capabilities`",
    ),
    row("provider", "providers are left out", ""),
    row("pull_policy", "when to pull is left out: a tag is pinned to a digest when the stack is planned", ""),
    row("restart", "an instance that ends is always replaced", "what ends by design is a `job`"),
    row("runtime", "other runtimes are left out", ""),
    row(
        "security_opt",
        "security options are left out: no new privileges and a list of allowed system calls hold always",
        "",
    ),
    row("shm_size", "the size of /dev/shm is left out", ""),
    row("stdin_open", "standard input is left out: it is always empty", "look around with `basalt debug`"),
    row(
        "stop_signal",
        "the stop signal is left out: SIGTERM comes first, SIGKILL after `stop_within`",
        "handle SIGTERM in the program",
    ),
    row("storage_opt", "storage options are left out: the root is read-only", ""),
    row("sysctls", "kernel parameters are left out", "set them on the machine, if they are not per namespace"),
    row("tty", "terminals are left out: output goes to the log", ""),
    row("ulimits", "ulimits are left out", "`pids` in `limits` bounds processes"),
    row("use_api_socket", "the engine's socket is left out: there is no engine", ""),
    row("userns_mode", "an instance always has a user namespace of its own", ""),
    row("uts", "an instance always has a UTS namespace of its own", ""),
    row(
        "volumes_from",
        "mounts of other services are left out",
        "name the volumes in both services, with `shared = true`",
    ),
];

/// Top-level keys.
pub(crate) const ROOT: &[Row] = &[
    row("include", "other Compose files are not included", "import each of them, and put the stacks into one folder"),
    row("models", "AI models are left out", "run the model as a service"),
    row("version", "the version of the file format is obsolete and left out", ""),
];

/// Keys of `build`.
pub(crate) const BUILD: &[Row] = &[
    row(
        "additional_contexts",
        "further contexts are left out",
        "write `images = { NAME = image.NAME }` in the `build` block",
    ),
    row("cache_from", "caches are left out: steps are cached by what went into them", ""),
    row("cache_to", "caches are left out: steps are cached by what went into them", ""),
    row("dockerfile_inline", "the inline Dockerfile is left out", "write it to a file and name that in `dockerfile`"),
    row("entitlements", "entitlements are left out", ""),
    row("extra_hosts", "extra hosts of the build are left out", ""),
    row("isolation", "Windows isolation is left out", ""),
    row("labels", "labels of the image are left out", "write LABEL in the Dockerfile"),
    row(
        "network",
        "the network of the build is left out",
        "write `network = false` in the `build` block to build without any",
    ),
    row("no_cache", "`no_cache` is left out: steps are cached by what went into them", ""),
    row("platforms", "platforms are left out: an image is built for the machine's own", ""),
    row("privileged", "privileges of the build are left out", ""),
    row("provenance", "provenance is left out", ""),
    row("pull", "`pull` is left out: tags are pinned to digests when the stack is planned", ""),
    row("sbom", "SBOMs are left out", ""),
    row("secrets", "secrets of the build are left out: an image would hold them", "give them to the service"),
    row("shm_size", "the size of /dev/shm is left out", ""),
    row("ssh", "SSH agents are left out", ""),
    row("tags", "further tags are left out: images are known by digest", ""),
    row("ulimits", "ulimits of the build are left out", ""),
];

/// Keys of `deploy`.
pub(crate) const DEPLOY: &[Row] = &[
    row("endpoint_mode", "`endpoint_mode` is left out: a service always has a virtual address", ""),
    row("labels", "labels of the service are left out: nothing reads them", ""),
    row("placement", "placement is left out: there is one machine", ""),
    row(
        "restart_policy",
        "an instance that ends is always replaced, with growing pauses",
        "what ends by design is a `job`",
    ),
    row("rollback_config", "`rollback_config` is left out: going back is a rollout by the same strategy", ""),
];

/// Keys of `healthcheck`.
pub(crate) const HEALTH: &[Row] =
    &[row("start_interval", "`start_interval` is left out: the interval is the same from the start on", "")];

/// Keys of a network.
pub(crate) const NETWORK: &[Row] = &[
    row("attachable", "`attachable` is left out: only services of a stack are connected", ""),
    row(
        "driver",
        "the network driver is left out: each instance has a network namespace, and `connects_to` opens paths",
        "",
    ),
    row("driver_opts", "options of the driver are left out", ""),
    row("enable_ipv4", "`enable_ipv4` is left out", ""),
    row("enable_ipv6", "`enable_ipv6` is left out", ""),
    row("external", "services outside this file are not connected", "put both into one stack, or go through a route"),
    row("ipam", "addresses are left out: they are given when an instance starts", ""),
    row("labels", "labels of the network are left out", ""),
    row("name", "the network's name is left out: there is no network to name", ""),
];

/// Keys of a service's part in a network.
pub(crate) const ATTACHMENT: &[Row] = &[
    row("aliases", "other names in the network are left out", "use the service's own name"),
    row("driver_opts", "options of the driver are left out", ""),
    row("gw_priority", "priorities of networks are left out", ""),
    row("interface_name", "the interface's name is left out", ""),
    row("ipv4_address", "the fixed address is left out", "use the service's name"),
    row("ipv6_address", "the fixed address is left out", "use the service's name"),
    row("link_local_ips", "link-local addresses are left out", ""),
    row("mac_address", "the MAC address is left out", ""),
    row("priority", "priorities of networks are left out", ""),
];

/// Keys of a top-level volume.
pub(crate) const VOLUME: &[Row] = &[
    row("driver", "the volume driver is left out: a volume is a folder of the data directory", ""),
    row(
        "driver_opts",
        "options of the volume driver are left out",
        "mount what they name on the machine, below the volume",
    ),
    row("external", "the volume starts empty here", "copy what the outside volume holds"),
    row("labels", "labels of the volume are left out", ""),
    row("name", "the volume's outside name is left out: volumes belong to the data directory", ""),
];

/// Keys of a mount in long form.
pub(crate) const MOUNT: &[Row] = &[
    row("bind", "options of the bind mount are left out", ""),
    row("consistency", "`consistency` is left out", ""),
    row("image", "options of the image mount are left out", ""),
    row("volume", "options of the volume are left out", ""),
];

/// Keys of a port in long form.
pub(crate) const PORT: &[Row] = &[row("mode", "`mode` is left out: the gateway answers for all instances", "")];

/// Keys of a config or secret, and of its use.
pub(crate) const FILE: &[Row] = &[
    row("driver", "drivers of secrets are left out", ""),
    row("driver_opts", "drivers of secrets are left out", ""),
    row("external", "what lies outside of this file is not taken over", ""),
    row("gid", "the group of the file is left out: any user of the instance may read it", ""),
    row("labels", "labels are left out", ""),
    row("name", "the outside name is left out", ""),
    row("template_driver", "template drivers are left out", "write `templatefile(…)`"),
    row("uid", "the owner of the file is left out: any user of the instance may read it", ""),
];
