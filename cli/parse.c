/*
 * Reading a command line against the command table.
 *
 * Options may stand anywhere (before or after the command and between arguments), long ones as
 * --name value or --name=value, short ones as -n value, -nvalue or bundled switches; "--" ends
 * them. Values are looked up in the command's own table first and the global one second, so a
 * command may give a global name a meaning of its own (kubectl's -o, say). A word that is not
 * known fails with the nearest one that is, since most mistakes are typing.
 */
#include "cli/cmd.h"
#include "base/buf.h"
#include <errno.h>
#include <stdio.h>

static const char *const output_choices[] = {"text", "json", NULL};

const struct th_cmd_opt th_global_opts[] = {
    {.name = "profile",
     .short_name = 'p',
     .arg = "NAME",
     .help = "Cluster to work on",
     .dflt = "default",
     .complete = "profile"},
    {.name = "output",
     .short_name = 'o',
     .arg = "FORMAT",
     .help = "Output format",
     .dflt = "text",
     .choices = output_choices},
    {.name = "quiet", .short_name = 'q', .help = "Print results and errors only"},
    {.name = "verbose", .short_name = 'v', .help = "Print what is done in detail"},
    {.name = "help", .short_name = 'h', .help = "Show help"},
    {.name = NULL},
};

static size_t distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    size_t row[64];
    if (n >= TH_ARRAY_LEN(row) || m >= TH_ARRAY_LEN(row)) {
        return TH_ARRAY_LEN(row);
    }
    for (size_t j = 0; j <= m; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n; i++) {
        size_t diag = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t up = row[j];
            size_t best = diag + (a[i - 1] != b[j - 1]);
            if (up + 1 < best) {
                best = up + 1;
            }
            if (row[j - 1] + 1 < best) {
                best = row[j - 1] + 1;
            }
            row[j] = best;
            diag = up;
        }
    }
    return row[m];
}

const char *th_suggest(const char *word, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t best_d = 3;
    for (size_t i = 0; i < n; i++) {
        size_t d = distance(word, candidates[i]);
        bool is_prefix = strlen(word) >= 2 && th_startswith(candidates[i], word);
        if (is_prefix && d >= best_d) {
            d = 2;
        }
        if (d < best_d && d < strlen(candidates[i])) {
            best = candidates[i];
            best_d = d;
        }
    }
    return best;
}

const struct th_cmd *th_cmd_find(const struct th_cmd *const *table, const char *name)
{
    for (size_t i = 0; table[i]; i++) {
        if (th_streq(table[i]->name, name)) {
            return table[i];
        }
    }
    return NULL;
}

static int unknown_command(const struct th_cmd *const *table, const char *parent, const char *word,
                           struct th_err *err)
{
    const char *names[64];
    size_t n = 0;
    for (size_t i = 0; table[i] && n < TH_ARRAY_LEN(names); i++) {
        if (!table[i]->hidden) {
            names[n++] = table[i]->name;
        }
    }
    const char *near = th_suggest(word, names, n);
    (void)th_fail(err, TH_R_USAGE, "unknown command \"%s%s%s\"", parent, *parent ? " " : "", word);
    if (near) {
        return th_hint(err, "did you mean \"thimble %s%s%s\"?", parent, *parent ? " " : "", near);
    }
    return th_hint(err, "\"thimble help%s%s\" lists the commands", *parent ? " " : "", parent);
}

static const struct th_cmd_opt *find_long(const struct th_cmd *cmd, const char *name, size_t n)
{
    const struct th_cmd_opt *tables[] = {cmd ? cmd->opts : NULL, th_global_opts};
    for (size_t t = 0; t < TH_ARRAY_LEN(tables); t++) {
        for (const struct th_cmd_opt *o = tables[t]; o && o->name; o++) {
            if (strlen(o->name) == n && memcmp(o->name, name, n) == 0) {
                return o;
            }
        }
    }
    return NULL;
}

static const struct th_cmd_opt *find_short(const struct th_cmd *cmd, char c)
{
    const struct th_cmd_opt *tables[] = {cmd ? cmd->opts : NULL, th_global_opts};
    for (size_t t = 0; t < TH_ARRAY_LEN(tables); t++) {
        for (const struct th_cmd_opt *o = tables[t]; o && o->name; o++) {
            if (o->short_name == c) {
                return o;
            }
        }
    }
    return NULL;
}

static int unknown_option(const struct th_cmd *cmd, const char *path, const char *word,
                          struct th_err *err)
{
    const char *names[64];
    size_t n = 0;
    const struct th_cmd_opt *tables[] = {cmd ? cmd->opts : NULL, th_global_opts};
    for (size_t t = 0; t < TH_ARRAY_LEN(tables); t++) {
        for (const struct th_cmd_opt *o = tables[t]; o && o->name && n < TH_ARRAY_LEN(names); o++) {
            names[n++] = o->name;
        }
    }
    const char *bare = word;
    while (*bare == '-') {
        bare++;
    }
    th_autofree char *key = th_xstrndup(bare, strcspn(bare, "="));
    const char *near = th_suggest(key, names, n);
    (void)th_fail(err, TH_R_USAGE, "unknown option \"%s\"", word);
    if (near) {
        return th_hint(err, "did you mean --%s?", near);
    }
    if (!cmd) {
        return th_hint(err, "options of a command come after its name; \"thimble help\" lists the "
                            "commands");
    }
    return th_hint(err, "\"thimble help%s%s\" lists the options", *path ? " " : "", path);
}

static int set_option(struct th_cli *cli, const struct th_cmd_opt *o, const char *value,
                      struct th_err *err)
{
    if (o->choices) {
        bool ok = false;
        struct th_buf list = TH_BUF_INIT;
        for (size_t i = 0; o->choices[i]; i++) {
            ok = ok || th_streq(o->choices[i], value);
            th_buf_printf(&list, "%s%s", i ? ", " : "", o->choices[i]);
        }
        if (!ok) {
            size_t n = 0;
            while (o->choices[n]) {
                n++;
            }
            const char *near = th_suggest(value, o->choices, n);
            (void)th_fail(err, TH_R_USAGE, "--%s: \"%s\" is not one of %s", o->name, value,
                          th_buf_cstr(&list));
            th_buf_done(&list);
            return near ? th_hint(err, "did you mean %s?", near)
                        : th_hint(err, "\"thimble help%s%s\" shows what it means",
                                  *cli->path ? " " : "", cli->path);
        }
        th_buf_done(&list);
    }
    if (!o->repeat) {
        for (size_t i = 0; i < cli->n_opts; i++) {
            if (cli->opts[i].opt == o) {
                cli->opts[i].value = value; /* the last one counts */
                return 0;
            }
        }
    }
    cli->opts = th_xrealloc(cli->opts, (cli->n_opts + 1) * sizeof(*cli->opts));
    cli->opts[cli->n_opts++] = (struct th_opt_value){o, value};
    return 0;
}

/* Parses one option word at argv[*i]; moves *i past a separate value. */
static int parse_option(struct th_cli *cli, int argc, char **argv, int *i, struct th_err *err)
{
    const char *word = argv[*i];
    if (word[1] == '-') {
        const char *name = word + 2;
        size_t n = strcspn(name, "=");
        const struct th_cmd_opt *o = find_long(cli->cmd, name, n);
        if (!o) {
            return unknown_option(cli->cmd, cli->path, word, err);
        }
        if (!o->arg) {
            if (name[n] == '=') {
                (void)th_fail(err, TH_R_USAGE, "--%s takes no value", o->name);
                return th_hint(err, "write --%s alone", o->name);
            }
            return set_option(cli, o, NULL, err);
        }
        if (name[n] == '=') {
            return set_option(cli, o, name + n + 1, err);
        }
        if (*i + 1 >= argc) {
            (void)th_fail(err, TH_R_USAGE, "--%s needs a value (%s)", o->name, o->arg);
            return th_hint(err, "write --%s %s", o->name, o->arg);
        }
        *i += 1;
        return set_option(cli, o, argv[*i], err);
    }
    for (const char *c = word + 1; *c; c++) {
        const struct th_cmd_opt *o = find_short(cli->cmd, *c);
        if (!o) {
            char text[3] = {'-', *c, 0};
            return unknown_option(cli->cmd, cli->path, text, err);
        }
        if (!o->arg) {
            TH_TRY(set_option(cli, o, NULL, err));
            continue;
        }
        if (c[1]) {
            return set_option(cli, o, c[1] == '=' ? c + 2 : c + 1, err);
        }
        if (*i + 1 >= argc) {
            (void)th_fail(err, TH_R_USAGE, "-%c needs a value (%s)", *c, o->arg);
            return th_hint(err, "write -%c %s", *c, o->arg);
        }
        *i += 1;
        return set_option(cli, o, argv[*i], err);
    }
    return 0;
}

static void finish_globals(struct th_cli *cli)
{
    cli->profile = th_opt_str(cli, "profile");
    const char *env = getenv("THIMBLE_PROFILE");
    bool given = false;
    for (size_t i = 0; i < cli->n_opts; i++) {
        given = given || th_streq(cli->opts[i].opt->name, "profile");
    }
    if (!given && env && *env) {
        cli->profile = env;
    }
    cli->json = th_streq(th_opt_str(cli, "output"), "json");
    cli->quiet = th_opt_bool(cli, "quiet");
    cli->verbose = th_opt_bool(cli, "verbose");
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    cli->tty = isatty(2) && !cli->quiet && !th_streq(term, "dumb");
    cli->color = cli->tty && !(no_color && *no_color);
}

static int parse_words(int argc, char **argv, struct th_cli *cli, bool *ret_help,
                       struct th_err *err)
{
    const struct th_cmd *const *table = th_commands;
    bool only_args = false;
    cli->args = th_xcalloc((size_t)argc + 1, sizeof(*cli->args));
    /* Options before the command can only be global ones, but the command is found first so that
     * its own table is known for all of them. */
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_args && th_streq(word, "--")) {
            only_args = true;
        } else if (!only_args && word[0] == '-' && word[1]) {
            if (!cli->cmd && th_streq(word, "--version")) {
                cli->cmd = th_cmd_find(th_commands, "version");
                table = NULL;
                continue;
            }
            TH_TRY(parse_option(cli, argc, argv, &i, err));
        } else if (table) {
            const struct th_cmd *c = th_cmd_find(table, word);
            if (!c) {
                return unknown_command(table, cli->path, word, err);
            }
            size_t used = strlen(cli->path);
            (void)snprintf(cli->path + used, sizeof(cli->path) - used, "%s%s", used ? " " : "",
                           c->name);
            cli->cmd = c;
            table = c->subs;
            if (c->raw_args) {
                for (i++; i < argc; i++) {
                    cli->args[cli->n_args++] = argv[i];
                }
            }
        } else {
            cli->args[cli->n_args++] = word;
        }
    }
    *ret_help = *ret_help || th_opt_bool(cli, "help");
    if (*ret_help || !cli->cmd) {
        *ret_help = true;
        return 0;
    }
    if (!cli->cmd->run) {
        if (cli->n_args == 0) {
            *ret_help = true;
        }
        return 0;
    }
    if (cli->n_args < cli->cmd->min_args) {
        (void)th_fail(err, TH_R_USAGE, "\"thimble %s\" needs %s", cli->path, cli->cmd->args);
        return th_hint(err, "\"thimble help %s\" shows how it is used", cli->path);
    }
    if (!cli->cmd->raw_args && cli->cmd->max_args >= 0 && cli->n_args > cli->cmd->max_args) {
        (void)th_fail(err, TH_R_USAGE, "unexpected argument \"%s\"", cli->args[cli->cmd->max_args]);
        return th_hint(err, "\"thimble help %s\" shows how it is used", cli->path);
    }
    return 0;
}

/* A line that is wrong may not have been read up to its -o json, which says how to report it. */
static bool asks_for_json(int argc, char **argv)
{
    for (int i = 1; i < argc && !th_streq(argv[i], "--"); i++) {
        const char *w = argv[i];
        if (th_streq(w, "-ojson") || th_streq(w, "--output=json") || th_streq(w, "-o=json") ||
            ((th_streq(w, "-o") || th_streq(w, "--output")) && th_streq(argv[i + 1], "json"))) {
            return true;
        }
    }
    return false;
}

int th_cli_parse(int argc, char **argv, struct th_cli *cli, bool *ret_help, struct th_err *err)
{
    int r = parse_words(argc, argv, cli, ret_help, err);
    finish_globals(cli);
    cli->json = cli->json || (r < 0 && asks_for_json(argc, argv));
    return r;
}

void th_cli_done(struct th_cli *cli)
{
    free(cli->opts);
    free(cli->args);
    *cli = (struct th_cli){0};
}

const char *th_opt_str(const struct th_cli *cli, const char *name)
{
    for (size_t i = cli->n_opts; i > 0; i--) {
        if (th_streq(cli->opts[i - 1].opt->name, name)) {
            return cli->opts[i - 1].value;
        }
    }
    const struct th_cmd_opt *o = find_long(cli->cmd, name, strlen(name));
    return o ? o->dflt : NULL;
}

bool th_opt_bool(const struct th_cli *cli, const char *name)
{
    for (size_t i = 0; i < cli->n_opts; i++) {
        if (th_streq(cli->opts[i].opt->name, name)) {
            return true;
        }
    }
    return false;
}

int th_opt_int(const struct th_cli *cli, const char *name, int64_t min, int64_t max, int64_t *ret,
               struct th_err *err)
{
    const char *s = th_opt_str(cli, name);
    if (!s) {
        return 0;
    }
    char *end = NULL;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || end == s || *end || v < min || v > max) {
        (void)th_fail(err, TH_R_USAGE, "--%s: \"%s\" is not a whole number from %lld to %lld",
                      name, s, (long long)min, (long long)max);
        return th_hint(err, "\"thimble help%s%s\" shows what it means", *cli->path ? " " : "",
                       cli->path);
    }
    *ret = v;
    return 0;
}

size_t th_opt_all(const struct th_cli *cli, const char *name, const char **ret, size_t max)
{
    size_t n = 0;
    for (size_t i = 0; i < cli->n_opts && n < max; i++) {
        if (th_streq(cli->opts[i].opt->name, name)) {
            ret[n++] = cli->opts[i].value;
        }
    }
    return n;
}
