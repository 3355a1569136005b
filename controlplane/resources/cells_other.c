/* Cells of the smaller groups that take more than a path. */
#include "base/buf.h"
#include "base/clock.h"
#include "controlplane/resources/rows.h"
#include "controlplane/schema/selector.h"

static const char *str(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return s ? s : "";
}

static bool annotated(const struct th_json *obj, const char *name)
{
    const struct th_json *all = th_json_path(obj, "metadata.annotations");
    return th_streq(th_json_str(th_json_get(all, name)), "true");
}

/* ---- admissionregistration ---- */

void th_row_param_kind(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    const struct th_json *k = th_json_path(obj, "spec.paramKind");
    th_json_append(cells, k ? th_json_stringf("%s/%s", str(k, "apiVersion"), str(k, "kind"))
                            : th_json_string("<unset>"));
}

void th_row_param_ref(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    const struct th_json *ref = th_json_path(obj, "spec.paramRef");
    const char *name = str(ref, "name"), *ns = str(ref, "namespace");
    if (*name) {
        th_json_append(cells, th_json_stringf("%s/%s", *ns ? ns : "*", name));
    } else if (th_json_get(ref, "selector")) {
        th_cell_selector(th_json_get(ref, "selector"), cells);
    } else {
        th_json_append_str(cells, "<unset>");
    }
}

/* ---- certificates ---- */

void th_row_csr(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    bool approved = false, denied = false, failed = false;
    const struct th_json *list = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *type = str(th_json_at(list, i), "type");
        approved = approved || th_streq(type, "Approved");
        denied = denied || th_streq(type, "Denied");
        failed = failed || th_streq(type, "Failed");
    }
    char text[TH_TIME_LEN];
    const struct th_json *seconds = th_json_path(obj, "spec.expirationSeconds");
    th_cell_str(obj, "spec.signerName", "<none>", cells);
    th_json_append_str(cells, str(obj, "spec.username"));
    th_json_append_str(cells, seconds ? th_duration_human(th_json_as_int(seconds, 0) * 1000, text)
                                      : "<none>");
    th_json_append(cells, th_json_stringf("%s%s%s",
                                          denied     ? "Denied"
                                          : approved ? "Approved"
                                                     : "Pending",
                                          failed ? ",Failed" : "",
                                          *str(obj, "status.certificate") ? ",Issued" : ""));
}

/* ---- flowcontrol ---- */

void th_row_flowschema_missing(const struct th_req_ctx *c, const struct th_json *obj,
                               struct th_json *cells)
{
    (void)c;
    const char *missing = "?";
    const struct th_json *list = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(str(th_json_at(list, i), "type"), "Dangling")) {
            missing = str(th_json_at(list, i), "status");
        }
    }
    th_json_append_str(cells, missing);
}

/* ---- networking ---- */

void th_row_ingressclass(const struct th_req_ctx *c, const struct th_json *obj,
                         struct th_json *cells)
{
    (void)c;
    bool dflt = annotated(obj, "ingressclass.kubernetes.io/is-default-class");
    const struct th_json *p = th_json_path(obj, "spec.parameters");
    th_json_append(cells, th_json_stringf("%s%s", str(obj, "metadata.name"),
                                          dflt ? " (default)" : ""));
    th_json_append_str(cells, str(obj, "spec.controller"));
    if (!p) {
        th_json_append_str(cells, "<none>");
        return;
    }
    th_json_append(cells, th_json_stringf("%s%s%s/%s", str(p, "kind"),
                                          th_json_get(p, "apiGroup") ? "." : "", str(p, "apiGroup"),
                                          str(p, "name")));
}

static char *ingress_hosts(const struct th_json *rules)
{
    th_autostrv struct th_strv hosts = TH_STRV_INIT;
    bool more = false;
    for (size_t i = 0; i < th_json_len(rules); i++) {
        const char *host = str(th_json_at(rules, i), "host");
        more = more || hosts.n == 3;
        if (!more && *host) {
            th_strv_add(&hosts, host);
        }
    }
    if (hosts.n == 0) {
        return th_xstrdup("*");
    }
    th_autofree char *text = th_strv_join(&hosts, ",");
    return more ? th_xasprintf("%s + %zu more...", text, th_json_len(rules) - 3)
                : th_steal(&text);
}

void th_row_ingress(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    th_autostrv struct th_strv addresses = TH_STRV_INIT;
    const struct th_json *list = th_json_path(obj, "status.loadBalancer.ingress");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *ip = str(th_json_at(list, i), "ip"), *host = str(th_json_at(list, i), "hostname");
        const char *a = *ip ? ip : host;
        if (*a && !th_strv_has(&addresses, a)) {
            th_strv_add(&addresses, a);
        }
    }
    th_strv_sort(&addresses);
    th_autofree char *where = th_strv_join(&addresses, ",");
    th_autofree char *hosts = ingress_hosts(th_json_path(obj, "spec.rules"));
    const char *class = th_json_path_str(obj, "spec.ingressClassName");
    th_json_append_str(cells, class ? class : "<none>");
    th_json_append_str(cells, hosts);
    th_json_append_str(cells, where);
    th_json_append_str(cells, th_json_len(th_json_path(obj, "spec.tls")) ? "80, 443" : "80");
    th_cell_age(c, obj, cells);
}

void th_row_parent_ref(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    const struct th_json *r = th_json_path(obj, "spec.parentRef");
    if (!r) {
        th_json_append_str(cells, "<none>");
        return;
    }
    const char *group = str(r, "group"), *ns = str(r, "namespace");
    th_json_append(cells, th_json_stringf("%s%s%s%s%s/%s", str(r, "resource"), *group ? "." : "",
                                          group, *ns ? "/" : "", ns, str(r, "name")));
}

/* ---- rbac ---- */

void th_row_role_ref(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    th_json_append(cells, th_json_stringf("%s/%s", str(obj, "roleRef.kind"),
                                          str(obj, "roleRef.name")));
}

void th_row_subjects(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    static const char *const kinds[] = {"User", "Group", "ServiceAccount"};
    const struct th_json *subjects = th_json_get(obj, "subjects");
    for (size_t k = 0; k < TH_ARRAY_LEN(kinds); k++) {
        th_autostrv struct th_strv names = TH_STRV_INIT;
        for (size_t i = 0; i < th_json_len(subjects); i++) {
            const struct th_json *s = th_json_at(subjects, i);
            const char *ns = str(s, "namespace");
            if (!th_streq(str(s, "kind"), kinds[k])) {
                continue;
            }
            if (k == 2 && *ns) {
                th_strv_addf(&names, "%s/%s", ns, str(s, "name"));
            } else {
                th_strv_add(&names, str(s, "name"));
            }
        }
        th_autofree char *text = th_strv_join(&names, ", ");
        th_json_append_str(cells, text);
    }
}

/* ---- resource, storage ---- */

void th_row_claim_state(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    bool deleted = th_json_path_str(obj, "metadata.deletionTimestamp") != NULL;
    bool allocated = th_json_path(obj, "status.allocation") != NULL;
    bool reserved = allocated && th_json_len(th_json_path(obj, "status.reservedFor")) > 0;
    th_json_append(cells, th_json_stringf("%s%s%s%s", deleted ? "deleted" : "",
                                          deleted && allocated ? "," : "",
                                          allocated  ? "allocated"
                                          : !deleted ? "pending"
                                                     : "",
                                          reserved ? ",reserved" : ""));
}

void th_row_csidriver(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    const struct th_json *tokens = th_json_path(obj, "spec.tokenRequests");
    th_autostrv struct th_strv audiences = TH_STRV_INIT;
    for (size_t i = 0; i < th_json_len(tokens); i++) {
        th_strv_add(&audiences, str(th_json_at(tokens, i), "audience"));
    }
    th_autofree char *who = tokens ? th_strv_join(&audiences, ",") : th_xstrdup("<unset>");
    th_autofree char *modes = th_join_strings(th_json_path(obj, "spec.volumeLifecycleModes"), ",");
    th_json_append_str(cells, who);
    th_json_append(cells, th_json_bool(th_json_path_bool(obj, "spec.requiresRepublish", false)));
    th_json_append_str(cells, *modes ? modes : "<none>");
}

void th_row_storageclass(const struct th_req_ctx *c, const struct th_json *obj,
                         struct th_json *cells)
{
    (void)c;
    bool dflt = annotated(obj, "storageclass.kubernetes.io/is-default-class") ||
                annotated(obj, "storageclass.beta.kubernetes.io/is-default-class");
    th_json_append(cells, th_json_stringf("%s%s", str(obj, "metadata.name"),
                                          dflt ? " (default)" : ""));
    th_json_append_str(cells, str(obj, "provisioner"));
    th_cell_str(obj, "reclaimPolicy", "Delete", cells);
    th_cell_str(obj, "volumeBindingMode", "Immediate", cells);
    th_json_append(cells, th_json_bool(th_json_path_bool(obj, "allowVolumeExpansion", false)));
}
