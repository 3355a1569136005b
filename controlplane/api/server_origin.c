/* Who asks, and from where.
 *
 * Over TLS that is a certificate or a token, then perhaps somebody who is impersonated; root on the Unix
 * socket says it in headers. Addresses are upstream's list: what proxies on the way forwarded (not to be
 * trusted), then the peer itself. The audit ID is the client's when it sends one, so that a request can
 * be followed through several servers. Who is turned away here never reaches the pipeline and is
 * written to the audit log from here.
 */
#include "controlplane/api/server_origin.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/rand.h"

#include <arpa/inet.h>
#include <strings.h>

static const char *header(struct MHD_Connection *mhd, const char *name)
{
    return MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, name);
}

/* ---- addresses ---- */

static void add_address(struct th_strv *to, const char *p, size_t n)
{
    while (n > 0 && (*p == ' ' || *p == '\t')) {
        p++;
        n--;
    }
    while (n > 0 && (p[n - 1] == ' ' || p[n - 1] == '\t')) {
        n--;
    }
    th_autofree char *text = th_xstrndup(p, n);
    unsigned char raw[16];
    if ((inet_pton(AF_INET, text, raw) == 1 || inet_pton(AF_INET6, text, raw) == 1) &&
        to->n < TH_LIMIT_FORWARDED) {
        th_strv_add(to, text);
    }
}

static void read_sources(struct MHD_Connection *mhd, const char *peer, struct th_strv *to)
{
    const char *forwarded = header(mhd, "X-Forwarded-For");
    for (const char *p = forwarded; p && *p;) {
        size_t n = strcspn(p, ",");
        add_address(to, p, n);
        p += n + (p[n] == ',');
    }
    const char *real = header(mhd, "X-Real-Ip");
    if (real && !th_strv_has(to, real)) {
        add_address(to, real, strlen(real));
    }
    if (*peer && (to->n == 0 || !th_streq(to->v[to->n - 1], peer))) {
        th_strv_add(to, peer);
    }
}

void th_origin_read(struct MHD_Connection *mhd, const struct th_origin_peer *p, struct th_origin *o)
{
    char made[TH_UUID_LEN];
    const char *id = header(mhd, "Audit-ID");
    o->audit_id = th_xstrdup(id && *id ? id : th_rand_uuid(made));
    o->received_us = th_now_us();
    read_sources(mhd, p->address, &o->sources);
}

void th_origin_done(struct th_origin *o)
{
    th_identity_unref(o->id);
    free(o->audit_id);
    th_strv_done(&o->sources);
}

/* ---- identity ---- */

static enum MHD_Result add_group(void *cls, enum MHD_ValueKind kind, const char *key,
                                 const char *value)
{
    (void)kind;
    if (strcasecmp(key, "X-Remote-Group") == 0 && value) {
        th_strv_add(cls, value);
    }
    return MHD_YES;
}

static enum MHD_Result add_impersonation(void *cls, enum MHD_ValueKind kind, const char *key,
                                         const char *value)
{
    (void)kind;
    struct th_strv *to = cls;
    if (strncasecmp(key, "Impersonate-", 12) == 0 && to->n < TH_LIMIT_IMPERSONATE) {
        th_strv_addf(to, "%s: %s", key, value ? value : "");
    }
    return MHD_YES;
}

static enum MHD_Result add_remote(void *cls, enum MHD_ValueKind kind, const char *key,
                                  const char *value)
{
    (void)kind;
    struct th_strv *to = cls;
    if (strncasecmp(key, "X-Remote-", 9) == 0 && to->n < TH_LIMIT_IMPERSONATE) {
        th_strv_addf(to, "%s: %s", key, value ? value : "");
    }
    return MHD_YES;
}

static int authenticate(struct th_api *api, struct MHD_Connection *mhd,
                        const struct th_origin_peer *p, struct th_origin *o, struct th_err *err)
{
    if (p->is_unix) {
        th_autostrv struct th_strv groups = TH_STRV_INIT;
        const char *user = header(mhd, "X-Remote-User");
        (void)MHD_get_connection_values(mhd, MHD_HEADER_KIND, add_group, &groups);
        if (!user) {
            th_strv_add(&groups, "system:masters");
        }
        o->id = th_authn_subject(user ? user : "system:admin", &groups);
        return 0;
    }
    if (p->bad_cert) {
        return th_fail(err, TH_R_UNAUTHORIZED, "Unauthorized");
    }
    struct th_identity *cert = p->cert;
    if (cert && cert->front_proxy) {
        th_autostrv struct th_strv headers = TH_STRV_INIT;
        (void)MHD_get_connection_values(mhd, MHD_HEADER_KIND, add_remote, &headers);
        o->id = th_authn_front_proxy(cert, &headers);
        if (o->id) {
            return 0;
        }
        cert = NULL; /* its own name is nobody's here */
        if (!header(mhd, "Authorization")) {
            return th_fail(err, TH_R_UNAUTHORIZED, "Unauthorized");
        }
    }
    return th_authn(api, header(mhd, "Authorization"), cert, &o->id, err);
}

/* What was tried, in the audit log's words. */
static char *attempted(struct MHD_Connection *mhd, const struct th_origin_peer *p)
{
    const char *authorization = header(mhd, "Authorization");
    th_autostrv struct th_strv how = TH_STRV_INIT;
    if (authorization && strncasecmp(authorization, "Basic ", 6) == 0) {
        th_strv_add(&how, "basic");
    }
    if (authorization && strncasecmp(authorization, "Bearer ", 7) == 0) {
        th_strv_add(&how, "bearer");
    }
    if (p->bad_cert || p->cert) {
        th_strv_add(&how, "x509");
    }
    th_autofree char *all = th_strv_join(&how, ", ");
    return how.n > 0 ? th_xasprintf("Authentication failed, attempted: %s", all)
                     : th_xstrdup("Authentication failed, no credentials provided");
}

int th_origin_identify(struct th_api *api, struct MHD_Connection *mhd,
                       const struct th_origin_peer *p, const struct th_areq *req,
                       struct th_origin *o, struct th_err *err)
{
    TH_AUTO_ERR struct th_err why = TH_ERR_INIT;
    int r = authenticate(api, mhd, p, o, &why);
    if (r < 0) {
        th_autofree char *how = attempted(mhd, p);
        th_api_refused(api, req, NULL, &why, how);
        th_err_move(err, &why);
        return r;
    }
    th_autostrv struct th_strv headers = TH_STRV_INIT;
    (void)MHD_get_connection_values(mhd, MHD_HEADER_KIND, add_impersonation, &headers);
    if (headers.n == 0) {
        return 0;
    }
    TH_AUTO(th_identity) struct th_identity *asking = th_steal(&o->id);
    r = th_impersonate(api, asking, &headers, &o->id, &why);
    if (r < 0) {
        th_api_refused(api, req, asking, &why, NULL);
        th_err_move(err, &why);
    }
    return r;
}
