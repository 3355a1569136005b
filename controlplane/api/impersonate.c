/* Impersonation: a request that is made as somebody else, for those who may.
 *
 * Impersonate-User, -Group (many), -Uid and -Extra-<key> (many) name whom; each of them is one
 * question to authorization, with the verb "impersonate": users, groups, serviceaccounts in their
 * namespace, and in authentication.k8s.io uids and userextras/<key>. Groups that go without saying
 * are added as authentication would have. The headers never reach a node.
 *
 * Upstream's newer constrained modes (impersonate:user-info and the like) are not there; their last
 * resort is what is here.
 */
#include "controlplane/api/priv.h"

#include "base/encode.h"

#include <strings.h>

#define AUTHN_GROUP "authentication.k8s.io"
#define SA_PREFIX "system:serviceaccount:"
#define EXTRA_PREFIX "Extra-"

struct wanted {
    const char *user, *uid;
    struct th_strv groups, extra; /* extra: "key=value" */
};

static void wanted_done(struct wanted *w)
{
    th_strv_done(&w->groups);
    th_strv_done(&w->extra);
}

/* The header's name is case-insensitive, so keys arrive in lower case, percent-encoded. */
static char *extra_key(const char *p, size_t n)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (th_url_unescape(p, n, false, &b, NULL) < 0) {
        th_buf_clear(&b);
        th_buf_add(&b, p, n);
    }
    char *key = th_xstrdup(th_buf_cstr(&b));
    for (char *c = key; *c; c++) {
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    }
    return key;
}

static int read_headers(const struct th_strv *headers, struct wanted *w, struct th_err *err)
{
    for (size_t i = 0; i < headers->n; i++) {
        const char *name = headers->v[i] + strlen("Impersonate-");
        size_t n = strcspn(name, ":");
        const char *value = name + n + 2;
        if (n == 4 && strncasecmp(name, "User", n) == 0) {
            w->user = w->user ? w->user : value;
        } else if (n == 5 && strncasecmp(name, "Group", n) == 0) {
            th_strv_add(&w->groups, value);
        } else if (n == 3 && strncasecmp(name, "Uid", n) == 0) {
            w->uid = w->uid ? w->uid : value;
        } else if (n > strlen(EXTRA_PREFIX) &&
                   strncasecmp(name, EXTRA_PREFIX, strlen(EXTRA_PREFIX)) == 0) {
            th_autofree char *key = extra_key(name + strlen(EXTRA_PREFIX), n - strlen(EXTRA_PREFIX));
            th_strv_addf(&w->extra, "%s=%s", key, value);
        }
    }
    bool has_user = w->user && *w->user;
    bool has_uid = w->uid && *w->uid;
    if (!has_user && (w->groups.n > 0 || w->extra.n > 0 || has_uid)) {
        const char *what = w->groups.n > 0 ? "groups" : w->extra.n > 0 ? "extra values" : "a uid";
        return th_fail(err, TH_R_BAD_REQUEST, "requested %s without impersonating a user", what);
    }
    return 0;
}

static int may(struct th_api *api, const struct th_identity *id, const char *group,
               const char *plural, const char *sub, const char *ns, const char *name,
               struct th_err *err)
{
    struct th_attrs at = {.id = id,
                          .verb = "impersonate",
                          .resource = true,
                          .group = group,
                          .version = *group ? "v1" : "",
                          .plural = plural,
                          .sub = sub,
                          .ns = ns,
                          .name = name};
    return th_authorize(api, &at, err);
}

/* "system:serviceaccount:ns:name" into its parts; false when it is not one. */
static bool split_account(const char *user, char **ret_ns, const char **ret_name)
{
    if (!th_startswith(user, SA_PREFIX)) {
        return false;
    }
    const char *ns = user + strlen(SA_PREFIX);
    const char *colon = strchr(ns, ':');
    if (!colon || colon == ns || !colon[1] || strchr(colon + 1, ':')) {
        return false;
    }
    *ret_ns = th_xstrndup(ns, (size_t)(colon - ns));
    *ret_name = colon + 1;
    return true;
}

static int check(struct th_api *api, const struct th_identity *id, const struct wanted *w,
                 const char *ns, const char *account, struct th_err *err)
{
    TH_TRY(ns ? may(api, id, "", "serviceaccounts", NULL, ns, account, err)
              : may(api, id, "", "users", NULL, NULL, w->user, err));
    for (size_t i = 0; i < w->groups.n; i++) {
        TH_TRY(may(api, id, "", "groups", NULL, NULL, w->groups.v[i], err));
    }
    for (size_t i = 0; i < w->extra.n; i++) {
        const char *eq = strchr(w->extra.v[i], '=');
        th_autofree char *key = th_xstrndup(w->extra.v[i], (size_t)(eq - w->extra.v[i]));
        TH_TRY(may(api, id, AUTHN_GROUP, "userextras", key, NULL, eq + 1, err));
    }
    return w->uid && *w->uid ? may(api, id, AUTHN_GROUP, "uids", NULL, NULL, w->uid, err) : 0;
}

int th_impersonate(struct th_api *api, struct th_identity *id, const struct th_strv *headers,
                   struct th_identity **ret, struct th_err *err)
{
    TH_CLEANUP(wanted_done) struct wanted w = {.user = NULL};
    TH_TRY(read_headers(headers, &w, err));
    if (!w.user || !*w.user) {
        *ret = th_identity_ref(id);
        return 0;
    }
    th_autofree char *ns = NULL;
    const char *account = NULL;
    (void)split_account(w.user, &ns, &account);
    TH_TRY(check(api, id, &w, ns, account, err));
    struct th_identity *as = th_identity_new(w.user, w.uid, NULL);
    as->by = th_identity_ref(id);
    for (size_t i = 0; i < w.groups.n; i++) {
        th_strv_add(&as->groups, w.groups.v[i]);
    }
    if (ns && w.groups.n == 0) {
        th_strv_add(&as->groups, "system:serviceaccounts");
        th_strv_addf(&as->groups, "system:serviceaccounts:%s", ns);
    }
    bool anonymous = th_streq(w.user, "system:anonymous");
    if (anonymous ? !th_identity_in(as, "system:unauthenticated")
                  : !th_identity_in(as, "system:authenticated") &&
                        !th_identity_in(as, "system:unauthenticated")) {
        th_strv_add(&as->groups, anonymous ? "system:unauthenticated" : "system:authenticated");
    }
    for (size_t i = 0; i < w.extra.n; i++) {
        th_strv_add(&as->extra, w.extra.v[i]);
    }
    *ret = as;
    return 0;
}
