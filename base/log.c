/* Structured log lines on standard error.
 *
 * Problem: a dozen threads write to one descriptor that may be a terminal, a pipe or a file; a
 * reader (person or script) wants whole lines, in one shape, and only what was asked for.
 * Design: a line is put together in memory and written with one write(2), which the kernel
 * does not interleave with others' lines up to PIPE_BUF on pipes and never on files opened for
 * appending. Levels are kept in an immutable table behind an atomic pointer, so a disabled line
 * costs a load and a few comparisons.
 *
 * Invariants: a line never holds a control character (they turn into spaces), so nobody can forge a
 * second line through a value; a line is cut at LINE_MAX_B. Tables that were replaced stay linked
 * and are never freed, for a reader may still be in one; configuring is rare.
 */
#include "base/log.h"

#include "base/buf.h"
#include "base/clock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#define LINE_MAX_B 8192
#define MODULES_MAX 32

struct levels {
    struct levels *older;
    enum th_log_level all;
    size_t n;
    struct {
        char name[32];
        enum th_log_level level;
    } module[MODULES_MAX];
};

static struct levels initial = {.all = TH_LOG_INFO};
static struct levels *_Atomic current = &initial;
static _Atomic int log_fd = STDERR_FILENO;

static const char *const names[] = {"error", "warn", "info", "debug", "trace"};
static const char letters[] = "EWIDT";

void th_log_set_fd(int fd)
{
    log_fd = fd;
}

static bool level_of(const char *word, enum th_log_level *ret)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        if (strcmp(word, names[i]) == 0) {
            *ret = (enum th_log_level)i;
            return true;
        }
    }
    return false;
}

/* "level" or "module=level" */
static bool add_word(struct levels *l, char *word)
{
    char *eq = strchr(word, '=');
    if (!eq) {
        return level_of(word, &l->all);
    }
    *eq = '\0';
    size_t n = strlen(word);
    bool ok = n > 0 && n < sizeof(l->module[0].name) && l->n < MODULES_MAX &&
              level_of(eq + 1, &l->module[l->n].level);
    if (ok) {
        memcpy(l->module[l->n++].name, word, n + 1);
    } else {
        *eq = '=';
    }
    return ok;
}

void th_log_configure(const char *spec)
{
    if (!spec) {
        spec = getenv("THIMBLE_LOG");
    }
    struct levels *l = TH_NEW(struct levels);
    l->all = TH_LOG_INFO;
    th_autostrv struct th_strv words = TH_STRV_INIT;
    th_autostrv struct th_strv bad = TH_STRV_INIT;
    th_strv_split(&words, spec ? spec : "", ',');
    for (size_t i = 0; i < words.n; i++) {
        if (*words.v[i] && !add_word(l, words.v[i])) {
            th_strv_add(&bad, words.v[i]);
        }
    }
    l->older = atomic_exchange(&current, l);
    for (size_t i = 0; i < bad.n; i++) {
        th_warn("log", "unknown word in the log configuration", "word=%s", th_log_q(bad.v[i]));
    }
}

bool th_log_enabled(enum th_log_level level, const char *module)
{
    const struct levels *l = atomic_load_explicit(&current, memory_order_acquire);
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->module[i].name, module) == 0) {
            return level <= l->module[i].level;
        }
    }
    return level <= l->all;
}

void th_log(enum th_log_level level, const char *module, const char *msg, const char *kv_fmt, ...)
{
    if (!th_log_enabled(level, module)) {
        return;
    }
    int saved = errno; /* logging between a failure and its report must not change the report */
    char line[LINE_MAX_B];
    char when[TH_TIME_LEN];
    int n = snprintf(line, sizeof(line), "%s %c %s \"%s\"", th_time_format_milli(th_now_ms(), when),
                     letters[level], module, msg);
    size_t at = n < 0 ? 0 : (size_t)n;
    if (kv_fmt && at < sizeof(line) - 2) {
        line[at++] = ' ';
        va_list ap;
        va_start(ap, kv_fmt);
        n = vsnprintf(line + at, sizeof(line) - at, kv_fmt, ap);
        va_end(ap);
        at += n < 0 ? 0 : (size_t)n;
    }
    if (at > sizeof(line) - 2) {
        at = sizeof(line) - 2;
    }
    for (size_t i = 0; i < at; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = ' ';
        }
    }
    line[at++] = '\n';
    ssize_t w = write(log_fd, line, at);
    (void)w; /* there is nowhere left to report it */
    errno = saved;
}

const char *th_log_q(const char *s)
{
    static _Thread_local char ring[8][512];
    static _Thread_local unsigned next;
    char *buf = ring[next++ % TH_ARRAY_LEN(ring)];
    size_t at = 0;
    buf[at++] = '"';
    /* the longest piece is \u00XX; leave room for it, an ellipsis, the quote and the NUL */
    for (s = s ? s : ""; *s && at < sizeof(ring[0]) - 11; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') {
            buf[at++] = '\\';
            buf[at++] = *s;
        } else if (c == '\n' || c == '\t') {
            buf[at++] = '\\';
            buf[at++] = c == '\n' ? 'n' : 't';
        } else if (c < 0x20 || c == 0x7f) {
            at += (size_t)snprintf(buf + at, 7, "\\u%04x", c);
        } else {
            buf[at++] = *s;
        }
    }
    if (*s) {
        memcpy(buf + at, "...", 3);
        at += 3;
    }
    buf[at++] = '"';
    buf[at] = '\0';
    return buf;
}
