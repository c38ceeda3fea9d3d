//! The init of an instance: process 1 of its pid namespace.
//!
//! A program that runs as process 1 itself ignores SIGTERM unless it handles it, and has to reap orphans (pid_namespaces(7)).
//! So a little code stays behind as process 1: it reaps, and when the instance's own program ends it writes its wait
//! status into a file that was opened beforehand, and ends; the kernel then ends all that is left. The status is thus
//! known even if no keeper was there to see it. The keeper signals the program itself, not the init.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::channel::Channel;
use crate::inside::FromInit;
use crate::sys::{self, Side};

/// Starts the program below this process and becomes its init. The program's side of the channel is closed when it is
/// executed; otherwise it tells why not.
pub(crate) fn run(channel: &mut Channel, args: &[String], env: &[String], exit: OwnedFd) -> io::Result<Infallible> {
    let strings = |list: &[String]| -> io::Result<Vec<CString>> {
        list.iter().map(|s| CString::new(s.as_bytes()).map_err(io::Error::other)).collect()
    };
    let (args, env_strings) = (strings(args)?, strings(env)?);
    if let Some(path) = env.iter().find_map(|v| v.strip_prefix("PATH=")) {
        // Only to find the program.
        sys::set_path(path);
    }
    match sys::fork(0)? {
        Side::Child => {
            sys::default_signals();
            let error = sys::exec(&args, &env_strings);
            let program = args.first().map(|a| a.to_string_lossy()).unwrap_or_default();
            // Fails only if nobody listens any more.
            let _ = channel.send(&FromInit::Failed(format!("could not run `{program}`: {error}")), &[]);
            sys::exit_now(127)
        }
        Side::Parent(program) => watch(program, exit.as_raw_fd()),
    }
}

fn watch(program: i32, exit: RawFd) -> ! {
    sys::name_process(c"basalt-init");
    sys::close_all_but(exit);
    sys::drop_standard_streams();
    loop {
        match sys::wait_any() {
            Ok((pid, status)) if pid == program => {
                sys::write_raw(exit, status.to_string().as_bytes());
                let code =
                    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
                sys::exit_now(code)
            }
            Ok(_) => {}
            Err(_) => sys::exit_now(1),
        }
    }
}
