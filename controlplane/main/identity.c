/* A control plane started by hand makes its own CA, certificates and token key, once, in the data
 * folder; in a VM the launcher gives them. The server's certificate is made anew at every start,
 * since its names follow the flags; everything that others keep (CA, admin, token key) stays. */
#include "controlplane/main/identity.h"

#include "base/encode.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/pki.h"
#include "controlplane/api/api.h"

#define DAYS 3650

void th_cp_identity_done(struct th_cp_identity *id)
{
    free(id->ca_cert);
    free(id->ca_key);
    free(id->server_cert);
    free(id->server_key);
    free(id->admin_cert);
    free(id->admin_key);
    free(id->sa_key);
    free(id->front_ca_cert);
    free(id->front_ca_key);
    free(id->front_cert);
    free(id->front_key);
    *id = (struct th_cp_identity){0};
}

static int load(const char *dir, const char *name, char **slot, struct th_err *err)
{
    if (*slot || !dir) {
        return 0;
    }
    th_autofree char *path = th_path_joinf(dir, "pki/%s", name);
    if (!th_io_exists(path)) {
        return 0;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_TRY(th_io_read_file(path, TH_LIMIT_CONFIG_FILE_B, &b, err));
    *slot = th_buf_steal(&b, NULL);
    return 0;
}

static int save(const char *dir, const char *name, const char *pem, mode_t mode, struct th_err *err)
{
    if (!dir) {
        return 0;
    }
    th_autofree char *path = th_path_joinf(dir, "pki/%s", name);
    return th_io_write_atomic(path, pem, strlen(pem), mode, err);
}

static int save_pair(const char *dir, const char *stem, const char *cert, const char *key,
                     struct th_err *err)
{
    th_autofree char *c = th_xasprintf("%s.crt", stem);
    th_autofree char *k = th_xasprintf("%s.key", stem);
    TH_TRY(save(dir, c, cert, 0644, err));
    return save(dir, k, key, 0600, err);
}

static int issue(const struct th_cp_identity *id, const struct th_pki_req *req, char **cert,
                 char **key, struct th_err *err)
{
    struct th_pki_pair ca = {.cert_pem = id->ca_cert, .key_pem = id->ca_key};
    TH_AUTO_PAIR struct th_pki_pair made = {NULL, NULL};
    if (!id->ca_key) {
        return th_fail(err, TH_R_USAGE, "a CA was given without its key, so %s cannot be issued",
                       req->common_name);
    }
    TH_TRY(th_pki_issue(&ca, req, &made, err));
    *cert = th_steal(&made.cert_pem);
    *key = th_steal(&made.key_pem);
    return 0;
}

static int make_server(struct th_cp_identity *id, const struct th_cp_names *n, struct th_err *err)
{
    th_autofree char *svc = th_xasprintf("kubernetes.default.svc.%s", n->cluster_domain);
    const char *dns[] = {"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
                         svc, NULL};
    th_autostrv struct th_strv ips = TH_STRV_INIT;
    const char *all[] = {"127.0.0.1", "::1", n->service_ip, n->listen_ip, n->advertise_ip};
    for (size_t i = 0; i < TH_ARRAY_LEN(all); i++) {
        if (all[i] && *all[i] && !th_streq(all[i], "0.0.0.0") && !th_strv_has(&ips, all[i])) {
            th_strv_add(&ips, all[i]);
        }
    }
    struct th_pki_req req = {.common_name = "thimble-apiserver",
                             .dns_names = dns,
                             .ip_addresses = (const char *const *)ips.v,
                             .use = TH_PKI_SERVER,
                             .days = DAYS};
    return issue(id, &req, &id->server_cert, &id->server_key, err);
}

/* A CA of its own, since whoever it signs for may claim to be anybody. */
static int complete_front_proxy(struct th_cp_identity *id, const char *dir, struct th_err *err)
{
    TH_TRY(load(dir, "front-proxy-ca.crt", &id->front_ca_cert, err));
    TH_TRY(load(dir, "front-proxy-ca.key", &id->front_ca_key, err));
    TH_TRY(load(dir, "front-proxy-client.crt", &id->front_cert, err));
    TH_TRY(load(dir, "front-proxy-client.key", &id->front_key, err));
    if (id->front_ca_cert && id->front_cert && id->front_key) {
        return 0;
    }
    TH_AUTO_PAIR struct th_pki_pair ca = {NULL, NULL};
    TH_AUTO_PAIR struct th_pki_pair made = {NULL, NULL};
    static const struct th_pki_req req = {
        .common_name = TH_FRONT_PROXY_NAME, .use = TH_PKI_CLIENT, .days = DAYS};
    TH_TRY(th_pki_ca_new("thimble-front-proxy-ca", &ca, err));
    TH_TRY(th_pki_issue(&ca, &req, &made, err));
    free(id->front_ca_cert);
    free(id->front_ca_key);
    free(id->front_cert);
    free(id->front_key);
    id->front_ca_cert = th_steal(&ca.cert_pem);
    id->front_ca_key = th_steal(&ca.key_pem);
    id->front_cert = th_steal(&made.cert_pem);
    id->front_key = th_steal(&made.key_pem);
    TH_TRY(save_pair(dir, "front-proxy-ca", id->front_ca_cert, id->front_ca_key, err));
    return save_pair(dir, "front-proxy-client", id->front_cert, id->front_key, err);
}

int th_cp_identity_complete(struct th_cp_identity *id, const char *dir,
                            const struct th_cp_names *names, struct th_err *err)
{
    if (dir) {
        th_autofree char *pki = th_path_join(dir, "pki");
        TH_TRY(th_io_mkdir_p(pki, 0700, err));
    }
    bool given_ca = id->ca_cert != NULL;
    if (!given_ca) {
        TH_TRY(load(dir, "ca.crt", &id->ca_cert, err));
        TH_TRY(load(dir, "ca.key", &id->ca_key, err));
        TH_TRY(load(dir, "admin.crt", &id->admin_cert, err));
        TH_TRY(load(dir, "admin.key", &id->admin_key, err));
    }
    TH_TRY(load(dir, "sa.key", &id->sa_key, err));
    TH_TRY(complete_front_proxy(id, dir, err));
    if (!id->ca_cert) {
        TH_AUTO_PAIR struct th_pki_pair ca = {NULL, NULL};
        TH_TRY(th_pki_ca_new("thimble-ca", &ca, err));
        id->ca_cert = th_steal(&ca.cert_pem);
        id->ca_key = th_steal(&ca.key_pem);
        TH_TRY(save_pair(dir, "ca", id->ca_cert, id->ca_key, err));
    }
    if (!id->sa_key) {
        TH_TRY(th_pki_key_new(&id->sa_key, err));
        TH_TRY(save(dir, "sa.key", id->sa_key, 0600, err));
    }
    if (!id->server_cert || !id->server_key) {
        TH_TRY(make_server(id, names, err));
    }
    if (!id->admin_cert && id->ca_key) {
        const char *orgs[] = {"system:masters", NULL};
        struct th_pki_req req = {.common_name = "kubernetes-admin",
                                 .organizations = orgs,
                                 .use = TH_PKI_CLIENT,
                                 .days = DAYS};
        TH_TRY(issue(id, &req, &id->admin_cert, &id->admin_key, err));
        TH_TRY(save_pair(dir, "admin", id->admin_cert, id->admin_key, err));
    }
    return 0;
}

static void put_b64(struct th_buf *b, const char *indent_name, const char *pem)
{
    th_buf_printf(b, "    %s: ", indent_name);
    th_b64_encode(pem, strlen(pem), b);
    th_buf_putc(b, '\n');
}

int th_cp_kubeconfig_write(const struct th_cp_identity *id, const char *server_url,
                           const char *path, struct th_err *err)
{
    if (!id->admin_cert) {
        return th_fail(err, TH_R_USAGE, "there is no admin certificate to put into %s", path);
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    th_buf_puts(&b, "apiVersion: v1\nkind: Config\nclusters:\n- name: thimble\n  cluster:\n");
    th_buf_printf(&b, "    server: %s\n", server_url);
    put_b64(&b, "certificate-authority-data", id->ca_cert);
    th_buf_puts(&b, "users:\n- name: thimble\n  user:\n");
    put_b64(&b, "client-certificate-data", id->admin_cert);
    put_b64(&b, "client-key-data", id->admin_key);
    th_buf_puts(&b, "contexts:\n- name: thimble\n  context:\n    cluster: thimble\n    user: "
                    "thimble\ncurrent-context: thimble\n");
    return th_io_write_atomic(path, b.p, b.n, 0600, err);
}
