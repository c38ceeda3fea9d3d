//! The init of an instance: process 1 of its pid namespace.
//!
//! A program that runs as process 1 itself ignores SIGTERM unless it handles it, and has to reap orphans (pid_namespaces(7)).
//! So a few hundred bytes of code stay behind as process 1: they reap, and when the instance's own program ends they
//! write its wait status into a file that was opened beforehand, and end; the kernel then ends all that is left. The
//! status is thus known even if no keeper was there to see it. The keeper signals the program itself, not the init.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::RawFd;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};

use crate::seccomp;
use crate::sys::{self, Side};

/// Runs an instance's program below a small init. The descriptors are inherited across forks, hence plain numbers.
#[derive(Debug, Clone)]
pub(crate) struct Init {
    /// Closed when the program was executed; otherwise gets the reason.
    pub(crate) report: RawFd,
    /// Gets the program's wait status.
    pub(crate) exit: RawFd,
    /// The program's environment.
    pub(crate) env: Vec<String>,
}

impl Executor for Init {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let strings = |list: &[String]| -> Result<Vec<CString>, ExecutorError> {
            list.iter().map(|s| CString::new(s.as_bytes()).map_err(|_| ExecutorError::InvalidArg)).collect()
        };
        let args = spec.process().as_ref().and_then(|p| p.args().clone()).ok_or(ExecutorError::InvalidArg)?;
        let (args, env) = (strings(&args)?, strings(&self.env)?);
        sys::filter_calls(&seccomp::filter())
            .map_err(|e| ExecutorError::Other(format!("could not filter its system calls: {e}")))?;
        match sys::fork(0).map_err(|e| ExecutorError::Other(format!("could not fork: {e}")))? {
            Side::Child => {
                let error = sys::exec(&args, &env);
                let text = format!("could not run `{}`: {error}", args[0].to_string_lossy());
                sys::write_raw(self.report, text.as_bytes());
                sys::exit_now(127)
            }
            Side::Parent(program) => self.watch(program),
        }
    }

    /// Everything that could be wrong is told by the kernel when the program is executed.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The environment is given to the program alone; the init needs `PATH` to find it.
    fn setup_envs(&self, envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        if let Some(path) = envs.get("PATH") {
            sys::set_path(path);
        }
        Ok(())
    }
}

impl Init {
    fn watch(&self, program: i32) -> ! {
        sys::hide_process();
        sys::name_process(c"basalt-init");
        sys::close_all_but(self.exit);
        sys::drop_standard_streams();
        loop {
            match sys::wait_any() {
                Ok((pid, status)) if pid == program => {
                    sys::write_raw(self.exit, status.to_string().as_bytes());
                    let code =
                        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
                    sys::exit_now(code)
                }
                Ok(_) => {}
                Err(_) => sys::exit_now(1),
            }
        }
    }
}
