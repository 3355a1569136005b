/* seccompProfile RuntimeDefault.
 *
 * Docker's and containerd's default profiles list what is allowed and refuse the rest with EPERM.
 * This one says the same from the other side: it refuses what those leave out for a container
 * without further capabilities, and allows the rest, which keeps system calls newer than any list
 * working. The refused ones are the ways into the kernel's administration: modules, kexec, clocks,
 * mounts and namespaces, keyrings, BPF, perf, io_uring, userfaultfd, swap, and obsolete calls. */
#include "vm/node/agent.h"

struct th_json *oci_seccomp_default(void)
{
    static const char *const refused[] = {
        "acct", "add_key", "bpf", "clock_adjtime", "clock_settime", "create_module", "delete_module",
        "finit_module", "fsconfig", "fsmount", "fsopen", "fspick", "get_kernel_syms",
        "get_mempolicy", "init_module", "io_uring_enter", "io_uring_register", "io_uring_setup",
        "ioperm", "iopl", "kcmp", "kexec_file_load", "kexec_load", "keyctl", "lookup_dcookie",
        "mbind", "mount", "mount_setattr", "move_mount", "move_pages", "nfsservctl",
        "open_by_handle_at", "open_tree", "perf_event_open", "pivot_root", "query_module",
        "quotactl", "reboot", "request_key", "set_mempolicy", "setdomainname", "sethostname",
        "setns", "settimeofday", "swapoff", "swapon", "sysfs", "_sysctl", "umount", "umount2",
        "unshare", "uselib", "userfaultfd", "ustat", "vhangup", "vm86", "vm86old", NULL};
    struct th_json *names = th_json_array();
    for (const char *const *s = refused; *s; s++) {
        th_json_append_str(names, *s);
    }
    struct th_json *o = th_json_object();
    th_json_set_str(o, "defaultAction", "SCMP_ACT_ALLOW");
    struct th_json *arch = th_json_array();
#if defined(__x86_64__)
    th_json_append_str(arch, "SCMP_ARCH_X86_64");
    th_json_append_str(arch, "SCMP_ARCH_X86");
    th_json_append_str(arch, "SCMP_ARCH_X32");
#elif defined(__aarch64__)
    th_json_append_str(arch, "SCMP_ARCH_AARCH64");
    th_json_append_str(arch, "SCMP_ARCH_ARM");
#endif
    th_json_set(o, "architectures", arch);
    struct th_json *rule = th_json_object();
    th_json_set(rule, "names", names);
    th_json_set_str(rule, "action", "SCMP_ACT_ERRNO");
    th_json_set_int(rule, "errnoRet", 1);
    struct th_json *rules = th_json_array();
    th_json_append(rules, rule);
    th_json_set(o, "syscalls", rules);
    return o;
}
