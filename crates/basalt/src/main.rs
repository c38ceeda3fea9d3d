//! The `basalt` program: verbs, output, and the wiring of all parts.
//!
//! It holds no decisions: what to do is decided by `basalt-rollout` and `basalt-plan`, carried out by the adapters, and
//! driven by `basalt-controller`. Where to start: `cli` (the verbs) and `roles` (the long-lived processes).

#![forbid(unsafe_code)]

mod baking;
mod cli;
mod clock;
mod command;
mod desired;
mod edge;
mod error;
mod follow;
mod form;
mod goal;
mod image;
mod image_registry;
mod import;
mod init;
mod keeping;
mod live;
mod logs;
mod output;
mod paths;
mod planned;
mod progress;
mod reading;
mod recorded;
mod remote;
mod render;
mod roles;
mod start;
mod sweeping;
mod traffic;
mod up;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // These fork, and so must come before any thread and any runtime.
    match std::env::args_os().nth(1).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("create-instance") => return basalt_container::create::main(),
        Some("run-sandbox") => return basalt_container::sandbox::main(),
        Some("probe-instance") => return basalt_container::probe::main(),
        _ => {}
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return usage(&answer),
    };
    let out = output::Output::new(&cli.global);
    match verbs::run(cli, out) {
        Ok(outcome) => outcome.code(),
        Err(error) => {
            out.note(&render::failure(&error, out.error_style));
            error.code()
        }
    }
}

/// Shows a help text or what is wrong with the arguments.
fn usage(answer: &clap::Error) -> ExitCode {
    // Nobody reads it any more if it can't be written.
    drop(answer.print());
    if answer.use_stderr() { error::CliError::invalid("usage").code() } else { ExitCode::SUCCESS }
}
