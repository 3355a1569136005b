#ifndef TH_API_HOOK_CALL_H
#define TH_API_HOOK_CALL_H
/* Calling webhooks: conversion, admission. */
#include "controlplane/client/client.h"

/* The connections to webhooks that are kept between calls. client (borrowed) looks Services up.
 * Thread-safe; all calls must have ended when it is freed. */
struct th_hook_pool;
struct th_hook_pool *th_hook_pool_new(struct th_client *client);
void th_hook_pool_free(struct th_hook_pool *p);

/* POSTs body to the webhook that a WebhookClientConfig names (url or service), over TLS that is
 * checked against its caBundle, and gives the parsed answer. Failures say what upstream's client
 * says ('Post "https://…": context deadline exceeded'), with the reason TH_R_TIMEOUT when it took
 * too long; what the call was for is the caller's to put in front. */
int th_hook_call(struct th_hook_pool *p, const struct th_json *client_config,
                 const struct th_json *body, int64_t timeout_ms, struct th_json **ret,
                 struct th_err *err) TH_MUST_USE;
/* Where it goes, for messages: "https://svc.ns.svc:443/path?timeout=10s"; the caller frees. */
char *th_hook_url(const struct th_json *client_config, int64_t timeout_ms);
#endif
