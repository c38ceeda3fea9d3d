//! The verbs of this crate as a program of its own, for tests: the keeper and its short-lived children.

use std::path::PathBuf;
use std::process::ExitCode;

use basalt_container::keeper::{KeeperOptions, RoleCommand};
use basalt_container::{create, keeper, probe, sandbox, supervise};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["create-instance"] => create::main(),
        ["probe-instance"] => probe::main(),
        ["run-sandbox"] => sandbox::main(),
        ["keeper", data, roles @ ..] => {
            let command = |role: &&str| RoleCommand {
                role: (*role).to_owned(),
                args: vec!["role".to_owned(), (*data).to_owned(), (*role).to_owned()],
            };
            // With BASALT_LOG=debug: how long the steps of each start took.
            let filter = tracing_subscriber::EnvFilter::try_from_env("BASALT_LOG");
            let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            let options = KeeperOptions {
                data: PathBuf::from(data),
                basalt: std::env::current_exe().expect("a running program has a path"),
                roles: roles.iter().map(command).collect(),
            };
            match keeper::run(options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        ["role", data, role] => match supervise::claim_role(&PathBuf::from(data), role) {
            Ok(_guard) => loop {
                std::thread::park();
            },
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => ExitCode::FAILURE,
    }
}
