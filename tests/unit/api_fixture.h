#ifndef TH_TEST_API_FIXTURE_H
#define TH_TEST_API_FIXTURE_H
/* A store, the cluster's addresses and the API over them, in this process and without HTTP. What tests
 * of one module of the API start with; inprocess.h adds clients, controllers and a simulated clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "controlplane/api/api.h"
#include "controlplane/resources/ipalloc.h"

struct api_fixture {
    struct th_cluster cluster;
    struct th_store *store;
    struct th_api *api;
    const char *volumes_dir; /* of the class `standard`, before the start; NULL: there is none */
};

/* path: of the database, NULL: in memory. more: options beside store and cluster; NULL: none. */
static inline void api_fixture_start(struct api_fixture *f, const char *path,
                                     const struct th_api_opts *more)
{
    f->cluster = (struct th_cluster){.service_cidr = "10.96.0.0/16",
                                     .pod_cidr = "10.244.0.0/16",
                                     .cluster_domain = "cluster.local",
                                     .dns_ip = "10.96.0.10",
                                     .advertise_ip = "127.0.0.1",
                                     .advertise_port = 6443,
                                     .node_port_first = 30000,
                                     .node_port_last = 32767,
                                     .sa_issuer = "https://kubernetes.default.svc.cluster.local",
                                     .volumes_dir = f->volumes_dir};
    struct th_store_opts so = {.path = path};
    assert_int_equal(th_store_open(&so, &f->store, NULL), 0);
    assert_int_equal(th_ipalloc_new(f->cluster.service_cidr, 30000, 32767, &f->cluster.services, NULL),
                     0);
    struct th_api_opts ao = more ? *more : (struct th_api_opts){.store = NULL};
    ao.store = f->store;
    ao.cluster = &f->cluster;
    assert_int_equal(th_api_new(&ao, &f->api, NULL), 0);
    assert_int_equal(th_api_bootstrap(f->api, NULL), 0);
}

static inline void api_fixture_stop(struct api_fixture *f)
{
    th_api_free(f->api);
    th_store_close(f->store);
    th_ipalloc_free(f->cluster.services);
}
#endif
