/* thimble completion SHELL: prints the completion script. See completion.c. */
#include "cli/cmd.h"
#include "base/buf.h"
#include <stdio.h>

static int run(struct th_cli *cli, struct th_err *err)
{
    struct th_buf b TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    TH_TRY(th_completion_script(cli->args[0], &b, err));
    fputs(th_buf_cstr(&b), stdout);
    return 0;
}

static const char *const examples[] = {"source <(thimble completion bash)",
                                       "thimble completion fish | source", NULL};
const struct th_cmd th_cmd_completion = {
    .name = "completion",
    .group = "Other",
    .summary = "Print the completion script of a shell",
    .args = "bash|zsh|fish",
    .min_args = 1,
    .max_args = 1,
    .examples = examples,
    .run = run,
};
