/* Endpoints and EndpointSlices: where a Service's traffic goes. */
#include "controlplane/resources/cells.h"
#include "base/buf.h"
#include <inttypes.h>

#define SHOWN 3

static const char *const short_names[] = {"ep", NULL};
static const struct th_column columns[] = {
    TH_COL_NAME,
    {"Endpoints", "string", "", "Addresses that are ready", 0},
    TH_COL_AGE,
    {0},
};

static void more(struct th_buf *b, size_t n)
{
    if (n > SHOWN) {
        th_buf_printf(b, " + %zu more...", n - SHOWN);
    }
    if (n == 0) {
        th_buf_puts(b, "<none>");
    }
}

static void row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    const struct th_json *subsets = th_json_get(obj, "subsets");
    size_t n = 0;
    for (size_t s = 0; s < th_json_len(subsets); s++) {
        const struct th_json *addresses = th_json_get(th_json_at(subsets, s), "addresses");
        const struct th_json *ports = th_json_get(th_json_at(subsets, s), "ports");
        size_t n_ports = th_json_len(ports) ? th_json_len(ports) : 1;
        for (size_t p = 0; p < n_ports; p++) {
            for (size_t a = 0; a < th_json_len(addresses); a++) {
                if (n++ < SHOWN) {
                    th_buf_printf(&text, "%s%s", n > 1 ? "," : "",
                                  th_json_path_str(th_json_at(addresses, a), "ip"));
                    if (th_json_len(ports)) {
                        th_buf_printf(&text, ":%" PRId64,
                                      th_json_path_int(th_json_at(ports, p), "port", 0));
                    }
                }
            }
        }
    }
    more(&text, n);
    th_cell_name(obj, cells);
    th_json_append_str(cells, th_buf_cstr(&text));
    th_cell_age(c, obj, cells);
}

const struct th_resource th_res_core_endpoints = {
    .group = "",
    .version = "v1",
    .kind = "Endpoints",
    .plural = "endpoints",
    .singular = "endpoints",
    .short_names = short_names,
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "fWeeMqaN/OA=",
    .columns = columns,
    .row = row,
};

static const struct th_column slice_columns[] = {
    TH_COL_NAME,
    {"AddressType", "string", "", "IPv4, IPv6 or FQDN", 0},
    {"Ports", "string", "", "Ports of the endpoints", 0},
    {"Endpoints", "string", "", "Addresses", 0},
    TH_COL_AGE,
    {0},
};

static void slice_row(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    struct th_buf ports TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    const struct th_json *list = th_json_get(obj, "ports");
    for (size_t i = 0; i < th_json_len(list) && i < SHOWN; i++) {
        int64_t port = th_json_path_int(th_json_at(list, i), "port", 0);
        th_buf_printf(&ports, "%s", i ? "," : "");
        if (port) {
            th_buf_printf(&ports, "%" PRId64, port);
        } else {
            th_buf_putc(&ports, '*');
        }
    }
    if (th_json_len(list)) {
        more(&ports, th_json_len(list));
    } else {
        th_buf_puts(&ports, "<unset>");
    }
    size_t n = 0;
    list = th_json_get(obj, "endpoints");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *addresses = th_json_get(th_json_at(list, i), "addresses");
        for (size_t a = 0; a < th_json_len(addresses); a++) {
            if (n++ < SHOWN) {
                th_buf_printf(&text, "%s%s", n > 1 ? "," : "",
                              th_json_str(th_json_at(addresses, a)));
            }
        }
    }
    if (n) {
        more(&text, n);
    } else {
        th_buf_puts(&text, "<unset>");
    }
    th_cell_name(obj, cells);
    th_cell_str(obj, "addressType", "", cells);
    th_json_append_str(cells, th_buf_cstr(&ports));
    th_json_append_str(cells, th_buf_cstr(&text));
    th_cell_age(c, obj, cells);
}

const struct th_resource th_res_discovery_endpointslices = {
    .group = "discovery.k8s.io",
    .version = "v1",
    .kind = "EndpointSlice",
    .plural = "endpointslices",
    .singular = "endpointslice",
    .namespaced = true,
    .verbs = TH_VERBS_ALL,
    .storage_hash = "qgS0xkrxYAI=",
    .columns = slice_columns,
    .row = slice_row,
    .s = {.has_generation = true},
};
