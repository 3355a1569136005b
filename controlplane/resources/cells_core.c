/* Cells of the core group that take more than a path: endpoints, volumes and claims, quotas. */
#include "base/buf.h"
#include "controlplane/resources/rows.h"
#include "controlplane/schema/quantity.h"

#include <inttypes.h>

#define SHOWN 3

/* "a,b,c + 4 more..." of n things; empty when there is none. */
static void append_more(struct th_json *cells, struct th_buf *text, size_t n, const char *none)
{
    if (n > SHOWN) {
        th_buf_printf(text, " + %zu more...", n - SHOWN);
    }
    th_json_append_str(cells, text->n ? th_buf_cstr(text) : none);
}

static const char *str_or_empty(const struct th_json *v)
{
    const char *s = th_json_str(v);
    return s ? s : "";
}

static void show_address(struct th_buf *b, size_t i, const char *ip, int64_t port)
{
    th_buf_printf(b, "%s", i ? "," : "");
    if (port == 0) {
        th_buf_puts(b, ip);
    } else {
        th_buf_printf(b, strchr(ip, ':') ? "[%s]:%" PRId64 : "%s:%" PRId64, ip, port);
    }
}

void th_row_endpoints(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    th_autobuf struct th_buf text = TH_BUF_INIT;
    const struct th_json *subsets = th_json_get(obj, "subsets");
    size_t n = 0;
    for (size_t s = 0; s < th_json_len(subsets); s++) {
        const struct th_json *addresses = th_json_get(th_json_at(subsets, s), "addresses");
        const struct th_json *ports = th_json_get(th_json_at(subsets, s), "ports");
        size_t n_ports = th_json_len(ports) ? th_json_len(ports) : 1;
        for (size_t p = 0; p < n_ports; p++) {
            for (size_t a = 0; a < th_json_len(addresses); a++, n++) {
                if (n < SHOWN) {
                    show_address(&text, n,
                                 str_or_empty(th_json_get(th_json_at(addresses, a), "ip")),
                                 th_json_path_int(th_json_at(ports, p), "port", 0));
                }
            }
        }
    }
    if (th_json_len(subsets) == 0) {
        th_json_append_str(cells, "<none>");
        return;
    }
    append_more(cells, &text, n, "");
}

void th_row_slice(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    th_autobuf struct th_buf ports = TH_BUF_INIT, text = TH_BUF_INIT;
    const struct th_json *list = th_json_get(obj, "ports");
    for (size_t i = 0; i < th_json_len(list) && i < SHOWN; i++) {
        const struct th_json *p = th_json_at(list, i);
        th_buf_puts(&ports, i ? "," : "");
        if (th_json_get(p, "port")) {
            th_buf_printf(&ports, "%" PRId64, th_json_path_int(p, "port", 0));
        } else {
            th_buf_puts(&ports, th_json_get(p, "name") ? th_json_path_str(p, "name") : "*");
        }
    }
    append_more(cells, &ports, th_json_len(list), "<unset>");
    size_t n = 0;
    list = th_json_get(obj, "endpoints");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *addresses = th_json_get(th_json_at(list, i), "addresses");
        for (size_t a = 0; a < th_json_len(addresses); a++, n++) {
            if (n < SHOWN) {
                show_address(&text, n, str_or_empty(th_json_at(addresses, a)), 0);
            }
        }
    }
    append_more(cells, &text, n, "<unset>");
}

/* ---- Volumes and claims ---- */

static const char *phase(const struct th_json *obj)
{
    const char *s = th_json_path_str(obj, "status.phase");
    return th_json_path_str(obj, "metadata.deletionTimestamp") ? "Terminating" : s ? s : "";
}

/* The annotation is older than the field and goes first. */
static const char *storage_class(const struct th_json *obj)
{
    const char *s = th_json_str(th_json_get(th_json_path(obj, "metadata.annotations"),
                                            "volume.beta.kubernetes.io/storage-class"));
    if (!s) {
        s = th_json_path_str(obj, "spec.storageClassName");
    }
    return s ? s : "";
}

void th_row_pv(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    th_autofree char *modes = th_access_modes(th_json_path(obj, "spec.accessModes"));
    const struct th_json *claim = th_json_path(obj, "spec.claimRef");
    th_cell_str(obj, "spec.capacity.storage", "0", cells);
    th_json_append_str(cells, modes);
    th_cell_str(obj, "spec.persistentVolumeReclaimPolicy", "", cells);
    th_json_append_str(cells, phase(obj));
    th_json_append(cells, claim ? th_json_stringf("%s/%s", str_or_empty(th_json_get(claim, "namespace")),
                                                  str_or_empty(th_json_get(claim, "name")))
                                : th_json_string(""));
    th_json_append_str(cells, storage_class(obj));
    th_cell_str(obj, "spec.volumeAttributesClassName", "<unset>", cells);
    th_cell_str(obj, "status.reason", "", cells);
}

void th_row_pvc(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    const char *volume = th_json_path_str(obj, "spec.volumeName");
    th_autofree char *modes = th_access_modes(th_json_path(obj, "status.accessModes"));
    bool bound = volume && *volume;
    th_json_append_str(cells, phase(obj));
    th_json_append_str(cells, bound ? volume : "");
    if (bound) {
        th_cell_str(obj, "status.capacity.storage", "0", cells);
    } else {
        th_json_append_str(cells, "");
    }
    th_json_append_str(cells, bound ? modes : "");
    th_json_append_str(cells, storage_class(obj));
    th_cell_str(obj, "spec.volumeAttributesClassName", "<unset>", cells);
}

/* ---- Quotas ---- */

void th_row_quota(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    th_autobuf struct th_buf requests = TH_BUF_INIT, limits = TH_BUF_INIT;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    const struct th_json *hard = th_json_path(obj, "status.hard");
    const struct th_json *used = th_json_path(obj, "status.used");
    struct th_json_iter it = TH_JSON_ITER(hard);
    while (th_json_next(&it)) {
        th_strv_add(&names, it.name);
    }
    th_strv_sort(&names);
    for (size_t i = 0; i < names.n; i++) {
        struct th_buf *b = th_startswith(names.v[i], "limits.") ? &limits : &requests;
        const char *u = th_json_str(th_json_get(used, names.v[i]));
        th_buf_printf(b, "%s%s: %s/%s", b->n ? ", " : "", names.v[i], u ? u : "0",
                      str_or_empty(th_json_get(hard, names.v[i])));
    }
    th_json_append_str(cells, th_buf_cstr(&requests));
    th_json_append_str(cells, th_buf_cstr(&limits));
}

void th_phase_pending(const struct th_req_ctx *c, struct th_json *obj)
{
    (void)c;
    th_json_set(obj, "status", th_json_build("{'phase':'Pending'}"));
}
