/* thimble console: the end of the machine's console log, for when a start fails. */
#include "cli/cluster.h"
#include <stdio.h>

static int run(struct th_cli *cli, struct th_err *err)
{
    int64_t lines = 200;
    TH_TRY(th_opt_int(cli, "lines", 1, 1000000, &lines, err));
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    TH_TRY(th_machine_console(cli->profile, (size_t)lines, &b, err));
    fputs(th_buf_cstr(&b), stdout);
    return 0;
}

static const struct th_cmd_opt opts[] = {
    {.name = "lines", .short_name = 'n', .arg = "N", .dflt = "200", .help = "How many lines"},
    {.name = NULL},
};
const struct th_cmd th_cmd_console = {
    .name = "console",
    .group = "Working with it",
    .summary = "Print the end of the machine's console log",
    .args = "",
    .opts = opts,
    .run = run,
};
