/* FlowSchemas: the condition Dangling says whether the priority level that a schema names is there.
 * Whoever sets both up waits for it. Upstream's API server writes it itself, from the thread that
 * digests the configuration; here that is a controller, so that a server without controllers writes
 * nothing by itself. Every schema's key comes again when a level comes or goes: both are few. */
#include "controlplane/controllers/controller.h"
#include "controlplane/controllers/podutil.h"

#define GROUP "flowcontrol.apiserver.k8s.io"

static const struct th_gvr schemas = {GROUP, "v1", "flowschemas"};
static const struct th_gvr levels = {GROUP, "v1", "prioritylevelconfigurations"};

static bool enqueue(void *arg, struct th_json *obj)
{
    th_ctrl_enqueue_obj(arg, obj);
    return true;
}

static void on_level(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (!old || !now) {
        th_informer_each(th_ctrl_informer(c, schemas), NULL, enqueue, c);
    }
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    TH_AUTO(th_json) struct th_json *schema =
        th_informer_get(th_ctrl_informer(c, schemas), NULL, key);
    if (!schema) {
        return 0;
    }
    const char *name = th_json_path_str(schema, "spec.priorityLevelConfiguration.name");
    TH_AUTO(th_json) struct th_json *level =
        name ? th_informer_get(th_ctrl_informer(c, levels), NULL, name) : NULL;
    th_autofree char *message =
        th_xasprintf("This FlowSchema references the PriorityLevelConfiguration object named "
                     "\"%s\" %s",
                     name ? name : "", level ? "and it exists" : "but there is no such object");
    TH_AUTO(th_json) struct th_json *changed = th_json_dup(schema);
    if (!th_cond_put(th_json_path_array(changed, "status.conditions"), "Dangling",
                     level ? "False" : "True", level ? "Found" : "NotFound", message)) {
        return 0;
    }
    return th_client_update(th_ctrl_client(c), schemas, NULL, key, "status", changed, NULL, err);
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {GROUP, "v1", "flowschemas"}, .on_event = th_ctrl_on_self},
    {.gvr = {GROUP, "v1", "prioritylevelconfigurations"}, .on_event = on_level},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_flowschema = {
    .name = "flowschema-status-controller",
    .account = "",
    .watches = watches,
    .reconcile = reconcile,
};
