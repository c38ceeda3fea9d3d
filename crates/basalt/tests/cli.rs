//! The built program: exit codes, help texts, and what works without a running controller.

use std::path::Path;
use std::process::{Command, Stdio};

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

#[allow(clippy::disallowed_methods)] // running the program is what is tested
fn basalt(data: &Path, args: &[&str]) -> Ran {
    let ran = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(args)
        .env("BASALT_DATA", data)
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: ran.status.code(), out: text(ran.stdout), err: text(ran.stderr) }
}

fn check(args: &[&str], code: i32, said: &str) {
    let dir = tempfile::tempdir().unwrap();
    let ran = basalt(dir.path(), args);
    assert_eq!(ran.code, Some(code), "{args:?}: {}{}", ran.out, ran.err);
    assert!(format!("{}{}", ran.out, ran.err).contains(said), "{args:?}: {}{}", ran.out, ran.err);
}

#[test]
fn exit_codes() {
    check(&["--version"], 0, "basalt 0.");
    check(&["--help"], 0, "Exit codes:");
    check(&["completions", "bash"], 0, "_basalt()");
    check(&[], 4, "Usage: basalt");
    check(&["plan"], 4, "<STACK>");
    check(&["exec", "web"], 4, "unrecognized subcommand");
    check(&["validate", "/nowhere"], 4, "/nowhere");
    check(&["plan", "x.hcl", "--var", "y"], 4, "gives no value");
    check(&["scale", "web"], 4, "SERVICE=N");
    check(&["status"], 5, "the controller can't be reached");
    check(&["events"], 5, "help: start it");
    check(&["rollback", "web"], 5, "can't be reached");
    check(&["down"], 0, "nothing is running");
    check(&["secret", "set", "empty"], 4, "the secret is empty");
    check(&["secret", "set", "Not A Name"], 4, "is not a name");
    check(&["secret", "remove", "nobody"], 4, "there is no secret `nobody`");
    check(&["image", "import", "oci-archive:/nowhere.tar"], 4, "/nowhere.tar");
    check(&["image", "list"], 0, "");
    check(&["import", "compose", "/nowhere.yaml"], 4, "`/nowhere.yaml` can't be read");
    check(&["image", "import", "dir:/nowhere"], 4, "no such directory");
    check(&["image", "inspect", "00"], 4, "see `basalt image list`");
    check(&["image", "remove", ""], 4, "the beginning of an image's digest");
    check(&["image", "gc"], 0, "removed: 0 images");
    check(&["image", "verify", "--repair"], 0, "0 images rebuilt");
}

/// A Compose file goes in; a stack that is valid comes out, with what is to be known about it beside it.
#[test]
fn compose_files_become_stacks() {
    let dir = tempfile::tempdir().unwrap();
    let (file, stack) = (dir.path().join("compose.yaml"), dir.path().join("stack.hcl"));
    let text = "services:\n  web:\n    image: nginx:${TAG}\n    ports: ['8080:80']\n    hostname: web\n";
    std::fs::write(&file, text).unwrap();
    std::fs::write(dir.path().join(".env"), "TAG=1.27\n").unwrap();
    let (file, stack) = (file.to_str().unwrap(), stack.to_str().unwrap());
    let ran = basalt(dir.path(), &["import", "compose", file, "--out", stack]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("compose.yaml:5 services.web.hostname"), "{}", ran.err);
    assert!(std::fs::read_to_string(stack).unwrap().contains("variable \"tag\" { default = \"1.27\" }"));
    assert_eq!(basalt(dir.path(), &["validate", stack]).code, Some(0));
    // What is there stays as it is.
    assert_eq!(basalt(dir.path(), &["import", "compose", file, "--out", stack]).code, Some(4));
    let ran = basalt(dir.path(), &["import", "compose", file, "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert!(json["stack"].as_str().unwrap().contains("service \"web\""));
    assert!(json["findings"].as_array().unwrap().iter().any(|finding| finding["line"] == 5), "{json}");
}

/// A stack that needs nothing from this machine.
const STACK: &str = r#"
variable "greeting" { default = "hello" }
image "web" {
  from = "scratch"
  file "/index.html" { content = "${var.greeting}\n" }
  command = ["/bin/true"]
}
service "web" {
  image     = image.web
  instances = 2
  port "http" { container = 8080 }
}
"#;

fn stack(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shop.hcl");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_plan_needs_no_controller() {
    let (dir, path) = stack(STACK);
    let data = dir.path().join("data");
    let ran = basalt(&data, &["plan", &path]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let hash = ran.out.split(['(', ')']).nth(1).unwrap();
    insta::assert_snapshot!(ran.out.replace(hash, "HASH"), @r"
    stack shop
    └─ + service web is created as web#1 (HASH), 2 instances

    1 to create, 0 to update, 0 to remove, 0 unchanged
    ");
    assert_eq!(basalt(&data, &["plan", &path, "--detailed-exitcode"]).code, Some(2));
    assert!(!data.join("journal.db").exists() && !data.join("run").exists(), "a plan starts and records nothing");

    let json = basalt(&data, &["plan", &path, "--output", "json"]).out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["has_changes"], true);
    assert_eq!(json["services"]["web"]["change"], "create");
    let id = |greeting: &str| {
        let ran = basalt(&data, &["plan", &path, "--output", "json", "--var", greeting]);
        let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        json["services"]["web"]["release"]["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(id("greeting=hello"), json["services"]["web"]["release"]["id"].as_str().unwrap(), "law 1");
    assert_ne!(id("greeting=hi"), id("greeting=hello"));
}

#[test]
fn images_are_shown_exported_and_removed() {
    let (dir, path) = stack(STACK);
    let data = dir.path().join("data");
    let json = |args: &[&str]| {
        let ran = basalt(&data, &[args, &["--output", "json"]].concat());
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
        serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()
    };
    let digest = json(&["image", "bake", &path])["web"].as_str().unwrap().to_owned();
    let short = &digest["sha256:".len()..][..12];
    let list = json(&["image", "list"]);
    assert_eq!((&list[0]["digest"], &list[0]["origin"]), (&digest.as_str().into(), &"bake".into()));
    assert_eq!(list[0]["needed_by"], serde_json::json!([]));
    assert!(list[0]["used_at"].as_str().unwrap().ends_with('Z'));
    let shown = json(&["image", "inspect", short]);
    assert_eq!(shown["config"]["command"], serde_json::json!(["/bin/true"]));
    assert_eq!(shown["layers"].as_array().unwrap().len(), 1);
    assert!(basalt(&data, &["image", "inspect", short]).out.contains("command    /bin/true"));

    let file = dir.path().join("web.tar");
    json(&["image", "export", short, file.to_str().unwrap(), "--tag", "v1"]);
    // Used within a day, so it stays; then it goes, and comes back as the same.
    assert_eq!(json(&["image", "gc"])["images"], 0);
    assert_eq!(json(&["image", "remove", short])["images"], 1);
    assert_eq!(json(&["image", "list"]), serde_json::json!([]));
    assert_eq!(json(&["image", "import", &format!("oci-archive:{}:v1", file.display())])["digest"], digest);
    assert_eq!(json(&["image", "verify"])["problems"], serde_json::json!([]));
    assert_eq!(json(&["image", "gc", "--all"])["images"], 1);

    // A saved plan says what it misses.
    let saved = dir.path().join("shop.plan");
    assert_eq!(basalt(&data, &["plan", &path, "--out", saved.to_str().unwrap()]).code, Some(0));
    assert_eq!(json(&["image", "gc", "--all"])["images"], 1);
    let ran = basalt(&data, &["apply", saved.to_str().unwrap()]);
    assert_eq!(ran.code, Some(4));
    assert!(ran.err.contains("the image of `web` is no longer in the depot"), "{}", ran.err);
}

#[test]
fn a_saved_plan_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, path) = stack(STACK);
    let (data, saved) = (dir.path().join("data"), dir.path().join("shop.plan"));
    let ran = basalt(&data, &["plan", &path, "--out", saved.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(std::fs::metadata(&saved).unwrap().permissions().mode() & 0o777, 0o600);
    // It is known for what it is: what is missing is a controller, not a stack.
    assert_eq!(basalt(&data, &["apply", saved.to_str().unwrap()]).code, Some(5));
    std::fs::write(&saved, "{ \"format\": 1 }").unwrap();
    let ran = basalt(&data, &["apply", saved.to_str().unwrap()]);
    assert_eq!(ran.code, Some(4));
    assert!(ran.err.contains("is no saved plan"), "{}", ran.err);
}

#[test]
fn all_faults_of_a_stack_at_once() {
    let (dir, path) = stack("service \"web\" {\n  image = image.nothing\n  instanecs = 2\n}\n");
    let data = dir.path().join("data");
    for verb in ["validate", "plan", "up"] {
        let ran = basalt(&data, &[verb, &path]);
        assert_eq!(ran.code, Some(4), "{verb}: {}", ran.err);
        assert!(ran.err.contains("instanecs") && ran.err.contains("nothing"), "{verb}: {}", ran.err);
        assert!(!ran.err.contains('\u{1b}'), "colour is for terminals");
    }
    assert!(!data.exists(), "an invalid stack leaves nothing");
    let json = basalt(&data, &["validate", &path, "--output", "json"]);
    assert_eq!(json.code, Some(4));
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["valid"], false);
    assert!(json["diagnostics"].as_array().unwrap().len() >= 2, "{json}");
}

#[test]
fn missing_secrets_are_named() {
    let text = STACK.replace("instances = 2", "instances = 2\n  secret \"/s\" { from = secret.db_password }");
    let (dir, path) = stack(&text);
    let data = dir.path().join("data");
    let ran = basalt(&data, &["plan", &path]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert!(ran.err.contains("basalt secret set db_password"), "{}", ran.err);
}

#[test]
fn the_stack_that_init_writes_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new");
    let ran = basalt(dir.path(), &["init", new.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ran = basalt(dir.path(), &["validate", new.to_str().unwrap()]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let again = basalt(dir.path(), &["init", new.to_str().unwrap()]);
    assert_eq!(again.code, Some(4), "what is there is not overwritten");
}

#[test]
fn help_of_every_verb_has_an_example() {
    let dir = tempfile::tempdir().unwrap();
    let help = basalt(dir.path(), &["--help"]).out;
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.len() > 20, "{verbs:?}");
    for verb in verbs {
        let help = basalt(dir.path(), &[verb, "--help"]).out;
        assert!(help.contains("Example"), "{verb}: {help}");
    }
    insta::assert_snapshot!(help);
}

/// Runs the program with something on its standard input.
#[allow(clippy::disallowed_methods)] // running the program is what is tested
fn basalt_with(data: &Path, args: &[&str], input: &str) -> Ran {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(args)
        .env("BASALT_DATA", data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ran = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: ran.status.code(), out: text(ran.stdout), err: text(ran.stderr) }
}

#[test]
fn a_stack_may_come_from_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let json = r#"{"stack": "shop", "image": {"web": {"from": "scratch", "file": {"/x": {"content": "x"}}, "command": ["/x"]}},
        "service": {"web": {"image": "${image.web}", "instances": 2}}}"#;
    let ran = basalt_with(dir.path(), &["plan", "-", "--output", "json"], json);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let plan: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(plan["has_changes"], true);
    let ran =
        basalt_with(dir.path(), &["validate", "-"], "stack: shop\nservice:\n  web: {image: \"x:1\", instnces: 2}\n");
    assert_eq!(ran.code, Some(4));
    assert!(ran.err.contains("did you mean `instances`"), "{}", ran.err);
    let ran = basalt_with(dir.path(), &["validate", "-"], STACK);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

#[test]
fn a_sensitive_value_is_in_no_plan() {
    let text = "variable \"password\" { sensitive = true }\nimage \"i\" {\n  from = \"scratch\"\n  command = [\"/x\"]\n}\n\
        service \"web\" {\n  image = image.i\n  env = { PASSWORD = var.password }\n  config \"/etc/x\" { content = \"p=${var.password}\" }\n}\n\
        output \"p\" {\n  value = var.password\n  sensitive = true\n}\n";
    let (dir, path) = stack(text);
    let data = dir.path().join("data");
    let plan = dir.path().join("shop.plan");
    let args = |password: &str| {
        let var = format!("password={password}");
        basalt(&data, &["plan", &path, "--var", &var, "--out", plan.to_str().unwrap(), "--output", "json"])
    };
    let version = |ran: &Ran| {
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
        let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(&plan).unwrap()).unwrap();
        plan["desired"]["services"]["web"]["release"]["env_secrets"]["PASSWORD"]["version"].as_u64()
    };
    let first = args("hunter2");
    assert_eq!(version(&first), Some(1));
    assert_eq!(version(&args("hunter2")), Some(1), "the same value is the same version");
    assert_eq!(version(&args("hunter3")), Some(2));
    let mut all = first.out + &first.err;
    let mut folders = vec![dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => all += &String::from_utf8_lossy(&std::fs::read(path).unwrap()),
            }
        }
    }
    assert!(!all.contains("hunter"), "a sensitive value in clear");
    let shown = basalt(&data, &["validate", &path, "--var", "password=hunter2"]);
    assert!(shown.out.contains("output p = (sensitive)"), "{}", shown.out);
}

#[test]
fn fmt_brings_files_into_form() {
    let (dir, path) = stack("a  {\nb=1 # c\n}\n");
    let folder = dir.path().to_str().unwrap();
    let ran = basalt(dir.path(), &["fmt", "--check", folder]);
    assert_eq!((ran.code, ran.out.trim()), (Some(2), path.as_str()));
    let ran = basalt(dir.path(), &["fmt", folder]);
    assert_eq!((ran.code, ran.out.trim()), (Some(0), path.as_str()));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a {\n  b = 1 # c\n}\n");
    let ran = basalt(dir.path(), &["fmt", "--check", folder]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    let ran = basalt_with(dir.path(), &["fmt", "-"], "b=1");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "b = 1\n"));
    let ran = basalt_with(dir.path(), &["fmt", "-"], "b=");
    assert_eq!(ran.code, Some(4));
    assert!(ran.err.contains("not valid HCL"), "{}", ran.err);
}

#[test]
fn the_examples_are_in_form() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    for folder in std::fs::read_dir(examples).unwrap() {
        let folder = folder.unwrap().path();
        let ran = basalt(Path::new("/nonexistent"), &["fmt", "--check", folder.to_str().unwrap()]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    }
}

#[test]
fn the_schema_is_printed() {
    let ran = basalt(Path::new("/nonexistent"), &["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(schema["$defs"]["service"]["required"], serde_json::json!(["image"]));
}
