//! What is known of widely used images, since a Compose file does not say it: where they listen, what they start with, where they
//! write. It is used only where the file itself is silent.

/// An image, by the last part of its name.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// Ports; the second says whether HTTP is spoken there.
    pub(crate) ports: &'static [(u16, bool)],
    /// The program that takes the command as its arguments; empty if the command is run as it is.
    pub(crate) entrypoint: &'static [&'static str],
    /// Folders outside of volumes that it writes to.
    pub(crate) writes: &'static [&'static str],
    /// Whether it keeps data and needs nothing outside of the machine.
    pub(crate) store: bool,
}

const SCRIPT: &[&str] = &["docker-entrypoint.sh"];

const fn store(
    name: &'static str,
    ports: &'static [(u16, bool)],
    entrypoint: &'static [&'static str],
    writes: &'static [&'static str],
) -> Known {
    Known { name, ports, entrypoint, writes, store: true }
}

const fn app(
    name: &'static str,
    ports: &'static [(u16, bool)],
    entrypoint: &'static [&'static str],
    writes: &'static [&'static str],
) -> Known {
    Known { name, ports, entrypoint, writes, store: false }
}

const KNOWN: &[Known] = &[
    store("postgres", &[(5432, false)], SCRIPT, &["/tmp", "/run/postgresql"]),
    store("postgis", &[(5432, false)], SCRIPT, &["/tmp", "/run/postgresql"]),
    store("mysql", &[(3306, false)], SCRIPT, &["/tmp", "/run/mysqld"]),
    store("mariadb", &[(3306, false)], SCRIPT, &["/tmp", "/run/mysqld"]),
    store("mongo", &[(27017, false)], SCRIPT, &["/tmp"]),
    store("redis", &[(6379, false)], SCRIPT, &["/tmp"]),
    store("valkey", &[(6379, false)], SCRIPT, &["/tmp"]),
    store("memcached", &[(11211, false)], SCRIPT, &["/tmp"]),
    store("rabbitmq", &[(5672, false)], SCRIPT, &["/tmp", "/var/log/rabbitmq"]),
    store(
        "elasticsearch",
        &[(9200, true)],
        &["/bin/tini", "--", "/usr/local/bin/docker-entrypoint.sh"],
        &["/tmp", "/usr/share/elasticsearch/logs"],
    ),
    store("zookeeper", &[(2181, false)], &["/docker-entrypoint.sh"], &["/tmp", "/logs"]),
    store("influxdb", &[(8086, true)], &["/entrypoint.sh"], &["/tmp"]),
    store("minio", &[(9000, true)], &["/usr/bin/docker-entrypoint.sh"], &["/tmp"]),
    app("nginx", &[(80, true)], &["/docker-entrypoint.sh"], &["/tmp", "/run", "/var/cache/nginx"]),
    app("httpd", &[(80, true)], &[], &["/tmp", "/usr/local/apache2/logs"]),
    app("caddy", &[(80, true)], &[], &["/tmp"]),
    app("traefik", &[(80, true)], &["/entrypoint.sh"], &["/tmp"]),
    app("wordpress", &[(80, true)], SCRIPT, &["/tmp", "/run", "/var/log/apache2"]),
    app("nextcloud", &[(80, true)], &["/entrypoint.sh"], &["/tmp", "/run"]),
    app("grafana", &[(3000, true)], &["/run.sh"], &["/tmp"]),
    app("prometheus", &[(9090, true)], &["/bin/prometheus"], &["/tmp"]),
    app("node-exporter", &[(9100, true)], &["/bin/node_exporter"], &["/tmp"]),
    app("alertmanager", &[(9093, true)], &["/bin/alertmanager"], &["/tmp"]),
    app("kibana", &[(5601, true)], &["/bin/tini", "--"], &["/tmp"]),
    app("gitea", &[(3000, true), (22, false)], &["/usr/bin/entrypoint"], &["/tmp", "/run"]),
    app("adminer", &[(8080, true)], &["entrypoint.sh"], &["/tmp"]),
    app("phpmyadmin", &[(80, true)], &["/docker-entrypoint.sh"], &["/tmp", "/run", "/sessions"]),
    app("mongo-express", &[(8081, true)], &["/sbin/tini", "--", "/docker-entrypoint.sh"], &["/tmp"]),
    app("minecraft-server", &[(25565, false)], &["/start"], &["/tmp"]),
    app("keycloak", &[(8080, true)], &["/opt/keycloak/bin/kc.sh"], &["/tmp"]),
    app("vault", &[(8200, true)], SCRIPT, &["/tmp"]),
];

/// Returns what is known of the image that a reference names.
pub(crate) fn known(reference: &str) -> Option<&'static Known> {
    let (path, _) = split(reference);
    let name = path.rsplit('/').next().unwrap_or(path);
    KNOWN.iter().find(|known| known.name == name)
}

/// Returns where the image listens by default; images of PHP's process manager speak FastCGI.
pub(crate) fn ports(reference: &str) -> &'static [(u16, bool)] {
    let (_, tag) = split(reference);
    if tag.contains("fpm") {
        return &[(9000, false)];
    }
    known(reference).map_or(&[], |known| known.ports)
}

/// Returns the name and the tag of a reference.
fn split(reference: &str) -> (&str, &str) {
    let reference = reference.split('@').next().unwrap_or(reference);
    match reference.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (reference, ""),
    }
}

/// Returns whether a port is one that speaks no HTTP by custom (IANA's registry of service names, and well-known programs).
pub(crate) fn is_raw(port: u16) -> bool {
    const RAW: [u16; 47] = [
        21, 22, 23, 25, 53, 110, 139, 143, 389, 443, 445, 465, 587, 636, 993, 995, 1433, 1521, 1883, 2181, 2222, 3306,
        4222, 5432, 5433, 5671, 5672, 6379, 6380, 6432, 8443, 8883, 9042, 9092, 9093, 9094, 11211, 25565, 26379, 27017,
        27018, 33060, 5044, 9229, 9300, 29092, 50000,
    ];
    RAW.contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let check = |reference: &str, name: Option<&str>| {
            assert_eq!(known(reference).map(|known| known.name), name, "{reference}");
        };
        check("postgres", Some("postgres"));
        check("docker.io/library/postgres:16-alpine", Some("postgres"));
        check("localhost:5000/redis", Some("redis"));
        check("grafana/grafana@sha256:00", Some("grafana"));
        check("example/postgres-backup", None);
        assert_eq!(ports("wordpress:php8-fpm"), [(9000, false)]);
        assert_eq!(ports("wordpress:latest"), [(80, true)]);
    }
}
