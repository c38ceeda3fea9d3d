//! Writes stacks of the test app.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use basalt_testkit::testapp::TestApp;

/// A stack with one service, `app`, that runs the test app; or with whatever a test writes into it.
#[derive(Debug, Clone)]
pub struct Stack {
    /// What the app says it is, and how it misbehaves.
    pub env: Vec<(String, String)>,
    /// How many instances.
    pub instances: u32,
    /// The service's rollout block.
    pub rollout: String,
    /// More of the service.
    pub service: String,
    /// More of the stack.
    pub stack: String,
}

impl Stack {
    /// Returns a stack with three instances that pass by `rollout`, and are of this version.
    pub fn new(version: &str, rollout: &str) -> Self {
        Self {
            env: vec![("VERSION".to_owned(), version.to_owned())],
            instances: 3,
            rollout: rollout.to_owned(),
            service: String::new(),
            stack: String::new(),
        }
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the number of instances.
    pub fn instances(mut self, instances: u32) -> Self {
        self.instances = instances;
        self
    }

    /// Adds to the service.
    pub fn service(mut self, text: &str) -> Self {
        self.service.push_str(text);
        self
    }

    /// Adds to the stack.
    pub fn stack(mut self, text: &str) -> Self {
        self.stack.push_str(text);
        self
    }

    /// Writes the stack file into `folder` and returns its path.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("app.hcl");
        std::fs::write(&path, self.text()).unwrap();
        path
    }

    fn text(&self) -> String {
        let mut env = String::new();
        for (name, value) in &self.env {
            writeln!(env, "    {name} = {value:?}").unwrap();
        }
        let Self { instances, rollout, service, stack, .. } = self;
        let image = image();
        format!(
            r#"{image}
{stack}
service "app" {{
  image       = image.app
  instances   = {instances}
  drain       = "5s"
  stop_within = "2s"
  env = {{
{env}  }}
  port "http" {{ container = 8080 }}
  health {{
    http {{
      path = "/health"
      port = "http"
    }}
    interval        = "200ms"
    timeout         = "1s"
    unhealthy_after = 2
    start_within    = "10s"
  }}
  route {{ path = "/" }}
  {rollout}
  {service}
}}
"#
        )
    }
}

/// Returns the block of an image that holds the test app alone.
pub fn image() -> String {
    format!(
        r#"
image "app" {{
  from = "scratch"
  copy {:?} {{ to = "/app" }}
  command = ["/app"]
}}
"#,
        test_app().display().to_string()
    )
}

/// Returns the compiled test app.
pub fn test_app() -> &'static Path {
    static APP: OnceLock<PathBuf> = OnceLock::new();
    APP.get_or_init(|| TestApp::build(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap().path)
}
