//! The system calls an instance may make: an allow-list; all others fail with `EPERM`.
//!
//! Left out is what reaches beyond an instance or has no business in a server: mounting, namespaces, kernel modules,
//! keys, clocks, raw I/O ports, bpf, perf, userfaultfd, io_uring (as container engines do since 2023), kexec, swap, quotas.
//!
//! The filter is a program for the kernel's classic BPF machine (seccomp(2), linux/filter.h). It is made here, in
//! microseconds, and searches by halves. A call of another architecture ends the process.

use libc::*;

/// Allowed whatever their arguments.
#[rustfmt::skip]
const ALLOWED: &[c_long] = &[
    // Files and descriptors.
    SYS_chdir, SYS_close, SYS_close_range, SYS_copy_file_range, SYS_dup, SYS_dup3, SYS_faccessat, SYS_faccessat2,
    SYS_fadvise64, SYS_fallocate, SYS_fchdir, SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_fcntl,
    SYS_fdatasync, SYS_fgetxattr, SYS_flistxattr, SYS_flock, SYS_fremovexattr, SYS_fsetxattr, SYS_fstat,
    SYS_fstatfs, SYS_fsync, SYS_ftruncate, SYS_getcwd, SYS_getdents64, SYS_getxattr, SYS_inotify_add_watch,
    SYS_inotify_init1, SYS_inotify_rm_watch, SYS_fanotify_mark, SYS_ioctl, SYS_lgetxattr, SYS_linkat, SYS_listxattr,
    SYS_llistxattr, SYS_lremovexattr, SYS_lseek, SYS_lsetxattr, SYS_memfd_create, SYS_memfd_secret, SYS_mkdirat,
    SYS_mknodat, SYS_newfstatat, SYS_openat, SYS_openat2, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_pwrite64,
    SYS_pwritev, SYS_pwritev2, SYS_read, SYS_readahead, SYS_readlinkat, SYS_readv, SYS_removexattr, SYS_renameat,
    SYS_renameat2, SYS_sendfile, SYS_setxattr, SYS_splice, SYS_statfs, SYS_statx, SYS_symlinkat, SYS_sync,
    SYS_sync_file_range, SYS_syncfs, SYS_tee, SYS_truncate, SYS_umask, SYS_unlinkat, SYS_utimensat, SYS_vmsplice,
    SYS_write, SYS_writev, SYS_name_to_handle_at,
    // Memory.
    SYS_brk, SYS_get_mempolicy, SYS_madvise, SYS_mbind, SYS_membarrier, SYS_migrate_pages, SYS_mincore, SYS_mlock,
    SYS_mlock2, SYS_mlockall, SYS_mmap, SYS_mprotect, SYS_mremap, SYS_mseal, SYS_msync, SYS_munlock, SYS_munlockall,
    SYS_munmap, SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_process_madvise, SYS_process_mrelease,
    SYS_remap_file_pages, SYS_set_mempolicy, SYS_set_mempolicy_home_node,
    // Processes, threads, signals, limits, scheduling.
    SYS_capget, SYS_capset, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_futex, SYS_futex_waitv,
    SYS_get_robust_list, SYS_getcpu, SYS_getegid, SYS_geteuid, SYS_getgid, SYS_getgroups, SYS_getitimer,
    SYS_getpgid, SYS_getpid, SYS_getppid, SYS_getpriority, SYS_getresgid, SYS_getresuid, SYS_getrlimit,
    SYS_getrusage, SYS_getsid, SYS_gettid, SYS_getuid, SYS_ioprio_get, SYS_ioprio_set, SYS_kill,
    SYS_landlock_add_rule, SYS_landlock_create_ruleset, SYS_landlock_restrict_self, SYS_nanosleep, SYS_pidfd_getfd,
    SYS_pidfd_open, SYS_pidfd_send_signal, SYS_prctl, SYS_prlimit64, SYS_process_vm_readv, SYS_process_vm_writev,
    SYS_ptrace, SYS_restart_syscall, SYS_rseq, SYS_rt_sigaction, SYS_rt_sigpending, SYS_rt_sigprocmask,
    SYS_rt_sigqueueinfo, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigtimedwait, SYS_rt_tgsigqueueinfo,
    SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_sched_getaffinity, SYS_sched_getattr,
    SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_rr_get_interval, SYS_sched_setaffinity, SYS_sched_setattr,
    SYS_sched_setparam, SYS_sched_setscheduler, SYS_sched_yield, SYS_seccomp, SYS_set_robust_list,
    SYS_set_tid_address, SYS_setfsgid, SYS_setfsuid, SYS_setgid, SYS_setgroups, SYS_setitimer, SYS_setpgid,
    SYS_setpriority, SYS_setregid, SYS_setresgid, SYS_setresuid, SYS_setreuid, SYS_setrlimit, SYS_setsid,
    SYS_setuid, SYS_sigaltstack, SYS_signalfd4, SYS_tgkill, SYS_times, SYS_tkill, SYS_uname, SYS_wait4, SYS_waitid,
    SYS_sysinfo,
    // Time.
    SYS_adjtimex, SYS_clock_adjtime, SYS_clock_getres, SYS_clock_gettime, SYS_clock_nanosleep, SYS_gettimeofday,
    SYS_timer_create, SYS_timer_delete, SYS_timer_getoverrun, SYS_timer_gettime, SYS_timer_settime,
    SYS_timerfd_create, SYS_timerfd_gettime, SYS_timerfd_settime,
    // Waiting for many, asynchronous I/O, pipes.
    SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_eventfd2, SYS_io_cancel,
    SYS_io_destroy, SYS_io_getevents, SYS_io_setup, SYS_io_submit, SYS_pipe2, SYS_ppoll, SYS_pselect6,
    // Sockets.
    SYS_accept, SYS_accept4, SYS_bind, SYS_connect, SYS_getpeername, SYS_getsockname, SYS_getsockopt, SYS_listen,
    SYS_recvfrom, SYS_recvmmsg, SYS_recvmsg, SYS_sendmmsg, SYS_sendmsg, SYS_sendto, SYS_setsockopt, SYS_shutdown,
    SYS_socketpair,
    // System V and POSIX message queues, shared memory, semaphores; all of them live in the instance's own namespace.
    SYS_mq_getsetattr, SYS_mq_notify, SYS_mq_open, SYS_mq_timedreceive, SYS_mq_timedsend, SYS_mq_unlink, SYS_msgctl,
    SYS_msgget, SYS_msgrcv, SYS_msgsnd, SYS_semctl, SYS_semget, SYS_semop, SYS_semtimedop, SYS_shmat, SYS_shmctl,
    SYS_shmdt, SYS_shmget,
    // Randomness.
    SYS_getrandom,
];

/// Allowed too: calls of x86-64 that newer architectures do without.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const ALLOWED_OLD: &[c_long] = &[
    SYS_access, SYS_chmod, SYS_chown, SYS_creat, SYS_dup2, SYS_futimesat, SYS_getdents, SYS_inotify_init,
    SYS_lchown, SYS_link, SYS_lstat, SYS_mkdir, SYS_mknod, SYS_open, SYS_readlink, SYS_rename, SYS_rmdir, SYS_stat,
    SYS_symlink, SYS_unlink, SYS_utime, SYS_utimes, SYS_arch_prctl, SYS_fork, SYS_get_thread_area, SYS_getpgrp,
    SYS_modify_ldt, SYS_pause, SYS_set_thread_area, SYS_signalfd, SYS_vfork, SYS_alarm, SYS_time, SYS_epoll_create,
    SYS_epoll_ctl_old, SYS_epoll_wait, SYS_epoll_wait_old, SYS_eventfd, SYS_pipe, SYS_poll, SYS_select,
];

/// Allowed too: calls of x86-64 that newer architectures do without.
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[c_long] = &[];

/// Allowed too, by number, which from 424 on is the same everywhere: cachestat, fchmodat2, map_shadow_stack, futex_wake,
/// futex_wait, futex_requeue, statmount, listmount, setxattrat, getxattrat, listxattrat, removexattrat.
const ALLOWED_NEW: &[c_long] = &[451, 452, 453, 454, 455, 456, 457, 458, 463, 464, 465, 466];

/// All flags of clone(2) that make a namespace (`CLONE_NEWTIME` shares its bit with the exit signal and is not among them).
const NAMESPACE_FLAGS: u32 = 0x7E02_0000;

/// Doors into kernel crypto and to the hypervisor that no server needs.
const CLOSED_SOCKETS: [u32; 2] = [AF_ALG as u32, AF_VSOCK as u32];

/// Personalities that change nothing dangerous: Linux, 32-bit Linux, with and without UNAME26, and the query.
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// This architecture's name in the kernel's audit (linux/audit.h).
const ARCHITECTURE: u32 = if cfg!(target_arch = "aarch64") { 0xC000_00B7 } else { 0xC000_003E };

/// Where `struct seccomp_data` has the call's number, the architecture, and the lower half of the first argument.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENT_AT: u32 = 16;

const ALLOW: u32 = SECCOMP_RET_ALLOW;
const DENY: u32 = SECCOMP_RET_ERRNO | EPERM as u32;
/// Libraries fall back to clone(2), whose flags a filter can see.
const ABSENT: u32 = SECCOMP_RET_ERRNO | ENOSYS as u32;
const KILL: u32 = SECCOMP_RET_KILL_PROCESS;

/// Returns the filter.
pub(crate) fn filter() -> Vec<sock_filter> {
    filter_and(&[])
}

/// Returns the filter that allows these calls too.
pub(crate) fn filter_and(more: &[c_long]) -> Vec<sock_filter> {
    let mut program = vec![load(ARCHITECTURE_AT), jump(BPF_JEQ, ARCHITECTURE, 1, 0), end(KILL), load(NUMBER_AT)];
    let special = |call: c_long, rest: Vec<sock_filter>| {
        let past = u8::try_from(rest.len()).expect("the special cases are short");
        [vec![jump(BPF_JEQ, call as u32, 0, past)], rest].concat()
    };
    program.extend(special(
        SYS_clone,
        vec![load(ARGUMENT_AT), jump(BPF_JSET, NAMESPACE_FLAGS, 0, 1), end(DENY), end(ALLOW)],
    ));
    program.extend(special(SYS_clone3, vec![end(ABSENT)]));
    program.extend(special(SYS_socket, any_of(&CLOSED_SOCKETS, DENY, ALLOW)));
    program.extend(special(SYS_personality, any_of(&PERSONALITIES, ALLOW, DENY)));
    program.extend(search(&ranges(more)));
    program
}

/// Ends with `yes` if the argument is one of `values`, and with `no` otherwise.
fn any_of(values: &[u32], yes: u32, no: u32) -> Vec<sock_filter> {
    let left = |n: usize| u8::try_from(values.len() - n).expect("the special cases are short");
    let tests = values.iter().enumerate().map(|(n, value)| jump(BPF_JEQ, *value, left(n), 0));
    [load(ARGUMENT_AT)].into_iter().chain(tests).chain([end(no), end(yes)]).collect()
}

/// Returns the allowed numbers as ranges in ascending order.
fn ranges(more: &[c_long]) -> Vec<(u32, u32)> {
    let mut numbers: Vec<u32> =
        [ALLOWED, ALLOWED_OLD, ALLOWED_NEW, more].concat().into_iter().map(|n| n as u32).collect();
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 >= number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// Ends with `ALLOW` if the number is in one of the ranges.
fn search(ranges: &[(u32, u32)]) -> Vec<sock_filter> {
    match ranges {
        [] => vec![end(DENY)],
        [(first, last)] => vec![jump(BPF_JGE, *first, 0, 2), jump(BPF_JGT, *last, 1, 0), end(ALLOW), end(DENY)],
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let low_part = search(low);
            let over = sock_filter { code: (BPF_JMP | BPF_JA) as u16, jt: 0, jf: 0, k: low_part.len() as u32 };
            [vec![jump(BPF_JGE, high[0].0, 0, 1), over], low_part, search(high)].concat()
        }
    }
}

fn load(at: u32) -> sock_filter {
    sock_filter { code: (BPF_LD | BPF_W | BPF_ABS) as u16, jt: 0, jf: 0, k: at }
}

fn jump(test: c_uint, value: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt: yes, jf: no, k: value }
}

fn end(verdict: u32) -> sock_filter {
    sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: verdict }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel does.
    fn verdict(program: &[sock_filter], architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let step = program[at];
            let branch = |met: bool| usize::from(if met { step.jt } else { step.jf });
            at += 1;
            match u32::from(step.code) {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    value = match step.k {
                        NUMBER_AT => number,
                        ARCHITECTURE_AT => architecture,
                        ARGUMENT_AT => argument,
                        other => panic!("nothing at {other}"),
                    }
                }
                c if c == BPF_JMP | BPF_JA => at += step.k as usize,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => at += branch(value == step.k),
                c if c == BPF_JMP | BPF_JGE | BPF_K => at += branch(value >= step.k),
                c if c == BPF_JMP | BPF_JGT | BPF_K => at += branch(value > step.k),
                c if c == BPF_JMP | BPF_JSET | BPF_K => at += branch(value & step.k != 0),
                c if c == BPF_RET | BPF_K => return step.k,
                other => panic!("no such step {other:#x}"),
            }
        }
    }

    #[test]
    fn exactly_the_listed_calls_are_allowed() {
        let (program, listed) = (filter(), [ALLOWED, ALLOWED_OLD, ALLOWED_NEW].concat());
        let special = [SYS_clone, SYS_clone3, SYS_socket, SYS_personality];
        for number in (0..1000).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            if !special.contains(&c_long::from(number)) {
                let expected = if listed.contains(&c_long::from(number)) { ALLOW } else { DENY };
                assert_eq!(verdict(&program, ARCHITECTURE, number, 0), expected, "{number}");
            }
        }
        assert!(program.len() <= 4096, "the kernel takes no longer one (BPF_MAXINSNS)");
        assert_eq!(verdict(&program, 0x4000_0003, SYS_read as u32, 0), KILL, "a 32-bit call");
    }

    #[test]
    fn arguments_decide_where_they_matter() {
        let program = filter();
        let check = |call: c_long, argument: u32, expected: u32| {
            assert_eq!(verdict(&program, ARCHITECTURE, call as u32, argument), expected, "{call} {argument:#x}");
        };
        check(SYS_clone, SIGCHLD as u32, ALLOW);
        check(SYS_clone, (CLONE_VM | CLONE_THREAD) as u32, ALLOW);
        for flag in
            [CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP]
        {
            check(SYS_clone, flag as u32, DENY);
        }
        check(SYS_clone3, 0, ABSENT);
        check(SYS_socket, AF_INET as u32, ALLOW);
        check(SYS_socket, AF_UNIX as u32, ALLOW);
        check(SYS_socket, AF_ALG as u32, DENY);
        check(SYS_socket, AF_VSOCK as u32, DENY);
        check(SYS_personality, 0, ALLOW);
        check(SYS_personality, 0xffff_ffff, ALLOW);
        check(SYS_personality, 0x0004_0000, DENY);
    }

    #[test]
    fn what_reaches_out_is_not_listed() {
        for call in [
            SYS_mount,
            SYS_umount2,
            SYS_unshare,
            SYS_setns,
            SYS_bpf,
            SYS_init_module,
            SYS_keyctl,
            SYS_io_uring_setup,
            SYS_pivot_root,
            SYS_kexec_load,
            SYS_open_by_handle_at,
            SYS_perf_event_open,
            SYS_userfaultfd,
            SYS_reboot,
        ] {
            assert_eq!(verdict(&filter(), ARCHITECTURE, call as u32, 0), DENY, "{call}");
        }
    }
}
