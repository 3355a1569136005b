/* Long lists as they are sent: no copy of the whole body is ever made.
 *
 * The objects of a list are references to immutable bytes that the store holds anyway. The body is
 * head, objects with commas between them, tail; its length is known before the first byte, and the
 * reader copies into the connection's buffer whatever fits. `skip` bytes in front of each object are
 * replaced by "{": the apiVersion and kind that items of a list do not repeat.
 */
#include "controlplane/api/priv.h"

struct th_pieces {
    struct th_buf head, tail;
    struct th_store_list list;
    size_t skip;
    size_t total;
    size_t at, off; /* piece (0: head, 1 and 2 for each object, then the tail) and offset in it */
};

struct th_pieces *th_pieces_new(struct th_buf *head, struct th_buf *tail, struct th_store_list *l,
                                size_t skip)
{
    struct th_pieces *p = TH_NEW(struct th_pieces);
    p->head = *head;
    p->tail = *tail;
    p->list = *l;
    p->skip = skip;
    *head = (struct th_buf)TH_BUF_INIT;
    *tail = (struct th_buf)TH_BUF_INIT;
    *l = (struct th_store_list){.n = 0};
    p->total = p->head.n + p->tail.n;
    for (size_t i = 0; i < p->list.n; i++) {
        p->total += p->list.objs[i]->n - skip + (skip ? 1 : 0) + (i > 0);
    }
    return p;
}

void th_pieces_free(struct th_pieces *p)
{
    if (p) {
        th_buf_done(&p->head);
        th_buf_done(&p->tail);
        th_store_list_done(&p->list);
        free(p);
    }
}

size_t th_pieces_total(const struct th_pieces *p)
{
    return p->total;
}

static struct th_str piece(const struct th_pieces *p, size_t at)
{
    if (at == 0) {
        return th_buf_str(&p->head);
    }
    size_t i = (at - 1) / 2;
    if (i >= p->list.n) {
        return at == 1 + 2 * p->list.n ? th_buf_str(&p->tail) : (struct th_str){NULL, 0};
    }
    if ((at - 1) % 2 == 0) {
        return i > 0 ? (p->skip ? TH_STR(",{") : TH_STR(",")) : (p->skip ? TH_STR("{") : TH_STR(""));
    }
    return (struct th_str){p->list.objs[i]->bytes + p->skip, p->list.objs[i]->n - p->skip};
}

size_t th_pieces_read(struct th_pieces *p, char *buf, size_t max)
{
    size_t n = 0;
    while (n < max) {
        struct th_str s = piece(p, p->at);
        if (!s.p) {
            break;
        }
        size_t take = s.n - p->off < max - n ? s.n - p->off : max - n;
        memcpy(buf + n, s.p + p->off, take);
        n += take;
        p->off += take;
        if (p->off == s.n) {
            p->at++;
            p->off = 0;
        }
    }
    return n;
}
