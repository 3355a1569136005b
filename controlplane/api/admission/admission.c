/* The chain of admission plugins.
 *
 * Webhooks and policies are plugins, too, which see a request as a review (review.h). That is begun
 * only when one of them is reached and something is configured.
 *
 * Mutating calls come before defaults of a kind's own prepare hooks, validating ones after
 * validation, both in plugins.def's order, as upstream. --disable-admission leaves plugins out by
 * upstream's names.
 */
#include "controlplane/api/admission/hooks.h"

#define TH_ADMISSION(id) extern const struct th_admission_plugin th_admission_##id;
#include "controlplane/api/admission/plugins.def"
#undef TH_ADMISSION

static const struct th_admission_plugin *const plugins[] = {
#define TH_ADMISSION(id) &th_admission_##id,
#include "controlplane/api/admission/plugins.def"
#undef TH_ADMISSION
};

static bool enabled(const struct th_call *c, const struct th_admission_plugin *p)
{
    return !p->name || !th_strv_has(&c->api->disabled_admission, p->name);
}

bool th_admission_creates(const struct th_call *c, const char *group, const char *plural,
                          const struct th_json *old)
{
    return !old && th_admission_writes(c, group, plural);
}

bool th_admission_writes(const struct th_call *c, const char *group, const char *plural)
{
    return !c->sub && th_streq(c->res->group, group) && th_streq(c->res->plural, plural);
}

/* ---- What is configured in the cluster ---- */

static int mutators(struct th_admit *a, struct th_err *err)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (plugins[i]->review_mutate && enabled(a->c, plugins[i])) {
            TH_TRY(plugins[i]->review_mutate(a, err));
        }
    }
    return 0;
}

static int validators(struct th_admit *a, struct th_err *err)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (plugins[i]->review_validate && enabled(a->c, plugins[i])) {
            TH_TRY(plugins[i]->review_validate(a, err));
        }
    }
    return 0;
}

/* Mutators, those that must be called again too, then validators; for what no other plugin sees. */
static int review_all(struct th_admit *a, struct th_err *err)
{
    TH_TRY(mutators(a, err));
    if (a->reinvoke) {
        a->reinvoking = true;
        TH_TRY(mutators(a, err));
    }
    return validators(a, err);
}

static int review(struct th_call *c, const char *op, struct th_json *obj, const struct th_json *old,
                  struct th_err *err)
{
    TH_CLEANUP(th_admit_end) struct th_admit a = {.set = NULL};
    return th_admit_begin(&a, c, op, obj, old) ? review_all(&a, err) : 0;
}

int th_admit_review(struct th_call *c, struct th_json *obj, struct th_err *err)
{
    return review(c, "CREATE", obj, NULL, err);
}

static void copy_flag(struct th_json *o, const struct th_call *c, const char *name)
{
    if (th_query_bool(&c->query, name)) {
        th_json_set_bool(o, name, true);
    }
}

static void copy_all(struct th_json *o, const struct th_call *c, const char *query, const char *name,
                     bool numbers)
{
    struct th_json *list = th_json_array();
    for (size_t i = 0; i < c->query.keys.n; i++) {
        const char *v = c->query.values.v[i];
        if (th_streq(c->query.keys.v[i], query)) {
            th_json_append(list, numbers ? th_json_int(strtoll(v, NULL, 10)) : th_json_string(v));
        }
    }
    if (th_json_len(list)) {
        th_json_set(o, name, list);
    } else {
        th_json_unref(list);
    }
}

int th_admit_connect(struct th_call *c, struct th_err *err)
{
    static const char *const flags[] = {"stdin", "stdout", "stderr", "tty"};
    TH_AUTO(th_json) struct th_json *o =
        th_json_build("{'kind':%s,'apiVersion':'v1'}", c->sub->kind);
    for (size_t i = 0; i < TH_ARRAY_LEN(flags); i++) {
        copy_flag(o, c, flags[i]);
    }
    const char *container = th_query_get(&c->query, "container");
    if (container && *container) {
        th_json_set_str(o, "container", container);
    }
    copy_all(o, c, "command", "command", false);
    copy_all(o, c, "ports", "ports", true);
    if (th_streq(c->sub->name, "proxy")) {
        th_json_set(o, "path", th_json_stringf("/%s", c->route.rest ? c->route.rest : ""));
    }
    return review(c, "CONNECT", o, NULL, err);
}

/* ---- The chain of a write ---- */

/* The name that will be made from generateName is not shown to mutators: it is not there yet. */
static int mutators_in_chain(const struct th_admission_plugin *p, struct th_admit *a,
                             struct th_json *obj, struct th_err *err)
{
    struct th_json *meta = th_json_get(obj, "metadata");
    bool hide = a->c->generated && th_streq(a->op, "CREATE") && !a->c->sub && meta;
    th_autofree char *name = hide ? th_xstrdup(th_json_path_str(meta, "name")) : NULL;
    if (hide) {
        (void)th_json_del(meta, "name");
        a->name = "";
    }
    int r = p->review_mutate(a, err);
    meta = th_json_get(obj, "metadata");
    if (hide && meta && !th_json_path_str(meta, "name")) {
        th_json_set_str(meta, "name", name);
    }
    return r;
}

int th_admit_mutate(struct th_call *c, struct th_json *obj, const struct th_json *old,
                    struct th_err *err)
{
    TH_CLEANUP(th_admit_end) struct th_admit a = {.set = NULL};
    bool looked = false;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
            if (plugins[i]->mutate && enabled(c, plugins[i])) {
                TH_TRY(plugins[i]->mutate(c, obj, old, err));
            }
            if (!plugins[i]->review_mutate || !enabled(c, plugins[i])) {
                continue;
            }
            if (!looked) {
                looked = true;
                (void)th_admit_begin(&a, c, old ? "UPDATE" : "CREATE", obj, old);
            }
            if (a.set) {
                TH_TRY(mutators_in_chain(plugins[i], &a, obj, err));
            }
        }
        if (!a.reinvoke) {
            break;
        }
        a.reinvoking = true;
    }
    return a.set && !c->sub ? th_meta_check_ns(c, obj, err) : 0;
}

int th_admit_validate(struct th_call *c, const struct th_json *obj, const struct th_json *old,
                      struct th_err *err)
{
    TH_CLEANUP(th_admit_end) struct th_admit a = {.set = NULL};
    bool looked = false;
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (plugins[i]->validate && enabled(c, plugins[i])) {
            TH_TRY(plugins[i]->validate(c, obj, old, err));
        }
        if (!plugins[i]->review_validate || !enabled(c, plugins[i])) {
            continue;
        }
        if (!looked) { /* validators change nothing */
            looked = true;
            (void)th_admit_begin(&a, c, old ? "UPDATE" : "CREATE",
                                 (struct th_json *)(uintptr_t)obj, old);
        }
        if (a.set) {
            TH_TRY(plugins[i]->review_validate(&a, err));
        }
    }
    return 0;
}

int th_admit_delete(struct th_call *c, const char *name, struct th_obj *o, struct th_err *err)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(plugins); i++) {
        if (plugins[i]->on_delete && enabled(c, plugins[i])) {
            TH_TRY(plugins[i]->on_delete(c, name, err));
        }
    }
    TH_AUTO(th_hookset) struct th_hookset *set =
        th_admit_exempt(c) ? NULL : th_hooks_get(c->api->hooks);
    if (!set) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *old = NULL;
    TH_TRY(th_object_load(c->res, o, &old, err));
    return review(c, "DELETE", NULL, old, err);
}
