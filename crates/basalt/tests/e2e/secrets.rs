//! A rollback goes back to the whole earlier release: configuration and secret versions too.

use crate::harness::{Basalt, Stack};

#[test]
fn secrets_and_configs_go_back_with_the_release() {
    let stack = |text: &str| {
        Stack::new("same", "").instances(1).service(&format!(
            "config \"/etc/app.conf\" {{ content = \"{text}\" }}\n secret \"/run/secrets/key\" {{ from = secret.key }}"
        ))
    };
    let files = |basalt: &Basalt| ["/file?/etc/app.conf", "/file?/run/secrets/key"].map(|path| basalt.get(path).1);
    let mut basalt = Basalt::new();
    basalt.run_with_input(&["secret", "set", "key"], "first").expect(0);
    basalt.up(&stack("old")).expect(0);
    assert_eq!(files(&basalt), ["old", "first"]);

    basalt.run_with_input(&["secret", "set", "key"], "second").expect(0);
    basalt.up(&stack("new")).expect(0);
    assert_eq!(files(&basalt), ["new", "second"]);

    basalt.run(&["rollback", "app"]).expect(0);
    assert_eq!(files(&basalt), ["old", "first"]);

    for verb in
        [&["events", "--output", "json"][..], &["status", "--output", "json"], &["releases", "--output", "json"]]
    {
        let out = basalt.run(verb).expect(0).out;
        assert!(!out.contains("first") && !out.contains("second"), "a secret in clear: {out}");
    }
    basalt.down();
}
