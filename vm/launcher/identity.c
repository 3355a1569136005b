/* Who the cluster is: made by the launcher on the first start, kept in the profile (mode 0600), and
 * handed to the guest at every boot over the control channel, so that the disk image holds no key
 * and a kubeconfig stays valid over restarts.
 *
 * One CA signs the server's certificate and client certificates. The admin is
 * O=system:masters, CN=kubernetes-admin, as kubeadm has it. The server's names are all by which
 * clients inside and outside may reach it. */
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
    return th_buf_steal(&text, NULL);
}

static int put(const struct th_profile *p, const char *name, const char *text, struct th_err *err)
{
    th_autofree char *path = path_of(p, name);
    return th_io_write_atomic(path, text, strlen(text), 0600, err);
}

static bool still_good(const struct th_profile *p, const char *name)
{
    th_autofree char *cert = th_identity_read(p, name);
    th_autofree char *cn = NULL;
    th_autostrv struct th_strv orgs = TH_STRV_INIT;
    int64_t until_ms = 0;
    return cert && th_pki_subject(cert, &cn, &orgs, &until_ms, NULL) == 0 &&
           until_ms > th_now_ms() + RENEW_BEFORE_MS;
}

static int ensure_pair(const struct th_profile *p, const struct th_pki_pair *ca, const char *crt,
                       const char *key, const struct th_pki_req *req, struct th_err *err)
{
    th_autofree char *have_key = th_identity_read(p, key);
    if (have_key && still_good(p, crt)) {
        return 0;
    }
    TH_AUTO_PAIR struct th_pki_pair pair = {0};
    TH_TRY(th_pki_issue(ca, req, &pair, err));
    TH_TRY(put(p, key, pair.key_pem, err));
    return put(p, crt, pair.cert_pem, err);
}

static int ensure_ca(const struct th_profile *p, struct th_pki_pair *ret, struct th_err *err)
{
    ret->cert_pem = th_identity_read(p, "ca.crt");
    ret->key_pem = th_identity_read(p, "ca.key");
    if (ret->cert_pem && ret->key_pem) {
        return 0;
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
    th_autofree char *have = th_identity_read(p, "sa.key");
    th_autofree char *have_pub = th_identity_read(p, "sa.pub");
    if (have && have_pub) {
        return 0;
    }
    th_autofree char *key = NULL, *pub = NULL;
    TH_TRY(th_pki_key_new(&key, err));
    TH_TRY(th_pki_public_pem(key, &pub, err));
    TH_TRY(put(p, "sa.pub", pub, err));
    return put(p, "sa.key", key, err);
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
