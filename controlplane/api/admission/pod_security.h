#ifndef TH_API_ADMISSION_POD_SECURITY_H
#define TH_API_ADMISSION_POD_SECURITY_H
/* The Pod Security Standards. minor is the version 1.x that they are taken from. */
#include "base/buf.h"
#include "base/json/json.h"

enum th_ps_level { TH_PS_PRIVILEGED, TH_PS_BASELINE, TH_PS_RESTRICTED };
#define TH_PS_LATEST 1000
/* What a pod does that the level forbids, in upstream's words and order: reasons ("host namespaces"),
 * and the same with details ("host namespaces (hostNetwork=true)"). */
struct th_ps_result {
    struct th_strv reasons, details;
};
void th_ps_check(enum th_ps_level level, int minor, const struct th_json *annotations,
                 const struct th_json *spec, struct th_ps_result *ret);
void th_ps_result_done(struct th_ps_result *r);
#endif
