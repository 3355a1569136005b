#ifndef TH_NODE_WS_H
#define TH_NODE_WS_H
/* The server's side of a WebSocket (RFC 6455) on a connected descriptor. One thread reads; any
 * thread may send (the lock is inside). */
#include "base/buf.h"
#include "base/err.h"
#include <pthread.h>

#define TH_WS_MESSAGE_MAX (4u << 20)

enum ws_op { WS_CONT = 0, WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };
struct ws {
    int fd;
    pthread_mutex_t mu;     /* guards writing to fd */
    struct th_buf in;       /* bytes not yet taken as frames */
    struct th_buf message;  /* fragments so far */
    int message_op;
    bool closed;
    bool bare;              /* no frames: bytes go and come as they are (SPDY without a WebSocket) */
};
void ws_init(struct ws *w, int fd, const void *extra, size_t extra_n);
void ws_done(struct ws *w); /* does not close fd */
/* The same for a connection without frames: each read is a message, nothing is put around what is sent. */
void ws_init_bare(struct ws *w, int fd, const void *extra, size_t extra_n);
/* Reads what the descriptor has (one read). false: the peer is gone. */
bool ws_fill(struct ws *w);
/* Takes one whole message out of what was read. 1: *ret_op and msg are set (data messages only;
 * pings are answered inside); 0: more bytes are needed; -1: closed or broken. */
int ws_next(struct ws *w, int *ret_op, struct th_buf *msg);
bool ws_send(struct ws *w, enum ws_op op, const void *head, size_t head_n, const void *p, size_t n);
bool ws_close(struct ws *w, int code, const char *reason);
/* Sec-WebSocket-Accept for a key. out has 32 bytes. */
void ws_accept_key(const char *key, char out[32]);
#endif
