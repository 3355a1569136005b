#ifndef TH_GUEST_RELAY_H
#define TH_GUEST_RELAY_H
/* Ports of the host that lead into another network namespace (host driver). One thread: the one
 * that runs `ev`. */
#include "base/err.h"
#include "base/evloop.h"

struct th_hostrelay;
/* Listens in outer_ns, connects in inner_ns; both stay the caller's. The calling thread is in
 * outer_ns whenever a function returns. */
struct th_hostrelay *th_hostrelay_new(struct th_ev *ev, int outer_ns, int inner_ns);
void th_hostrelay_free(struct th_hostrelay *r); /* closes all; NULL-safe */

struct th_hostrelay_port {
    char proto[4]; /* "tcp", "udp" */
    char host_ip[16], guest_ip[16];
    int host_port, guest_port;
};
/* TH_R_PORT_IN_USE, TH_R_NO_PERMISSION, TH_R_BAD_REQUEST; a port that is there is replaced. */
int th_hostrelay_add(struct th_hostrelay *r, const struct th_hostrelay_port *port, struct th_err *err) TH_MUST_USE;
/* Connections that are open go on. What is not there is fine. */
void th_hostrelay_remove(struct th_hostrelay *r, const char *proto, const char *host_ip, int host_port);
#endif
