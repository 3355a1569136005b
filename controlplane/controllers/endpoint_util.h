#ifndef TH_ENDPOINT_UTIL_H
#define TH_ENDPOINT_UTIL_H
/* What the EndpointSlice and the Endpoints controller share: which Services a pod event concerns,
 * and which number a Service's port has in a pod. */
#include "controlplane/controllers/pod_control.h"

/* Enqueues the Services of the pod's namespace that select it, now or before. */
void th_ep_on_pod(struct th_ctrl *c, const struct th_json *old, const struct th_json *now);
/* The Services of a key that this kind of controller serves: with a selector, not ExternalName, not
 * being deleted. NULL otherwise; the caller unrefs. */
struct th_json *th_ep_service(struct th_ctrl *c, const char *key);
/* The pods it selects that have an address and have not ended. */
void th_ep_pods(struct th_ctrl *c, const struct th_json *svc, struct th_pods *ret);
/* The number of a Service port in this pod; 0 when a named port is not there. */
int64_t th_ep_target_port(const struct th_json *port, const struct th_json *pod);
/* The Service's ports in this pod, as Endpoints and slices list them; a named targetPort that the pod
 * lacks is left out. A port without a name gets `unnamed`, or no name when that is NULL. */
struct th_json *th_ep_ports(const struct th_json *svc, const struct th_json *pod,
                            const char *unnamed);
/* The pod's hostname when it belongs to this (headless) Service, or NULL. */
const char *th_ep_hostname(const struct th_json *svc, const struct th_json *pod);
#endif
