/*
 * The table of commands, made from commands.def, and `thimble help`, which prints from it. Apart from
 * main.c so that tests see the same table as the program.
 */
#include "cli/cmd.h"
#include "base/buf.h"
#include <stdio.h>

#define TH_CMD(name) extern const struct th_cmd th_cmd_##name;
#include "cli/commands.def"
#undef TH_CMD

const struct th_cmd *const th_commands[] = {
#define TH_CMD(name) &th_cmd_##name,
#include "cli/commands.def"
#undef TH_CMD
    NULL,
};

static int run_help(struct th_cli *cli, struct th_err *err)
{
    const struct th_cmd *const *table = th_commands;
    const struct th_cmd *cmd = NULL;
    struct th_buf path TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    for (int i = 0; i < cli->n_args; i++) {
        cmd = table ? th_cmd_find(table, cli->args[i]) : NULL;
        if (!cmd) {
            (void)th_fail(err, TH_R_USAGE, "no help for \"%s\"", cli->args[i]);
            return th_hint(err, "\"thimble help\" lists the commands");
        }
        th_buf_printf(&path, "%s%s", i ? " " : "", cmd->name);
        table = cmd->subs;
    }
    struct th_buf text TH_CLEANUP(th_buf_done) = TH_BUF_INIT;
    th_help_print(cmd, th_buf_cstr(&path), &text);
    fputs(th_buf_cstr(&text), stdout);
    return 0;
}

static const char *const help_examples[] = {"thimble help start", "thimble help image build", NULL};
const struct th_cmd th_cmd_help = {
    .name = "help",
    .group = "Other",
    .summary = "Show help about a command",
    .args = "[COMMAND...]",
    .max_args = -1,
    .examples = help_examples,
    .run = run_help,
};
