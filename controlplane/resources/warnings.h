#ifndef TH_RESOURCES_WARNINGS_H
#define TH_RESOURCES_WARNINGS_H
/* What a write is warned about although it is valid. A row's hook (th_strategy.warn) calls these with a
 * view of the object; texts go where the request gathers its Warning headers. */
#include "controlplane/resources/resource.h"
#include "controlplane/resources/view.h"

/* One warning: "path.member: text", or only the text when there is no path. */
void th_warn_at(const struct th_req_ctx *c, const struct th_view *v, const char *member,
                const char *fmt, ...) TH_PRINTF(4, 5);
/* The spec and the metadata of a pod or of a template (v, above "spec"). */
void th_warn_pod_like(const struct th_req_ctx *c, const struct th_view *v, bool is_template);
/* Labels of nodes that are not used any more, as a selector's keys; NULL: the key is fine. */
const char *th_node_label_deprecated(const char *key);
void th_warn_node_selector_term(const struct th_req_ctx *c, const struct th_view *term,
                                bool check_values);
/* An amount of bytes at member (a map) under key that is no whole number. */
void th_warn_fraction(const struct th_req_ctx *c, const struct th_view *v, const char *member,
                      const char *key);
void th_warn_ip(const struct th_req_ctx *c, const struct th_view *v, const char *member,
                const char *ip);
void th_warn_cidr(const struct th_req_ctx *c, const struct th_view *v, const char *member,
                  const char *cidr);
void th_warn_claim_spec(const struct th_req_ctx *c, const struct th_view *spec);
#endif
