/* Who the cluster is: made by the launcher on the first start, kept in the profile (mode 0600), and
 * handed to the guest at every boot over the control channel, so that the disk image holds no key
 * and a kubeconfig stays valid over restarts.
 *
 * One CA signs the server's certificate and client certificates. The admin is
 * O=system:masters, CN=kubernetes-admin, as kubeadm has it. The server's names are all by which
 * clients inside and outside may reach it.
 *
 * What is there is checked at every start: a key that clients hold on to (the CA's, the one that
 * signs tokens) and that is damaged is said to be, never replaced behind the user's back; what can be
 * made again from it is. */
#include "base/clock.h"
#include "base/io.h"
#include "base/limits.h"
#include "vm/launcher/profile.h"
#include "vm/launcher/protocol.h"

#define DAYS 3650
#define RENEW_BEFORE_MS (30ll * 24 * 3600 * 1000)

static char *path_of(const struct th_profile *p, const char *name)
{
    return th_path_joinf(p->data, "identity/%s", name);
}

char *th_identity_read(const struct th_profile *p, const char *name)
{
    th_autofree char *path = path_of(p, name);
    struct th_buf text = TH_BUF_INIT;
    if (th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &text, NULL) < 0) {
        th_buf_done(&text);
        return NULL;
    }
    return text.n ? th_buf_steal(&text, NULL) : th_xstrdup("");
}

static int damaged(const struct th_profile *p, const char *name, const char *why,
                   struct th_err *err)
{
    th_autofree char *path = path_of(p, name);
    th_autofree char *dir = th_path_join(p->data, "identity");
    (void)th_fail(err, TH_R_STATE_CORRUPT, "%s is damaged: %s", path, why);
    return th_hint(err,
                   "put the file back, or remove %s: the next start makes new keys, and tokens and "
                   "kubeconfigs made before are void",
                   dir);
}

/* NULL in *ret when the file is missing; one that is there and cannot be read is damage. */
static int take(const struct th_profile *p, const char *name, char **ret, struct th_err *err)
{
    th_autofree char *path = path_of(p, name);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &text, &e);
    if (r < 0 && r != -TH_R_NOT_FOUND) {
        return damaged(p, name, e.msg, err);
    }
    *ret = r < 0 ? NULL : text.n ? th_buf_steal(&text, NULL) : th_xstrdup("");
    return 0;
}

static int put(const struct th_profile *p, const char *name, const char *text, struct th_err *err)
{
    th_autofree char *path = path_of(p, name);
    return th_io_write_atomic(path, text, strlen(text), 0600, err);
}

static bool still_good(const char *cert)
{
    int64_t until_ms = 0;
    return th_pki_subject(cert, NULL, NULL, &until_ms, NULL) == 0 &&
           until_ms > th_now_ms() + RENEW_BEFORE_MS;
}

/* Leaf certificates are made anew whenever they are not good: the CA that clients trust stays. */
static int ensure_pair(const struct th_profile *p, const struct th_pki_pair *ca, const char *crt,
                       const char *key, const struct th_pki_req *req, struct th_err *err)
{
    th_autofree char *have_key = NULL, *have_crt = NULL;
    TH_TRY(take(p, key, &have_key, err));
    TH_TRY(take(p, crt, &have_crt, err));
    if (have_key && have_crt && th_pki_check(have_crt, have_key, ca->cert_pem, NULL) == 0 &&
        still_good(have_crt)) {
        return 0;
    }
    TH_AUTO_PAIR struct th_pki_pair pair = {0};
    TH_TRY(th_pki_issue(ca, req, &pair, err));
    TH_TRY(put(p, key, pair.key_pem, err));
    return put(p, crt, pair.cert_pem, err);
}

static int ensure_ca(const struct th_profile *p, struct th_pki_pair *ret, struct th_err *err)
{
    TH_TRY(take(p, "ca.crt", &ret->cert_pem, err));
    TH_TRY(take(p, "ca.key", &ret->key_pem, err));
    if (ret->cert_pem && ret->key_pem) {
        TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
        return th_pki_check(ret->cert_pem, ret->key_pem, NULL, &e) == 0
                   ? 0
                   : damaged(p, "ca.crt", e.msg, err);
    }
    if (ret->cert_pem) { /* without a certificate, a key alone is a first start cut short */
        return damaged(p, "ca.key", "it is missing", err);
    }
    th_autofree char *server = path_of(p, "server.crt");
    if (ret->key_pem && th_io_exists(server)) {
        return damaged(p, "ca.crt", "it is missing", err);
    }
    th_pki_pair_done(ret);
    *ret = (struct th_pki_pair){0};
    th_autofree char *cn = th_profile_context(p->name);
    TH_TRY(th_pki_ca_new(cn, ret, err));
    TH_TRY(put(p, "ca.key", ret->key_pem, err));
    return put(p, "ca.crt", ret->cert_pem, err);
}

static int ensure_sa_key(const struct th_profile *p, struct th_err *err)
{
    th_autofree char *key = NULL, *pub = NULL, *have_pub = NULL;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    TH_TRY(take(p, "sa.key", &key, err));
    TH_TRY(take(p, "sa.pub", &have_pub, err));
    bool is_new = key == NULL;
    if (is_new) {
        TH_TRY(th_pki_key_new(&key, err));
    }
    if (th_pki_public_pem(key, &pub, &e) < 0) {
        return damaged(p, "sa.key", e.msg, err);
    }
    if (!is_new && th_streq(have_pub, pub)) {
        return 0;
    }
    TH_TRY(put(p, "sa.pub", pub, err));
    return is_new ? put(p, "sa.key", key, err) : 0;
}

int th_identity_ensure(struct th_profile *p, struct th_err *err)
{
    th_autofree char *dir = th_path_join(p->data, "identity");
    TH_TRY(th_io_mkdir_p(dir, 0700, err));
    TH_AUTO_PAIR struct th_pki_pair ca = {0};
    TH_TRY(ensure_ca(p, &ca, err));
    TH_TRY(ensure_sa_key(p, err));

    static const char *const dns[] = {"localhost", "kubernetes", "kubernetes.default",
                                      "kubernetes.default.svc",
                                      "kubernetes.default.svc.cluster.local", TH_NODE_NAME, NULL};
    static const char *const ips[] = {"127.0.0.1", "::1", "10.96.0.1", TH_NET_GUEST_IP, NULL};
    const struct th_pki_req server = {.common_name = "kube-apiserver", .dns_names = dns,
                                      .ip_addresses = ips, .use = TH_PKI_SERVER, .days = DAYS};
    TH_TRY(ensure_pair(p, &ca, "server.crt", "server.key", &server, err));
    static const char *const masters[] = {"system:masters", NULL};
    const struct th_pki_req admin = {.common_name = "kubernetes-admin", .organizations = masters,
                                     .use = TH_PKI_CLIENT, .days = DAYS};
    return ensure_pair(p, &ca, "admin.crt", "admin.key", &admin, err);
}

int th_identity_files(const struct th_profile *p, struct th_json **ret, struct th_err *err)
{
    static const char *const names[] = {"ca.crt", "ca.key",     "sa.key",
                                        "sa.pub", "server.crt", "server.key"};
    TH_AUTO(th_json) struct th_json *o = th_json_object();
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        th_autofree char *text = th_identity_read(p, names[i]);
        if (!text) {
            return th_fail(err, TH_R_STATE_CORRUPT, "the identity of profile \"%s\" lacks %s",
                           p->name, names[i]);
        }
        th_json_set_str(o, names[i], text);
    }
    *ret = th_steal(&o);
    return 0;
}
