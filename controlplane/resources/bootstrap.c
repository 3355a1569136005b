/*
 * The objects of a new cluster, made when missing at every start: the four namespaces, the system
 * priority classes, the Service `kubernetes` with the API server behind it, its ServiceCIDR, the DNS
 * Service (the node agent answers it), the StorageClass `standard`, and what API Priority and Fairness has upstream.
 */
#include "controlplane/resources/resource.h"
#include "controlplane/resources/cluster.h"
#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/schema/storage.h"

static const char *const namespaces[] = {"default", "kube-system", "kube-public",
                                         "kube-node-lease"};

static char *first_service_ip(const struct th_cluster *k)
{
    /* "10.96.0.0/16" -> "10.96.0.1" */
    th_autofree char *net = th_xstrndup(k->service_cidr, strcspn(k->service_cidr, "/"));
    char *dot = strrchr(net, '.');
    long last = dot ? strtol(dot + 1, NULL, 10) : 0;
    if (dot) {
        *dot = 0;
    }
    return th_xasprintf("%s.%ld", net, last + 1);
}

static struct th_json *kubernetes_service(const struct th_cluster *k)
{
    th_autofree char *ip = first_service_ip(k);
    return th_json_build(
        "{'apiVersion':'v1','kind':'Service','metadata':{'name':'kubernetes','namespace':'default',"
        "'labels':{'component':'apiserver','provider':'kubernetes'}},'spec':{'type':'ClusterIP',"
        "'clusterIP':%s,'ports':[{'name':'https','port':443,'protocol':'TCP','targetPort':%d}],"
        "'sessionAffinity':'None'}}",
        ip, (int64_t)k->advertise_port);
}

static void kubernetes_endpoints(const struct th_cluster *k, struct th_json *all)
{
    if (!k->advertise_ip || !*k->advertise_ip || th_startswith(k->advertise_ip, "127.")) {
        return; /* a loopback address is no endpoint of anything */
    }
    th_json_append(
        all,
        th_json_build(
            "{'apiVersion':'v1','kind':'Endpoints','metadata':{'name':'kubernetes',"
            "'namespace':'default','labels':{'endpointslice.kubernetes.io/skip-mirror':'true'}},"
            "'subsets':[{'addresses':[{'ip':%s}],'ports':[{'name':'https','port':%d,"
            "'protocol':'TCP'}]}]}",
            k->advertise_ip, (int64_t)k->advertise_port));
    th_json_append(
        all,
        th_json_build(
            "{'apiVersion':'discovery.k8s.io/v1','kind':'EndpointSlice','metadata':{'name':"
            "'kubernetes','namespace':'default','labels':{'kubernetes.io/service-name':"
            "'kubernetes'}},'addressType':'IPv4','endpoints':[{'addresses':[%s],"
            "'conditions':{'ready':%b}}],'ports':[{'name':'https','port':%d,'protocol':'TCP'}]}",
            k->advertise_ip, true, (int64_t)k->advertise_port));
}

static struct th_json *dns_service(const struct th_cluster *k)
{
    return th_json_build("{'apiVersion':'v1','kind':'Service','metadata':{'name':'kube-dns','"
                         "namespace':'kube-system',"
                         "'labels':{'k8s-app':'kube-dns','kubernetes.io/"
                         "cluster-service':'true','kubernetes.io/name':'CoreDNS'}},"
                         "'spec':{'type':'ClusterIP','clusterIP':%s,'ports':[{'name':'dns','port':"
                         "53,'protocol':'UDP'},"
                         "{'name':'dns-tcp','port':53,'protocol':'TCP'}]}}",
                         k->dns_ip);
}

static struct th_json *service_cidr(const struct th_cluster *k)
{
    return th_json_build("{'apiVersion':'networking.k8s.io/v1','kind':'ServiceCIDR','metadata':"
                         "{'name':'kubernetes'},'spec':{'cidrs':[%s]}}",
                         k->service_cidr);
}

static void priority_classes(struct th_json *all)
{
    static const struct {
        const char *name, *what;
        int64_t value;
    } classes[] = {
        {"system-node-critical",
         "Used for system critical pods that must not be moved from their current node.",
         2000001000},
        {"system-cluster-critical",
         "Used for system critical pods that must run in the cluster, but can be moved to another "
         "node if necessary.",
         2000000000}};
    for (size_t i = 0; i < TH_ARRAY_LEN(classes); i++) {
        th_json_append(all, th_json_build("{'apiVersion':'scheduling.k8s.io/v1','kind':"
                                          "'PriorityClass','metadata':{'name':%s},'value':%d,"
                                          "'description':%s}",
                                          classes[i].name, classes[i].value, classes[i].what));
    }
}

/* What a claim gets that names no class: a folder on the data disk. */
static struct th_json *standard_class(void)
{
    return th_json_build("{'apiVersion':'storage.k8s.io/v1','kind':'StorageClass','metadata':{"
                         "'name':'standard','annotations':{%s:'true'}},'provisioner':%s,"
                         "'reclaimPolicy':'Delete','volumeBindingMode':'Immediate',"
                         "'allowVolumeExpansion':%b}",
                         TH_ANN_DEFAULT_CLASS, TH_HOST_PATH_PROVISIONER, true);
}

/* Since when uses of Secrets' tokens are noted. */
static struct th_json *token_tracking(void)
{
    char today[TH_TIME_LEN];
    th_time_format(th_now_ms(), today)[strlen("2006-01-02")] = 0;
    return th_json_build("{'apiVersion':'v1','kind':'ConfigMap','metadata':{'namespace':"
                         "'kube-system','name':"
                         "'kube-apiserver-legacy-service-account-token-tracking'},"
                         "'data':{'since':%s}}",
                         today);
}

struct th_json *th_bootstrap_objects(const void *cluster)
{
    const struct th_cluster *k = cluster;
    struct th_json *all = th_json_array();
    for (size_t i = 0; i < TH_ARRAY_LEN(namespaces); i++) {
        th_json_append(
            all, th_json_build("{'apiVersion':'v1','kind':'Namespace','metadata':{'name':%s}}",
                               namespaces[i]));
    }
    priority_classes(all);
    th_json_append(all, token_tracking());
    if (k && k->volumes_dir) {
        th_json_append(all, standard_class());
    }
    if (k && k->services && k->service_cidr) {
        th_json_append(all, service_cidr(k));
        th_json_append(all, kubernetes_service(k));
        kubernetes_endpoints(k, all);
        if (k->dns_ip) {
            th_json_append(all, dns_service(k));
        }
    }
    return all;
}
