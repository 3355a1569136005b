#ifndef TH_RESOURCES_IPALLOC_H
#define TH_RESOURCES_IPALLOC_H
/* ClusterIPs and node ports in use. In memory only, rebuilt from the stored Services at start
 * (th_ipalloc_rebuild), so that it can never disagree with them for longer than a process lives.
 * Thread-safe. */
#include "base/buf.h"
#include "base/json/json.h"
#include "controlplane/client/client.h"
struct th_ipalloc;
/* cidr is IPv4, "10.96.0.0/16": the range that is always there. */
int th_ipalloc_new(const char *cidr, int port_first, int port_last, struct th_ipalloc **ret,
                   struct th_err *err) TH_MUST_USE;
void th_ipalloc_free(struct th_ipalloc *a);
/* Takes the address named, or with NULL any free one (from the upper part of a range, as upstream, so
 * that the lower stays for those who name theirs). more (may be NULL): further ranges; what is no IPv4
 * range of them is passed over. buf has 16 bytes. Errors: TH_R_INVALID "provided IP is already
 * allocated", "provided IP is not in the valid range. ...", TH_R_INTERNAL when full. */
int th_ipalloc_ip(struct th_ipalloc *a, const struct th_strv *more, const char *wanted, char *buf,
                  struct th_err *err) TH_MUST_USE;
void th_ipalloc_ip_release(struct th_ipalloc *a, const char *ip);
/* wanted 0: any. Returns the port. TCP and UDP of one number may be shared by one Service, so a port
 * has a count. */
int th_ipalloc_port(struct th_ipalloc *a, int wanted, int *ret_port, struct th_err *err) TH_MUST_USE;
void th_ipalloc_port_release(struct th_ipalloc *a, int port);
/* Marks what stored Services hold; for the start. */
void th_ipalloc_note(struct th_ipalloc *a, const struct th_json *service);
#endif
