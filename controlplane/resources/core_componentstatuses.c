/* ComponentStatus: the old way to ask how the parts of the control plane are. Made on being asked. They
 * all live in this process, so a part that was started is well; upstream asks ports that the parts
 * listen on. */
#include "controlplane/resources/cluster.h"
#include "controlplane/resources/rows.h"

static struct th_json *part(const char *name, bool runs)
{
    struct th_json *cond =
        runs ? th_json_build("{'type':'Healthy','status':'True','message':'ok'}")
             : th_json_build("{'type':'Healthy','status':'False','message':'',"
                             "'error':'it does not run in this control plane'}");
    return th_json_build("{'kind':'ComponentStatus','apiVersion':'v1','metadata':{'name':%s},"
                         "'conditions':[%o]}",
                         name, cond);
}

int th_component_statuses(const struct th_req_ctx *c, const char *ns, const char *name,
                          struct th_json **ret, struct th_err *err)
{
    (void)ns;
    (void)err;
    const struct th_cluster *k = c->cluster;
    const struct {
        const char *name;
        bool runs;
    } parts[] = {{"controller-manager", k && k->runs_controllers},
                 {"etcd-0", true},
                 {"scheduler", k && k->runs_scheduler}};
    struct th_json *all = th_json_array();
    for (size_t i = 0; i < TH_ARRAY_LEN(parts); i++) {
        if (!name || th_streq(name, parts[i].name)) {
            th_json_append(all, part(parts[i].name, parts[i].runs));
        }
    }
    if (c->warnings) {
        th_strv_add(c->warnings, "v1 ComponentStatus is deprecated in v1.19+");
    }
    *ret = all;
    return 0;
}

void th_row_component_status(const struct th_req_ctx *c, const struct th_json *obj,
                             struct th_json *cells)
{
    (void)c;
    const char *status = "Unknown", *message = "", *error = "";
    const struct th_json *list = th_json_get(obj, "conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *cond = th_json_at(list, i);
        if (!th_streq(th_json_path_str(cond, "type"), "Healthy")) {
            continue;
        }
        const char *s = th_json_path_str(cond, "status");
        const char *m = th_json_path_str(cond, "message"), *e = th_json_path_str(cond, "error");
        status = th_streq(s, "True") ? "Healthy" : th_streq(s, "False") ? "Unhealthy" : "Unknown";
        message = m ? m : "";
        error = e ? e : "";
    }
    th_json_append_str(cells, status);
    th_json_append_str(cells, message);
    th_json_append_str(cells, error);
}
