/* The host driver: not there yet. Every call says so before anything is made. */
#include "vm/launcher/driver.h"

static int check(struct th_err *err)
{
    (void)th_fail(err, TH_R_UNSUPPORTED, "the host driver is not supported by this build");
    return th_hint(err, "use --driver libvirt");
}

static int start(const struct th_machine_spec *spec, pid_t *ret_pid, struct th_err *err)
{
    (void)spec;
    (void)ret_pid;
    return check(err);
}

static int kill_machine(struct th_profile *p, struct th_err *err)
{
    (void)p;
    (void)err;
    return 0; /* nothing can have been started */
}

static int port(struct th_profile *p, const struct th_machine_port *unused, struct th_err *err)
{
    (void)p;
    (void)unused;
    return check(err);
}

const struct th_driver th_driver_host = {.name = "host", .check = check, .start = start,
                                         .kill = kill_machine, .port_add = port,
                                         .port_remove = port};
