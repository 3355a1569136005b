/* Sets of completion indexes; see job_priv.h. The text is the one of Job.status.completedIndexes:
 * single numbers and intervals of at least three ("0,2-4,8,9"). */
#include "base/buf.h"
#include "controlplane/controllers/job_priv.h"

void th_indexes_init(struct th_indexes *s, size_t n, const char *text)
{
    *s = (struct th_indexes){.has = th_xcalloc(n + 1, sizeof(bool)), .n = n};
    struct th_strv parts TH_CLEANUP(th_strv_done) = TH_STRV_INIT;
    if (text && *text) {
        th_strv_split(&parts, text, ',');
    }
    for (size_t i = 0; i < parts.n; i++) {
        char *end = NULL;
        size_t from = strtoul(parts.v[i], &end, 10);
        size_t to = *end == '-' ? strtoul(end + 1, NULL, 10) : from;
        for (size_t k = from; k <= to && k < n; k++) {
            th_indexes_add(s, k);
        }
    }
}

void th_indexes_done(struct th_indexes *s)
{
    free(s->has);
    *s = (struct th_indexes){.n = 0};
}

void th_indexes_add(struct th_indexes *s, size_t i)
{
    if (i < s->n && !s->has[i]) {
        s->has[i] = true;
        s->count++;
    }
}

char *th_indexes_text(const struct th_indexes *s)
{
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    for (size_t i = 0; i < s->n; i++) {
        size_t to = i;
        if (!s->has[i]) {
            continue;
        }
        while (to + 1 < s->n && s->has[to + 1]) {
            to++;
        }
        th_buf_printf(&b, "%s%zu", b.n ? "," : "", i);
        if (to > i) {
            th_buf_printf(&b, "%c%zu", to > i + 1 ? '-' : ',', to);
        }
        i = to;
    }
    return th_xstrdup(th_buf_cstr(&b));
}
