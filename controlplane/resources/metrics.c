/* metrics.k8s.io: what nodes and pods use, for kubectl top and autoscalers. Made on being asked from what
 * the node agents measure (api/usage.c); the rows are served while the group's APIService is local, and a
 * metrics server that somebody installs takes their place. */
#include "controlplane/resources/rows.h"
#include "controlplane/schema/quantity.h"

static int usage(const struct th_req_ctx *c, bool pods, const char *ns, const char *name,
                 struct th_json **ret, struct th_err *err)
{
    return c->access->usage(c->access->self, pods, ns, name, ret, err);
}

int th_node_metrics(const struct th_req_ctx *c, const char *ns, const char *name,
                    struct th_json **ret, struct th_err *err)
{
    (void)ns;
    return usage(c, false, NULL, name, ret, err);
}

int th_pod_metrics(const struct th_req_ctx *c, const char *ns, const char *name,
                   struct th_json **ret, struct th_err *err)
{
    return usage(c, true, ns, name, ret, err);
}

/* The sum over containers, or the node's. */
static void cell(const struct th_json *obj, const char *resource, struct th_json *cells)
{
    struct th_quantity sum = {0, TH_Q_DECIMAL_SI};
    const struct th_json *l = th_json_get(obj, "containers");
    for (size_t i = 0; i < (l ? th_json_len(l) : 1); i++) {
        const struct th_json *u = th_json_get(l ? th_json_at(l, i) : obj, "usage");
        const char *text = th_json_str(th_json_get(u, resource));
        struct th_quantity q;
        if (text && th_quantity_parse(text, &q, NULL) >= 0) {
            sum = th_quantity_add(sum, q);
        }
    }
    char buf[TH_QUANTITY_LEN];
    th_json_append_str(cells, th_quantity_format(sum, buf));
}

void th_row_metrics(const struct th_req_ctx *c, const struct th_json *obj, struct th_json *cells)
{
    (void)c;
    const char *window = th_json_path_str(obj, "window");
    cell(obj, "cpu", cells);
    cell(obj, "memory", cells);
    th_json_append_str(cells, window ? window : "");
}
