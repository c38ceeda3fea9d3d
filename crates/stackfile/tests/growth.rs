//! How time and memory grow with the stack: prints a row for each size. Run with
//! `cargo test --release -p basalt-stackfile --test growth -- --ignored --nocapture`.

mod convert;
mod memory;

use std::path::Path;

use basalt_stackfile::{Inputs, load_from, render};
use memory::Memory;

fn services(count: usize) -> String {
    let service = |n| {
        format!(
            "service \"service-{n}\" {{\n  image     = \"registry.example.com/app:${{var.tag}}\"\n  instances = 3\n  env = {{\n    LOG  = \"info\"\n    \
             NAME = \"service-{n}\"\n    URL  = \"http://${{local.host}}/${{upper(\"x\")}}\"\n  }}\n  scratch = [\"/tmp\"]\n  \
             config \"/etc/app.toml\" {{ content = \"port = 8080\\nname = {n}\\n\" }}\n  port \"http\" {{ container = 8080 }}\n  \
             limits {{\n    cpu    = \"500m\"\n    memory = \"128MiB\"\n  }}\n  health {{\n    http {{\n      path = \"/health\"\n    }}\n    interval = \"1s\"\n  }}\n  \
             route {{\n    host = \"service-{n}.example.com\"\n  }}\n  rollout \"blue_green\" {{ hold = \"1s\" }}\n}}\n"
        )
    };
    let head = "variable \"tag\" { default = \"1\" }\nlocals { host = \"example.com\" }\n";
    head.to_owned() + &(0..count).map(service).collect::<String>()
}

/// Returns a line of `/proc/self/status` in MiB.
fn status(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

#[test]
#[ignore = "measures, and asserts nothing about time"]
#[allow(clippy::disallowed_methods)] // a clock is what measures
fn time_and_memory() {
    for count in [10, 100, 1_000, 10_000] {
        let hcl = services(count);
        let json = convert::to_json(&hcl);
        let (yaml, json) = (convert::to_yaml(&json), serde_json::to_string_pretty(&json).unwrap());
        for (kind, text) in [("hcl", &hcl), ("json", &json), ("yaml", &yaml)] {
            let path = format!("/s/x.{kind}");
            let files = Memory::new(&[(&path, text)]);
            // Forgets the highest memory so far.
            std::fs::write("/proc/self/clear_refs", "5").unwrap();
            let before = status("VmRSS");
            let started = std::time::Instant::now();
            let loaded = load_from(&files, Path::new(&path), &Inputs::default());
            let took = started.elapsed();
            let peak = status("VmHWM") - before;
            assert!(!loaded.has_errors(), "{}", render(&loaded, false));
            assert_eq!(loaded.stack.unwrap().services.len(), count);
            println!("{kind} {count:>6} services: {:>8.1} ms, {peak:>6.1} MiB", took.as_secs_f64() * 1000.0);
        }
    }
}
