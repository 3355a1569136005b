/* The libvirt driver: QEMU through libvirt's C API, without a daemon.
 *
 * qemu:///embed?root=DIR runs libvirt's QEMU driver inside this process with all of its state below
 * DIR (the profile's state folder). The QEMU process outlives us; the next open finds it again.
 * This is used for root and for ordinary users alike, and not qemu:///session where a session
 * daemon could run, for two reasons: the port agent needs QEMU to start a program, which a session
 * daemon's seccomp sandbox forbids and only its own qemu.conf could allow; and state of several
 * profiles stays apart, so that deleting a profile is deleting folders.
 *
 * Only start and kill talk to libvirt. While the machine runs, ports go through a QMP socket of our
 * own: opening the embedded driver needs its lock and 30 ms, and the guest asks for ports while
 * `start` holds it.
 *
 * libvirt needs an event loop in a thread, or it would never hear QEMU. The thread lives as long as
 * the process: libvirt has no safe way to end it, and a command ends soon anyway. */
#include "base/clock.h"
#include "base/io.h"
#include "base/proc.h"
#include "vm/launcher/domain.h"
#include "vm/launcher/ports.h"
#include "vm/launcher/protocol.h"
#include "vm/launcher/qmp.h"
#include "vm/launcher/virt.h"
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#define KILL_WAIT_MS 5000

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *log_dir; /* for library_init, which takes no argument */
static const struct th_virt *virt; /* set before the first call */

static void *event_thread(void *arg)
{
    (void)arg;
    for (;;) {
        if (virt->virEventRunDefaultImpl() < 0) {
            th_sleep_ms(10);
        }
    }
    return NULL;
}

static void silent(void *data, virErrorPtr error)
{
    (void)data;
    (void)error; /* callers ask virGetLastError; nothing goes to stderr behind the CLI's back */
}

static void library_init(void)
{
    virt->virSetErrorFunc(NULL, silent);
    /* Its warnings (custom arguments, no confinement) belong into a file, not on the terminal. */
    th_autofree char *log = th_xasprintf("3:file:%s/libvirt.log", log_dir);
    (void)setenv("LIBVIRT_LOG_OUTPUTS", log, 0);
    pthread_t thread;
    if (virt->virInitialize() == 0 && virt->virEventRegisterDefaultImpl() == 0 &&
        pthread_create(&thread, NULL, event_thread, NULL) == 0) {
        (void)pthread_detach(thread);
    }
}

static int fail_virt(struct th_err *err, enum th_reason reason, const char *what)
{
    const char *msg = virt->virGetLastErrorMessage();
    th_autofree char *line = th_xstrdup(msg ? msg : "unknown error");
    for (char *p = line; *p; p++) {
        *p = *p == '\n' ? ' ' : *p;
    }
    return th_fail(err, reason, "%s: %s", what, line);
}

static int check(struct th_err *err)
{
    th_autofree char *qemu = th_proc_find(TH_QEMU);
    if (!qemu) {
        (void)th_fail(err, TH_R_NO_QEMU, "QEMU is not installed (no " TH_QEMU ")");
        return th_hint(err, "sudo apt-get install --no-install-recommends qemu-system-x86 "
                            "qemu-utils libvirt-daemon-driver-qemu libvirt-daemon-system");
    }
    th_autofree char *img = th_proc_find("qemu-img");
    if (!img) {
        (void)th_fail(err, TH_R_NO_QEMU, "qemu-img is not installed");
        return th_hint(err, "sudo apt-get install --no-install-recommends qemu-utils");
    }
    return th_virt_load(&virt, err);
}

static char *root_dir(const struct th_profile *p)
{
    return th_profile_file(p, "libvirt");
}

static int write_config(const struct th_profile *p, struct th_err *err)
{
    th_autofree char *etc = th_path_joinf(p->state, "libvirt/etc");
    th_autofree char *conf = th_path_join(etc, "qemu.conf");
    TH_TRY(th_io_mkdir_p(etc, 0700, err));
    /* The same user as ours, and no confinement of libvirt's: see docs/machine.md, "Security". */
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (geteuid() == 0) { /* anybody else has no choice, and libvirt would fail to chown to root */
        th_buf_puts(&text, "user = \"root\"\ngroup = \"root\"\n");
    }
    th_buf_puts(&text, "security_driver = \"none\"\nnamespaces = []\ncgroup_controllers = []\n"
                       "remember_owner = 0\nstdio_handler = \"file\"\nseccomp_sandbox = 0\n");
    TH_TRY(th_io_write_file(conf, text.p, text.n, 0600, err));
    /* What libvirt finds out about the QEMU binary (half a second) is the same for all profiles. */
    th_autofree char *shared = th_path_join(p->cache, "libvirt");
    th_autofree char *link = th_path_joinf(p->state, "libvirt/cache");
    TH_TRY(th_io_mkdir_p(shared, 0700, err));
    if (symlink(shared, link) < 0 && errno != EEXIST) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", link);
    }
    return 0;
}

static int open_libvirt(const struct th_profile *p, virConnectPtr *ret, struct th_err *err)
{
    TH_TRY(th_virt_load(&virt, err));
    TH_TRY(write_config(p, err));
    log_dir = p->state;
    (void)pthread_once(&once, library_init);
    th_autofree char *root = root_dir(p);
    th_autobuf struct th_buf uri = TH_BUF_INIT;
    th_buf_puts(&uri, "qemu:///embed?root=");
    for (const char *c = root; *c; c++) {
        if (strchr("%?#&+ ", *c)) {
            th_buf_printf(&uri, "%%%02X", (unsigned char)*c);
        } else {
            th_buf_putc(&uri, *c);
        }
    }
    virConnectPtr conn = virt->virConnectOpen(th_buf_cstr(&uri));
    if (!conn) {
        (void)fail_virt(err, TH_R_NO_LIBVIRT, "libvirt's QEMU driver does not start");
        return th_hint(err, TH_VIRT_INSTALL);
    }
    *ret = conn;
    return 0;
}

static pid_t read_pid(const struct th_profile *p)
{
    th_autofree char *path =
        th_path_joinf(p->state, "libvirt/run/qemu/thimble-%s.pid", p->name);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (th_io_read_file(path, 64, &text, NULL) < 0) {
        return 0;
    }
    return (pid_t)strtol(th_buf_cstr(&text), NULL, 10);
}

/* Pulls the plug through libvirt, so that its files go too; then makes sure by signal. */
static void destroy(virConnectPtr conn, const struct th_profile *p)
{
    th_autofree char *name = th_xasprintf("thimble-%s", p->name);
    virDomainPtr dom = conn ? virt->virDomainLookupByName(conn, name) : NULL;
    if (dom) {
        (void)virt->virDomainDestroy(dom);
        (void)virt->virDomainFree(dom);
    }
    pid_t pid = th_profile_alive(p);
    int64_t deadline = th_mono_ms() + KILL_WAIT_MS;
    while (pid > 0 && th_profile_alive(p) && th_mono_ms() < deadline) {
        (void)kill(pid, SIGKILL);
        (void)th_sleep_ms(5);
    }
}

static int kill_machine(struct th_profile *p, struct th_err *err)
{
    th_autofree char *root = root_dir(p);
    virConnectPtr conn = NULL;
    if (th_io_is_dir(root) && open_libvirt(p, &conn, NULL) < 0) {
        conn = NULL; /* a damaged folder must not keep the process alive */
    }
    destroy(conn, p);
    if (conn) {
        (void)virt->virConnectClose(conn);
    }
    static const char *const files[] = {TH_HOST_CONTROL, TH_HOST_QMP};
    for (size_t i = 0; i < TH_ARRAY_LEN(files); i++) {
        th_autofree char *path = th_profile_file(p, files[i]);
        (void)unlink(path);
    }
    if (th_profile_alive(p)) {
        return th_fail(err, TH_R_INTERNAL, "the QEMU process %d does not end",
                       (int)th_profile_alive(p));
    }
    return 0;
}

static int check_socket_path(const struct th_profile *p, struct th_err *err)
{
    /* The longest one is libvirt's own monitor socket. */
    size_t need = strlen(p->state) +
                  strlen("/libvirt/lib/domain-1-thimble-0123456789012/monitor.sock");
    if (need >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
        (void)th_fail(err, TH_R_USAGE, "the path %s is too long for Unix sockets", p->state);
        return th_hint(err, "set XDG_STATE_HOME to a shorter folder");
    }
    return 0;
}

static enum th_reason start_reason(const char *msg)
{
    if (msg && (strstr(msg, "Could not set up host forwarding") || strstr(msg, "in use"))) {
        return TH_R_PORT_IN_USE;
    }
    return TH_R_BOOT_FAILED;
}

/* Whether QEMU, which inherits it, gets huge pages for the guest's memory. Where the processor is emulated
 * they cost more than they give: a guest touches its memory here and there, and for each page of it that
 * is used for the first time, 511 others would be cleared and held. Under KVM they make translation of
 * addresses cheaper. */
static void huge_pages(bool on)
{
    (void)prctl(PR_SET_THP_DISABLE, on ? 0 : 1, 0, 0, 0);
}

static int start(const struct th_machine_spec *spec, pid_t *ret_pid, struct th_err *err)
{
    struct th_profile *p = spec->profile;
    TH_TRY(check_socket_path(p, err));
    th_autofree char *emulator = th_proc_find(TH_QEMU);
    if (!emulator) {
        return check(err);
    }
    virConnectPtr conn = NULL;
    TH_TRY(open_libvirt(p, &conn, err));
    destroy(conn, p); /* what a crash left registered */
    (void)unlink(spec->control);
    (void)unlink(spec->qmp);
    (void)unlink(spec->console);
    th_autobuf struct th_buf xml = TH_BUF_INIT;
    th_domain_xml(spec, emulator, &xml);
    huge_pages(!th_streq(spec->accel, "tcg"));
    virDomainPtr dom = virt->virDomainCreateXML(
        conn, th_buf_cstr(&xml), spec->incoming ? VIR_DOMAIN_START_PAUSED : 0);
    huge_pages(true);
    int r = 0;
    if (!dom) {
        r = fail_virt(err, start_reason(virt->virGetLastErrorMessage()), "QEMU does not start");
    } else {
        *ret_pid = read_pid(p);
        if (*ret_pid <= 0) {
            r = th_fail(err, TH_R_BOOT_FAILED, "libvirt does not say which process QEMU is");
            (void)virt->virDomainDestroy(dom);
        }
        (void)virt->virDomainFree(dom);
    }
    /* Closed at once: later calls open it again, and QEMU goes on without us. */
    (void)virt->virConnectClose(conn);
    return r;
}

static int hmp(struct th_profile *p, const char *line, const char *trouble, bool *ret_trouble,
               struct th_err *err)
{
    th_autofree char *qmp = th_profile_file(p, TH_HOST_QMP);
    th_autobuf struct th_buf out = TH_BUF_INIT;
    TH_TRY(th_qmp_hmp(qmp, line, &out, err));
    *ret_trouble = strstr(th_buf_cstr(&out), trouble) != NULL;
    return 0;
}

static int port_add(struct th_profile *p, const struct th_machine_port *port, struct th_err *err)
{
    th_autofree char *line =
        th_xasprintf("hostfwd_add hostnet0 %s:%s:%d-%s:%d", port->proto, port->host_ip,
                     port->host_port, port->guest_ip[0] ? port->guest_ip : TH_NET_GUEST_IP,
                     port->guest_port);
    bool trouble = false;
    TH_TRY(hmp(p, line, "Could not set up", &trouble, err));
    if (trouble) { /* the monitor reports success all the same; only its text tells */
        return th_fail(err, TH_R_PORT_IN_USE, "%s:%d cannot be forwarded", port->host_ip,
                       port->host_port);
    }
    return 0;
}

static int port_remove(struct th_profile *p, const struct th_machine_port *port, struct th_err *err)
{
    th_autofree char *line = th_xasprintf("hostfwd_remove hostnet0 %s:%s:%d", port->proto,
                                          port->host_ip, port->host_port);
    bool trouble = false; /* "not found" is what we want */
    return hmp(p, line, "Could not", &trouble, err);
}

/* What QEMU mapped from files: the kernel, which it has copied into the guest's
 * memory (14 to 44 MiB), and its own program and libraries, most of which only its start needs; what
 * is used comes back page by page. Only a hint: without the right to give it (CAP_SYS_NICE), the host
 * takes the memory when it is short of it. */
static void settled(pid_t pid)
{
    th_autofree char *path = th_xasprintf("/proc/%d/maps", (int)pid);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    th_autoclose int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0 || th_io_read_file(path, 16u << 20, &text, NULL) < 0) {
        return;
    }
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    th_strv_split(&lines, th_buf_cstr(&text), '\n');
    for (size_t i = 0; i < lines.n; i++) {
        uintptr_t from = 0, to = 0;
        if (strchr(lines.v[i], '/') &&
            sscanf(lines.v[i], "%" SCNxPTR "-%" SCNxPTR, &from, &to) == 2) {
            struct iovec range = {(void *)from, to - from};
            (void)process_madvise(pidfd, &range, 1, MADV_PAGEOUT, 0);
        }
    }
}

static int64_t rss_kb(pid_t pid)
{
    th_autofree char *path = th_xasprintf("/proc/%d/status", (int)pid);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    if (th_io_read_file(path, 65536, &text, NULL) < 0) {
        return 0;
    }
    const char *row = strstr(th_buf_cstr(&text), "\nVmRSS:");
    return row ? strtoll(row + 7, NULL, 10) : 0;
}

const struct th_driver th_driver_libvirt = {
    .name = "libvirt",
    .is_vm = true,
    .check = check,
    .start = start,
    .settled = settled,
    .kill = kill_machine,
    .port_add = port_add,
    .port_remove = port_remove,
    .rss_kb = rss_kb,
};
