/*
 * Progress, errors, tables.
 *
 * A step that runs is one line on a terminal ("◐ Booting the machine  1.2 s"), redrawn when a
 * detail arrives and turned into "✓ ... 1.4 s" at its end. Where standard error is not a terminal,
 * only the ended line is printed, without signs that a log could not show. NO_COLOR and TERM=dumb
 * are heeded by th_cli_parse, which decides cli->color and cli->tty.
 */
#include "cli/output.h"
#include "base/buf.h"
#include "base/clock.h"
#include <stdio.h>

#define GREEN "\033[32m"
#define RED "\033[31m"
#define DIM "\033[2m"
#define BOLD "\033[1m"
#define RESET "\033[0m"
#define ERASE_LINE "\r\033[K"

static const char *paint(const struct th_cli *cli, const char *code)
{
    return cli && cli->color ? code : "";
}

char *th_format_ms(int64_t ms, char *buf)
{
    if (ms < 1000) {
        (void)snprintf(buf, 32, "%lld ms", (long long)ms);
    } else if (ms < 60000) {
        (void)snprintf(buf, 32, "%.1f s", (double)ms / 1000);
    } else {
        (void)snprintf(buf, 32, "%lld min %lld s", (long long)(ms / 60000),
                       (long long)(ms / 1000 % 60));
    }
    return buf;
}

char *th_format_bytes(uint64_t n, char *buf)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    size_t u = 0;
    while (v >= 1024 && u + 1 < TH_ARRAY_LEN(units)) {
        v /= 1024;
        u++;
    }
    (void)snprintf(buf, 32, u ? "%.1f %s" : "%.0f %s", v, units[u]);
    return buf;
}

void th_progress_init(struct th_progress *p, const struct th_cli *cli)
{
    *p = (struct th_progress){.cli = cli, .began_ms = th_mono_ms()};
}

static void end_step(struct th_progress *p, bool ok)
{
    if (!p->step) {
        return;
    }
    char took[32];
    th_format_ms(th_mono_ms() - p->started_ms, took);
    if (!p->cli->quiet) {
        if (p->cli->tty) {
            fprintf(stderr, "%s%s%s%s %s  %s%s%s\n", ERASE_LINE, paint(p->cli, ok ? GREEN : RED),
                    ok ? "✓" : "✗", paint(p->cli, RESET), p->step, paint(p->cli, DIM), took,
                    paint(p->cli, RESET));
        } else {
            fprintf(stderr, "%s%s (%s)\n", ok ? "" : "failed: ", p->step, took);
        }
    }
    free(p->step);
    p->step = NULL;
}

static void draw(struct th_progress *p, const char *detail)
{
    if (p->cli->tty) {
        fprintf(stderr, "%s%s•%s %s %s%s%s", ERASE_LINE, paint(p->cli, BOLD), paint(p->cli, RESET),
                p->step, paint(p->cli, DIM), detail, paint(p->cli, RESET));
        (void)fflush(stderr);
    }
}

void th_progress_step(struct th_progress *p, const char *fmt, ...)
{
    end_step(p, true);
    va_list ap;
    va_start(ap, fmt);
    p->step = th_xvasprintf(fmt, ap);
    va_end(ap);
    p->started_ms = th_mono_ms();
    draw(p, "");
}

void th_progress_detail(struct th_progress *p, const char *fmt, ...)
{
    if (!p->step || !p->cli->tty) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *detail = th_xvasprintf(fmt, ap);
    va_end(ap);
    draw(p, detail);
}

void th_progress_note(struct th_progress *p, const char *fmt, ...)
{
    if (p->cli->quiet) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    th_autofree char *line = th_xvasprintf(fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s%s\n", p->cli->tty ? ERASE_LINE : "", line);
    if (p->step) {
        draw(p, "");
    }
}

void th_progress_done(struct th_progress *p)
{
    end_step(p, true);
}

void th_progress_failed(struct th_progress *p)
{
    end_step(p, false);
}

void th_print_json(const struct th_json *o)
{
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_json_dump_pretty(o, &b);
    printf("%s\n", th_buf_cstr(&b));
}

void th_print_error(const struct th_cli *cli, const struct th_err *err)
{
    const char *code = th_reason_code(err->reason);
    const char *msg = err->msg ? err->msg : "failed";
    const char *next = err->hint ? err->hint : th_reason_next(err->reason);
    if (cli && cli->json) {
        struct th_json *causes = th_json_array();
        for (size_t i = 0; i < err->n_causes; i++) {
            th_json_append(causes, th_json_build("{'field':%s,'message':%s}", err->causes[i].field,
                                                 err->causes[i].msg));
        }
        struct th_json *o TH_AUTO(th_json) =
            th_json_build("{'error':{'reason':%s,'message':%s,'next':%s,'causes':%o}}", code, msg,
                          next, causes);
        th_print_json(o);
        return;
    }
    fprintf(stderr, "%sthimble:%s %s %s[%s]%s\n", paint(cli, RED), paint(cli, RESET), msg,
            paint(cli, DIM), code, paint(cli, RESET));
    for (size_t i = 0; i < err->n_causes; i++) {
        const char *field = err->causes[i].field;
        fprintf(stderr, "  %s%s%s\n", field ? field : "", field && *field ? ": " : "",
                err->causes[i].msg ? err->causes[i].msg : "");
    }
    fprintf(stderr, "  %s\n", next);
}

void th_table_row(struct th_table *t, size_t cols, ...)
{
    t->cols = t->cols ? t->cols : cols;
    TH_ASSERT(cols == t->cols);
    if ((t->rows + 1) * cols > t->cap) {
        t->cap = (t->rows + 8) * cols * 2;
        t->cells = th_xrealloc(t->cells, t->cap * sizeof(*t->cells));
    }
    va_list ap;
    va_start(ap, cols);
    for (size_t c = 0; c < cols; c++) {
        const char *cell = va_arg(ap, const char *);
        t->cells[t->rows * cols + c] = th_xstrdup(cell ? cell : "");
    }
    va_end(ap);
    t->rows++;
}

void th_table_print(struct th_table *t)
{
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t c = 0; c < t->cols; c++) {
            size_t width = 0;
            for (size_t k = 0; k < t->rows; k++) {
                size_t n = strlen(t->cells[k * t->cols + c]);
                width = n > width ? n : width;
            }
            bool last = c + 1 == t->cols;
            printf("%-*s%s", last ? 0 : (int)width, t->cells[r * t->cols + c], last ? "\n" : "   ");
        }
    }
    th_table_done(t);
}

void th_table_done(struct th_table *t)
{
    for (size_t i = 0; i < t->rows * t->cols; i++) {
        free(t->cells[i]);
    }
    free(t->cells);
    *t = (struct th_table){0};
}
