/* Informers: a copy of the server's objects, kept current by list and watch.
 *
 * Problem: controllers read thousands of objects each time they act; they must read memory, and
 * must hear of every change, also of those that happened while the connection was away.
 *
 * Design: one thread per informer. It lists (page by page, as text), compares with what it has,
 * reports additions, changes and deletions, and then watches from the list's revision. A watch
 * that ends is opened again from the last revision seen (bookmarks keep that one fresh on quiet
 * resources); a revision that the server has forgotten (410) leads back to the list. Failures back
 * off from BACKOFF_MIN_MS to BACKOFF_MAX_MS with jitter.
 *
 * The cache keeps text, not trees: a tree costs seventeen times its text and cannot be shared
 * between threads. Entries are immutable and counted; a reader takes references under the lock and
 * parses outside of it, so callbacks may call the informer. Key and owner are read from the text
 * in place.
 *
 * Items of a list may lack kind and apiVersion (upstream's do); they are put in, so that readers
 * and callbacks always see whole objects.
 *
 * Upstream: client-go's Reflector + DeltaFIFO + Indexer. There is no resync: reconcilers here are
 * level-based and have their own timers.
 */
#include "base/clock.h"
#include "base/hmap.h"
#include "base/json/slice.h"
#include "base/log.h"
#include "base/rand.h"
#include "controlplane/client/client_priv.h"

#include <inttypes.h>
#include <pthread.h>

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 30000
/* A watch that lived this long was healthy: the next failure backs off from the start again. */
#define HEALTHY_MS 5000
#define WATCH_MIN_S 300

struct entry {
    uint32_t refs; /* atomic */
    size_t n;
    char *owner; /* uid of the controlling owner, or NULL; in the same allocation */
    char *key;   /* likewise */
    char text[]; /* NUL-terminated */
};

struct th_informer {
    struct th_client *c;
    struct th_informer_opts o;
    char *ns, *label_selector, *field_selector, *group, *version, *plural;
    pthread_t thread;
    bool stop; /* atomic; changes under lock */
    struct th_clock_watch clock_watch;

    pthread_mutex_t lock;
    pthread_cond_t cond;           /* stop, synced, time moved */
    struct th_omap *objects;       /* lock for changes and foreign reads; key -> entry */
    struct th_omap *owners;        /* "uid\x01key" -> entry, no reference */
    bool synced;                   /* lock */
    struct th_client_watch *watch; /* lock; what stop has to wake */

    /* the thread's own */
    char *rv;
    int64_t backoff_ms;
};

/* ---- Entries ---- */

static void entry_unref(void *p)
{
    struct entry *e = p;
    if (e && __atomic_sub_fetch(&e->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        free(e);
    }
}

static struct entry *entry_ref(struct entry *e)
{
    if (e) {
        __atomic_add_fetch(&e->refs, 1, __ATOMIC_RELAXED);
    }
    return e;
}

static struct th_json *entry_parse(const struct entry *e)
{
    struct th_json *o = NULL;
    return e && th_json_parse(e->text, e->n, NULL, &o, NULL) == 0 ? o : NULL;
}

static struct th_str controller_uid(struct th_str meta)
{
    struct th_str refs = th_json_slice_get(meta, "ownerReferences");
    struct th_json_slice s = TH_JSON_SLICE(refs);
    struct th_str ref;
    while (refs.p && th_json_slice_element(&s, &ref)) {
        if (th_str_eq(th_json_slice_get(ref, "controller"), TH_STR("true"))) {
            return th_json_slice_text(th_json_slice_get(ref, "uid"));
        }
    }
    return (struct th_str){NULL, 0};
}

/* head (may be empty) goes behind the opening brace. NULL when the text is no object with a name.
 */
static struct entry *entry_new(struct th_str text, const char *head)
{
    struct th_str meta = th_json_slice_get(text, "metadata");
    struct th_str name = th_json_slice_text(th_json_slice_get(meta, "name"));
    struct th_str ns = th_json_slice_text(th_json_slice_get(meta, "namespace"));
    struct th_str owner = controller_uid(meta);
    if (name.n == 0) {
        return NULL;
    }
    size_t head_n = strlen(head);
    size_t n = text.n + head_n;
    struct entry *e = th_xmalloc(sizeof(*e) + n + 1 + ns.n + name.n + 2 + owner.n + 1);
    *e = (struct entry){.refs = 1, .n = n};
    e->text[0] = text.p[0];
    memcpy(e->text + 1, head, head_n);
    memcpy(e->text + 1 + head_n, text.p + 1, text.n - 1);
    e->text[n] = '\0';
    char *at = e->key = e->text + n + 1;
    if (ns.n > 0) {
        memcpy(at, ns.p, ns.n);
        at += ns.n;
        *at++ = '/';
    }
    memcpy(at, name.p, name.n);
    at += name.n;
    *at++ = '\0';
    if (owner.n > 0) {
        e->owner = at;
        memcpy(at, owner.p, owner.n);
        at[owner.n] = '\0';
    }
    return e;
}

/* The object with nothing but what says who it is. */
static struct entry *entry_new_metadata(struct th_str text, const char *head)
{
    static const char *const kept[] = {"apiVersion", "kind", "metadata"};
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_putc(&b, '{');
    for (size_t k = 0; k < TH_ARRAY_LEN(kept); k++) {
        struct th_str v = th_json_slice_get(text, kept[k]);
        if (v.p) {
            th_buf_printf(&b, "%s\"%s\":%.*s", b.n > 1 ? "," : "", kept[k], (int)v.n, v.p);
        }
    }
    th_buf_putc(&b, '}');
    return entry_new((struct th_str){b.p, b.n}, head);
}

static struct entry *entry_for(const struct th_informer *i, struct th_str text, const char *head)
{
    return i->o.metadata_only ? entry_new_metadata(text, head) : entry_new(text, head);
}

/* ---- The cache ---- */

static void index_owner(struct th_informer *i, struct entry *e, bool in)
{
    if (!e || !e->owner) {
        return;
    }
    th_autofree char *k = th_xasprintf("%s\x01%s", e->owner, e->key);
    if (in) {
        th_omap_set(i->owners, k, e);
    } else {
        (void)th_omap_remove(i->owners, k);
    }
}

/* Puts now in (takes it) or, with now NULL, removes key. Returns the entry before, with its
 * reference. */
static struct entry *cache_put(struct th_informer *i, const char *key, struct entry *now)
{
    pthread_mutex_lock(&i->lock);
    struct entry *old = th_omap_remove(i->objects, key);
    index_owner(i, old, false);
    if (now) {
        th_omap_set(i->objects, key, now);
        index_owner(i, now, true);
    }
    pthread_mutex_unlock(&i->lock);
    return old;
}

static bool same_rv(const struct entry *a, const struct entry *b)
{
    struct th_str ta = {a->text, a->n}, tb = {b->text, b->n};
    struct th_str ra = th_json_slice_path(ta, "metadata.resourceVersion");
    return ra.p && th_str_eq(ra, th_json_slice_path(tb, "metadata.resourceVersion"));
}

/* Applies a change and reports it. now is taken; NULL: key is gone. last is the last known state of
 * a deleted object, or NULL. */
static void change(struct th_informer *i, const char *key, struct entry *now, struct th_str last)
{
    struct entry *shown = entry_ref(now);
    struct entry *old = cache_put(i, key, now);
    bool news = now ? !old || !same_rv(old, now) : old != NULL;
    if (i->o.on_event && news && !__atomic_load_n(&i->stop, __ATOMIC_ACQUIRE)) {
        TH_AUTO(th_json) struct th_json *a = NULL;
        TH_AUTO(th_json) struct th_json *b = entry_parse(shown);
        bool have_last = !now && last.p && th_json_parse(last.p, last.n, NULL, &a, NULL) == 0;
        if (!have_last) {
            a = entry_parse(old);
        }
        if (a || b) {
            i->o.on_event(i->o.arg, a, b);
        }
    }
    entry_unref(old);
    entry_unref(shown);
}

/* ---- Listing ---- */

struct listing {
    struct th_informer *i;
    struct th_omap *seen; /* key -> entry */
};

/* "\"kind\":\"Pod\",\"apiVersion\":\"v1\"," of the items of a PodList. */
static char *item_head(struct th_str page)
{
    struct th_str kind = th_json_slice_text(th_json_slice_get(page, "kind"));
    struct th_str version = th_json_slice_text(th_json_slice_get(page, "apiVersion"));
    if (kind.n <= 4 || memcmp(kind.p + kind.n - 4, "List", 4) != 0 || !version.p) {
        return th_xstrdup("");
    }
    return th_xasprintf("\"kind\":\"%.*s\",\"apiVersion\":\"%.*s\",", (int)kind.n - 4, kind.p,
                        (int)version.n, version.p);
}

static int take_page(void *arg, struct th_str page, bool restart, struct th_err *err)
{
    struct listing *l = arg;
    if (restart) {
        th_omap_free(l->seen);
        l->seen = th_omap_new(entry_unref);
    }
    th_autofree char *head = item_head(page);
    struct th_str items = th_json_slice_get(page, "items");
    struct th_json_slice s = TH_JSON_SLICE(items);
    struct th_str item;
    while (items.p && items.p[0] == '[' && th_json_slice_element(&s, &item)) {
        bool whole = item.p[0] != '{' || th_json_slice_get(item, "kind").p;
        struct entry *e = entry_for(l->i, item, whole ? "" : head);
        if (!e) {
            return th_fail(err, TH_R_PARSE, "the server's list holds an item without a name");
        }
        th_omap_set(l->seen, e->key, e);
    }
    bool null_items = items.p && th_str_eq(items, TH_STR("null"));
    if (!items.p || (!null_items && !th_json_slice_ended(&s))) {
        return th_fail(err, TH_R_PARSE, "the server's answer is no list");
    }
    return 0;
}

/* What the cache has and the list has not is gone. */
static void drop_unseen(struct th_informer *i, const struct th_omap *seen)
{
    th_autostrv struct th_strv gone = TH_STRV_INIT;
    struct th_omap_entry e;
    for (bool have = th_omap_seek(i->objects, "", &e); have;
         have = th_omap_after(i->objects, e.key, &e)) {
        if (!th_omap_get(seen, e.key)) {
            th_strv_add(&gone, e.key);
        }
    }
    for (size_t k = 0; k < gone.n; k++) {
        change(i, gone.v[k], NULL, (struct th_str){NULL, 0});
    }
}

static int list(struct th_informer *i, struct th_err *err)
{
    struct listing l = {i, th_omap_new(entry_unref)};
    char *rv = NULL;
    int r = th_client_list_pages(i->c, i->o.gvr, i->ns, i->label_selector, i->field_selector,
                                 &i->stop, take_page, &l, &rv, err);
    if (r == 0) {
        free(i->rv);
        i->rv = rv;
        drop_unseen(i, l.seen);
        struct th_omap_entry e;
        for (bool have = th_omap_seek(l.seen, "", &e); have;
             have = th_omap_after(l.seen, e.key, &e)) {
            struct entry *now = e.value;
            change(i, now->key, entry_ref(now), (struct th_str){NULL, 0});
        }
    }
    th_omap_free(l.seen);
    return r;
}

static void set_synced(struct th_informer *i)
{
    pthread_mutex_lock(&i->lock);
    bool first = !i->synced;
    i->synced = true;
    pthread_cond_broadcast(&i->cond);
    pthread_mutex_unlock(&i->lock);
    if (first && i->o.on_synced) {
        i->o.on_synced(i->o.arg);
    }
}

/* ---- Watching ---- */

static int apply(struct th_informer *i, const struct th_watch_item *it, struct th_err *err)
{
    if (it->type == TH_WI_ERROR) {
        return th_client_fail_status(500, it->object, err); /* the Status says its own code */
    }
    struct th_str rv =
        th_json_slice_text(th_json_slice_path(it->object, "metadata.resourceVersion"));
    if (it->type != TH_WI_BOOKMARK) {
        struct entry *e = entry_for(i, it->object, "");
        if (!e) {
            return th_fail(err, TH_R_PARSE, "a watch event without a name");
        }
        if (it->type == TH_WI_DELETED) {
            change(i, e->key, NULL, (struct th_str){e->text, e->n});
            entry_unref(e);
        } else {
            change(i, e->key, e, (struct th_str){NULL, 0});
        }
    }
    if (rv.n > 0) {
        free(i->rv);
        i->rv = th_xstrndup(rv.p, rv.n);
    }
    return 0;
}

static bool stopped(struct th_informer *i)
{
    return __atomic_load_n(&i->stop, __ATOMIC_ACQUIRE);
}

/* Until the watch ends; how it ended is the result. */
static int watch(struct th_informer *i, struct th_err *err)
{
    const struct th_client_ops *ops = i->c->ops;
    struct th_watch_req req = {.gvr = i->o.gvr,
                               .ns = i->ns,
                               .label_selector = i->label_selector,
                               .field_selector = i->field_selector,
                               .resource_version = i->rv,
                               .bookmarks = true,
                               .timeout_s = WATCH_MIN_S + (int)th_rand_below(WATCH_MIN_S)};
    struct th_client_watch *w;
    TH_TRY(ops->watch_open(i->c, &req, &w, err));
    pthread_mutex_lock(&i->lock);
    i->watch = w;
    pthread_mutex_unlock(&i->lock);
    int r = 0;
    while (r >= 0 && !stopped(i)) {
        struct th_watch_item it;
        r = ops->watch_next(w, 60000, &it, err);
        if (r > 0) {
            r = apply(i, &it, err);
            i->backoff_ms = 0;
        }
    }
    pthread_mutex_lock(&i->lock);
    i->watch = NULL;
    pthread_mutex_unlock(&i->lock);
    ops->watch_close(w);
    return r;
}

/* ---- The thread ---- */

static void back_off(struct th_informer *i)
{
    int64_t ms = i->backoff_ms > 0 ? i->backoff_ms * 2 : BACKOFF_MIN_MS;
    i->backoff_ms = ms = ms > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : ms;
    ms += (int64_t)th_rand_below((uint64_t)ms / 2 + 1);
    int64_t until = th_mono_ms() + ms;
    pthread_mutex_lock(&i->lock);
    while (!i->stop && th_mono_ms() < until) {
        th_clock_cond_wait(&i->cond, &i->lock, until);
    }
    pthread_mutex_unlock(&i->lock);
}

static void *run(void *arg)
{
    struct th_informer *i = arg;
    bool need_list = true;
    while (!stopped(i)) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        bool listing = need_list;
        int64_t begin = th_mono_ms();
        int r;
        if (need_list) {
            r = list(i, &err);
            if (r == 0) {
                need_list = false;
                set_synced(i);
                continue;
            }
        } else {
            r = watch(i, &err);
            /* Only "the stream broke off" goes on from where it was. */
            need_list = r < 0 && r != -TH_R_UNAVAILABLE && r != -TH_R_TIMEOUT &&
                        r != -TH_R_SERVER_TIMEOUT && r != -TH_R_TOO_MANY_REQUESTS;
        }
        if (stopped(i)) {
            break;
        }
        th_debug("informer", listing ? "list failed" : "watch ended", "resource=%s rv=%s err=%s",
                 i->plural, i->rv ? i->rv : "", th_log_q(err.msg));
        bool healthy = !listing && th_mono_ms() - begin >= HEALTHY_MS;
        if (healthy) {
            i->backoff_ms = 0;
        }
        if (!healthy || need_list) {
            back_off(i);
        }
    }
    return NULL;
}

static void clock_moved(void *arg)
{
    struct th_informer *i = arg;
    pthread_mutex_lock(&i->lock);
    pthread_cond_broadcast(&i->cond);
    pthread_mutex_unlock(&i->lock);
}

static void informer_free(struct th_informer *i)
{
    th_omap_free(i->owners);
    th_omap_free(i->objects);
    pthread_cond_destroy(&i->cond);
    pthread_mutex_destroy(&i->lock);
    char *const all[] = {
        i->ns, i->label_selector, i->field_selector, i->group, i->version, i->plural, i->rv};
    for (size_t k = 0; k < TH_ARRAY_LEN(all); k++) {
        free(all[k]);
    }
    free(i);
}

int th_informer_start(struct th_client *c, const struct th_informer_opts *o,
                      struct th_informer **ret, struct th_err *err)
{
    struct th_informer *i = TH_NEW(struct th_informer);
    i->c = c;
    i->o = *o;
    i->ns = th_xstrdup(o->ns && *o->ns ? o->ns : NULL);
    i->label_selector = th_xstrdup(o->label_selector);
    i->field_selector = th_xstrdup(o->field_selector);
    i->group = th_xstrdup(o->gvr.group);
    i->version = th_xstrdup(o->gvr.version);
    i->plural = th_xstrdup(o->gvr.plural);
    i->o.gvr = (struct th_gvr){i->group, i->version, i->plural};
    i->objects = th_omap_new(entry_unref);
    i->owners = th_omap_new(NULL);
    pthread_mutex_init(&i->lock, NULL);
    pthread_cond_init(&i->cond, NULL);
    int e = pthread_create(&i->thread, NULL, run, i);
    if (e != 0) {
        informer_free(i);
        return th_fail_errno(err, e, TH_R_INTERNAL, "starting an informer");
    }
    i->clock_watch = (struct th_clock_watch){.fn = clock_moved, .arg = i};
    th_clock_watch_add(&i->clock_watch);
    *ret = i;
    return 0;
}

void th_informer_stop(struct th_informer *i)
{
    if (!i) {
        return;
    }
    th_clock_watch_del(&i->clock_watch);
    pthread_mutex_lock(&i->lock);
    __atomic_store_n(&i->stop, true, __ATOMIC_RELEASE);
    pthread_cond_broadcast(&i->cond);
    if (i->watch) {
        i->c->ops->watch_wake(i->watch);
    }
    pthread_mutex_unlock(&i->lock);
    pthread_join(i->thread, NULL);
    informer_free(i);
}

/* ---- Reading ---- */

bool th_informer_synced(struct th_informer *i)
{
    pthread_mutex_lock(&i->lock);
    bool synced = i->synced;
    pthread_mutex_unlock(&i->lock);
    return synced;
}

bool th_informer_wait_synced(struct th_informer *i, int64_t timeout_ms)
{
    int64_t until = timeout_ms < 0 ? INT64_MAX : th_mono_ms() + timeout_ms;
    pthread_mutex_lock(&i->lock);
    while (!i->synced && !i->stop && th_mono_ms() < until) {
        th_clock_cond_wait(&i->cond, &i->lock, until);
    }
    bool synced = i->synced;
    pthread_mutex_unlock(&i->lock);
    return synced;
}

struct th_json *th_informer_get(struct th_informer *i, const char *ns, const char *name)
{
    th_autofree char *key = ns && *ns ? th_xasprintf("%s/%s", ns, name) : th_xstrdup(name);
    pthread_mutex_lock(&i->lock);
    struct entry *e = entry_ref(th_omap_get(i->objects, key));
    pthread_mutex_unlock(&i->lock);
    struct th_json *o = entry_parse(e);
    entry_unref(e);
    return o;
}

static bool take_ref(const struct th_omap_entry *e, void *arg)
{
    struct entry *x = entry_ref(e->value);
    th_buf_add(arg, &x, sizeof(struct entry *));
    return true;
}

/* Entries under prefix, referenced under the lock, given out without it. */
static void each_under(struct th_informer *i, const struct th_omap *m, const char *prefix,
                       bool (*fn)(void *arg, struct th_json *obj), void *arg)
{
    th_autobuf struct th_buf refs = TH_BUF_INIT;
    pthread_mutex_lock(&i->lock);
    th_omap_each(m, prefix, take_ref, &refs);
    pthread_mutex_unlock(&i->lock);
    struct entry **v = (struct entry **)(void *)refs.p;
    bool more = true;
    for (size_t k = 0; k < refs.n / sizeof(struct entry *); k++) {
        if (more) {
            TH_AUTO(th_json) struct th_json *o = entry_parse(v[k]);
            more = !o || fn(arg, o);
        }
        entry_unref(v[k]);
    }
}

void th_informer_each(struct th_informer *i, const char *ns,
                      bool (*fn)(void *arg, struct th_json *obj), void *arg)
{
    th_autofree char *prefix = ns && *ns ? th_xasprintf("%s/", ns) : th_xstrdup("");
    each_under(i, i->objects, prefix, fn, arg);
}

void th_informer_by_owner(struct th_informer *i, const char *owner_uid,
                          bool (*fn)(void *arg, struct th_json *obj), void *arg)
{
    th_autofree char *prefix = th_xasprintf("%s\x01", owner_uid);
    each_under(i, i->owners, prefix, fn, arg);
}

size_t th_informer_count(struct th_informer *i)
{
    pthread_mutex_lock(&i->lock);
    size_t n = th_omap_count(i->objects);
    pthread_mutex_unlock(&i->lock);
    return n;
}

size_t th_informer_count_in(struct th_informer *i, const char *ns)
{
    th_autofree char *prefix = th_xasprintf("%s/", ns);
    pthread_mutex_lock(&i->lock);
    size_t n = th_omap_count_prefix(i->objects, prefix);
    pthread_mutex_unlock(&i->lock);
    return n;
}
