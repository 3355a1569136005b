#ifndef TH_NODE_CHAN_H
#define TH_NODE_CHAN_H
/* The channels of a remote command (exec, attach) as the session sees them, whatever carries them.
 * One thread uses a struct chans. */
#include "base/json/json.h"
#include "vm/node/spdy.h"
#include "vm/node/ws.h"

enum chan { CH_STDIN, CH_STDOUT, CH_STDERR, CH_ERROR, CH_RESIZE, CH_COUNT_ };

struct chans {
    struct ws ws;
    bool spdy_on;
    int version; /* N of vN.channel.k8s.io */
    struct spdy spdy;
    uint32_t ids[CH_COUNT_]; /* SPDY's streams; 0: none */
    bool base64;             /* messages are text: a digit for the channel, then base64 */
    bool gone;               /* the client has left */
};
/* What came: bytes of a channel, or its end (p NULL). */
typedef void chans_fn(void *arg, enum chan ch, const char *p, size_t n);

/* The subprotocol to answer with, out of a client's list ("a, b"); NULL: none is spoken here. */
const char *chans_choose(const char *offered, bool spdy);
/* fd stays the caller's. */
void chans_init(struct chans *c, int fd, const void *extra, size_t extra_n, bool spdy,
                const char *proto);
void chans_done(struct chans *c);
/* Until the channels stand: SPDY's client opens a stream for each (expected: a bit per channel). */
bool chans_open(struct chans *c, unsigned expected, int timeout_ms);
bool chans_send(struct chans *c, enum chan ch, const void *p, size_t n);
bool chans_fill(struct chans *c);                          /* one read; false: the client is gone */
bool chans_take(struct chans *c, chans_fn *fn, void *arg); /* what was read; false: it is gone */
/* The last word: a Status. (SPDY before v4 has plain text, and nothing for success.) */
void chans_status(struct chans *c, const struct th_json *status);
void chans_close(struct chans *c);
#endif
