#ifndef TH_SERVICE_IPS_H
#define TH_SERVICE_IPS_H
/* The ClusterIP of a Service: taken from the ServiceCIDRs that are ready, with an IPAddress object
 * that says whose it is. */
#include "controlplane/resources/resource.h"

/* As th_ipalloc_ip, with the IPAddress; in a dry run without. */
int th_service_ip_take(const struct th_req_ctx *c, const struct th_json *service, const char *wanted,
                       char *buf, struct th_err *err) TH_MUST_USE;
/* Gives spec.clusterIP of the Service back, and removes its IPAddress. */
void th_service_ip_free(const struct th_req_ctx *c, const struct th_json *service);
#endif
