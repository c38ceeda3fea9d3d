//! gRPC: every kind of call, in clear and over TLS; and none fails while the service is updated.

use crate::clients::{Script, run, stack};
use crate::edge::certify;
use crate::harness::{Basalt, free_address};

#[test]
fn calls_of_every_kind_and_an_update_under_them() {
    let mut basalt = Basalt::new();
    let folder = basalt.folder();
    certify(&folder, "grpc.test");
    let (certificate, https) = (format!("{}/cert.pem", folder.display()), free_address().to_string());
    let path = folder.join("grpc.hcl");
    let write = |version: &str, instances: u32| {
        let rest = format!(
            r#"
  health {{
    grpc {{
      port    = "http"
      service = "test.Test"
    }}
    interval = "200ms"
  }}
  route {{ path = "/" }}
  route {{
    host = "grpc.test"
    tls {{
      certificate = "{certificate}"
      key         = "{}/key.pem"
    }}
  }}
"#,
            folder.display()
        );
        std::fs::write(&path, stack("grpc_server.py", version, instances, &rest)).unwrap();
    };
    // One instance counts what was cancelled.
    write("one", 1);
    basalt.up_path(&path, &["--https", &https]).expect(0);
    let http = basalt.http().to_string();
    run("grpc_calls.py", &[&http]);
    run("grpc_calls.py", &[&https, &certificate, "grpc.test"]);

    write("one", 2);
    basalt.up_path(&path, &[]).expect(0);
    let load = Script::start("grpc_load.py", &[&http]);
    write("two", 2);
    basalt.up_path(&path, &[]).expect(0);
    let report = load.finish();
    for kind in ["unary", "stream", "chat"] {
        assert!(report["calls"][kind].as_u64() > Some(0), "{report}");
    }
    basalt.down();
}
