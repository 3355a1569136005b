#ifndef TH_API_REWRITE_H
#define TH_API_REWRITE_H
/* Links in what a proxied server answers, so that they lead through the proxy again. */
#include "base/buf.h"

struct th_rewrite {
    const char *prefix; /* "/api/v1/namespaces/ns/services/x/proxy" */
    const char *peer;   /* "10.0.0.1:80", the host that was asked */
    const char *host;   /* the Host that the client named, or NULL */
};
/* The URL as a client of the proxy must ask for it; the caller frees. */
char *th_rewrite_url(const struct th_rewrite *r, const char *url);

/* HTML as it passes: links in the attributes that hold URLs. One thread at a time. */
struct th_html;
/* Copies what r points to. */
struct th_html *th_html_new(const struct th_rewrite *r);
void th_html_free(struct th_html *h);
/* Appends to out what can be said of the n bytes that came; end: nothing follows. */
void th_html_feed(struct th_html *h, const char *p, size_t n, bool end, struct th_buf *out);
#endif
