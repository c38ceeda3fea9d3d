//! HCL, YAML and JSON say the same thing.

mod convert;
mod memory;

use std::path::{Path, PathBuf};

use basalt_model::{Digest, Stack};
use basalt_stackfile::{Files, Inputs, format, json_schema, load_from, load_text, render};
use memory::Memory;

/// Returns the stacks that the kinds are compared with: the examples, and those of the tests.
fn stacks() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = vec![root.join("tests/shop.hcl"), root.join("tests/language.hcl")];
    for folder in std::fs::read_dir(root.join("../../examples")).unwrap() {
        let folder = folder.unwrap().path();
        if folder.is_dir() {
            let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
            paths.extend(files.filter(|path| path.extension().is_some_and(|suffix| suffix == "hcl")));
        }
    }
    assert!(paths.len() > 4);
    paths.into_iter().map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Files of which any exists, and holds a template.
struct Anything(Memory);

impl Files for Anything {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.0.read(path).or_else(|_| Ok(b"port = ${port}\n".to_vec()))
    }
    fn list(&self, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        self.0.list(folder)
    }
    fn is_folder(&self, path: &Path) -> bool {
        self.0.is_folder(path)
    }
    fn exists(&self, _: &Path) -> bool {
        true
    }
    fn absolute(&self, path: &Path) -> std::io::Result<PathBuf> {
        self.0.absolute(path)
    }
}

fn load(name: &str, text: &str) -> Stack {
    let module = include_str!("module.hcl");
    let files = Anything(Memory::new(&[(&format!("/s/{name}"), text), ("/s/module/module.hcl", module)]));
    let loaded = load_from(&files, &Path::new("/s").join(name), &Inputs::default());
    assert_eq!(render(&loaded, false), "", "{text}");
    loaded.stack.unwrap()
}

fn ids(stack: &Stack) -> Vec<(String, Digest)> {
    let services = stack.services.iter().map(|(name, service)| (name.to_string(), service.release.id()));
    services.chain(stack.jobs.iter().map(|(name, job)| (name.to_string(), job.release.id()))).collect()
}

#[test]
fn all_kinds_give_the_same_releases() {
    for (name, text) in stacks() {
        let hcl = load("x.hcl", &text);
        let json = convert::to_json(&text);
        let pretty = serde_json::to_string_pretty(&json).unwrap();
        let yaml = convert::to_yaml(&json);
        for (kind, text) in [("x.json", &pretty), ("x.yaml", &yaml), ("x.yml", &pretty)] {
            let other = load(kind, text);
            assert_eq!(ids(&hcl), ids(&other), "{name} as {kind}");
            assert_eq!(hcl, other, "{name} as {kind}");
        }
        let input = load_text(&Anything(Memory::new(&[])), &pretty, Path::new("/s/x"), &Inputs::default());
        if !text.contains("module \"") {
            assert_eq!(ids(&hcl), ids(&input.stack.unwrap()), "{name} from standard input");
        }
    }
}

#[test]
fn stacks_are_valid_by_the_schema() {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("stack.json", json_schema()).unwrap();
    let schema = compiler.compile("stack.json", &mut schemas).unwrap();
    for (name, text) in stacks() {
        if let Err(error) = schemas.validate(&convert::to_json(&text), schema) {
            panic!("{name}: {error:#}");
        }
    }
    let wrong = [
        r#"{"servce": {}}"#,
        r#"{"service": {"web": {}}}"#,
        r#"{"service": {"web": {"image": "x", "instances": -1}}}"#,
        r#"{"service": {"web": {"image": "x", "instnces": 1}}}"#,
        r#"{"service": {"web": {"image": "x", "drain": "5"}}}"#,
        r#"{"service": {"web": {"image": "x", "port": {"http": {"container": "x"}}}}}"#,
    ];
    for wrong in wrong {
        let wrong_value = serde_json::from_str(wrong).unwrap();
        assert!(schemas.validate(&wrong_value, schema).is_err(), "{wrong}");
    }
}

#[test]
fn formatting_changes_no_meaning_and_is_done_once() {
    for (name, text) in stacks() {
        let once = format(&text).unwrap_or_else(|| panic!("{name} can't be formatted"));
        assert_eq!(format(&once).as_deref(), Some(once.as_str()), "{name}: twice is once");
        assert_eq!(load("x.hcl", &text), load("x.hcl", &once), "{name}");
        let comments = |text: &str| text.matches('#').count();
        assert_eq!(comments(&text), comments(&once), "{name}");
    }
}
