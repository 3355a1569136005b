/* The objects of a new cluster, made when missing at every start. */
#include "controlplane/resources/resource.h"

static const char *const namespaces[] = {"default", "kube-system", "kube-public",
                                         "kube-node-lease"};

struct th_json *th_bootstrap_objects(const void *cluster)
{
    (void)cluster;
    struct th_json *all = th_json_array();
    for (size_t i = 0; i < TH_ARRAY_LEN(namespaces); i++) {
        th_json_append(all, th_json_build("{'apiVersion':'v1','kind':'Namespace',"
                                          "'metadata':{'name':%s}}",
                                          namespaces[i]));
    }
    return all;
}
