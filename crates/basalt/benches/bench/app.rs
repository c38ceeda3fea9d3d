//! The app behind the proxies: an nginx of one process, which spares the cores for what is measured. One with a thread for
//! each connection would be measured itself: the kernel lets some of its threads wait for most of a second.

use std::fmt::Write as _;
use std::path::Path;

use crate::measure::run;

/// Bytes of `/large`.
const LARGE: usize = 1 << 20;

/// Writes what it reads into a folder; it listens on a port of all addresses. Returns its arguments.
///
/// `scratch` is where it may write, `files` where it will find this folder.
pub fn set_up(folder: &Path, port: u16, scratch: &Path, files: &Path) -> String {
    let (at, files) = (scratch.display(), files.display());
    // Without another user there is nothing that it would want to give away.
    let mut text = format!(
        "user root root; daemon off; master_process off; pid {at}/pid; error_log stderr crit;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; keepalive_requests 1000000000;\n"
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "{kind}_temp_path {at}/{kind};").unwrap();
    }
    writeln!(
        text,
        "server {{ listen {port}; location / {{ return 200 \"hello\\n\"; }} location = /large {{ root {files}; }} }} }}"
    )
    .unwrap();
    std::fs::write(folder.join("nginx.conf"), text).unwrap();
    std::fs::write(folder.join("large"), "x".repeat(LARGE)).unwrap();
    format!("-e stderr -c {files}/nginx.conf")
}

/// Returns a stack of two instances, with more in their service. Files that it reads are written into a folder.
pub fn stack(folder: &Path, service: &str) -> String {
    let arguments = set_up(folder, 8080, Path::new("/tmp"), Path::new("/app"));
    let command: Vec<&str> = ["/nginx"].into_iter().chain(arguments.split(' ')).collect();
    let mut copies = String::new();
    let mut copy = |from: &str, to: &str| writeln!(copies, "copy {from:?} {{ to = {to:?} }}").unwrap();
    for file in ["nginx.conf", "large"] {
        copy(&folder.join(file).display().to_string(), &format!("/app/{file}"));
    }
    copy("/usr/sbin/nginx", "/nginx");
    // The libraries by what they are, at the places where the program looks for them.
    for library in run("ldd /usr/sbin/nginx").split_whitespace().filter(|word| word.starts_with('/')) {
        copy(&std::fs::canonicalize(library).unwrap().display().to_string(), library);
    }
    format!(
        "image \"app\" {{\nfrom = \"scratch\"\ncommand = {command:?}\n{copies}\
         file \"/etc/passwd\" {{ content = \"root:x:0:0::/:/\\n\" }}\nfile \"/etc/group\" {{ content = \"root:x:0:\\n\" }}\n}}\n\
         service \"app\" {{\nimage = image.app\ninstances = 2\nscratch = [\"/tmp\"]\nport \"http\" {{ container = 8080 }}\n\
         health {{\nhttp {{\npath = \"/health\"\nport = \"http\"\n}}\n}}\nroute {{ path = \"/\" }}\n{service}\n}}\n"
    )
}
