/* CertificateSigningRequest: who asks is written down by the server, the request never changes, and
 * each subresource changes its own part: approval the conditions, status the certificate.
 *
 * Conditions Approved and Denied come through approval only, never both, and stay; a certificate is
 * set once. The rules are those of upstream's three strategies for the kind.
 */
#include "controlplane/resources/rows.h"

#include "base/clock.h"
#include "base/encode.h"
#include "base/limits.h"
#include "base/pki.h"
#include "controlplane/schema/validate.h"

#define LEGACY_SIGNER "kubernetes.io/legacy-unknown"
#define MIN_SECONDS 600

static const char *const usages[] = {
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
    NULL,
};

static const char *str(const struct th_json *o, const char *path)
{
    const char *s = th_json_path_str(o, path);
    return s ? s : "";
}

/* ---- before validation ---- */

void th_csr_prepare_create(const struct th_req_ctx *c, struct th_json *obj)
{
    struct th_json *spec = th_json_path_object(obj, "spec");
    TH_AUTO(th_json) struct th_json *who = th_identity_json(c->id);
    static const char *const members[] = {"username", "uid", "groups", "extra"};
    for (size_t i = 0; i < TH_ARRAY_LEN(members); i++) {
        struct th_json *v = th_json_get(who, members[i]);
        if (v) {
            th_json_set(spec, members[i], th_json_ref(v));
        } else {
            (void)th_json_del(spec, members[i]);
        }
    }
    th_json_set(obj, "status", th_json_object());
}

void th_csr_prepare_update(const struct th_req_ctx *c, struct th_json *obj,
                           const struct th_json *old)
{
    (void)c;
    th_json_set(obj, "spec", th_json_dup(th_json_get(old, "spec")));
}

static void fill_times(struct th_json *conditions, const struct th_json *old, int64_t now_ms)
{
    char now[TH_TIME_LEN];
    (void)th_time_format(now_ms, now);
    const struct th_json *before = th_json_path(old, "status.conditions");
    for (size_t i = 0; i < th_json_len(conditions); i++) {
        struct th_json *c = th_json_at(conditions, i);
        if (!*str(c, "lastUpdateTime")) {
            th_json_set_str(c, "lastUpdateTime", now);
        }
        const char *since = now;
        for (size_t k = 0; k < th_json_len(before); k++) {
            const struct th_json *b = th_json_at(before, k);
            if (th_streq(str(b, "type"), str(c, "type")) &&
                th_streq(str(b, "status"), str(c, "status")) && *str(b, "lastTransitionTime")) {
                since = str(b, "lastTransitionTime");
                break;
            }
        }
        if (!*str(c, "lastTransitionTime")) {
            th_json_set_str(c, "lastTransitionTime", since);
        }
    }
}

static struct th_json *with_meta(const struct th_json *old, const struct th_json *body)
{
    struct th_json *n = th_json_dup(old);
    th_json_set(n, "metadata", th_json_dup(th_json_get(body, "metadata")));
    return n;
}

static void set_or_drop(struct th_json *o, const char *path, const struct th_json *v)
{
    if (v) {
        th_json_path_set(o, path, th_json_dup(v));
    } else {
        (void)th_json_path_del(o, path);
    }
}

int th_csr_approval(const struct th_req_ctx *c, const struct th_json *old,
                    const struct th_json *body, struct th_json **ret, struct th_err *err)
{
    (void)err;
    struct th_json *n = with_meta(old, body);
    set_or_drop(n, "status.conditions", th_json_path(body, "status.conditions"));
    fill_times(th_json_path(n, "status.conditions"), old, c->now_ms);
    *ret = n;
    return 0;
}

static size_t count(const struct th_json *obj, const char *type)
{
    const struct th_json *list = th_json_path(obj, "status.conditions");
    size_t n = 0;
    for (size_t i = 0; i < th_json_len(list); i++) {
        n += th_streq(str(th_json_at(list, i), "type"), type);
    }
    return n;
}

/* The k-th condition of a type: its place in the list. */
static size_t place(const struct th_json *list, const char *type, size_t k)
{
    for (size_t i = 0; i < th_json_len(list); i++) {
        if (th_streq(str(th_json_at(list, i), "type"), type) && k-- == 0) {
            return i;
        }
    }
    return 0;
}

int th_csr_status(const struct th_req_ctx *c, const struct th_json *old, const struct th_json *body,
                  struct th_json **ret, struct th_err *err)
{
    (void)err;
    static const char *const kept[] = {"Approved", "Denied"};
    struct th_json *n = with_meta(old, body);
    set_or_drop(n, "status", th_json_get(body, "status"));
    struct th_json *list = th_json_path(n, "status.conditions");
    const struct th_json *before = th_json_path(old, "status.conditions");
    for (size_t i = 0; i < TH_ARRAY_LEN(kept); i++) {
        size_t many = count(old, kept[i]);
        for (size_t k = 0; many == count(n, kept[i]) && k < many; k++) {
            th_json_set_at(list, place(list, kept[i], k),
                           th_json_dup(th_json_at(before, place(before, kept[i], k))));
        }
    }
    fill_times(list, old, c->now_ms);
    *ret = n;
    return 0;
}

/* ---- validation ---- */

static void check_label(struct th_err *err, const char *whole, const char *label, size_t n,
                        bool domain)
{
    th_autofree char *text = th_xstrndup(label, n);
    const char *why = domain ? th_name_dns1123_label(text) : th_name_dns1123_subdomain(text);
    if (why) {
        th_autofree char *detail = th_xasprintf("validating label \"%s\": %s", text, why);
        th_invalid_str(err, "spec.signerName", whole, detail);
    }
}

static void check_labels(struct th_err *err, const char *segment, bool domain)
{
    size_t labels = 0;
    for (const char *p = segment;; p++) {
        size_t n = strcspn(p, ".");
        check_label(err, segment, p, n, domain);
        labels++;
        p += n;
        if (!*p) {
            break;
        }
    }
    if (domain && labels < 2) {
        th_invalid_str(err, "spec.signerName", segment,
                       "should be a domain with at least two segments separated by dots");
    }
}

static void check_signer(const char *name, struct th_err *err)
{
    if (!*name) {
        th_invalid_required(err, "spec.signerName", "");
    }
    const char *slash = strchr(name, '/');
    if (!slash || strchr(slash + 1, '/')) {
        th_invalid_str(err, "spec.signerName", name,
                       "must be a fully qualified domain and path of the form "
                       "'example.com/signer-name'");
        return;
    }
    th_autofree char *domain = th_xstrndup(name, (size_t)(slash - name));
    check_labels(err, domain, true);
    check_labels(err, slash + 1, false);
}

static void check_usages(const struct th_json *spec, struct th_err *err)
{
    const struct th_json *list = th_json_get(spec, "usages");
    if (th_json_len(list) == 0) {
        th_invalid_required(err, "spec.usages", "");
    }
    for (size_t i = 0; i < th_json_len(list); i++) {
        const char *u = th_json_str(th_json_at(list, i));
        th_autofree char *path = th_field_path("spec.usages[%zu]", i);
        size_t k = 0;
        while (usages[k] && !th_streq(usages[k], u)) {
            k++;
        }
        if (!usages[k]) {
            th_invalid_not_supported(err, path, u ? u : "", usages);
        }
        for (size_t j = 0; j < i; j++) {
            if (th_streq(th_json_str(th_json_at(list, j)), u)) {
                th_invalid_duplicate(err, path, th_json_at(list, i));
                break;
            }
        }
    }
}

static void check_request(const struct th_json *spec, struct th_err *err)
{
    const char *packed = str(spec, "request");
    th_autobuf struct th_buf pem = TH_BUF_INIT;
    TH_CLEANUP(th_pki_request_done) struct th_pki_request r = {.common_name = NULL};
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (th_b64_decode(packed, strlen(packed), &pem, &why) < 0 ||
        th_pki_request_parse(th_buf_cstr(&pem), &r, &why) < 0) {
        th_invalid_value(err, "spec.request", th_json_get(spec, "request"), why.msg);
    }
}

static void check_conditions(const struct th_json *obj, struct th_err *err)
{
    static const char *const only_true[] = {"True", NULL};
    static const char *const any[] = {"False", "True", "Unknown", NULL};
    const struct th_json *list = th_json_path(obj, "status.conditions");
    for (size_t i = 0; i < th_json_len(list); i++) {
        const struct th_json *c = th_json_at(list, i);
        const char *type = str(c, "type");
        const char *status = str(c, "status");
        th_autofree char *type_path = th_field_path("status.conditions[%zu].type", i);
        th_autofree char *status_path = th_field_path("status.conditions[%zu].status", i);
        bool decided =
            th_streq(type, "Approved") || th_streq(type, "Denied") || th_streq(type, "Failed");
        bool ok = th_streq(status, "True") ||
                  (!decided && (th_streq(status, "False") || th_streq(status, "Unknown")));
        if (!*type) {
            th_invalid_required(err, type_path, "");
        }
        if (!*status) {
            th_invalid_required(err, status_path, "");
        } else if (!ok) {
            th_invalid_not_supported(err, status_path, status, decided ? only_true : any);
        }
        for (size_t k = 0; k < i; k++) {
            const char *other = str(th_json_at(list, k), "type");
            if (th_streq(other, type)) {
                th_invalid_duplicate(err, type_path, th_json_get(c, "type"));
                break;
            }
            if ((th_streq(type, "Approved") && th_streq(other, "Denied")) ||
                (th_streq(type, "Denied") && th_streq(other, "Approved"))) {
                th_invalid_str(err, "status.conditions", type,
                               "Approved and Denied conditions are mutually exclusive");
            }
        }
    }
}

static void check_certificate(const struct th_json *obj, struct th_err *err)
{
    const char *packed = str(obj, "status.certificate");
    th_autobuf struct th_buf pem = TH_BUF_INIT;
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    if (*packed && (th_b64_decode(packed, strlen(packed), &pem, &why) < 0 ||
                    th_pki_certificates_check(th_buf_cstr(&pem), &why) < 0)) {
        th_invalid_str(err, "status.certificate", "<certificate data>", why.msg);
    }
}

void th_csr_validate(const struct th_req_ctx *c, const struct th_json *obj, struct th_err *err)
{
    if (!c->subresource) { /* the spec does not change after */
        const struct th_json *spec = th_json_get(obj, "spec");
        const char *signer = str(spec, "signerName");
        check_request(spec, err);
        check_usages(spec, err);
        if (th_streq(signer, LEGACY_SIGNER)) {
            th_invalid_str(err, "spec.signerName", signer,
                           "the legacy signerName is not allowed via this API version");
        } else {
            check_signer(signer, err);
        }
        const struct th_json *seconds = th_json_get(spec, "expirationSeconds");
        if (seconds && th_json_as_int(seconds, 0) < MIN_SECONDS) {
            th_invalid_int(err, "spec.expirationSeconds", th_json_as_int(seconds, 0),
                           "may not specify a duration less than 600 seconds (10 minutes)");
        }
    }
    check_conditions(obj, err);
    check_certificate(obj, err);
}

/* Conditions of a type are the same, but for the order of others between them. */
static bool same_conditions(const struct th_json *a, const struct th_json *b, const char *type)
{
    const struct th_json *x = th_json_path(a, "status.conditions");
    const struct th_json *y = th_json_path(b, "status.conditions");
    for (size_t k = 0; k < count(a, type); k++) {
        if (!th_json_equal(th_json_at(x, place(x, type, k)), th_json_at(y, place(y, type, k)))) {
            return false;
        }
    }
    return true;
}

void th_csr_validate_update(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err)
{
    static const char *const types[] = {"Approved", "Denied", "Failed"};
    for (size_t i = 0; i < TH_ARRAY_LEN(types); i++) {
        size_t before = count(old, types[i]);
        size_t after = count(obj, types[i]);
        bool decision = i < 2 && !th_streq(c->subresource, "approval");
        const char *what = after < before                ? "remove"
                           : decision && after > before ? "add"
                           : decision && !same_conditions(obj, old, types[i]) ? "modify"
                                                                               : NULL;
        if (what) {
            th_autofree char *why =
                th_xasprintf("updates may not %s a condition of type \"%s\"", what, types[i]);
            th_invalid_forbidden(err, "status.conditions", why);
        }
    }
    const char *cert = str(old, "status.certificate");
    if (!th_streq(cert, str(obj, "status.certificate"))) {
        if (!th_streq(c->subresource, "status")) {
            th_invalid_forbidden(err, "status.certificate", "updates may not set certificate content");
        } else if (*cert) {
            th_invalid_forbidden(err, "status.certificate",
                                 "updates may not modify existing certificate content");
        }
    }
}

/* The status subresource has a check of its own in the pipeline: both of the above. */
void th_csr_validate_status(const struct th_req_ctx *c, const struct th_json *obj,
                            const struct th_json *old, struct th_err *err)
{
    th_csr_validate(c, obj, err);
    th_csr_validate_update(c, obj, old, err);
}
