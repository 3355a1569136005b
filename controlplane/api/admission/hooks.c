/*
 * What the admission configurations in the store say.
 *
 * As with custom resources (customs.c), whoever asks brings the set up to date: the queue of a watch of
 * the whole group is drained under a lock, and when something was in it a new set is made, of which
 * the objects that did not change are the old ones. So a request sees every configuration that was
 * written before it came, and where nothing is configured it pays a lock and a look at a queue.
 *
 * Expressions are compiled here, once. What does not compile is kept with its error: whether that
 * refuses a request is for its failurePolicy to say.
 */
#include "controlplane/api/admission/policies.h"

#include "base/log.h"
#include "controlplane/api/rounds.h"

#define PREFIX "admissionregistration.k8s.io/"

struct th_hookobj {
    unsigned refs; /* atomic */
    char *key;
    int64_t rv;
    struct th_webhook *webhooks;
    size_t n_webhooks;
    bool mutating;
    struct th_json *policy; /* as configured; compiled per set, for its bindings differ */
    struct th_policy *compiled;
    struct th_binding *binding;
};
struct th_hooks {
    struct th_store *store;
    pthread_mutex_t lock; /* guards everything below */
    struct th_watch *watch;
    struct th_hookset *now; /* NULL: nothing is configured */
    bool known;
};

/* ---- Match conditions ---- */

void th_conditions_init(struct th_conditions *c, const struct th_json *list, bool params)
{
    c->n = th_json_len(list);
    c->v = th_xcalloc(c->n + 1, sizeof(*c->v));
    const struct th_cel_env env = {.flags = TH_CEL_ADMIT_AUTHORIZER |
                                            (params ? TH_CEL_ADMIT_PARAMS : 0u)};
    for (size_t i = 0; i < c->n; i++) {
        const char *name = th_json_path_str(th_json_at(list, i), "name");
        const char *expr = th_json_path_str(th_json_at(list, i), "expression");
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        c->v[i].name = th_xstrdup(name ? name : "");
        c->v[i].expr = th_xstrdup(expr ? expr : "");
        if (th_cel_admission_compile(c->v[i].expr, &env, TH_CEL_RESULT_IS_BOOL, &c->v[i].prog, &err) < 0) {
            c->v[i].error = th_xasprintf("compilation error: %s", err.msg);
        }
    }
}

void th_conditions_done(struct th_conditions *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->v[i].name);
        free(c->v[i].expr);
        free(c->v[i].error);
        th_cel_prog_free(c->v[i].prog);
    }
    free(c->v);
}

/* ---- Webhooks ---- */

static void read_webhook(struct th_webhook *w, const char *config, const struct th_json *o,
                         size_t index)
{
    const char *name = th_json_path_str(o, "name");
    const char *effects = th_json_path_str(o, "sideEffects");
    const struct th_json *versions = th_json_get(o, "admissionReviewVersions");
    w->config = th_xstrdup(config);
    w->name = th_xstrdup(name ? name : "");
    w->id = th_xasprintf("%s/%s/%zu", config, w->name, index);
    w->json = th_json_dup(o);
    th_match_init(&w->match, o);
    w->match.empty_matches = false;
    th_conditions_init(&w->conditions, th_json_get(o, "matchConditions"), false);
    w->fail_open = th_streq(th_json_path_str(o, "failurePolicy"), "Ignore");
    w->again = th_streq(th_json_path_str(o, "reinvocationPolicy"), "IfNeeded");
    w->dry_run_ok = th_streq(effects, "None") || th_streq(effects, "NoneOnDryRun");
    w->timeout_ms = th_json_path_int(o, "timeoutSeconds", 10) * 1000;
    for (size_t i = 0; i < th_json_len(versions); i++) {
        const char *v = th_json_str(th_json_at(versions, i));
        if (th_streq(v, "v1")) {
            w->v1_first = !w->v1beta1;
            break;
        }
        w->v1beta1 = w->v1beta1 || th_streq(v, "v1beta1");
    }
}

static void webhook_done(struct th_webhook *w)
{
    free(w->config);
    free(w->name);
    free(w->id);
    th_json_unref(w->json);
    th_match_done(&w->match);
    th_conditions_done(&w->conditions);
}

/* ---- Objects ---- */

static void obj_unref(struct th_hookobj *h)
{
    if (__atomic_sub_fetch(&h->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    for (size_t i = 0; i < h->n_webhooks; i++) {
        webhook_done(&h->webhooks[i]);
    }
    free(h->webhooks);
    th_json_unref(h->policy);
    th_policy_free(h->compiled);
    th_binding_free(h->binding);
    free(h->key);
    free(h);
}

static struct th_hookobj *obj_new(const struct th_obj *o)
{
    TH_AUTO(th_json) struct th_json *tree = NULL;
    if (th_json_parse(o->bytes, o->n, NULL, &tree, NULL) < 0) {
        th_warn("api", "configuration cannot be read", "key=%s", th_log_q(o->key));
        return NULL;
    }
    struct th_hookobj *h = TH_NEW(struct th_hookobj);
    const char *kind = o->key + strlen(PREFIX);
    h->refs = 1;
    h->key = th_xstrdup(o->key);
    h->rv = o->rv;
    h->mutating = th_startswith(kind, "mutating");
    if (strstr(kind, "webhookconfigurations/")) {
        const struct th_json *list = th_json_get(tree, "webhooks");
        h->webhooks = th_xcalloc(th_json_len(list) + 1, sizeof(*h->webhooks));
        for (size_t i = 0; i < th_json_len(list); i++) {
            read_webhook(&h->webhooks[h->n_webhooks++], th_json_path_str(tree, "metadata.name"),
                         th_json_at(list, i), i);
        }
    } else if (strstr(kind, "policybindings/")) {
        h->binding = th_binding_new(tree);
    } else {
        h->compiled = th_policy_new(tree, h->mutating);
        h->policy = th_json_ref(tree);
    }
    return h;
}

/* ---- Sets ---- */

void th_hookset_unref(struct th_hookset *s)
{
    if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    struct th_policy **lists[] = {s->validating_policies, s->mutating_policies};
    const size_t n[] = {s->n_validating_policies, s->n_mutating_policies};
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < n[k]; i++) {
            free(lists[k][i]->bindings);
            free(lists[k][i]); /* a copy of the object's, for the bindings */
        }
        free(lists[k]);
    }
    for (size_t i = 0; i < s->n_objs; i++) {
        obj_unref(s->objs[i]);
    }
    free(s->objs);
    free(s->mutating);
    free(s->validating);
    free(s);
}

static bool rules_connect(const struct th_match *m)
{
    for (size_t i = 0; i < m->n_rules; i++) {
        if (th_strv_has(&m->rules[i].ops, "CONNECT") || th_strv_has(&m->rules[i].ops, "*")) {
            return true;
        }
    }
    return m->n_rules == 0 && m->empty_matches;
}

static void add_webhooks(struct th_hookset *s, const struct th_hookobj *h)
{
    struct th_webhook ***list = h->mutating ? &s->mutating : &s->validating;
    size_t *n = h->mutating ? &s->n_mutating : &s->n_validating;
    *list = th_xrealloc(*list, (*n + h->n_webhooks + 1) * sizeof(struct th_webhook *));
    for (size_t i = 0; i < h->n_webhooks; i++) {
        (*list)[(*n)++] = &h->webhooks[i];
        s->connects = s->connects || rules_connect(&h->webhooks[i].match);
    }
}

/* A policy without bindings does nothing. */
static void add_policy(struct th_hookset *s, const struct th_hookobj *h)
{
    struct th_policy copy = *h->compiled;
    copy.bindings = th_xcalloc(s->n_objs + 1, sizeof(struct th_binding *));
    copy.n_bindings = 0;
    for (size_t i = 0; i < s->n_objs; i++) {
        const struct th_hookobj *b = s->objs[i];
        if (b->binding && b->mutating == h->mutating &&
            th_streq(b->binding->policy, h->compiled->name)) {
            copy.bindings[copy.n_bindings++] = b->binding;
        }
    }
    if (copy.n_bindings == 0) {
        free(copy.bindings);
        return;
    }
    struct th_policy ***list = h->mutating ? &s->mutating_policies : &s->validating_policies;
    size_t *n = h->mutating ? &s->n_mutating_policies : &s->n_validating_policies;
    *list = th_xrealloc(*list, (*n + 1) * sizeof(struct th_policy *));
    struct th_policy *p = TH_NEW(struct th_policy);
    *p = copy;
    (*list)[(*n)++] = p;
    s->connects = s->connects || rules_connect(&p->match);
}

static struct th_hookobj *same_as_before(const struct th_hookset *old, const struct th_obj *o)
{
    for (size_t i = 0; old && i < old->n_objs; i++) {
        if (old->objs[i]->rv == o->rv && th_streq(old->objs[i]->key, o->key)) {
            __atomic_add_fetch(&old->objs[i]->refs, 1, __ATOMIC_RELAXED);
            return old->objs[i];
        }
    }
    return NULL;
}

static void rebuild(struct th_hooks *h)
{
    TH_CLEANUP(th_store_list_done) struct th_store_list l = {.n = 0};
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_store_range(h->store, PREFIX, NULL, 0, 0, &l, &err) < 0) {
        th_warn("api", "admission configurations cannot be read", "error=%s", th_log_q(err.msg));
        return;
    }
    struct th_hookset *s = TH_NEW(struct th_hookset);
    s->refs = 1;
    s->objs = th_xcalloc(l.n + 1, sizeof(struct th_hookobj *));
    for (size_t i = 0; i < l.n; i++) {
        struct th_hookobj *o = same_as_before(h->now, l.objs[i]);
        o = o ? o : obj_new(l.objs[i]);
        if (o) {
            s->objs[s->n_objs++] = o;
        }
    }
    for (size_t i = 0; i < s->n_objs; i++) {
        if (s->objs[i]->compiled) {
            add_policy(s, s->objs[i]);
        } else if (s->objs[i]->n_webhooks) {
            add_webhooks(s, s->objs[i]);
        }
    }
    th_hookset_unref(h->now);
    h->now = s;
    h->known = true;
}

struct th_hookset *th_hooks_get(struct th_hooks *h)
{
    (void)pthread_mutex_lock(&h->lock);
    if (th_bell_rang(h->store, PREFIX, NULL, NULL, &h->watch) || !h->known) {
        rebuild(h);
    }
    struct th_hookset *s = h->now && h->now->n_objs ? h->now : NULL;
    if (s) {
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    }
    (void)pthread_mutex_unlock(&h->lock);
    return s;
}

struct th_hooks *th_hooks_new(struct th_store *store)
{
    struct th_hooks *h = TH_NEW(struct th_hooks);
    h->store = store;
    (void)pthread_mutex_init(&h->lock, NULL);
    return h;
}

void th_hooks_free(struct th_hooks *h)
{
    if (!h) {
        return;
    }
    if (h->watch) {
        th_watch_close(h->watch);
    }
    th_hookset_unref(h->now);
    (void)pthread_mutex_destroy(&h->lock);
    free(h);
}
