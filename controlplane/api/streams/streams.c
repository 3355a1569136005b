#include "controlplane/api/priv.h"
void th_stream_target_free(struct th_stream_target *t) { (void)t; }
int th_stream_route(struct th_call *c, struct th_err *err)
{
    (void)c;
    return th_fail(err, TH_R_UNSUPPORTED, "streams are not there yet");
}
