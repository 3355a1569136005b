/* Addresses of Services: their IPAddress objects, further ServiceCIDRs, and what is mended; and the
 * ranges of nodes. The clock is simulated. */
#include "inprocess.h"

#define ADDRESSES "/apis/networking.k8s.io/v1/ipaddresses"
#define CIDRS "/apis/networking.k8s.io/v1/servicecidrs"
#define SERVICES "/api/v1/namespaces/default/services"
#define NODES "/api/v1/nodes"

static const char *const all =
    "service-cidr-controller,ipallocator-repair-controller,node-ipam-controller";

static const char *str(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return s ? s : "";
}

static bool is_there(const struct th_json *o)
{
    return o != NULL;
}

static bool is_gone(const struct th_json *o)
{
    return o == NULL;
}

static bool is_ready(const struct th_json *o)
{
    return th_streq(str(o, "status.conditions[0].status"), "True") &&
           th_streq(str(o, "metadata.finalizers[0]"), "networking.k8s.io/service-cidr-finalizer");
}

static bool is_held(const struct th_json *o)
{
    return th_streq(str(o, "status.conditions[0].reason"), "Terminating");
}

static void make_service(struct inproc *p, const char *name, const char *ip)
{
    th_autofree char *text =
        th_xasprintf("{'metadata':{'name':'%s'},'spec':{'clusterIP':'%s','ports':[{'port':80}]}}",
                     name, ip);
    api_make(p, SERVICES, text);
}

static bool refused(struct inproc *p, const char *name, const char *ip)
{
    struct th_err err TH_CLEANUP(th_err_done) = TH_ERR_INIT;
    struct th_json *o TH_AUTO(th_json) = th_json_build(
        "{'apiVersion':'v1','kind':'Service','metadata':{'name':%s},'spec':{'clusterIP':%s,"
        "'ports':[{'port':80}]}}",
        name, ip);
    return th_client_create(p->client, TH_GVR_SERVICES, "default", o, NULL, &err) < 0;
}

static void every_cluster_ip_has_its_address_object(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, false);
    await(p, "the cluster's own", CIDRS "/kubernetes", is_ready);
    make_service(p, "web", "10.96.7.7");
    struct th_json *a TH_AUTO(th_json) = api_get(p, ADDRESSES "/10.96.7.7");
    assert_string_equal(str(a, "spec.parentRef.resource"), "services");
    assert_string_equal(str(a, "spec.parentRef.name"), "web");
    api_delete(p, ADDRESSES "/10.96.7.7");
    await(p, "made again", ADDRESSES "/10.96.7.7", is_there);
    api_delete(p, SERVICES "/web");
    await(p, "gone with its Service", ADDRESSES "/10.96.7.7", is_gone);
    /* somebody's own object reserves the address */
    api_make(p, ADDRESSES, "{'metadata':{'name':'10.96.8.8'},'spec':{'parentRef':{'group':'x.io',"
                           "'resource':'things','name':'t'}}}");
    assert_true(refused(p, "taken", "10.96.8.8"));
    /* one that the allocator left behind goes */
    api_make(p, ADDRESSES,
             "{'metadata':{'name':'10.96.9.9','labels':{'ipaddress.kubernetes.io/managed-by':"
             "'ipallocator.k8s.io'}},'spec':{'parentRef':{'group':'','resource':'services',"
             "'namespace':'default','name':'never'}}}");
    th_clock_advance_ms(61000);
    await(p, "cleaned up", ADDRESSES "/10.96.9.9", is_gone);
    await(p, "kept", ADDRESSES "/10.96.8.8", is_there);
    inproc_free(p);
}

static void further_ranges_serve_until_they_go(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, false);
    assert_true(refused(p, "early", "10.50.0.5"));
    api_make(p, CIDRS, "{'metadata':{'name':'extra'},'spec':{'cidrs':['10.50.0.0/28']}}");
    await(p, "ready", CIDRS "/extra", is_ready);
    make_service(p, "web", "10.50.0.5");
    api_delete(p, CIDRS "/extra");
    await(p, "held by the Service", CIDRS "/extra", is_held);
    assert_true(refused(p, "late", "10.50.0.6"));
    api_delete(p, SERVICES "/web");
    await(p, "address gone", ADDRESSES "/10.50.0.5", is_gone);
    th_clock_advance_ms(11000);
    await(p, "range gone", CIDRS "/extra", is_gone);
    inproc_free(p);
}

static bool has_first(const struct th_json *o)
{
    return th_streq(str(o, "spec.podCIDR"), "10.244.0.0/24") &&
           th_streq(str(o, "spec.podCIDRs[0]"), "10.244.0.0/24");
}

static bool has_third(const struct th_json *o)
{
    return th_streq(str(o, "spec.podCIDR"), "10.244.2.0/24");
}

static void nodes_get_the_lowest_free_range(void **state)
{
    (void)state;
    struct inproc *p = inproc_new(all, false);
    api_make(p, NODES, "{'metadata':{'name':'own'},'spec':{'podCIDR':'10.244.1.0/24'}}");
    api_make(p, NODES, "{'metadata':{'name':'a'}}");
    await(p, "the first", NODES "/a", has_first);
    api_make(p, NODES, "{'metadata':{'name':'b'}}");
    await(p, "the third", NODES "/b", has_third);
    api_delete(p, NODES "/a");
    api_make(p, NODES, "{'metadata':{'name':'c'}}");
    await(p, "the first again", NODES "/c", has_first);
    inproc_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cluster_ip_has_its_address_object),
        cmocka_unit_test(further_ranges_serve_until_they_go),
        cmocka_unit_test(nodes_get_the_lowest_free_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
