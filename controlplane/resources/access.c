/* Identities: made once by authentication, shared by a connection's requests, turned into JSON where
 * somebody asks who is who. Extra values are flat "key=value" strings: there are few, they are
 * compared never and shown seldom. */
#include "controlplane/resources/access.h"

#define NODE_PREFIX "system:node:"

struct th_identity *th_identity_new(const char *user, const char *uid, const char *const *groups)
{
    struct th_identity *id = TH_NEW(struct th_identity);
    id->refs = 1;
    id->user = th_xstrdup(user);
    id->uid = th_xstrdup(uid);
    for (; groups && *groups; groups++) {
        th_strv_add(&id->groups, *groups);
    }
    return id;
}

struct th_identity *th_identity_ref(struct th_identity *id)
{
    __atomic_add_fetch(&id->refs, 1, __ATOMIC_RELAXED);
    return id;
}

void th_identity_unref(struct th_identity *id)
{
    if (!id || __atomic_sub_fetch(&id->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    free(id->user);
    free(id->uid);
    th_strv_done(&id->groups);
    th_strv_done(&id->extra);
    th_identity_unref(id->by);
    free(id);
}

bool th_identity_in(const struct th_identity *id, const char *group)
{
    return th_strv_has(&id->groups, group);
}

const char *th_identity_node(const struct th_identity *id)
{
    if (!th_startswith(id->user, NODE_PREFIX) || !th_identity_in(id, "system:nodes")) {
        return NULL;
    }
    return id->user + strlen(NODE_PREFIX);
}

struct th_json *th_identity_json(const struct th_identity *id)
{
    struct th_json *o = th_json_object();
    if (*id->user) {
        th_json_set_str(o, "username", id->user);
    }
    if (id->uid && *id->uid) {
        th_json_set_str(o, "uid", id->uid);
    }
    for (size_t i = 0; i < id->groups.n; i++) {
        th_json_append_str(th_json_path_array(o, "groups"), id->groups.v[i]);
    }
    struct th_json *extra = id->extra.n > 0 ? th_json_path_object(o, "extra") : NULL;
    for (size_t i = 0; i < id->extra.n; i++) {
        const char *eq = strchr(id->extra.v[i], '=');
        if (!eq) {
            continue;
        }
        th_autofree char *key = th_xstrndup(id->extra.v[i], (size_t)(eq - id->extra.v[i]));
        struct th_json *list = th_json_get(extra, key);
        if (!list) {
            list = th_json_array();
            th_json_set(extra, key, list);
        }
        th_json_append_str(list, eq + 1);
    }
    return o;
}

struct th_identity *th_identity_of_json(const struct th_json *o, const char *user)
{
    const char *name = th_json_str(th_json_get(o, user));
    struct th_identity *id =
        th_identity_new(name ? name : "", th_json_str(th_json_get(o, "uid")), NULL);
    const struct th_json *groups = th_json_get(o, "groups");
    for (size_t i = 0; i < th_json_len(groups); i++) {
        const char *g = th_json_str(th_json_at(groups, i));
        th_strv_add(&id->groups, g ? g : "");
    }
    struct th_json_iter it = TH_JSON_ITER(th_json_get(o, "extra"));
    while (th_json_next(&it)) {
        for (size_t i = 0; i < th_json_len(it.value); i++) {
            const char *v = th_json_str(th_json_at(it.value, i));
            th_strv_addf(&id->extra, "%s=%s", it.name, v ? v : "");
        }
    }
    return id;
}
