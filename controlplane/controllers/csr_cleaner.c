/* Cleaning: CertificateSigningRequests that are over go: an hour after they were approved and
 * issued, denied or failed, a day after they were made and nobody decided, and when the certificate
 * has expired. Whoever asked has read his certificate by then. */
#include "controlplane/controllers/csr.h"

#include "base/clock.h"
#include "base/encode.h"

#define DECIDED_MS (3600ll * 1000)
#define PENDING_MS (24 * 3600ll * 1000)
#define TICK_MS (3600ll * 1000)

static int64_t ms_of(const char *text)
{
    int64_t us = 0;
    return text && th_time_parse(text, &us, NULL) >= 0 ? us / 1000 : INT64_MAX;
}

/* The last update of a condition of this type; INT64_MAX when there is none. */
static int64_t since(const struct th_json *csr, const char *type)
{
    const struct th_json *list = th_json_path(csr, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(th_json_path_str(th_json_at(list, i), "type"), type)) {
            return ms_of(th_json_path_str(th_json_at(list, i), "lastUpdateTime"));
        }
    }
    return INT64_MAX;
}

static bool older(int64_t when_ms, int64_t age_ms)
{
    return when_ms != INT64_MAX && th_now_ms() - when_ms > age_ms;
}

static bool is_over(const struct th_json *csr)
{
    const char *cert = th_json_path_str(csr, "status.certificate");
    bool issued = cert && *cert;
    int64_t approved = since(csr, "Approved");
    int64_t denied = since(csr, "Denied");
    int64_t failed = since(csr, "Failed");
    if ((issued && older(approved, DECIDED_MS)) || older(denied, DECIDED_MS) ||
        older(failed, DECIDED_MS)) {
        return true;
    }
    if (approved == INT64_MAX && denied == INT64_MAX && failed == INT64_MAX) {
        return older(ms_of(th_json_path_str(csr, "metadata.creationTimestamp")), PENDING_MS);
    }
    th_autobuf struct th_buf pem = TH_BUF_INIT;
    int64_t end = 0;
    return issued && th_b64_decode(cert, strlen(cert), &pem, NULL) >= 0 &&
           th_pki_subject(th_buf_cstr(&pem), NULL, NULL, &end, NULL) >= 0 && end < th_now_ms();
}

static bool collect(void *arg, struct th_json *csr)
{
    if (is_over(csr)) {
        th_strv_add(arg, th_json_path_str(csr, "metadata.name"));
    }
    return true;
}

static int reconcile(struct th_ctrl *c, const char *key, int64_t *ret_after_ms, struct th_err *err)
{
    (void)key;
    (void)ret_after_ms;
    th_autostrv struct th_strv names = TH_STRV_INIT;
    th_informer_each(th_ctrl_informer(c, TH_GVR_CSRS), NULL, collect, &names);
    for (size_t i = 0; i < names.n; i++) {
        struct th_delete_opts o = TH_DELETE_OPTS_INIT;
        int r = th_client_delete(th_ctrl_client(c), TH_GVR_CSRS, NULL, names.v[i], &o, NULL, err);
        if (r < 0 && r != -TH_R_NOT_FOUND) {
            return r;
        }
        th_err_done(err);
    }
    return 0;
}

static const struct th_ctrl_watch watches[] = {
    {.gvr = {"certificates.k8s.io", "v1", "certificatesigningrequests"}, .on_event = NULL},
    {.gvr = {NULL, NULL, NULL}},
};
const struct th_controller th_ctrl_csr_cleaner = {
    .name = "certificatesigningrequest-cleaner-controller",
    .account = "certificate-controller",
    .watches = watches,
    .reconcile = reconcile,
    .tick_ms = TICK_MS,
};
