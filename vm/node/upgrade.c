/* Upgrades: which stream protocol a client asks for, and the 101 that grants it.
 *
 * WebSocket clients name subprotocols in Sec-WebSocket-Protocol. SPDY/3.1 clients send `Upgrade:
 * SPDY/3.1` with any method and name versions in X-Stream-Protocol-Version, one header each;
 * upstream answers 403 when none of them is spoken. */
#include "vm/node/server.h"
#include "vm/node/ws.h"

#include <strings.h>

static enum MHD_Result each_version(void *cls, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    (void)kind;
    if (strcasecmp(name, "X-Stream-Protocol-Version") == 0 && value && *value) {
        th_strv_add(cls, value);
    }
    return MHD_YES;
}

bool upgrade_choose(struct req *r, struct upgrade *ret,
                    const char *(*choose)(const char *offered, bool spdy), struct th_err *err)
{
    const char *up = MHD_lookup_connection_value(r->c, MHD_HEADER_KIND, "Upgrade");
    *ret = (struct upgrade){
        .spdy = up && strcasecmp(up, "SPDY/3.1") == 0,
        .key = MHD_lookup_connection_value(r->c, MHD_HEADER_KIND, "Sec-WebSocket-Key"),
    };
    if (ret->spdy) {
        th_autostrv struct th_strv versions = TH_STRV_INIT;
        (void)MHD_get_connection_values(r->c, MHD_HEADER_KIND, each_version, &versions);
        th_autofree char *list = th_strv_join(&versions, ",");
        ret->proto = choose(list, true);
        if (!ret->proto) {
            (void)th_fail(err, TH_R_FORBIDDEN,
                          "unable to upgrade: unable to negotiate protocol: client supports "
                          "[%s]",
                          list);
        }
        return ret->proto != NULL;
    }
    if (!up || strcasecmp(up, "websocket") != 0 || !ret->key) {
        (void)th_fail(err, TH_R_BAD_REQUEST,
                      "unable to upgrade: missing upgrade headers in request: \"Upgrade\" "
                      "must be \"websocket\" or \"SPDY/3.1\", not \"%s\"",
                      up ? up : "");
        return false;
    }
    ret->proto =
        choose(MHD_lookup_connection_value(r->c, MHD_HEADER_KIND, "Sec-WebSocket-Protocol"), false);
    if (!ret->proto) {
        (void)th_fail(err, TH_R_BAD_REQUEST,
                      "unable to upgrade: none of the client's subprotocols is known");
    }
    return ret->proto != NULL;
}

enum MHD_Result upgrade_reply(struct req *r, const struct upgrade *u, MHD_UpgradeHandler fn,
                              void *arg)
{
    struct MHD_Response *resp = MHD_create_response_for_upgrade(fn, arg);
    if (u->spdy) {
        (void)MHD_add_response_header(resp, "Upgrade", "SPDY/3.1");
        if (*u->proto) {
            (void)MHD_add_response_header(resp, "X-Stream-Protocol-Version", u->proto);
        }
    } else {
        char accept[32];
        ws_accept_key(u->key, accept);
        (void)MHD_add_response_header(resp, "Upgrade", "websocket");
        (void)MHD_add_response_header(resp, "Sec-WebSocket-Accept", accept);
        if (*u->proto) {
            (void)MHD_add_response_header(resp, "Sec-WebSocket-Protocol", u->proto);
        }
    }
    enum MHD_Result ok = MHD_queue_response(r->c, MHD_HTTP_SWITCHING_PROTOCOLS, resp);
    MHD_destroy_response(resp);
    return ok;
}
