/* port-forward. kubectl speaks SPDY/3.1 for it, tunnelled in a WebSocket or bare; neither is here
 * yet, and the answer says so instead of hanging. th_net_pod_connect (net/) is the other half. */
#include "vm/node/server.h"

enum MHD_Result portforward_request(struct req *r)
{
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)th_fail(&err, TH_R_UNSUPPORTED, "port-forward is not supported by this node yet");
    return reply_err(r, &err);
}
