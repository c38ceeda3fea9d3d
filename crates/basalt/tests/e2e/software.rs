//! Real software: nginx and a Python web application, from Debian packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use basalt_testkit::load::Kind;

use crate::harness::{Basalt, Loads};

/// Returns an OCI archive with a Debian root that holds nginx, Flask and gunicorn; made once and then kept.
fn debian() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian");
    let archive = folder.join("web.tar");
    if !archive.exists() {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        // Device nodes are refused in images; a runtime brings its own.
        let script = r"
            set -e
            mmdebstrap --quiet --variant=minbase --include=nginx-light,python3-flask,gunicorn bookworm root.tar
            tar --delete --wildcards -f root.tar './dev/*'
            umoci init --layout layout
            umoci new --image layout:web
            umoci raw add-layer --image layout:web root.tar
            skopeo copy --quiet oci:layout:web oci-archive:half.tar
            rm -rf root.tar layout
            mv half.tar web.tar";
        #[allow(clippy::disallowed_methods)] // other people's tools make the image
        let output = Command::new("sh").args(["-c", script]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    archive
}

/// Brings up a version, then another under load, and goes back under load.
fn check(stack: impl Fn(&str) -> String) {
    let mut basalt = Basalt::new();
    let path = basalt.folder().join("real.hcl");
    let write = |version: &str| std::fs::write(&path, stack(version)).unwrap();
    write("one");
    basalt.up_path(&path, &[]).expect(0);
    assert_eq!(basalt.get("/"), (200, "version=one\n".to_owned()));

    let kinds = [Kind::KeepAlive, Kind::Close, Kind::Http2];
    let loads = Loads::start(&basalt, &kinds, &["version=one\n", "version=two\n"]);
    loads.flow(20);
    write("two");
    basalt.up_path(&path, &[]).expect(0);
    loads.flow(20);
    basalt.run(&["rollback", "web"]).expect(0);
    loads.flow(20);
    loads.finish_without_failure(&["version=one\n", "version=two\n"]);
    assert_eq!(basalt.get("/"), (200, "version=one\n".to_owned()));
    basalt.down();
}

#[test]
fn nginx() {
    let archive = debian();
    check(|version| {
        format!(
            r#"
service "web" {{
  image       = "oci-archive:{}"
  instances   = 2
  command     = ["nginx", "-g", "daemon off;"]
  scratch     = ["/var/log/nginx", "/var/lib/nginx", "/run", "/tmp"]
  stop_within = "2s"
  capabilities = ["CHOWN", "SETUID", "SETGID"]
  config "/etc/nginx/nginx.conf" {{
    content = <<EOT
worker_processes 1;
error_log stderr;
events {{}}
http {{
  access_log off;
  server {{
    listen 8080;
    location / {{ return 200 "version={version}\n"; }}
  }}
}}
EOT
  }}
  port "http" {{ container = 8080 }}
  health {{
    http {{
      path = "/"
      port = "http"
    }}
    interval = "500ms"
  }}
  route {{ path = "/" }}
  rollout "rolling" {{ max_surge = 1 }}
}}
"#,
            archive.display()
        )
    });
}

#[test]
fn flask_on_gunicorn_baked_onto_debian() {
    let archive = debian();
    check(|version| {
        format!(
            r#"
image "app" {{
  from = "oci-archive:{}"
  file "/srv/app.py" {{
    content = <<EOT
from flask import Flask

app = Flask(__name__)


@app.route("/")
def version():
    return "version={version}\n"
EOT
  }}
  command = ["gunicorn", "--bind", "0.0.0.0:8000", "--workers", "2", "--chdir", "/srv", "app:app"]
}}

service "web" {{
  image       = image.app
  instances   = 2
  user        = "www-data"
  env         = {{ PYTHONDONTWRITEBYTECODE = "1" }}
  scratch     = ["/tmp"]
  stop_within = "3s"
  port "http" {{ container = 8000 }}
  health {{
    http {{
      path = "/"
      port = "http"
    }}
    interval = "500ms"
  }}
  route {{ path = "/" }}
  rollout "blue_green" {{ keep_old = "5m" }}
}}
"#,
            archive.display()
        )
    });
}
