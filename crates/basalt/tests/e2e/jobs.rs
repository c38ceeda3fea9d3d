//! Jobs end well before what depends on them starts.

use crate::harness::{Basalt, Stack};

fn with_job(version: &str, job: &str) -> Stack {
    Stack::new(version, "")
        .instances(1)
        .stack(&format!(
            "job \"prepare\" {{\n image = image.app\n env = {{ JOB = \"1\", VERSION = \"{version}\", {job} }}\n}}\n"
        ))
        .service("depends_on = [job.prepare]")
}

#[test]
fn a_failing_job_keeps_the_old_release_and_says_why() {
    let mut basalt = Basalt::new();
    basalt.up(&with_job("one", "")).expect(0);
    assert_eq!(basalt.events_of("job_succeeded").len(), 1);

    let output = basalt.up(&with_job("two", "EXIT_CODE = \"9\"")).expect(3);
    let text = output.text();
    assert!(text.contains("prepare") && text.contains("exited with status 9"), "{text}");
    assert!(text.contains("job two ends"), "its last lines: {text}");
    assert_eq!(basalt.stable(), Some(1));
    assert!(basalt.get("/").1.contains("version=one"));

    basalt.up(&with_job("three", "")).expect(0);
    assert!(basalt.get("/").1.contains("version=three"));
    basalt.down();
}
