/* Tokens of old: a Secret of type kubernetes.io/service-account-token whose annotation
 * kubernetes.io/service-account.name names a ServiceAccount is given a token that never expires, the
 * cluster's CA and its namespace; when the account goes, or is another one by uid, the Secret goes.
 *
 * Nobody needs them where pods mount projected tokens, but charts and CI scripts still make them.
 */
#include "controlplane/controllers/controller.h"

#include "base/encode.h"
#include "controlplane/resources/token.h"

#define TYPE "kubernetes.io/service-account-token"
#define NAME_NOTE "kubernetes.io/service-account.name"
#define UID_NOTE "kubernetes.io/service-account.uid"

static const char *note(const struct th_json *secret, const char *name)
{
    const char *s =
        th_json_str(th_json_get(th_json_path(secret, "metadata.annotations"), name));
    return s ? s : "";
}

static bool is_token(const struct th_json *secret)
{
    return th_streq(th_json_path_str(secret, "type"), TYPE);
}

static void on_secret(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    (void)old;
    if (now && is_token(now)) {
        th_ctrl_enqueue_obj(c, now);
    }
}

struct of_account {
    struct th_ctrl *c;
    const char *name;
};

static bool enqueue_of(void *arg, struct th_json *secret)
{
    struct of_account *o = arg;
    if (is_token(secret) && th_streq(note(secret, NAME_NOTE), o->name)) {
        th_ctrl_enqueue_obj(o->c, secret);
    }
    return true;
}

static void on_account(struct th_ctrl *c, const struct th_json *old, const struct th_json *now)
{
    if (old && now) {
        return;
    }
    const struct th_json *sa = now ? now : old;
    struct of_account o = {c, th_json_path_str(sa, "metadata.name")};
    th_informer_each(th_ctrl_informer(c, TH_GVR_SECRETS), th_json_path_str(sa, "metadata.namespace"),
                     enqueue_of, &o);
}

static bool put(struct th_json *data, const char *name, const char *text)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_b64_encode(text, strlen(text), &b);
    if (th_streq(th_json_str(th_json_get(data, name)), th_buf_cstr(&b))) {
        return false;
    }
    th_json_set_str(data, name, th_buf_cstr(&b));
    return true;
}

static bool is_empty(const struct th_json *data, const char *name)
{
    const char *s = th_json_str(th_json_get(data, name));
    return !s || !*s;
}

/* 1 changed. */
static int fill(struct th_ctrl *c, struct th_json *secret, const struct th_json *sa,
                struct th_err *err)
{
    const struct th_controllers_opts *o = th_ctrl_opts(c);
    const char *ns = th_json_path_str(secret, "metadata.namespace");
    const char *uid = th_json_path_str(sa, "metadata.uid");
    struct th_json *data = th_json_path_object(secret, "data");
    int changed = o->ca_cert_pem && put(data, "ca.crt", o->ca_cert_pem);
    if (is_empty(data, "namespace")) {
        changed |= put(data, "namespace", ns);
    }
    if (is_empty(data, "token")) {
        th_autofree char *token = NULL;
        TH_TRY(th_token_issue_legacy(o->sa_key_pem, ns, th_json_path_str(sa, "metadata.name"), uid,
                                     th_json_path_str(secret, "metadata.name"), &token, err));
        changed |= put(data, "token", token);
    }
    if (changed) {
        th_json_set_str(th_json_path_object(secret, "metadata.annotations"), UID_NOTE, uid);
    }
    return changed;
}

static int remove_secret(struct th_ctrl *c, const struct th_json *secret, struct th_err *err)
{
    struct th_delete_opts d = TH_DELETE_OPTS_INIT;
    d.uid = th_json_path_str(secret, "metadata.uid");
    int r = th_client_delete(th_ctrl_client(c), TH_GVR_SECRETS,
                             th_json_path_str(secret, "metadata.namespace"),
                             th_json_path_str(secret, "metadata.name"), &d, NULL, err);
    if (r == -TH_R_NOT_FOUND || r == -TH_R_CONFLICT) {
        th_err_done(err);
        return 0;
    }
    return r;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)ret_after_ms;
    const char *name = NULL;
    th_autofree char *ns = th_ctrl_key_split(key, &name);
    TH_AUTO(th_json) struct th_json *secret =
        th_informer_get(th_ctrl_informer(c, TH_GVR_SECRETS), ns, name);
    if (!secret || !is_token(secret) || !*note(secret, NAME_NOTE) ||
        !th_ctrl_opts(c)->sa_key_pem || th_json_path(secret, "metadata.deletionTimestamp")) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *sa = NULL;
    int r = th_client_get(th_ctrl_client(c), TH_GVR_SERVICEACCOUNTS, ns, note(secret, NAME_NOTE),
                          &sa, err);
    if (r < 0 && r != -TH_R_NOT_FOUND) {
        return r;
    }
    const char *uid = note(secret, UID_NOTE);
    if (!sa || (*uid && !th_streq(uid, th_json_path_str(sa, "metadata.uid")))) {
        th_err_done(err);
        return remove_secret(c, secret, err);
    }
    r = fill(c, secret, sa, err);
    if (r <= 0) {
        return r;
    }
    r = th_client_update(th_ctrl_client(c), TH_GVR_SECRETS, ns, name, "", secret, NULL, err);
    if (r == -TH_R_CONFLICT || r == -TH_R_NOT_FOUND) {
        th_err_done(err); /* an event of it is on its way */
        return 0;
    }
    return r;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"", "v1", "secrets"}, .on_event = on_secret},
    {.gvr = {"", "v1", "serviceaccounts"}, .on_event = on_account},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_serviceaccount_token = {
    .name = "serviceaccount-token-controller",
    .watches = watches,
    .reconcile = reconcile,
};
