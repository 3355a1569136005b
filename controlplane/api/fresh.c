/* Objects that a new cluster has, many at a time: made the way the pipeline would make them (uid,
 * creation time, managed fields) and put into the store in one commit, since a start has no time for a
 * hundred of them. */
#include "controlplane/api/priv.h"

#include "base/clock.h"
#include "base/rand.h"

#define MANAGER "kube-apiserver"

void th_fresh_done(struct th_fresh *f)
{
    free(f->v);
    th_strv_done(&f->keys);
    th_strv_done(&f->texts);
}

int th_fresh_add(struct th_fresh *f, const char *key, const struct th_json *wanted,
                 const struct th_kind *k, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = th_json_dup(wanted);
    char text[TH_TIME_LEN];
    char uid[TH_UUID_LEN];
    int64_t now_ms = th_now_ms();
    th_json_path_set_str(o, "metadata.uid", th_rand_uuid(uid));
    th_json_path_set_str(o, "metadata.creationTimestamp", th_time_format(now_ms, text));
    struct th_apply_opts a = {.type = k->type,
                              .api_version = th_json_path_str(wanted, "apiVersion"),
                              .manager = MANAGER,
                              .subresource = "",
                              .now_ms = now_ms};
    TH_TRY(th_managed_fields_update(&a, NULL, o, err));
    th_schema_canonicalize(k->type, o);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_json_dump(o, &b);
    th_strv_add(&f->keys, key);
    size_t n = b.n;
    th_strv_take(&f->texts, th_buf_steal(&b, NULL));
    f->v = th_xgrow(f->v, &f->cap, f->n + 1, sizeof(*f->v));
    f->v[f->n++] = (struct th_store_write){.op = TH_STORE_CREATE,
                                           .key = f->keys.v[f->keys.n - 1],
                                           .bytes = f->texts.v[f->texts.n - 1],
                                           .n = n};
    return 0;
}

int th_fresh_commit(struct th_store *store, struct th_fresh *f, struct th_err *err)
{
    return f->n > 0 ? th_store_commit(store, f->v, f->n, NULL, err) : 0;
}
