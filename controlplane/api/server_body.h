#ifndef TH_API_SERVER_BODY_H
#define TH_API_SERVER_BODY_H
/* Answers of the pipeline as answers of libmicrohttpd. */
#include "controlplane/api/server.h"
#include <microhttpd.h>

/* Takes the body out of a (its bytes, its object or its pieces); a must not be a watch. The caller
 * destroys the result. gzip: the client reads it. */
struct MHD_Response *th_server_body(struct th_aresp *a, bool gzip);
/* Adds the content type and the headers of a. */
void th_server_headers(struct MHD_Response *r, const struct th_aresp *a);
#endif
