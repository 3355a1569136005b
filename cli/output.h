#ifndef TH_CLI_OUTPUT_H
#define TH_CLI_OUTPUT_H
/* What the user sees. Results go to standard output, everything else to standard error, so that
 * `thimble ... | jq` and $(thimble service ... --url) work. On a terminal a running step is redrawn
 * in place with its time; otherwise each step is one plain line when it ends. */
#include "cli/cmd.h"

struct th_progress {
    const struct th_cli *cli;
    char *step; /* running step, or NULL */
    int64_t started_ms;
    int64_t began_ms; /* of the whole command */
    bool drawn;
};
void th_progress_init(struct th_progress *p, const struct th_cli *cli);
/* Ends the running step as done and begins another. */
void th_progress_step(struct th_progress *p, const char *fmt, ...) TH_PRINTF(2, 3);
/* Redraws the running step with a detail (terminal only). */
void th_progress_detail(struct th_progress *p, const char *fmt, ...) TH_PRINTF(2, 3);
/* One line that stays, between steps. */
void th_progress_note(struct th_progress *p, const char *fmt, ...) TH_PRINTF(2, 3);
void th_progress_done(struct th_progress *p);   /* ends the running step as done */
void th_progress_failed(struct th_progress *p); /* ends the running step as failed */
#define TH_AUTO_PROGRESS TH_CLEANUP(th_progress_failed)

/* "1.4 s", "350 ms"; buf has at least 32 bytes. */
char *th_format_ms(int64_t ms, char *buf);
/* "12.3 MiB". */
char *th_format_bytes(uint64_t n, char *buf);

/* The error as people read it: "thimble: message [reason-code]" and the next step; with -o json one
 * object on standard output. */
void th_print_error(const struct th_cli *cli, const struct th_err *err);
/* Pretty JSON and a newline on standard output. */
void th_print_json(const struct th_json *o);

/* A table with aligned columns. Cells are copied. */
struct th_table {
    size_t cols, rows, cap;
    char **cells;
};
void th_table_row(struct th_table *t, size_t cols,
                  ...);                  /* cols strings; the first row is the head */
void th_table_print(struct th_table *t); /* to standard output; frees the content */
void th_table_done(struct th_table *t);
#endif
