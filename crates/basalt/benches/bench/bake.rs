//! Baking an image from a Dockerfile, anew and as before, beside `docker build` of the same one.

use std::path::Path;

use crate::docker::Docker;
use crate::measure::{command, median, millis, run};
use crate::table::Row;

/// How often each is done; the middle counts.
const TIMES: usize = 5;

const DOCKERFILE: &str = "\
FROM base
WORKDIR /srv
COPY site/ .
RUN mkdir -p /var/lib/app && cat index.html > /var/lib/app/seen
RUN ls / > /var/lib/app/names
CMD [\"/bin/busybox\", \"httpd\", \"-f\"]
";

const STACK: &str = r#"
image "base" {
  from = "scratch"
  copy "/bin/busybox" { to = "/bin/busybox" }
  run { command = ["/bin/busybox", "--install", "-s", "/bin"] }
}
image "app" {
  build { images = { base = image.base } }
}
"#;

/// Bakes the same image with both.
pub fn bake() -> Vec<Row> {
    let folder = tempfile::Builder::new().prefix("basalt-bench-").tempdir().unwrap();
    let at = folder.path();
    let context = at.join("context");
    std::fs::create_dir_all(context.join("site")).unwrap();
    std::fs::write(context.join("Dockerfile"), DOCKERFILE).unwrap();
    std::fs::write(context.join("stack.hcl"), STACK).unwrap();
    for n in 0..100 {
        std::fs::write(context.join(format!("site/{n}.html")), format!("page {n}\n").repeat(100)).unwrap();
    }
    std::fs::write(context.join("site/index.html"), "hello\n").unwrap();

    let basalt = |data: &Path| {
        let line =
            format!("{} --data {} image bake {}", env!("CARGO_BIN_EXE_basalt"), data.display(), context.display());
        let output = command(&line).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let anew = median((0..TIMES).map(|n| millis(|| basalt(&at.join(format!("data-{n}"))))).collect());
    let as_before = median((0..TIMES).map(|_| millis(|| basalt(&at.join("data-0")))).collect());

    let docker = Docker::start();
    let root = at.join("root/bin");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::copy("/bin/busybox", root.join("busybox")).unwrap();
    for name in ["sh", "mkdir", "cat", "ls"] {
        std::os::unix::fs::symlink("busybox", root.join(name)).unwrap();
    }
    run(&format!("tar -C {at}/root -cf {at}/base.tar .", at = at.display()));
    docker.run(&format!("import {}/base.tar base", at.display()));
    let build = |more: &str| millis(|| drop(docker.run(&format!("build --network=none {more} {}", context.display()))));
    let theirs_anew = median((0..TIMES).map(|_| build("--no-cache")).collect());
    let theirs_as_before = median((0..TIMES).map(|_| build("")).collect());
    vec![
        Row::beside("bake an image from a Dockerfile, two RUN", "ms", anew, "docker build --no-cache", theirs_anew, ""),
        Row::beside("the same, nothing changed", "ms", as_before, "docker build", theirs_as_before, ""),
    ]
}
