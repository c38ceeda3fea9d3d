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

    basalt.run_with_input(&["secret", "rotate", "key"], "second").expect(0);
    assert!(basalt.run_with_input(&["secret", "rotate", "key"], "second").expect(4).err.contains("version 2"));
    assert!(basalt.run_with_input(&["secret", "rotate", "kez"], "x").expect(4).err.contains("no secret `kez`"));
    let typed = basalt.run(&["secret", "set", "key", "third"]).expect(4).err;
    assert!(typed.contains("standard input") && !typed.contains("third"), "{typed}");
    basalt.up(&stack("new")).expect(0);
    assert_eq!(files(&basalt), ["new", "second"]);

    basalt.run(&["rollback", "app"]).expect(0);
    assert_eq!(files(&basalt), ["old", "first"]);
    let kept = basalt.run(&["secret", "remove", "key"]).expect(4).err;
    assert!(kept.contains("app#1") && kept.contains("--force"), "{kept}");

    for verb in
        [&["events", "--output", "json"][..], &["status", "--output", "json"], &["releases", "--output", "json"]]
    {
        let out = basalt.run(verb).expect(0).out;
        assert!(!out.contains("first") && !out.contains("second"), "a secret in clear: {out}");
    }
    basalt.down();
}

#[test]
fn sensitive_values_reach_the_program_and_nobody_else() {
    let stack = |token: u64| {
        let content = format!("config \"/etc/app.conf\" {{ content = \"token=${{sensitive({token})}}\" }}");
        let stack = Stack::new("sealed", "").instances(1).service(&content).env("PLAIN", "seen");
        stack.env("TOKEN", &format!("${{sensitive({token})}}")).env("KEY", "${secret.key}")
    };
    let mut basalt = Basalt::new();
    basalt.run_with_input(&["secret", "set", "key"], "k3y-in-store").expect(0);
    basalt.up(&stack(70_012_341)).expect(0);
    let environ = |basalt: &Basalt| basalt.get("/file?/proc/self/environ").1;
    let seen = environ(&basalt);
    for variable in ["TOKEN=70012341", "KEY=k3y-in-store", "PLAIN=seen"] {
        assert!(seen.split('\0').any(|entry| entry == variable), "{variable} is not in {seen:?}");
    }
    assert_eq!(basalt.get("/file?/etc/app.conf").1, "token=70012341");

    basalt.up(&stack(70_012_342)).expect(0);
    assert!(environ(&basalt).contains("TOKEN=70012342"));
    basalt.run(&["rollback", "app"]).expect(0);
    assert!(environ(&basalt).contains("TOKEN=70012341"), "the whole earlier release");

    for verb in
        [&["events", "--output", "json"][..], &["releases", "--output", "json"], &["status", "--output", "json"]]
    {
        let out = basalt.run(verb).expect(0).out;
        assert!(!out.contains("7001234") && !out.contains("k3y"), "a secret in clear: {out}");
    }
    basalt.down();
}
