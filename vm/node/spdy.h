#ifndef TH_NODE_SPDY_H
#define TH_NODE_SPDY_H
/* SPDY/3.1 frames, the server's side: what port-forward, and exec before WebSocket, are made of.
 * A struct spdy belongs to one reader; the spdy_put_* functions only append to a buffer, and those
 * that compress headers share the struct's compressor: the caller orders them by a lock. */
#include "base/buf.h"
#include "base/err.h"
#include <zlib.h>

enum spdy_kind {
    SPDY_SYN_STREAM, /* stream, headers, fin */
    SPDY_DATA,       /* stream, p and n, fin; one frame may come as several of these */
    SPDY_RST,        /* stream, value: status */
    SPDY_PING,       /* value: id */
    SPDY_GOAWAY,
    SPDY_OTHER, /* SETTINGS, WINDOW_UPDATE, HEADERS, ...: read and of no consequence */
};
enum { SPDY_PROTOCOL_ERROR = 1, SPDY_REFUSED_STREAM = 3 };

struct spdy {
    z_stream inflate, deflate;
    struct th_buf in;
    size_t consumed;    /* of in, by the frame given last */
    uint32_t data_left; /* of the data frame being given */
    uint32_t data_stream;
    bool data_fin;
};
struct spdy_frame {
    enum spdy_kind kind;
    uint32_t stream, value;
    bool fin;
    const char *p; /* borrowed until the next call of spdy_next */
    size_t n;
    struct th_strv headers; /* name, value, name, value...; names in small letters */
};

void spdy_init(struct spdy *s);
void spdy_done(struct spdy *s);
void spdy_feed(struct spdy *s, const void *p, size_t n);
/* Takes the next frame. 1: f is set (spdy_frame_done frees it); 0: more bytes are needed; negative:
 * the peer does not speak SPDY/3.1 or went over a limit, and nothing more can be read. */
int spdy_next(struct spdy *s, struct spdy_frame *f, struct th_err *err);
void spdy_frame_done(struct spdy_frame *f);
const char *spdy_header(const struct spdy_frame *f, const char *name); /* value or NULL */

void spdy_put_reply(struct spdy *s, struct th_buf *out,
                    uint32_t stream); /* SYN_REPLY, no headers */
void spdy_put_data(struct th_buf *out, uint32_t stream, bool fin, const void *p, size_t n);
void spdy_put_rst(struct th_buf *out, uint32_t stream, uint32_t status);
void spdy_put_ping(struct th_buf *out, uint32_t id);
void spdy_put_goaway(struct th_buf *out, uint32_t last_stream);
uint32_t spdy_dictionary_adler(void); /* for tests */
#endif
