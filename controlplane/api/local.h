#ifndef TH_API_LOCAL_H
#define TH_API_LOCAL_H
/* The client interface served by the pipeline in this process, without HTTP. */
#include "controlplane/api/api.h"
#include "controlplane/client/client.h"

/* Acts as user in groups (NULL-terminated), or as the system itself when user is NULL. user_agent
 * names the field manager ("deployment-controller"). api is borrowed and must outlive the client. */
int th_client_new_local(struct th_api *api, const char *user, const char *const *groups,
                        const char *user_agent, struct th_client **ret,
                        struct th_err *err) TH_MUST_USE;
#endif
