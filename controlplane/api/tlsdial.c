/* TLS towards others: the Services of aggregated APIs and pods that speak HTTPS.
 *
 * A dialed connection is relayed by the same threads and steps as accepted ones (tlsrelay.c); only its
 * beginning differs: this side speaks first, and checks the other's certificate. The plain end is
 * given out at once, so whoever dials writes its request without waiting for the handshake. A
 * handshake that fails closes the plain end; the reason stays in a note that both hold.
 *
 * The words are those that users know from upstream's programs, since they end up in conditions and
 * answers.
 */
#include "base/alloc.h"
#include "controlplane/api/tlsfront_priv.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <gnutls/x509.h>
#include <sys/socket.h>

struct th_dial_note {
    uint32_t refs; /* atomic */
    pthread_mutex_t lock;
    char *why; /* lock */
    char *name; /* of the peer */
};

static struct th_dial_note *note_new(const char *name)
{
    struct th_dial_note *n = TH_NEW(struct th_dial_note);
    n->refs = 2; /* who dials, and the connection */
    n->name = th_xstrdup(name);
    (void)pthread_mutex_init(&n->lock, NULL);
    return n;
}

void th_dial_note_unref(struct th_dial_note *n)
{
    if (!n || __atomic_sub_fetch(&n->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    (void)pthread_mutex_destroy(&n->lock);
    free(n->why);
    free(n->name);
    free(n);
}

char *th_dial_note_why(struct th_dial_note *n)
{
    (void)pthread_mutex_lock(&n->lock);
    char *why = th_xstrdup(n->why);
    (void)pthread_mutex_unlock(&n->lock);
    return why;
}

static char *bad_certificate(struct th_tlsconn *c)
{
    static const char failed[] = "tls: failed to verify certificate: x509: ";
    unsigned status = gnutls_session_get_verify_cert_status(c->tls);
    if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNER_NOT_CA |
                  GNUTLS_CERT_SIGNATURE_FAILURE)) {
        return th_xasprintf("%scertificate signed by unknown authority", failed);
    }
    if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED)) {
        return th_xasprintf("%scertificate has expired or is not yet valid", failed);
    }
    if (status & GNUTLS_CERT_UNEXPECTED_OWNER) {
        return th_xasprintf("%scertificate is not valid for any names, but wanted to match %s",
                            failed, c->note->name);
    }
    return th_xasprintf("%scertificate is not valid", failed);
}

static char *why_failed(struct th_tlsconn *c, int r)
{
    switch (r) {
    case 0:
        return th_xstrdup("net/http: TLS handshake timeout");
    case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
        return bad_certificate(c);
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PULL_ERROR: {
        char *why = th_xasprintf("connect: %s", strerror(c->sys_errno));
        why[9] = (char)tolower((unsigned char)why[9]);
        return why;
    }
    case GNUTLS_E_PREMATURE_TERMINATION:
        return th_xstrdup("EOF");
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
    case GNUTLS_E_UNEXPECTED_PACKET:
    case GNUTLS_E_UNEXPECTED_PACKET_LENGTH:
    case GNUTLS_E_RECORD_OVERFLOW:
        return th_xstrdup("tls: first record does not look like a TLS handshake");
    case GNUTLS_E_FATAL_ALERT_RECEIVED: {
        const char *alert = gnutls_alert_get_name(gnutls_alert_get(c->tls));
        return th_xasprintf("remote error: tls: %s", alert ? alert : "unknown alert");
    }
    default:
        return th_xasprintf("tls: %s", gnutls_strerror(r));
    }
}

void th_tlsdial_failed(struct th_tlsconn *c, int r)
{
    if (!c->note) {
        return;
    }
    char *why = why_failed(c, r);
    (void)pthread_mutex_lock(&c->note->lock);
    free(c->note->why);
    c->note->why = why;
    (void)pthread_mutex_unlock(&c->note->lock);
}

void th_tlsdial_begin(struct th_tlsconn *dialed)
{
    while (dialed) {
        struct th_tlsconn *c = dialed;
        dialed = c->next;
        th_conn_shake_begin(c);
    }
}

static int load(struct th_tlsconn *c, const struct th_tls_peer *p)
{
    int r = gnutls_certificate_allocate_credentials(&c->own_cred);
    if (r >= 0 && p->ca_pem) {
        gnutls_datum_t ca = {(unsigned char *)p->ca_pem, (unsigned)strlen(p->ca_pem)};
        r = gnutls_certificate_set_x509_trust_mem(c->own_cred, &ca, GNUTLS_X509_FMT_PEM);
    } else if (r >= 0 && !p->insecure) {
        r = gnutls_certificate_set_x509_system_trust(c->own_cred);
    }
    if (r >= 0 && p->cert_pem) {
        gnutls_datum_t cert = {(unsigned char *)p->cert_pem, (unsigned)strlen(p->cert_pem)};
        gnutls_datum_t key = {(unsigned char *)p->key_pem, (unsigned)strlen(p->key_pem)};
        r = gnutls_certificate_set_x509_key_mem(c->own_cred, &cert, &key, GNUTLS_X509_FMT_PEM);
    }
    if (r >= 0) {
        r = gnutls_set_default_priority(c->tls);
    }
    return r >= 0 ? gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, c->own_cred) : r;
}

static bool is_address(const char *name)
{
    unsigned char a[16];
    return inet_pton(AF_INET, name, a) == 1 || inet_pton(AF_INET6, name, a) == 1;
}

int th_tlsdial(struct th_tlsfront *f, int fd, const struct th_tls_peer *peer, int *ret_plain,
               struct th_dial_note **ret_note, struct th_err *err)
{
    int pair[2];
    struct th_tlsconn *c = TH_NEW(struct th_tlsconn);
    c->net = fd;
    c->plain = -1;
    c->note = note_new(peer->name);
    int r = gnutls_init(&c->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    r = r >= 0 ? load(c, peer) : r;
    if (r < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0) {
        (void)close(fd);
        th_dial_note_unref(c->note); /* the caller's */
        th_conn_free(c);
        return th_fail(err, TH_R_UNAVAILABLE, "tls: %s",
                       r < 0 ? gnutls_strerror(r) : strerror(errno));
    }
    c->plain = pair[0];
    if (!is_address(peer->name)) {
        (void)gnutls_server_name_set(c->tls, GNUTLS_NAME_DNS, peer->name, strlen(peer->name));
    }
    if (!peer->insecure) {
        gnutls_session_set_verify_cert(c->tls, c->note->name, 0);
    }
    th_relay_transport(c);
    *ret_plain = pair[1];
    *ret_note = c->note;
    struct th_loop *l = c->loop = th_loop_pick(f);
    (void)pthread_mutex_lock(&l->lock);
    c->next = l->dialed;
    l->dialed = c;
    (void)pthread_mutex_unlock(&l->lock);
    th_loop_poke(l);
    return 0;
}
