#ifndef TH_LAUNCHER_DRIVER_H
#define TH_LAUNCHER_DRIVER_H
/* A way to run the machine: one row in drivers.def, one `const struct th_driver`. Everything above
 * (machine.c) is the same for all: profile, identity, control channel, progress. */
#include "vm/launcher/profile.h"

/* What a driver needs to start; all strings borrowed for the call. */
struct th_machine_spec {
    struct th_profile *profile;
    const char *accel;     /* "kvm" or "tcg"; NULL for drivers without */
    int cpus;
    int64_t tsc_khz;       /* of this host's time stamp counter, 0 when unknown */
    const char *kernel, *initramfs /* or NULL */, *rootfs, *thimbled;
    const char *disk;      /* qcow2, or the data folder of the host driver */
    const char *control, *qmp, *console; /* paths */
    const char *program;   /* thimble, for the port agent */
    const struct th_machine_port *ports; /* in force from the first moment */
    size_t n_ports;
    bool incoming; /* it is made without running and waits for th_unfreeze (freeze.h) */
};

struct th_driver {
    const char *name;
    bool is_vm; /* has kernel, disk image, acceleration, console */
    /* What the host lacks, before anything is made: TH_R_NO_QEMU, TH_R_NO_LIBVIRT, ... */
    int (*check)(struct th_err *err);
    /* Starts it and returns its process id; the control socket can be connected to afterwards. On
     * failure nothing is left. */
    int (*start)(const struct th_machine_spec *spec, pid_t *ret_pid, struct th_err *err);
    /* The cluster is ready: gives back memory that only the start needed. May be NULL. */
    void (*settled)(pid_t pid);
    /* Ends it at once, whether it runs or not, and removes what it left: works after a crash. */
    int (*kill)(struct th_profile *p, struct th_err *err);
    /* While it runs. TH_R_PORT_IN_USE when the host's port cannot be had. */
    int (*port_add)(struct th_profile *p, const struct th_machine_port *port, struct th_err *err);
    int (*port_remove)(struct th_profile *p, const struct th_machine_port *port, struct th_err *err);
    /* Resident memory of the whole machine. */
    int64_t (*rss_kb)(pid_t pid);
};
#define TH_QEMU "qemu-system-x86_64"
extern const struct th_driver th_driver_libvirt, th_driver_host;
const struct th_driver *th_driver_find(const char *name); /* NULL when unknown */
#define TH_HOST_CONTROL "control.sock" /* below the profile's state folder */
#define TH_HOST_QMP "qmp.sock"
#define TH_HOST_CONSOLE "console.log"
#endif
