#ifndef TH_LAUNCHER_PORTS_H
#define TH_LAUNCHER_PORTS_H
/* The book of forwards of a profile (state/ports.json, under its own lock). Internal. */
#include "vm/launcher/driver.h"

struct th_ports {
    struct th_machine_port *v;
    size_t n, cap;
    int lock_fd; /* -1 when only read */
};
#define TH_PORTS_INIT                                                                              \
    {                                                                                              \
        .lock_fd = -1                                                                              \
    }
void th_ports_done(struct th_ports *l);
#define TH_AUTO_PORTS TH_CLEANUP(th_ports_done)
int th_ports_load(const struct th_profile *p, bool lock, struct th_ports *ret, struct th_err *err)
    TH_MUST_USE;
int th_ports_save(const struct th_profile *p, const struct th_ports *l, struct th_err *err) TH_MUST_USE;
void th_ports_put(struct th_ports *l, const struct th_machine_port *port);
void th_ports_drop(struct th_ports *l, size_t i);
/* By the port as wanted or as given; -1 when absent. */
int th_ports_find(const struct th_ports *l, const char *host_ip, int host_port, const char *proto);

/* Fills and checks: numbers, "tcp"/"udp", host_ip in 127.0.0.0/8 ("" becomes 127.0.0.1). */
int th_port_check(struct th_machine_port *port, struct th_err *err) TH_MUST_USE;
bool th_port_is_loopback(const char *ip);
/* Whether the host would let us listen: TH_R_PORT_IN_USE, TH_R_NO_PERMISSION. With host_port 0 it
 * finds a free one and stores it. */
int th_port_probe(struct th_machine_port *port, struct th_err *err) TH_MUST_USE;

/* Adds to the running machine and to the book. With `fall_back`, a port that is taken or not
 * allowed is replaced by a free high one. Asking again for what is there is success. */
int th_ports_forward(struct th_profile *p, const struct th_machine_port *want, bool fall_back,
                     struct th_machine_port *ret, struct th_err *err) TH_MUST_USE;
int th_ports_unforward(struct th_profile *p, const char *host_ip, int host_port, const char *proto,
                       struct th_err *err) TH_MUST_USE;

/* The port agent's protocol: one request line in, one answer out (never fails). Internal, for
 * tests too. */
struct th_json *th_port_agent_answer(struct th_profile *p, const char *line, size_t n);
struct th_json *th_port_to_json(const struct th_machine_port *port);
/* NULL members keep their defaults. TH_R_BAD_REQUEST. */
int th_port_from_json(const struct th_json *o, struct th_machine_port *ret, struct th_err *err) TH_MUST_USE;
#endif
