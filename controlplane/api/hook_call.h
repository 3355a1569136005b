#ifndef TH_API_HOOK_CALL_H
#define TH_API_HOOK_CALL_H
/* Calling webhooks: conversion, admission. */
#include "controlplane/client/client.h"

/* POSTs body to the webhook that a WebhookClientConfig names (url, or a service that is looked up
 * through client), over TLS that is checked against its caBundle, and gives the parsed answer.
 * Failures say what upstream says: 'failed calling webhook ...' is the caller's to put in front. */
int th_hook_call(const struct th_json *client_config, struct th_client *client,
                 const struct th_json *body, int64_t timeout_ms, struct th_json **ret,
                 struct th_err *err) TH_MUST_USE;
/* Where it goes, for messages: "https://svc.ns.svc:443/path?timeout=10s"; the caller frees. */
char *th_hook_url(const struct th_json *client_config, int64_t timeout_ms);
#endif
