//! The system calls that no safe wrapper has, each in a small function. All `unsafe` of Basalt is in this file.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Which side of a fork this is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The process that forked; holds the child's id.
    Parent(i32),
    /// The new process.
    Child,
}

/// Forks. `flags` are `CLONE_NEW*` flags for the child's namespaces, or 0.
///
/// To be called only while the process has a single thread: the child may then do anything that its parent may.
pub(crate) fn fork(flags: libc::c_int) -> io::Result<Side> {
    // SAFETY: with a null stack and no CLONE_VM, clone(2) behaves like fork(2): the child runs on a copy of the stack.
    // The process has one thread (see above), so no lock can be held by a thread that the child lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid as i32)),
    }
}

/// Ends the process at once: nothing is flushed, no destructor runs. For the child's side of a fork.
pub(crate) fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Waits until a child has ended and returns its wait status.
pub(crate) fn wait(pid: i32) -> io::Result<i32> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writes for the length of the call.
        if unsafe { libc::waitpid(pid, &mut status, 0) } >= 0 {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Waits until any child has ended; returns its id and wait status.
pub(crate) fn wait_any() -> io::Result<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writes for the length of the call.
        let pid = unsafe { libc::waitpid(-1, &mut status, 0) };
        if pid >= 0 {
            return Ok((pid, status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Reaps a child if it has ended.
pub(crate) fn reap(pid: i32) {
    // SAFETY: a null status pointer is allowed (waitpid(2)).
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
}

/// Closes every descriptor from 3 upwards but `keep`.
pub(crate) fn close_all_but(keep: RawFd) {
    let close = |first: u32, last: u32| {
        if first <= last {
            // SAFETY: only for a process that uses none of these descriptors afterwards (the init of an instance).
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    };
    close(3, (keep.max(3) - 1) as u32);
    close(keep.max(2) as u32 + 1, u32::MAX);
}

/// Marks every descriptor from `first` upwards to be closed when another program is executed.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only flags of descriptors change.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Writes to a descriptor known by number.
pub(crate) fn write_raw(fd: RawFd, bytes: &[u8]) {
    // SAFETY: the pointer and length describe `bytes`. A wrong descriptor makes the call fail and nothing else.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

/// Puts `/dev/null` in the place of the standard streams, or closes them if there is none.
pub(crate) fn drop_standard_streams() {
    let path = c"/dev/null";
    // SAFETY: `path` is a C string; the descriptors are plain numbers, and wrong ones make the calls fail.
    unsafe {
        let null = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for fd in 0..3 {
            if null < 0 || libc::dup2(null, fd) < 0 {
                libc::close(fd);
            }
        }
    }
}

/// Attributes of a mount (mount_setattr(2)).
#[repr(C)]
#[derive(Debug, Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// The mount is read-only.
pub(crate) const MOUNT_READ_ONLY: u64 = 0x1;
/// Set-user-id bits have no effect.
pub(crate) const MOUNT_NO_SUID: u64 = 0x2;
/// Device nodes have no effect.
pub(crate) const MOUNT_NO_DEV: u64 = 0x4;
/// Nothing on it can be executed.
pub(crate) const MOUNT_NO_EXEC: u64 = 0x8;
const MOUNT_IDMAP: u64 = 0x0010_0000;

/// Sets attributes of a mount, and maps its owners through a user namespace if one is given.
pub(crate) fn set_mount(mount: BorrowedFd<'_>, set: u64, userns: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut attr = MountAttr { set, ..MountAttr::default() };
    if let Some(userns) = userns {
        attr.set |= MOUNT_IDMAP;
        attr.userns = userns.as_raw_fd() as u64;
    }
    // SAFETY: the path is an empty C string, `attr` has the layout of `struct mount_attr` and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attr as *const MountAttr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What `PIDFD_GET_INFO` fills in (linux/pidfd.h, 6.15).
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// Asks for the exit status (linux/pidfd.h).
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// Returns the wait status of an ended process that is nobody's or another's child, on kernels from 6.15 on.
pub(crate) fn pidfd_wait_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // _IOWR(0xFF, 11, 64 bytes): direction 3, size 64, type 0xFF, number 11.
    let request: libc::c_ulong = (3 << 30) | ((size_of::<PidfdInfo>() as libc::c_ulong) << 16) | (0xFF << 8) | 11;
    // SAFETY: `info` has the size told in `request` and is valid for reads and writes.
    let result = unsafe { libc::ioctl(pidfd.as_raw_fd(), request as _, &mut info) };
    (result == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Replaces the process with a program found by `PATH`. Returns only if that fails.
pub(crate) fn exec(args: &[CString], env: &[CString]) -> io::Error {
    let Some(program) = args.first() else { return io::ErrorKind::InvalidInput.into() };
    let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists end with a null pointer and point to C strings that live until the call returns.
    unsafe { libc::execvpe(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Takes the user, the groups and exactly these capabilities, for good.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32], capabilities: u64) -> io::Result<()> {
    let check = |result: libc::c_long| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let (low, high) = (capabilities as u32, (capabilities >> 32) as u32);
    let data = [[low, low, low], [high, high, high]];
    // SAFETY: plain system calls on this process; `groups`, `header` and `data` (capset(2), version 3) are valid for reads.
    unsafe {
        for capability in 0..64 {
            if capabilities & (1 << capability) == 0
                && libc::prctl(libc::PR_CAPBSET_READ, capability as libc::c_ulong, 0, 0, 0) == 1
            {
                check(libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0).into())?;
            }
        }
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
        check(libc::setgroups(groups.len(), groups.as_ptr()).into())?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        check(libc::syscall(libc::SYS_capset, &header as *const Header, data.as_ptr()))?;
        for capability in (0..64).filter(|c| capabilities & (1 << c) != 0) {
            check(
                libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability as libc::c_ulong, 0, 0).into(),
            )?;
        }
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())
    }
}

/// Makes the kernel kill this process when its parent ends, and ends it at once if `parent` is its parent no more.
pub(crate) fn die_with_parent(parent: u32) {
    // SAFETY: prctl(2) with plain numbers, and getppid(2).
    let now = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::getppid()
    };
    if now as u32 != parent {
        exit_now(1);
    }
}

/// Lets this process outlive its parent again.
pub(crate) fn outlive_parent() {
    // SAFETY: prctl(2) with plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0) };
}

/// Sets the host name of this process's namespace.
pub(crate) fn set_host_name(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length describe `name`.
    match unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Begins a session of its own, without a terminal.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: setsid(2) has no preconditions.
    if unsafe { libc::setsid() } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the process the first of a group of its own.
pub(crate) fn new_group() {
    // SAFETY: setpgid(2) with plain numbers; it can't fail for a process that has just been forked.
    unsafe { libc::setpgid(0, 0) };
}

/// Kills all processes of a group.
pub(crate) fn kill_group(leader: i32) {
    // SAFETY: kill(2) with plain numbers.
    unsafe { libc::kill(-leader, libc::SIGKILL) };
}

/// Gives signals their default meaning and blocks none, as a program expects it. The C library keeps two for itself and
/// would not touch those, so the kernel is told directly.
pub(crate) fn default_signals() {
    // `struct sigaction` of the kernel is less than this on every architecture; zero is the default action, no flags.
    let default = [0_u64; 8];
    // A set of the kernel has 64 bits.
    let none = 0_u64;
    const SIZE: usize = size_of::<u64>();
    // SAFETY: both values live until the calls return and are only read; no handler is installed.
    unsafe {
        for number in 1..=64 {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), old, SIZE);
        }
        let old = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &none as *const u64, old, SIZE);
    }
}

/// Takes user and group 0 of a user namespace whose ids have just been mapped.
pub(crate) fn become_mapped_root() -> io::Result<()> {
    let check = |result: libc::c_long| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: plain system calls on this process, which has a single thread.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()).into())?;
        check(libc::syscall(libc::SYS_setresgid, 0, 0, 0))?;
        check(libc::syscall(libc::SYS_setresuid, 0, 0, 0))
    }
}

/// Does something while files that are made belong to `id`, without losing any power over files meanwhile.
pub(crate) fn as_file_owner<T>(id: u32, act: impl FnOnce() -> T) -> io::Result<T> {
    /// Keeps capabilities when the owner of new files changes (capabilities(7), SECBIT_NO_SETUID_FIXUP).
    const NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    let securebits = |bits: libc::c_ulong| {
        // SAFETY: prctl(2) with plain numbers.
        match unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: plain system calls on this process, which has a single thread.
    let become_owner = |id: u32| unsafe {
        libc::setfsgid(id);
        libc::setfsuid(id);
    };
    securebits(NO_SETUID_FIXUP)?;
    become_owner(id);
    let done = act();
    become_owner(0);
    securebits(0)?;
    Ok(done)
}

/// Puts a descriptor in the place of a standard stream.
pub(crate) fn replace_stream(fd: BorrowedFd<'_>, stream: RawFd) -> io::Result<()> {
    // SAFETY: only 0, 1 and 2 are replaced, which no value owns.
    if unsafe { libc::dup2(fd.as_raw_fd(), stream) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Hides the process's memory, descriptors and program from every process without power over the host's user namespace.
pub(crate) fn hide_process() {
    // SAFETY: prctl(2) with plain numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Allows as many open files as the machine grants: an instance takes about four, and the usual 1,024 are soon gone.
pub(crate) fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        tracing::warn!("can't raise the limit of open files: {error}");
    }
}

/// Makes this process the parent of orphans among its descendants.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    // SAFETY: prctl(2) with plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Names the process, as `ps` shows it (at most 15 bytes).
pub(crate) fn name_process(name: &CStr) {
    // SAFETY: `name` is a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// Opens a pidfd of a process.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open(2) with plain numbers; what it returns is a new descriptor that nobody else owns.
    match unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) } {
        -1 => Err(io::Error::last_os_error()),
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
    }
}

/// Sends a signal to the process of a pidfd.
pub(crate) fn signal<Fd: AsFd>(pidfd: Fd, signal: i32) -> io::Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: pidfd_send_signal(2) with a null siginfo sends as kill(2) does.
    match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<u8>(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns the wait status of a child known by pidfd if it has ended, and reaps it. `ECHILD` if it is not a child.
pub(crate) fn reap_pidfd(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    // SAFETY: an all-zero siginfo_t is a valid value of that plain C struct.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writes.
    let result = unsafe {
        libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, &mut info, libc::WEXITED | libc::WNOHANG)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: after waitid(2) the SIGCHLD part of the union is filled in, or all zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    Ok(Some(if info.si_code == libc::CLD_EXITED { (status & 0xff) << 8 } else { status & 0x7f }))
}

/// Sets `PATH` for programs that are looked up later. For a process with a single thread.
pub(crate) fn set_path(path: &str) {
    // SAFETY: no other thread reads the environment, see above.
    unsafe { std::env::set_var("PATH", path) };
}

/// Lets a program run in a session of its own, so that it outlives terminal and parent.
pub(crate) fn in_new_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: setsid(2) is async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
}

/// Lets the runtime wait for a pidfd, which becomes readable when its process has ended.
pub(crate) fn watch(pidfd: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    let interest = tokio::io::Interest::READABLE;
    // SAFETY: the descriptor is owned by the value that is registered, and so stays open as long as that is.
    Ok(unsafe { tokio::io::unix::AsyncFd::register_with_interest(pidfd, interest) }?)
}

/// Puts a filter of system calls in force, for good. The process must have given up new privileges before.
pub(crate) fn filter_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads the program, whose length is given.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &filter as *const libc::sock_fprog)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Returns the number of a loop device that is free, made if need be (loop(4)).
pub(crate) fn free_loop(control: BorrowedFd<'_>) -> io::Result<u32> {
    const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
    // SAFETY: the request takes no argument.
    match unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) } {
        -1 => Err(io::Error::last_os_error()),
        number => Ok(number as u32),
    }
}

/// What `LOOP_CONFIGURE` takes: `struct loop_config` with its `struct loop_info64` (linux/loop.h, 5.8).
#[repr(C)]
struct LoopConfig {
    file: u32,
    block_size: u32,
    /// Device, inode, rdevice, offset, size limit.
    numbers: [u64; 5],
    /// Number, encryption's type and key size.
    more: [u32; 3],
    flags: u32,
    /// File and crypt name, key.
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// Puts a file behind a loop device: read-only, and freed when nobody uses the device any more.
pub(crate) fn set_up_loop(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
    const READ_ONLY: u32 = 1;
    const AUTOCLEAR: u32 = 4;
    let config = LoopConfig {
        file: file.as_raw_fd() as u32,
        block_size: 0,
        numbers: [0; 5],
        more: [0; 3],
        flags: READ_ONLY | AUTOCLEAR,
        names: [0; 160],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: `config` has the kernel's layout and is only read.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &config as *const LoopConfig) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
