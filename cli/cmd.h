#ifndef TH_CLI_CMD_H
#define TH_CLI_CMD_H
/* Commands as rows. One file per command (cmd_<name>.c) exports `const struct th_cmd th_cmd_<name>`
 * and commands.def lists it; dispatch, help, usage errors, suggestions and the completion of all
 * three shells are printed from the row, so that none of them can go stale. */
#include "base/err.h"
#include "base/json/json.h"

struct th_cli;

/* Values are read through th_opt_str & co. by long name. */
struct th_cmd_opt {
    const char *name;           /* long name without dashes; NULL ends the table */
    char short_name;            /* 0: none */
    const char *arg;            /* placeholder of the value ("N", "FILE"); NULL: a switch */
    const char *help;           /* one line, starts with a capital, no full stop */
    const char *dflt;           /* shown in the help and used when absent; NULL: none */
    const char *const *choices; /* allowed values, NULL-terminated; NULL: any. Also completed. */
    const char *complete;       /* "file", "dir", "profile", "image", "service" or NULL */
    bool repeat;                /* may be given several times */
};

struct th_cmd {
    const char *name;
    const char *group;                /* heading in `thimble help` */
    const char *summary;              /* one line */
    const char *args;                 /* "NAME [FILE...]"; "" for none */
    int min_args, max_args;           /* max -1: any number */
    const char *details;              /* paragraphs of `thimble help NAME`; may be NULL */
    const char *const *examples;      /* "thimble start", ...; NULL-terminated or NULL */
    const struct th_cmd_opt *opts;    /* NULL: only the global ones */
    const struct th_cmd *const *subs; /* subcommands; run is NULL then */
    const char *complete;             /* how arguments are completed, as th_cmd_opt.complete */
    bool hidden;
    bool raw_args; /* everything after the name goes to run unparsed (port-agent) */
    /* Returns 0 or -TH_R_*; err has the message. */
    int (*run)(struct th_cli *cli, struct th_err *err);
};

struct th_opt_value {
    const struct th_cmd_opt *opt;
    const char *value; /* NULL for a switch */
};

/* One invocation. */
struct th_cli {
    const struct th_cmd *cmd;
    char path[64]; /* "image build" */
    struct th_opt_value *opts;
    size_t n_opts;
    const char **args; /* positional, NULL-terminated */
    int n_args;
    /* Global options */
    const char *profile;
    bool json; /* -o json */
    bool quiet;
    bool verbose;
    bool color; /* standard error is a terminal, and NO_COLOR is not set */
    bool tty;   /* standard error is a terminal: progress may be redrawn */
};

/* The value given, else the default, else NULL. */
const char *th_opt_str(const struct th_cli *cli, const char *name);
bool th_opt_bool(const struct th_cli *cli, const char *name);
/* Whole number within [min, max]; TH_R_USAGE otherwise. */
int th_opt_int(const struct th_cli *cli, const char *name, int64_t min, int64_t max, int64_t *ret,
               struct th_err *err) TH_MUST_USE;
/* All values of a repeatable option, in order; borrowed. */
size_t th_opt_all(const struct th_cli *cli, const char *name, const char **ret, size_t max);

extern const struct th_cmd *const th_commands[]; /* NULL-terminated, in the order of help */
extern const struct th_cmd_opt th_global_opts[];

const struct th_cmd *th_cmd_find(const struct th_cmd *const *table, const char *name);
/* Fills cli from argv (argv[0] is the program). TH_R_USAGE with a suggestion on a bad line. A
 * request for help or the version sets *ret_help. */
int th_cli_parse(int argc, char **argv, struct th_cli *cli, bool *ret_help,
                 struct th_err *err) TH_MUST_USE;
void th_cli_done(struct th_cli *cli);
void th_help_print(const struct th_cmd *cmd, const char *path,
                   struct th_buf *b); /* cmd NULL: overview */
/* Completion script of a shell; TH_R_USAGE for an unknown one. */
int th_completion_script(const char *shell, struct th_buf *b, struct th_err *err) TH_MUST_USE;
/* Nearest candidate within edit distance 2, or NULL. */
const char *th_suggest(const char *word, const char *const *candidates, size_t n);
#endif
