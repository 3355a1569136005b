#ifndef TH_GUEST_H
#define TH_GUEST_H
/* The parts of `thimbled init` and what they share. One thread, one event loop; init.c owns the
 * struct, every other file works on what it is given. */
#include "base/buf.h"
#include "base/err.h"
#include "base/evloop.h"
#include "base/json/json.h"
#include "vm/launcher/protocol.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Where things are; fixed in a VM, chosen by the launcher with the host driver. */
struct th_guest_paths {
    char *data, *run, *etc;
};

/* The function behind `thimbled NAME`. */
typedef int th_part_fn(int argc, char **argv);

/* One supervised program. */
enum th_child_state { TH_CHILD_STOPPED, TH_CHILD_STARTING, TH_CHILD_READY, TH_CHILD_BACKOFF };
struct th_guest;
struct th_child {
    struct th_guest *g;
    char *name;
    struct th_strv argv;
    char *cgroup;      /* folder, or NULL */
    enum th_child_state state;
    pid_t pid;
    int restarts;      /* since it was last up for a while */
    int total_restarts;
    int ready_fd;      /* -1 when it has spoken or is not running */
    int64_t started_ms;
    struct th_ev_src *ready_src, *retry_src;
};

struct th_guest {
    struct th_ev *ev;
    struct th_guest_paths paths;
    bool host;              /* host driver: no devices, no power off */
    int64_t boot_ms;        /* th_mono_ms at the start of init */
    const char *phase;      /* TH_PHASE_* */
    char *failure;          /* why phase is failed, or NULL */
    struct th_json *config; /* cluster.json once the identity is there */
    struct th_child *children;
    size_t n_children;
    struct th_ctl *ctl;
    bool data_mounted;
    int exit_code;
    /* host driver only */
    char *cgroup_parent; /* for the node agent */
    int ctl_listen_fd;
};

/* mounts.c: the kernel's file systems, folders, limits and sysctls. Failures that leave a usable
 * system are logged only. */
int th_guest_mount_basics(struct th_err *err) TH_MUST_USE;
int th_guest_mount_cgroups(const char *root, struct th_err *err) TH_MUST_USE;
void th_guest_sysctls(bool host);
void th_guest_limits(void);

/* modules.c: loads what usr/lib/modules/order lists for a stage; a kernel with everything built in
 * has no such file. */
void th_guest_load_modules(const char *stage);

/* disk.c: the data disk, made or checked when needed, grown to its device, mounted on `where`. */
int th_guest_mount_data(const char *where, struct th_err *err) TH_MUST_USE;
struct th_disk_super {
    bool ext4;        /* the magic number is there */
    bool blank;       /* the first 64 KiB are zero */
    bool needs_check; /* not cleanly unmounted, or errors were found */
    uint64_t size_b;  /* of the file system */
};
/* What the first TH_DISK_PROBE_B bytes of a device say. */
#define TH_DISK_PROBE_B 65536
void th_disk_super_read(const unsigned char *head, struct th_disk_super *ret);

/* net.c */
int th_guest_net_up(bool host, struct th_err *err) TH_MUST_USE;

/* control.c: the channel to the launcher. `fn` gets each parsed line; the node is borrowed. */
typedef void th_ctl_fn(struct th_ctl *ctl, const char *type, struct th_json *msg, void *arg);
typedef void th_ctl_open_fn(struct th_ctl *ctl, void *arg); /* a launcher has connected */
/* The virtio-serial port named TH_CTL_PORT_NAME, or a listening Unix socket. */
int th_ctl_open_port(struct th_ev *ev, th_ctl_open_fn *open_fn, th_ctl_fn *fn, void *arg,
                     struct th_ctl **ret, struct th_err *err) TH_MUST_USE;
struct th_ctl *th_ctl_open_listen(struct th_ev *ev, int listen_fd, th_ctl_open_fn *open_fn,
                                  th_ctl_fn *fn, void *arg);
void th_ctl_free(struct th_ctl *ctl);
void th_ctl_send(struct th_ctl *ctl, struct th_json *msg); /* takes msg; dropped when nobody is there */
void th_ctl_flush(struct th_ctl *ctl, int64_t timeout_ms);

/* supervise.c */
/* Before anything is started: who knows the parts (NULL for an unknown name), and main's arguments,
 * whose place a child's own words take. */
void th_supervise_parts(th_part_fn *(*find)(const char *name), int argc, char **argv);
void th_supervise_start(struct th_child *c);
void th_supervise_weight(struct th_child *c, int weight); /* of its cgroup's share of the processor */
void th_supervise_stop(struct th_child *c, int64_t timeout_ms); /* SIGTERM, then SIGKILL */
/* Reaps whatever has ended; children of ours are started again later. */
void th_supervise_reap(struct th_guest *g);
int64_t th_supervise_delay_ms(int restarts);
void th_child_done(struct th_child *c);
/* init.c, called by supervise.c */
void th_guest_child_ready(struct th_guest *g, struct th_child *c);
void th_guest_child_ended(struct th_guest *g, struct th_child *c, int status);

/* shutdown.c: containers, children, file systems. Returns when the machine may be switched off. */
void th_guest_stop_all(struct th_guest *g, int64_t grace_ms);
void th_guest_unmount_all(const char *data);

/* init.c */
int th_init_main(int argc, char **argv);
void th_guest_progress(struct th_guest *g, const char *step, int64_t since_ms);
void th_guest_block_signals(void);
th_ctl_open_fn *th_guest_on_open(void); /* for whoever opens the channel: arg is struct th_guest * */
th_ctl_fn *th_guest_on_message(void);
/* Runs the event loop until shutdown; g->ctl is open. */
int th_guest_run(struct th_guest *g);

/* hostmode.c: `thimbled init --host`, see there. */
int th_hostmode_main(int argc, char **argv);
#endif
