#ifndef TH_API_SERVER_H
#define TH_API_SERVER_H
/* The API over HTTP/1.1: TLS on a TCP port and plain on a Unix socket. */
#include "controlplane/api/api.h"

struct th_server;
struct th_server_opts {
    struct th_api *api;         /* borrowed; must outlive the server */
    const char *listen_ip;      /* NULL: no TCP */
    int listen_port;            /* 0: any */
    const char *cert_pem, *key_pem; /* of the server */
    const char *client_ca_pem;  /* who may sign client certificates; NULL: none are asked for */
    const char *front_ca_pem;   /* who may sign front proxies, which say in headers who asks; or NULL */
    const char *unix_socket;    /* NULL: none; mode 0600, the peer is trusted to say who it is */
};
int th_server_start(const struct th_server_opts *o, struct th_server **ret, struct th_err *err) TH_MUST_USE;
int th_server_port(const struct th_server *s); /* the TCP port listened on */
/* Stops accepting, ends watches and streams, waits for requests under way, frees. NULL-safe. */
void th_server_stop(struct th_server *s);
#endif
