/* Names and amounts of resources (amounts.h). Upstream: pkg/apis/core/helper and the parts of
 * pkg/apis/core/validation that it serves. */
#include "controlplane/resources/amounts.h"

#include "base/buf.h"
#include "controlplane/schema/quantity.h"

static const char standard[] =
    "cpu|memory|ephemeral-storage|requests.cpu|requests.memory|requests.ephemeral-storage|limits.cpu|"
    "limits.memory|limits.ephemeral-storage|pods|resourcequotas|services|replicationcontrollers|"
    "secrets|configmaps|persistentvolumeclaims|storage|requests.storage|services.nodeports|"
    "services.loadbalancers";
static const char quota[] =
    "cpu|memory|ephemeral-storage|requests.cpu|requests.memory|requests.storage|"
    "requests.ephemeral-storage|limits.cpu|limits.memory|limits.ephemeral-storage|pods|"
    "resourcequotas|services|replicationcontrollers|secrets|persistentvolumeclaims|configmaps|"
    "services.nodeports|services.loadbalancers";

bool th_resource_is_hugepage(const char *name)
{
    return th_startswith(name, "hugepages-");
}

static bool is_quota_hugepage(const char *name)
{
    return th_startswith(name, "hugepages-") || th_startswith(name, "requests.hugepages-");
}

bool th_resource_is_standard(const char *name)
{
    return th_word_in(name, standard) || is_quota_hugepage(name);
}

bool th_resource_is_container(const char *name)
{
    return th_word_in(name, "cpu|memory|ephemeral-storage") || th_resource_is_hugepage(name);
}

bool th_resource_is_quota(const char *name)
{
    return th_word_in(name, quota) || is_quota_hugepage(name);
}

bool th_resource_is_native(const char *name)
{
    return !strchr(name, '/') || strstr(name, "kubernetes.io/");
}

bool th_resource_is_extended(const char *name)
{
    if (th_resource_is_native(name) || th_startswith(name, "requests.")) {
        return false;
    }
    th_autofree char *in_quota = th_xasprintf("requests.%s", name);
    return th_name_qualified(in_quota) == NULL;
}

bool th_resource_is_integer(const char *name)
{
    return th_word_in(name, "pods|resourcequotas|services|replicationcontrollers|secrets|configmaps|"
                            "persistentvolumeclaims|services.nodeports|services.loadbalancers") ||
           th_resource_is_extended(name);
}

bool th_check_resource_name(const struct th_view *at, const char *name)
{
    const char *msgs[TH_NAME_MSGS];
    size_t n = th_name_messages(TH_NAME_QUALIFIED, name, msgs);
    for (size_t i = 0; i < n; i++) {
        th_bad_str(at, NULL, name, msgs[i]);
    }
    if (n == 0 && !strchr(name, '/') && !th_resource_is_standard(name)) {
        th_bad_str(at, NULL, name, "must be a standard resource type or fully qualified");
        n = 1;
    }
    return n == 0;
}

static void check_container_name(const struct th_view *at, const char *name)
{
    (void)th_check_resource_name(at, name);
    if (!strchr(name, '/')) {
        if (!th_resource_is_container(name)) {
            th_bad_str(at, NULL, name, "must be a standard resource for containers");
        }
    } else if (!th_resource_is_native(name) && !th_resource_is_extended(name)) {
        th_bad_str(at, NULL, name, "doesn't follow extended resource name standard");
    }
}

static void check_pod_name(const struct th_view *at, const char *name)
{
    if (th_check_resource_name(at, name) && !th_word_in(name, "cpu|memory") &&
        !th_resource_is_hugepage(name)) {
        th_bad_unsupported(at, NULL, name, "cpu|memory");
    }
}

void th_check_resource_amount(const struct th_view *at, const char *name)
{
    const char *text = th_view_str(at, NULL);
    struct th_quantity q;
    if (!th_check_quantity(at, NULL) || th_quantity_parse(text, &q, NULL) < 0) {
        return;
    }
    if (th_resource_is_integer(name) && q.nano % 1000000000 != 0) {
        th_bad_str(at, NULL, text, "must be an integer");
    }
}

/* hugepages-2Mi: whole pages only. */
static void check_pages(const struct th_view *at, const char *name)
{
    struct th_quantity page, q;
    const char *text = th_view_str(at, NULL);
    if (!th_resource_is_hugepage(name) || th_quantity_parse(text, &q, NULL) < 0 ||
        th_quantity_parse(name + strlen("hugepages-"), &page, NULL) < 0 || page.nano <= 0) {
        return;
    }
    if (q.nano < 0 || q.nano % page.nano != 0) {
        th_autofree char *why =
            th_xasprintf("%s is not positive integer multiple of %s", text, name);
        th_bad_str(at, NULL, text, why);
    }
}

static bool overcommit(const char *name)
{
    return th_resource_is_native(name) && !th_resource_is_hugepage(name);
}

static void check_against_limit(const struct th_view *v, const char *name, const char *want)
{
    struct th_quantity a, b;
    const char *limit = th_json_str(th_json_get(th_view_get(v, "limits"), name));
    if (!limit) {
        if (!overcommit(name)) {
            th_bad_required(v, "limits", "Limit must be set for non overcommitable resources");
        }
        return;
    }
    if (th_quantity_parse(want, &a, NULL) < 0 || th_quantity_parse(limit, &b, NULL) < 0) {
        return;
    }
    int cmp = th_quantity_cmp(a, b);
    if (cmp == 0 || (cmp < 0 && overcommit(name))) {
        return;
    }
    th_autofree char *why = th_xasprintf("must be %s %s limit of %s",
                                         overcommit(name) ? "less than or equal to" : "equal to",
                                         name, limit);
    th_bad_str(v, "requests", want, why);
}

void th_check_requirements(const struct th_view *v, bool pod)
{
    static const char *const lists[] = {"limits", "requests"};
    bool pages = false, compute = false;
    for (size_t l = 0; l < TH_ARRAY_LEN(lists); l++) {
        struct th_json_iter it = TH_JSON_ITER(th_view_get(v, lists[l]));
        while (th_json_next(&it)) {
            struct th_view at = th_view_key(v, lists[l], it.name);
            if (pod) {
                check_pod_name(&at, it.name);
            } else {
                check_container_name(&at, it.name);
            }
            th_check_resource_amount(&at, it.name);
            check_pages(&at, it.name);
            if (l == 1) {
                check_against_limit(v, it.name, th_view_str(&at, NULL));
            }
            pages = pages || th_resource_is_hugepage(it.name);
            compute = compute || th_word_in(it.name, "cpu|memory");
        }
    }
    if (pages && !compute) {
        th_bad_forbidden(v, NULL, "HugePages require cpu or memory");
    }
}
