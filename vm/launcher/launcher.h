#ifndef TH_LAUNCHER_H
#define TH_LAUNCHER_H
/* The machine as the CLI sees it: profiles, start, stop, delete, status, ports, console.
 *
 * A profile is a machine with a name: folders below $XDG_DATA_HOME, $XDG_STATE_HOME (both
 * thimble/<profile>/) and $XDG_CACHE_HOME/thimble/ (shared, content-addressed). Calls that change a
 * profile take its lock and fail at once with TH_R_LOCKED when another command holds it; status,
 * list, console and the port calls never wait for a start that is under way. All calls block; they
 * are safe in several processes at once and from one thread each. */
#include "base/buf.h"
#include "base/err.h"
#include "vm/launcher/bundle.h"
#include <stdbool.h>
#include <stdint.h>

#define TH_PROFILE_DEFAULT "default"

/* 1-32 characters of a-z 0-9 '-', beginning and ending with a letter or digit; else TH_R_USAGE. */
int th_profile_check_name(const char *name, struct th_err *err) TH_MUST_USE;
/* kubeconfig's name for a profile: "thimble", or "thimble-NAME" for others than default. */
char *th_profile_context(const char *profile) __attribute__((returns_nonnull)); /* caller frees */

/* One way from the host into the machine. */
struct th_machine_port {
    char host_ip[16];  /* 127.x.y.z */
    int host_port;     /* as it really is; 0 in requests: any free one */
    int wanted_port;   /* as it was asked for */
    int guest_port;
    char guest_ip[16]; /* "" for the node's address */
    char proto[4];     /* "tcp", "udp" */
    char origin[8];    /* "api", "user" (kept over restarts), "cluster" (a Service asked) */
};

struct th_machine_opts {
    const char *profile;  /* NULL: TH_PROFILE_DEFAULT */
    const char *driver;   /* NULL: what the profile has, else "libvirt"; or "host" */
    int cpus;             /* 0: what the profile has, else 1 under TCG and min(4, host's) under KVM */
    int memory_mb;        /* 0: what the profile has, else 1024 */
    int disk_gb;          /* 0: what the profile has, else 20; sparse; can only grow */
    const char *accel;    /* NULL or "auto", "kvm", "tcg" */
    const char *kernel;   /* NULL or "auto" (small when built in), "debian", "small" */
    /* NULL or "auto": from a template where one fits, else boots and makes one; "off": boots;
     * "renew": boots and makes one. TCG only. */
    const char *tmpl;
    int api_port;         /* 0: what the profile has, else 6443 when free, else any free one */
    int nodes;            /* 0: what the profile has, else 1 */
    int simulated_nodes;  /* < 0: what the profile has (else 0) */
    const struct th_machine_port *ports; /* further forwards, kept as "user" ports */
    size_t n_ports;
    int64_t timeout_ms;   /* for the whole start; 0: 120 s under KVM, 300 s under TCG */
    /* Programs that init runs, for tests of the machine alone; NULL: controlplane and node. An
     * empty list boots to ready with no children. NULL-terminated. */
    const char *const *children;
    const char *program;  /* path of the thimble executable for the port agent; NULL: /proc/self/exe */
};
#define TH_MACHINE_OPTS_INIT                                                                       \
    {                                                                                              \
        .simulated_nodes = -1                                                                      \
    }

struct th_machine_timing {
    char *step;
    int64_t ms; /* how long this step took */
};

struct th_machine_info {
    char *profile;
    char *driver;       /* "libvirt", "host" */
    bool running;
    bool ready;         /* the last start reached ready */
    char *accel;        /* "kvm", "tcg", "none" (host driver) */
    char *accel_why;    /* one sentence, e.g. "KVM: no heartbeat within 4 s (cached)"; may be NULL */
    char *kernel;       /* "debian", "small", "host" */
    bool restored;      /* the last start was from a template */
    char *how;          /* what came of templates in the last start, one sentence; may be NULL */
    char *version;      /* of the thimble that started it */
    int cpus, memory_mb, disk_gb, nodes, simulated_nodes;
    int number;         /* k of the LoadBalancer addresses 127.(96+k).A.B; unique per user */
    char *api_url;      /* "https://127.0.0.1:6443" */
    int api_port;
    char *context;      /* th_profile_context */
    char *node_name;
    char *ca_pem;       /* identity; NULL before the first start */
    char *admin_cert_pem, *admin_key_pem;
    int64_t pid;        /* QEMU's or the supervisor's; 0 when not running */
    int64_t rss_kb, uptime_ms;
    int64_t disk_used_b; /* what the data disk takes on the host */
    struct th_machine_port *ports;
    size_t n_ports;
    struct th_machine_timing *timings; /* of the last start, in order */
    size_t n_timings;
    char *console_path;
};
void th_machine_info_done(struct th_machine_info *info);
void th_machine_info_list_free(struct th_machine_info *list, size_t n);
#define TH_AUTO_MACHINE_INFO TH_CLEANUP(th_machine_info_done)

/* Called when a step begins (ms < 0) and again when it has ended, with how long it took. Steps of
 * the host: "prepare", "disk", "machine", "kernel" (until hello) and "template" (making one), or
 * "restore" (from one), of the guest: as init names them
 * ("data-disk", "controlplane", "node", ...). Runs in the calling thread. */
typedef void th_machine_progress_fn(void *arg, const char *step, int64_t ms);

/* Boots the profile's machine and waits until the cluster is ready. Already running and ready is
 * TH_R_ALREADY_RUNNING with *ret_info filled all the same (the one exception to ret_* rules). A
 * start that fails leaves nothing running; its message ends in the cause, its hint in what to do,
 * and `th_machine_console` has the tail. Others: TH_R_NO_QEMU, TH_R_NO_LIBVIRT, TH_R_NO_PERMISSION,
 * TH_R_PORT_IN_USE, TH_R_BOOT_FAILED, TH_R_BOOT_TIMEOUT, TH_R_STATE_CORRUPT, TH_R_LOCKED. */
int th_machine_start(const struct th_machine_opts *opts, th_machine_progress_fn *progress, void *arg,
                     struct th_machine_info *ret_info, struct th_err *err) TH_MUST_USE;
/* Orderly shutdown (pods get up to timeout_ms, 0: 30 s), then the plug. TH_R_NOT_RUNNING,
 * TH_R_NOT_FOUND when the profile does not exist. */
int th_machine_stop(const char *profile, int64_t timeout_ms, th_machine_progress_fn *progress,
                    void *arg, struct th_err *err) TH_MUST_USE;
/* Stops it at once and removes everything of the profile. Works on corrupt profiles too.
 * TH_R_NOT_FOUND when there is nothing. */
int th_machine_delete(const char *profile, struct th_err *err) TH_MUST_USE;
int th_machine_status(const char *profile, struct th_machine_info *ret, struct th_err *err) TH_MUST_USE;
/* Removes the templates of all profiles: the next start of each boots. */
int th_machine_templates_purge(struct th_err *err) TH_MUST_USE;
/* All profiles, by name. A corrupt one is listed with driver NULL. Free with *_list_free. */
int th_machine_list(struct th_machine_info **ret, size_t *ret_n, struct th_err *err) TH_MUST_USE;

/* Adds a forward while it runs and keeps it for later starts. host_ip must be in 127.0.0.0/8;
 * host_port 0 takes any free one; a port that is taken is TH_R_PORT_IN_USE. *ret may be NULL. */
int th_machine_port_add(const char *profile, const struct th_machine_port *port,
                        struct th_machine_port *ret, struct th_err *err) TH_MUST_USE;
int th_machine_port_remove(const char *profile, const char *host_ip, int host_port,
                           const char *proto, struct th_err *err) TH_MUST_USE;
int th_machine_port_list(const char *profile, struct th_machine_port **ret, size_t *ret_n,
                         struct th_err *err) TH_MUST_USE; /* caller frees *ret */
/* The last lines (0: 200) of the guest's console, or of the host driver's log. */
int th_machine_console(const char *profile, size_t lines, struct th_buf *ret, struct th_err *err)
    TH_MUST_USE;

/* `thimble port-agent -p PROFILE`, started by QEMU for a connection to 10.0.2.100:1: answers JSON
 * lines (protocol.h) on stdin and stdout until end of file. Returns the exit status. */
int th_port_agent_main(const char *profile);
#endif
