/* Small questions about pods and conditions; see podutil.h. Rules as k8s.io/kubernetes
 * pkg/api/v1/pod and pkg/controller/controller_utils. */
#include "controlplane/controllers/podutil.h"
#include "base/clock.h"
#include "base/rand.h"
#include "controlplane/client/client.h"
#include <inttypes.h>
#include <stdio.h>

static struct th_json *find_condition(const struct th_json *conditions, const char *type,
                                      size_t *ret_i)
{
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        struct th_json *c = th_json_at(conditions, i);
        if (th_streq(th_json_path_str(c, "type"), type)) {
            *ret_i = i;
            return c;
        }
    }
    return NULL;
}

struct th_json *th_cond_get(const struct th_json *obj, const char *type)
{
    size_t i;
    return find_condition(th_json_path(obj, "status.conditions"), type, &i);
}

bool th_cond_is_true(const struct th_json *obj, const char *type)
{
    return th_streq(th_json_path_str(th_cond_get(obj, type), "status"), "True");
}

struct th_json *th_time_now_json(void)
{
    char text[TH_TIME_LEN];
    return th_json_string(th_time_format(th_now_ms(), text));
}

bool th_cond_set(struct th_json *conditions, const char *type, const char *status,
                 const char *reason, const char *message, bool with_update)
{
    size_t i = 0;
    struct th_json *old = find_condition(conditions, type, &i);
    bool same_status = old && th_streq(th_json_path_str(old, "status"), status);
    if (same_status && th_streq(th_json_path_str(old, "reason"), reason)) {
        return false;
    }
    struct th_json *now = th_time_now_json();
    struct th_json *c = th_json_object();
    th_json_set_str(c, "type", type);
    th_json_set_str(c, "status", status);
    if (with_update) {
        th_json_set(c, "lastUpdateTime", th_json_ref(now));
    }
    th_json_set(c, "lastTransitionTime",
                same_status ? th_json_dup(th_json_get(old, "lastTransitionTime"))
                            : th_json_ref(now));
    th_json_set_str(c, "reason", reason);
    th_json_set_str(c, "message", message);
    th_json_unref(now);
    /* Upstream moves a condition that changed to the end of the list. */
    if (old) {
        th_json_del_at(conditions, i);
    }
    th_json_append(conditions, c);
    return true;
}

bool th_cond_put(struct th_json *conditions, const char *type, const char *status,
                 const char *reason, const char *message)
{
    size_t i = 0;
    struct th_json *c = find_condition(conditions, type, &i);
    bool same_status = c && th_streq(th_json_path_str(c, "status"), status);
    if (same_status && th_streq(th_json_path_str(c, "reason"), reason) &&
        th_streq(th_json_path_str(c, "message"), message)) {
        return false;
    }
    if (!c) {
        c = th_json_object();
        th_json_set_str(c, "type", type);
        th_json_append(conditions, c);
    }
    th_json_set_str(c, "status", status);
    if (!same_status) {
        th_json_set(c, "lastTransitionTime", th_time_now_json());
    }
    th_json_set_str(c, "reason", reason);
    th_json_set_str(c, "message", message);
    return true;
}

bool th_cond_remove(struct th_json *conditions, const char *type)
{
    size_t i = 0;
    if (!find_condition(conditions, type, &i)) {
        return false;
    }
    th_json_del_at(conditions, i);
    return true;
}

bool th_pod_is_active(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return !th_streq(phase, "Succeeded") && !th_streq(phase, "Failed") &&
           !th_json_path_str(pod, "metadata.deletionTimestamp");
}

bool th_pod_is_terminating(const struct th_json *pod)
{
    const char *phase = th_json_path_str(pod, "status.phase");
    return !th_streq(phase, "Succeeded") && !th_streq(phase, "Failed") &&
           th_json_path_str(pod, "metadata.deletionTimestamp");
}

void th_status_count(struct th_json *status, const char *name, int64_t value)
{
    if (value) {
        th_json_set_int(status, name, value);
    } else {
        (void)th_json_del(status, name);
    }
}

bool th_pod_is_ready(const struct th_json *pod)
{
    return th_cond_is_true(pod, "Ready");
}

int64_t th_obj_time_ms(const struct th_json *obj, const char *path)
{
    const char *text = th_json_path_str(obj, path);
    int64_t us = 0;
    return text && th_time_parse(text, &us, NULL) == 0 ? us / 1000 : 0;
}

bool th_pod_is_available(const struct th_json *pod, int64_t min_ready_s, int64_t *ret_wait_ms)
{
    if (ret_wait_ms) {
        *ret_wait_ms = 0;
    }
    if (!th_pod_is_ready(pod)) {
        return false;
    }
    if (min_ready_s == 0) {
        return true;
    }
    int64_t since = th_obj_time_ms(th_cond_get(pod, "Ready"), "lastTransitionTime");
    int64_t left = since + min_ready_s * 1000 - th_now_ms();
    if (since > 0 && left <= 0) {
        return true;
    }
    if (ret_wait_ms && since > 0) {
        *ret_wait_ms = left;
    }
    return false;
}

struct th_json *th_pod_from_template(const struct th_json *tmpl, const struct th_json *owner)
{
    struct th_json *pod = th_json_build("{'apiVersion':'v1','kind':'Pod','metadata':{}}");
    struct th_json *meta = th_json_get(pod, "metadata");
    const struct th_json *from = th_json_get(tmpl, "metadata");
    th_json_set(meta, "generateName",
                th_json_stringf("%s-", th_json_path_str(owner, "metadata.name")));
    const char *ns = th_json_path_str(owner, "metadata.namespace");
    if (ns) {
        th_json_set_str(meta, "namespace", ns);
    }
    static const char *const copied[] = {"labels", "annotations", "finalizers"};
    for (size_t i = 0; i < TH_ARRAY_LEN(copied); i++) {
        const struct th_json *v = th_json_get(from, copied[i]);
        if (th_json_len(v)) {
            th_json_set(meta, copied[i], th_json_dup(v));
        }
    }
    struct th_json *refs = th_json_array();
    th_json_append(refs, th_owner_ref_build(owner, true, true));
    th_json_set(meta, "ownerReferences", refs);
    th_json_set(pod, "spec", th_json_dup(th_json_get(tmpl, "spec")));
    return pod;
}

void th_template_hash(const struct th_json *tmpl, int64_t collisions, char out[16])
{
    static const char alphabet[] = "bcdfghjklmnpqrstvwxz2456789";
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_json_dump_sorted(tmpl, &b);
    if (collisions) {
        th_buf_printf(&b, "#%" PRId64, collisions);
    }
    char digits[16];
    int n = snprintf(digits, sizeof(digits), "%" PRIu32, th_fnv32a(b.p, b.n, TH_FNV32A_INIT));
    for (int i = 0; i < n; i++) {
        out[i] = alphabet[(unsigned char)digits[i] % (sizeof(alphabet) - 1)];
    }
    out[n] = 0;
}
